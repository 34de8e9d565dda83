"""LetterNet: a small residual network that tlkit pretrains itself, on letters drawn from fonts, and brings along.

It needs no download, so that transfer learning can be tried, taught and tested anywhere. Its recipe is
`tlkit.recipes.pretrain`; where its weights come from and what they are worth is written in `weights/letternet.md`.
"""

from __future__ import annotations

import warnings
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
    weights: str | Path | None = "letters",
    name: str = "letternet",
) -> keras.Model:
    """Build LetterNet without a head.

    Raw pixels from 0 to 255 go in: the rescaling is its first layer. The last layers of its stages are called `stem`,
    `stage1`, `stage2` and `stage3`; each stage halves height and width.

    Args:
        input_shape: Height, width and channels of the images; the pretrained weights know one channel.
        weights: `letters` for the pretrained weights, `none` (or None) for random ones, or a file of weights.
        name: What the model is called.

    Shapes:
        input: (batch, height, width, channels), 0 to 255
        output: (batch, ceil(height / 8), ceil(width / 8), 128), not below 0

    Raises:
        InvalidInput: the shape is too small or not (height, width, channels), or the weights are missing or of
            another network.

    >>> model = letternet((64, 48, 1), weights="none")
    >>> model.output_shape, model.count_params() == PARAMETERS
    ((None, 8, 6, 128), True)
    """
    model = _network(_checked(input_shape), name)
    if weights is not None and str(weights) != "none":
        _load(model, WEIGHTS if str(weights) == "letters" else Path(weights))
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


def _load(model: keras.Model, path: Path) -> None:
    if not path.is_file():
        raise InvalidInput(f"weights is {str(path)!r}: no such file; use 'letters', 'none' or a file of weights")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # Keras only warns where a file lacks layers, and skips them
            model.load_weights(path)
    except (ValueError, OSError, KeyError, UserWarning) as error:
        raise InvalidInput(
            f"weights is {str(path)!r}: not weights of LetterNet for images of shape {model.input_shape[1:]}: "
            f"{str(error).splitlines()[0]}"
        ) from error
