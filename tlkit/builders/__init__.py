"""Landmark networks as uncompiled Keras models, on 1, 2 or 3 spatial axes, and a graph network.

>>> from tlkit.builders import build, cnn, gcn
>>> build("resnet18", (64, 64, 3), classes=5).output.shape
(None, 5)
>>> build("vgg11", (32, 32, 32, 1), include_top=False, pooling="avg").output.shape  # volumes
(None, 512)

What they take is scaled to about -1 to 1; for published weights see `build`. Every network has layers called `stem`,
`stage1`, `stage2` ... that end its stages, and `head`, the logits.
"""

from tlkit.builders.cnn import cnn
from tlkit.builders.gcn import gcn
from tlkit.builders.landmarks import FAMILIES, VARIANTS, build

__all__ = ["FAMILIES", "VARIANTS", "build", "cnn", "gcn"]
