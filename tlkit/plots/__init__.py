"""Pictures of runs and networks: figures are returned, never shown."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tlkit.plots.elsewhere import Picture, begin
    from tlkit.plots.examples import draw_array, draw_photo, draw_sound, mistakes, sheet
    from tlkit.plots.heatmaps import Explained, explanations
    from tlkit.plots.mistaken import worst
    from tlkit.plots.networks import arrays, feature_maps, filters, receptive_fields
    from tlkit.plots.reliability import calibration
    from tlkit.plots.scores import class_scores, confusion_matrix, ranking
    from tlkit.plots.search import importance, parallel_coordinates
    from tlkit.plots.style import save, shortened
    from tlkit.plots.training import learning_curves, lr_range, regularization

__all__ = [
    "Explained", "Picture", "arrays", "begin", "calibration", "class_scores", "confusion_matrix", "draw_array",
    "draw_photo", "draw_sound", "explanations", "feature_maps", "filters", "importance", "learning_curves", "lr_range",
    "mistakes", "parallel_coordinates", "ranking", "receptive_fields", "regularization", "save", "sheet", "shortened",
    "worst",
]  # fmt: skip

_HOMES = {
    "elsewhere": ("Picture", "begin"),
    "examples": ("draw_array", "draw_photo", "draw_sound", "mistakes", "sheet"),
    "heatmaps": ("Explained", "explanations"),
    "mistaken": ("worst",),
    "networks": ("arrays", "feature_maps", "filters", "receptive_fields"),
    "reliability": ("calibration",),
    "scores": ("class_scores", "confusion_matrix", "ranking"),
    "search": ("importance", "parallel_coordinates"),
    "style": ("save", "shortened"),
    "training": ("learning_curves", "lr_range", "regularization"),
}


_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    # Lazy, because a command has its figures drawn by another process and needs no Matplotlib itself.
    if name in _HOME_OF:
        return getattr(importlib.import_module(f"tlkit.plots.{_HOME_OF[name]}"), name)
    raise AttributeError(f"module 'tlkit.plots' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
