"""Which backbones can be built without a download: those whose published weights are on this machine."""

from __future__ import annotations

import os
from typing import NamedTuple

from tlkit.backbones import weightfiles
from tlkit.backbones.table import BACKBONES

_DIGITS = {0.25: "2_5", 0.5: "5_0", 0.75: "7_5", 1.0: "1_0"}  # MobileNet's file names


class Cached(NamedTuple):
    """A backbone with its published weights on this machine.

    Args:
        name: A key of `BACKBONES`.
        alpha: Width multiplier; None for networks that have none.
        path: The weights file.
        size: Bytes of that file.
    """

    name: str
    alpha: float | None
    path: str
    size: int


def on_this_machine() -> list[Cached]:
    """List the backbones whose published weights are in Keras' cache, the smallest file first.

    It looks for the file that Keras would load, at the place where Keras would look for it: `models` in the folder that
    `keras.config` and the environment's KERAS_HOME name. No file is opened: one that is damaged is found when it is
    loaded. LetterNet, which comes with tlkit, is not among them.

    >>> all(os.path.isfile(cached.path) for cached in on_this_machine())
    True
    """
    places = ((name, alpha) for name, row in BACKBONES.items() if row.file for alpha in row.alphas or (None,))
    found = []
    for name, alpha in places:
        path = weightfiles.in_cache({"cache_subdir": "models", "fname": published_file(name, alpha)})
        if os.path.isfile(path):
            found.append(Cached(name, alpha, path, os.path.getsize(path)))
    return sorted(found, key=lambda cached: cached.size)


def published_file(name: str, alpha: float | None = None) -> str:
    """Return the name of the file with a backbone's published weights, without top and of its native size.

    >>> published_file("VGG16"), published_file("MobileNet", 0.75)
    ('vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5', 'mobilenet_7_5_224_tf_no_top.h5')
    """
    width = 1.0 if alpha is None else float(alpha)
    return BACKBONES[name].file.format(alpha=width, digits=_DIGITS.get(width))
