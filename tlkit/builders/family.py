"""What all builders share: the input, the top and the head, with the arguments and names of keras.applications."""

from __future__ import annotations

import contextlib
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import keras
from keras import layers

from tlkit.errors import InvalidInput
from tlkit.layers import RANKS, check_data_format, global_pool


def pooled(x: Any, variant: Any) -> Any:
    """Pool over all positions, and drop a share of the features where the variant says so."""
    x = global_pool(x)
    dropout = getattr(variant, "dropout", 0.0)
    return layers.Dropout(dropout, name="dropout")(x) if dropout else x


def bare_features(x: Any, variant: Any, pooling: str | None, space: Sequence[int | None]) -> Any:
    """Give the features as they are, or pooled over all positions."""
    return global_pool(x, pooling) if pooling else x


def _complete(model: keras.Model, *_: Any) -> keras.Model:
    return model


class Family(NamedTuple):
    """The functions that make a family's networks from the rows of its table.

    Args:
        variants: The table: each row has at least `parameters`, `size`, `channels` and `classes`.
        features: From the input and a row to the features; makes `stem`, `stage1` and so on.
        top: From the features and a row to what the head sees.
        bare: In place of `top` where there is none: from the features, a row, the pooling and the input's lengths.
        complete: Last, from the model, a row, `classes` and `classifier_activation` to the model.
    """

    variants: Mapping[str, Any]
    features: Callable[[Any, Any], Any]
    top: Callable[[Any, Any], Any]
    bare: Callable[[Any, Any, str | None, Sequence[int | None]], Any] = bare_features
    complete: Callable[[keras.Model, Any, int, Any], keras.Model] = _complete


def begin(input_shape: Sequence[int | None] | None, input_tensor: Any, default: Sequence[int]) -> tuple[Any, Any]:
    """Give the model's inputs and the tensor that the network starts from.

    Raises:
        InvalidInput: the shape is not (*space, channels) with 1 to 3 axes of space, or the tensor is not Keras'.
    """
    if input_tensor is None:
        shape = _shape(default if input_shape is None else input_shape)
        inputs = keras.Input(shape, name="inputs")
        return inputs, inputs
    if not isinstance(input_tensor, keras.KerasTensor) or not hasattr(input_tensor, "_keras_history"):
        raise InvalidInput(
            f"input_tensor is a {type(input_tensor).__name__}: keras.Input(...), or what a layer makes of it"
        )
    shape = _shape(input_tensor.shape[1:])
    if input_shape is not None and _shape(input_shape) != shape:
        raise InvalidInput(f"input_shape is {tuple(input_shape)} and input_tensor has {shape}: give one of the two")
    inputs = keras.utils.get_source_inputs(input_tensor)
    return inputs[0] if isinstance(inputs, list) and len(inputs) == 1 else inputs, input_tensor


def _shape(shape: Any) -> tuple[int | None, ...]:
    try:
        sizes = tuple(None if n is None else number("", n) for n in shape)
    except (TypeError, InvalidInput):
        sizes = ()
    if len(sizes) - 1 not in RANKS or sizes[-1] is None:
        raise InvalidInput(
            f"input_shape is {shape!r}: (length, channels), (height, width, channels) or (depth, height, width, "
            "channels)"
        )
    check_data_format()
    return sizes


def number(name: str, value: Any) -> int:
    """Take a whole number from 1 on, of Python or NumPy.

    Raises:
        InvalidInput: it is something else.
    """
    try:
        found = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        found = 0
    if found < 1:
        raise InvalidInput(f"{name} is {value!r}: a whole number from 1 on")
    return found


def numbers(name: str, values: Any, least: int = 1) -> tuple[int, ...]:
    """Take a list of whole numbers from 1 on.

    Raises:
        InvalidInput: it is something else, or has less than `least` of them.
    """
    try:
        found = tuple(number(name, value) for value in values)
    except (TypeError, InvalidInput):
        found = None
    if found is None or len(found) < least:
        raise InvalidInput(f"{name} is {values!r}: a list of {least} or more whole numbers, each from 1 on")
    return found


@contextlib.contextmanager
def one_line_errors(what: str) -> Iterator[None]:
    """Turn what Keras raises of wrong values into one line: a window larger than the map, an unknown activation, ...

    Raises:
        InvalidInput: with Keras' reason.
    """
    try:
        yield
    except InvalidInput:
        raise
    except (ValueError, TypeError, AttributeError, LookupError, ArithmeticError) as error:
        lines = [line for line in str(error).splitlines() if line.strip() and "Exception encountered" not in line]
        reason = re.sub(r"\x1b\[\d*m", "", lines[0]) if lines else type(error).__name__
        raise InvalidInput(f"{what} cannot be built: {reason}") from error


def head(x: Any, classes: int, activation: Any, name: str = "head", probabilities: str = "probabilities") -> Any:
    """Make logits and, unless the activation is None, what it makes of them; in float32 whatever the precision.

    Shapes:
        x: (batch, features)
        returns: (batch, classes)
    """
    x = layers.Dense(classes, name=name, dtype="float32")(x)
    if activation in (None, "linear"):
        return x
    return layers.Activation(activation, name=probabilities, dtype="float32")(x)


def check_head(include_top: bool, pooling: str | None, classes: Any, activation: Any) -> int:
    """Refuse what no head can be made of, and give the number of classes.

    Raises:
        InvalidInput: there is less than 1 class, or 1 with a softmax, or the pooling has another name.
    """
    units = number("classes", classes)
    if include_top and units == 1 and activation in ("softmax", keras.activations.softmax):
        raise InvalidInput("classes is 1 with a softmax, which is 1 whatever comes in: classifier_activation='sigmoid'")
    if pooling not in (None, "avg", "max"):
        raise InvalidInput(f"pooling is {pooling!r}: avg, max or None")
    if include_top and pooling:
        raise InvalidInput(f"pooling is {pooling!r} with include_top=True, whose pooling is the network's own: use one")
    return units
