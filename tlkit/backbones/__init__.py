"""Pretrained networks without their top, from raw pixels to a feature map: keras.applications and our LetterNet.

A variant is a row of `BACKBONES`. Three things hold for every row, and a test checks the whole table:

- The network takes pixels from 0 to 255. Its family's preprocessing is inside, computed in float32 whatever the
  precision and made of Keras' own layers, so a saved model needs nothing but Keras to be loaded and used.
- Its layers have the names that Keras gives them in a fresh process (`conv2d_1`, not `conv2d_95`), whatever was built
  before.
- Its stages are called `stem`, `stage1`, `stage2` ... and the last one ends with the network's output. In the rows of
  keras.applications, `stem` is the first convolutions with their pooling, if any, and stages 1 to 4 end at a 4th, 8th,
  16th and 32nd of the height and width; only ResNet*V2 reduce in the last block of a stage instead of the first: 8, 16,
  32, 32. LetterNet has three stages.

Source of networks, weights and stage boundaries: https://keras.io/api/applications/ and the papers named there.
"""

from tlkit.backbones.building import build, check
from tlkit.backbones.cached import Cached, on_this_machine
from tlkit.backbones.joining import JoinedHead, joined, temper
from tlkit.backbones.low_rank import Adapted, adaptable, low_rank
from tlkit.backbones.own import Own, adopt
from tlkit.backbones.surgery import classifier, freeze, pooled_widths, set_head, split, stages, unfreeze
from tlkit.backbones.table import BACKBONES, Row, row

__all__ = [
    "BACKBONES", "Adapted", "Cached", "JoinedHead", "Own", "Row", "adaptable", "adopt", "build", "check", "classifier",
    "freeze", "joined", "low_rank", "on_this_machine", "pooled_widths", "row", "set_head", "split", "stages", "temper",
    "unfreeze",
]  # fmt: skip
