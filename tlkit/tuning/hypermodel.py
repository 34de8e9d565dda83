"""A builder with a search space, for any tuner of keras-tuner, and how ranges reach keras-tuner."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import keras_tuner
from keras_tuner.src.engine import conditions

from tlkit import builders
from tlkit.config import space

conditions.print = lambda *_: None  # silences a debugging line that keras-tuner 1.4.8 left in

DEFAULT = {
    "filters": {"int": [16, 128], "step": 16, "repeat": [2, 4]},
    "kernel_size": {"choice": [3, 5, 7], "repeat": "filters"},
    "norm": {"bool": True},
    "pool": {"choice": ["max", "average"]},
    "dropout": {"float": [0.0, 0.5], "step": 0.1},
    "learning_rate": {"float": [1e-4, 1e-2], "log": True},
}
"""What `HyperModel` searches by default."""


class HyperModel(keras_tuner.HyperModel):
    """A builder of `tlkit.builders` with a search space, for any tuner of keras-tuner.

    Args:
        input_shape: Shape of one example, (*space, channels).
        classes: Units of the head.
        builder: `cnn`, or a name of `tlkit.builders.VARIANTS`.
        settings: Arguments of the builder; any may be a range, see `tlkit.config.space`. `learning_rate` is that of
            Adam. By default `DEFAULT` for `cnn`, else the learning rate alone.

    Raises:
        InvalidInput: a range in the settings is wrong.

    >>> model = HyperModel((8, 8, 1), 10, settings={"filters": {"int": [4, 8], "repeat": 2}, "norm": {"bool": True}})
    >>> values = keras_tuner.HyperParameters()
    >>> model.build(values).output.shape, sorted(values.values)
    ((None, 10), ['filters.1', 'filters.2', 'norm'])
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        classes: int,
        builder: str = "cnn",
        settings: Mapping[str, Any] | None = None,
    ):
        super().__init__(name=builder)
        default = DEFAULT if builder == "cnn" else {"learning_rate": DEFAULT["learning_rate"]}
        self.input_shape, self.classes, self.builder = tuple(input_shape), classes, builder
        self.space = space.parse(default if settings is None else settings)

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        """Build and compile the network that the values stand for."""
        settings = self.space.settings(register(self.space, hp).values)
        learning_rate = settings.pop("learning_rate", 1e-3)
        arguments = {**settings, "classes": self.classes}
        if self.builder == "cnn":
            model = builders.cnn(self.input_shape, **{"padding": "same", "dense": (), **arguments})
        else:
            model = builders.build(self.builder, self.input_shape, **arguments)
        model.compile(keras.optimizers.Adam(learning_rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model


def register(search_space: space.Space, hp: keras_tuner.HyperParameters | None = None) -> keras_tuner.HyperParameters:
    """Register a space's ranges with keras-tuner, each under the conditions in which it counts."""
    hp = hp or keras_tuner.HyperParameters()
    for each in search_space.ranges:
        with contextlib.ExitStack() as scopes:
            for parent, values in each.when:
                scopes.enter_context(hp.conditional_scope(parent, list(values)))
            _register_range(each, hp)
    return hp


def _register_range(each: space.Range, hp: keras_tuner.HyperParameters) -> None:
    if each.kind == "choice":
        options = list(each.options())
        if options == [False, True] and isinstance(options[0], bool):
            hp.Boolean(each.name, default=bool(each.default))  # a choice would turn them into numbers
        else:
            hp.Choice(each.name, options, default=options[0])
    elif each.kind == "float" and each.step:  # keras-tuner rounds the number of steps down: 5 of 0.1 in 0.5
        count = round((each.high - each.low) / each.step)
        hp.Choice(each.name, [round(each.low + each.step * n, 12) for n in range(count + 1)])
    else:
        number = hp.Int if each.kind == "int" else hp.Float
        number(each.name, each.low, each.high, step=each.step, sampling="log" if each.log else "linear")
