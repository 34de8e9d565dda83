"""Models for other runtimes: SavedModel, ONNX, OpenVINO and LiteRT, each proven to answer as the model does.

An export is a folder with the model, its preprocessing inside, a `predict.py` that needs no tlkit, and a model card.
"""

from tlkit.export.card import Exported, Origin, card, dumped, table, write_script
from tlkit.export.formats import FORMATS, check, check_backend, check_network, run, size, write
from tlkit.export.parity import Examples, Parity, Unequal, compare, random_examples
from tlkit.export.parity import check as check_parity
from tlkit.export.quantization import quantize, temperature
from tlkit.export.speed import milliseconds

__all__ = [
    "FORMATS", "Examples", "Exported", "Origin", "Parity", "Unequal", "card", "check", "check_backend", "check_network",
    "check_parity", "compare", "dumped", "milliseconds", "quantize", "random_examples", "run", "size", "table",
    "temperature", "write", "write_script",
]  # fmt: skip
