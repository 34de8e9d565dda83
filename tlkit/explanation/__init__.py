"""Why a model decides as it does: which cells of an example speak for a class."""

from tlkit.explanation.deletion import Deletion, deletion
from tlkit.explanation.gradients import gradient, layer_activation
from tlkit.explanation.heads import Head, heads
from tlkit.explanation.heatmaps import Explainer, explainer
from tlkit.explanation.occlusion import occlusion
from tlkit.explanation.pictures import overlay, resized, uri

__all__ = [
    "Deletion", "Explainer", "Head", "deletion", "explainer", "gradient", "heads", "layer_activation", "occlusion",
    "overlay", "resized", "uri",
]  # fmt: skip
