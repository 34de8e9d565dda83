"""LetterNet: a small residual network that tlkit pretrains itself, on letters drawn from fonts, and includes.

It needs no download, so that transfer learning can be tried, taught and tested anywhere. Its recipe is
`tlkit.recipes.pretrain`; `weights/letternet.md` says where its weights come from and how good they are.
"""

from __future__ import annotations

from pathlib import Path

import keras
from keras import layers

from tlkit.errors import InvalidInput

WEIGHTS = Path(__file__).parent / "weights" / "letternet.weights.h5"
PARAMETERS = 338_768  # of one-channel input, batch normalization's moving averages included
SMALLEST = 16  # pixels: a smaller image would leave stage3 a single position
STAGES = {"stage1": (32, 3), "stage2": (64, 3), "stage3": (128, 2)}  # filters, convolutions


def letternet(
    input_shape: tuple[int, int, int] = (32, 32, 1),
    weights: str = "letters",
    name: str = "letternet",
) -> keras.Model:
    """Build LetterNet without a head.

    Raw pixels from 0 to 255 go in: the rescaling is its first layer. The last layers of its stages are called `stem`,
    `stage1`, `stage2` and `stage3`; each stage halves height and width.

    Args:
        input_shape: Height, width and channels of the images; the pretrained weights are for one channel.
        weights: `letters` for the pretrained weights, `none` for random ones. `tlkit.backbones.build` takes a file too.
        name: Name of the model.

    Shapes:
        input: (batch, height, width, channels), 0 to 255
        output: (batch, ceil(height / 8), ceil(width / 8), 128), not below 0

    Raises:
        InvalidInput: the shape is too small or not (height, width, channels), `weights` is another word, or the
            images have more than one channel with pretrained weights.

    >>> model = letternet((64, 48, 1), weights="none")
    >>> model.output_shape, model.count_params() == PARAMETERS
    ((None, 8, 6, 128), True)
    """
    shape = _checked(input_shape)
    if weights not in ("letters", "none"):
        raise InvalidInput(f"weights is {weights!r}: letters or none; tlkit.backbones.build takes a file too")
    if weights == "letters" and shape[2] != 1:
        raise InvalidInput(
            f"input_shape is {input_shape!r}: the pretrained weights are for one channel; else weights='none'"
        )
    model = _network(shape, name)
    if weights == "letters":
        model.load_weights(WEIGHTS)
    return model


def _network(input_shape: tuple[int, ...], name: str) -> keras.Model:
    inputs = keras.Input(input_shape, name="pixels")
    x = layers.Rescaling(1 / 255, name="scale")(inputs)
    x = layers.ReLU(name="stem")(_conv_norm(x, 16, "stem"))
    for stage, (filters, convolutions) in STAGES.items():
        # The first convolution halves the image, the others correct its result (He et al. 2015, arXiv:1512.03385).
        x = y = layers.ReLU(name=f"{stage}_1_relu")(_conv_norm(x, filters, f"{stage}_1", strides=2))
        for number in range(2, convolutions + 1):
            y = _conv_norm(y, filters, f"{stage}_{number}")
            if number < convolutions:
                y = layers.ReLU(name=f"{stage}_{number}_relu")(y)
        x = layers.ReLU(name=stage)(layers.Add(name=f"{stage}_add")([x, y]))
    return keras.Model(inputs, x, name=name)


def _conv_norm(x: keras.KerasTensor, filters: int, name: str, strides: int = 1) -> keras.KerasTensor:
    x = layers.Conv2D(filters, 3, strides, padding="same", use_bias=False, name=f"{name}_conv")(x)
    return layers.BatchNormalization(momentum=0.9, name=f"{name}_norm")(x)


def _checked(input_shape: tuple[int, ...]) -> tuple[int, ...]:
    sizes = tuple(input_shape)
    if len(sizes) != 3 or any(size is None for size in sizes) or min(sizes[:2]) < SMALLEST or sizes[2] < 1:
        raise InvalidInput(
            f"input_shape is {input_shape!r}: (height, width, channels), height and width {SMALLEST} pixels or more"
        )
    return sizes
