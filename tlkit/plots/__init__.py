"""Pictures of runs and networks: figures are returned, never shown."""

from tlkit.plots.calibration import calibration
from tlkit.plots.examples import draw_array, draw_photo, draw_sound, mistakes, sheet, worst
from tlkit.plots.explanations import Explained, explanations
from tlkit.plots.networks import arrays, feature_maps, filters, receptive_fields
from tlkit.plots.scores import class_scores, confusion_matrix, ranking
from tlkit.plots.search import importance, parallel_coordinates
from tlkit.plots.style import save, shortened
from tlkit.plots.training import learning_curves, lr_range, regularization

__all__ = [
    "Explained", "arrays", "calibration", "class_scores", "confusion_matrix", "draw_array", "draw_photo", "draw_sound",
    "explanations", "feature_maps", "filters", "importance", "learning_curves", "lr_range", "mistakes",
    "parallel_coordinates", "ranking", "receptive_fields", "regularization", "save", "sheet", "shortened", "worst",
]  # fmt: skip
