"""What all builders share: the input, the top and the head, with the arguments and names of keras.applications."""

from __future__ import annotations

import contextlib
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Generic, NamedTuple, Protocol, SupportsIndex, TypeAlias, TypeVar

import keras
from keras import KerasTensor, layers

from tlkit.errors import InvalidInput
from tlkit.layers import RANKS, check_data_format, global_pool


class Row(Protocol):
    """What the rows of every family's table have."""

    @property
    def parameters(self) -> int:
        """Trainable parameters, for `classes`."""

    @property
    def size(self) -> int:
        """Length of every axis of space."""

    @property
    def channels(self) -> int:
        """Channels of the input."""

    @property
    def classes(self) -> int:
        """Classes of the paper's data."""


Activation: TypeAlias = str | Callable[[KerasTensor], KerasTensor] | None
Variant = TypeVar("Variant", bound=Row)


def pooled(x: KerasTensor, variant: Row) -> KerasTensor:
    """Pool over all positions, and drop a share of the features where the variant says so."""
    x = global_pool(x)
    dropout = getattr(variant, "dropout", 0.0)
    return layers.Dropout(dropout, name="dropout")(x) if dropout else x


def bare_features(x: KerasTensor, variant: Row, pooling: str | None, space: Sequence[int | None]) -> KerasTensor:
    """Return the features as they are, or pooled over all positions."""
    return global_pool(x, pooling) if pooling else x


def _as_built(model: keras.Model, *_: object) -> keras.Model:
    return model


class Family(NamedTuple, Generic[Variant]):
    """The functions that make a family's networks from the rows of its table.

    Args:
        variants: The table.
        features: Makes the features of the input, for a row: the layers `stem`, `stage1` and so on.
        top: Makes the head's input of the features.
        bare: Makes the output of a network without top, from the features, a row, the pooling and the input's lengths.
        complete: Finishes the model, given its row, `classes` and `classifier_activation`.
    """

    variants: Mapping[str, Variant]
    features: Callable[[KerasTensor, Variant], KerasTensor]
    top: Callable[[KerasTensor, Variant], KerasTensor]
    bare: Callable[[KerasTensor, Variant, str | None, Sequence[int | None]], KerasTensor] = bare_features
    complete: Callable[[keras.Model, Variant, int, Activation], keras.Model] = _as_built


def begin(
    input_shape: Sequence[int | None] | None, input_tensor: KerasTensor | None, default: Sequence[int]
) -> tuple[KerasTensor | list[KerasTensor], KerasTensor]:
    """Return the model's inputs and the tensor that the network starts from.

    Raises:
        InvalidInput: the shape is not (*space, channels) with 1 to 3 axes of space, or the tensor is not Keras'.
    """
    if input_tensor is None:
        shape = _shape(default if input_shape is None else input_shape)
        inputs = keras.Input(shape, name="inputs")
        return inputs, inputs
    if not isinstance(input_tensor, KerasTensor) or not hasattr(input_tensor, "_keras_history"):
        raise InvalidInput(
            f"input_tensor is a {type(input_tensor).__name__}: keras.Input(...), or what a layer makes of it"
        )
    shape = _shape(input_tensor.shape[1:])
    if input_shape is not None and _shape(input_shape) != shape:
        raise InvalidInput(f"input_shape is {tuple(input_shape)} and input_tensor has {shape}: give one of the two")
    inputs = keras.utils.get_source_inputs(input_tensor)
    return inputs[0] if isinstance(inputs, list) and len(inputs) == 1 else inputs, input_tensor


def _shape(shape: Iterable[object]) -> tuple[int | None, ...]:
    sizes: tuple[int | None, ...]
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


def number(name: str, value: object) -> int:
    """Check that a value is a whole number from 1 on, of Python or NumPy, and return it as an int.

    Raises:
        InvalidInput: it is something else.
    """
    whole = 0
    if isinstance(value, SupportsIndex) and not isinstance(value, bool):
        with contextlib.suppress(TypeError):  # an array of several numbers
            whole = operator.index(value)
    if whole < 1:
        raise InvalidInput(f"{name} is {value!r}: a whole number from 1 on")
    return whole


def numbers(name: str, values: Iterable[object], least: int = 1) -> tuple[int, ...]:
    """Check that values are whole numbers from 1 on, and return them as ints.

    Raises:
        InvalidInput: one is something else, or there are fewer than `least`.
    """
    try:
        whole = tuple(number(name, value) for value in values)
    except (TypeError, InvalidInput):
        whole = None
    if whole is None or len(whole) < least:
        raise InvalidInput(f"{name} is {values!r}: a list of {least} or more whole numbers, each from 1 on")
    return whole


@contextlib.contextmanager
def one_line_errors(what: str) -> Iterator[None]:
    """Turn Keras' errors about wrong values (a window larger than the map, an unknown activation, ...) into one line.

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


def head(
    x: KerasTensor, classes: int, activation: Activation, name: str = "head", probabilities: str = "probabilities"
) -> KerasTensor:
    """Make logits and, unless the activation is None, activate them; in float32 whatever the precision.

    Shapes:
        x: (batch, features)
        returns: (batch, classes)
    """
    x = layers.Dense(classes, name=name, dtype="float32")(x)
    if activation in (None, "linear"):
        return x
    return layers.Activation(activation, name=probabilities, dtype="float32")(x)


def check_head(include_top: bool, pooling: str | None, classes: object, activation: Activation) -> int:
    """Refuse arguments that no head can be made of, and return the number of classes.

    Raises:
        InvalidInput: there is less than one class, or one with a softmax, or the pooling is unknown.
    """
    units = number("classes", classes)
    if include_top and units == 1 and activation in ("softmax", keras.activations.softmax):
        raise InvalidInput("classes is 1 with a softmax, which is 1 whatever comes in: classifier_activation='sigmoid'")
    if pooling not in (None, "avg", "max"):
        raise InvalidInput(f"pooling is {pooling!r}: avg, max or None")
    if include_top and pooling:
        raise InvalidInput(f"pooling is {pooling!r} with include_top=True, whose pooling is the network's own: use one")
    return units
