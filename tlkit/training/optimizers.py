"""Keras' optimizers with a learning rate for each variable, and with the weight decay and averages of fine-tuning."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import keras
from keras import ops

from tlkit.errors import InvalidInput
from tlkit.layers import is_stage
from tlkit.training.variables import Tensor

Rate: TypeAlias = float | keras.optimizers.schedules.LearningRateSchedule

NAMES = (
    "Adadelta", "Adafactor", "Adagrad", "Adam", "Adamax", "AdamW", "Lamb", "Lion", "Nadam", "RMSprop", "SGD",
)  # fmt: skip
REFUSED = {
    "schedulefreeadamw": "it evaluates other weights than it trains, and Keras 3.15 does not swap them",
    "ftrl": "it computes weights from gradients alone, and so forgets pretrained ones at its first step",
    "muon": "in Keras it trains only kernels of dense layers, and all others, such as those of convolutions, as AdamW",
}
UNDECAYED = re.compile("bias|gamma|beta")


class Layerwise(keras.optimizers.Optimizer):
    """What distinguishes the optimizers of `LAYERWISE` from those of Keras on which they are based.

    Each variable is trained as if by an optimizer of its own with its own learning rate, weight decay included, as in
    the fine-tuning of BEiT (arXiv:2106.08254). Factors on the gradients would have no effect: Adam divides by their
    size.

    - Weight decay is decoupled and multiplied by the variable's rate. It leaves out vectors (biases, the scales and
      offsets of normalization, layer scale) and variables named bias, gamma or beta. Keras can leave out variables,
      but does not save which.
    - With gradient accumulation, the schedule and the moving average count updates; in Keras they count batches.
    - The moving average starts with the weights of the first update; its momentum is then (1 + t) / (10 + t) at update
      t, up to `ema_momentum`, as in TensorFlow's ExponentialMovingAverage. In Keras the momentum is constant: with
      0.999, 90 % of the average over 100 updates would be the weights of the first one.
    - The end of `fit` leaves the weights as they are; Keras replaces them by the average.

    Args:
        learning_rate: A number or a schedule.
        weight_decay: Decoupled weight decay.
        factors: Factors of the learning rate, by the variable's `path`; 1 for a path that is missing.
        rates: The same factors by the variable's position, which take precedence. They are saved with the optimizer,
            because the paths may differ in the loaded model.
        kwargs: More arguments of Keras' optimizer.
    """

    def __init__(
        self,
        learning_rate: Rate,
        weight_decay: float = 0.0,
        factors: Mapping[str, float] | None = None,
        rates: Sequence[float] | None = None,
        **kwargs: Any,
    ):
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay, **kwargs)
        self.factors, self.rates = dict(factors or {}), list(rates or [])

    def build(self, var_list: Sequence[keras.Variable]) -> None:
        """Create the optimizer's variables, and look up the factor and the decay of each variable to train."""
        if self.built:
            return
        # By position, because on TensorFlow `update_step` gets variables without their path.
        if len(self.rates) != len(var_list):
            self.rates = [self.factors.get(variable.path, 1.0) for variable in var_list]
        self.decayed = [
            len(variable.shape) > 1 and not UNDECAYED.search(variable.name) and self._use_weight_decay(variable)
            for variable in var_list
        ]
        super().build(var_list)
        product = getattr(self, "_u_product", None)  # of Nadam: Keras 3.15 does not track it where the loss is scaled
        if product is not None and all(variable is not product for variable in self.variables):
            self._track_variable(product)

    def update_step(self, gradient: Tensor, variable: keras.Variable, learning_rate: Tensor) -> None:
        """Decay and update one variable at its own rate."""
        place = self._get_variable_index(variable)
        rate = learning_rate * self.rates[place]
        if self.weight_decay and self.decayed[place]:
            self.assign_sub(variable, variable * ops.cast(rate * self.weight_decay, variable.dtype))
        super().update_step(gradient, variable, rate)

    def _apply_weight_decay(self, variables: Sequence[keras.Variable]) -> None:
        """Do nothing: Keras would decay all variables at one rate, and `update_step` does it at each one's own."""

    def _get_current_learning_rate(self) -> Tensor:
        if isinstance(self._learning_rate, keras.optimizers.schedules.LearningRateSchedule):
            return self._learning_rate(self.iterations)
        return super()._get_current_learning_rate()

    def _update_model_variables_moving_average(self, trainable_variables: Sequence[keras.Variable]) -> None:
        if not self.use_ema:
            return
        steps = self.gradient_accumulation_steps or 1
        updated = ops.equal((self._iterations + 1) % steps, 0)
        t = ops.cast(self.iterations, "float32")
        momentum = ops.where(t > 0, ops.minimum(self.ema_momentum, (1 + t) / (10 + t)), 0.0)
        share = ops.where(updated, 1 - momentum, 0.0)
        for variable, average in zip(trainable_variables, self._model_variables_moving_average, strict=True):
            if average is not None:
                average.assign(average + ops.cast(share, average.dtype) * (variable - average))

    def finalize_variable_values(self, var_list: Sequence[keras.Variable]) -> None:
        """Do nothing: Keras would replace the weights by their moving average."""

    def get_config(self) -> dict[str, Any]:
        """Give the arguments that create the same optimizer."""
        return {**super().get_config(), "factors": dict(self.factors), "rates": list(self.rates)}


def _layerwise(name: str) -> type[Layerwise]:
    optimizer = type(f"Layerwise{name}", (Layerwise, getattr(keras.optimizers, name)), {"__module__": __name__})
    return keras.saving.register_keras_serializable(package="tlkit")(optimizer)


LAYERWISE = {name.lower(): _layerwise(name) for name in NAMES}
"""The `Layerwise` form of each of Keras' optimizers that `build` knows, by its name in lower case."""


def check(name: str) -> None:
    """Refuse an optimizer that `build` does not know.

    Args:
        name: Keras' name of it, in upper or lower case.

    Raises:
        InvalidInput: the message says why, or suggests the nearest name.

    >>> check("AdamW")
    """
    lower = str(name).lower()
    if lower in LAYERWISE:
        return
    available = f"There are {', '.join(LAYERWISE)}"
    if lower in REFUSED:
        raise InvalidInput(f"optimizer is {name!r}, which is not for fine-tuning: {REFUSED[lower]}. {available}")
    close = difflib.get_close_matches(lower, LAYERWISE, n=1, cutoff=0.0)[0]
    raise InvalidInput(f"optimizer is {name!r}; did you mean {close!r}? {available}")


def build(
    name: str,
    learning_rate: Rate,
    *,
    weight_decay: float = 0.0,
    factors: Mapping[str, float] | None = None,
    global_clipnorm: float | None = None,
    gradient_accumulation_steps: int = 1,
    ema_momentum: float | None = None,
) -> keras.optimizers.Optimizer:
    """Create one of Keras' optimizers in its `Layerwise` form.

    `sgd` has Nesterov momentum of 0.9. All other settings are Keras' defaults, by which `adafactor` uses relative
    steps: it keeps the rate below one over the root of the number of updates, and multiplies it by the variable's root
    mean square.

    Args:
        name: Keras' name of the optimizer, in upper or lower case.
        learning_rate: A number or a schedule.
        weight_decay: Decoupled weight decay, multiplied by the rate; biases and normalization are left out.
        factors: Factors of the learning rate, by the variable's `path`, as `stage_factors` gives them.
        global_clipnorm: Maximum norm of the gradient of all variables together.
        gradient_accumulation_steps: Number of batches whose mean gradient makes one update.
        ema_momentum: Momentum of the moving average of the weights; see `averages`.

    Raises:
        InvalidInput: the optimizer is unknown.

    >>> slow, fast = keras.Variable([1.0], name="slow"), keras.Variable([1.0], name="fast")
    >>> optimizer = build("adam", 0.1, factors={"slow": 0.5})
    >>> optimizer.apply([ops.ones(1), ops.ones(1)], [slow, fast])
    >>> [round(float(ops.convert_to_numpy(variable)[0]), 3) for variable in (slow, fast)]
    [0.95, 0.9]
    """
    check(name)
    name = name.lower()
    # Also without factors: Keras' own, once saved, forgets what is not decayed, and counts batches in schedules.
    arguments: dict[str, Any] = {"momentum": 0.9, "nesterov": True} if name == "sgd" else {}
    if ema_momentum is not None:
        arguments |= {"use_ema": True, "ema_momentum": ema_momentum}
    return LAYERWISE[name](
        float(learning_rate) if isinstance(learning_rate, int) else learning_rate,
        weight_decay,
        factors,
        global_clipnorm=global_clipnorm,
        gradient_accumulation_steps=gradient_accumulation_steps if gradient_accumulation_steps > 1 else None,
        **arguments,
    )


def averages(optimizer: keras.optimizers.Optimizer) -> list[keras.Variable]:
    """Give the moving averages of the trainable variables, in their order, also if the loss is scaled.

    They are among `optimizer.variables`. With momentum m they are what these lines compute:

        average = weights[1]
        for t in range(1, updates):
            momentum = min(m, (1 + t) / (10 + t))
            average = momentum * average + (1 - momentum) * weights[t + 1]

    Args:
        optimizer: Created by `build` with `ema_momentum`, and built; any other has no averages.
    """
    inner: Any = getattr(optimizer, "inner_optimizer", optimizer)
    return list(inner._model_variables_moving_average) if inner.use_ema and inner.built else []


def stage_factors(
    model: keras.Model,
    layer_decay: float,
    stages: Mapping[str, str] | None = None,
    factors: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Give a factor of the learning rate for each variable, so that each stage learns more slowly than the one above.

    The factor is 1 above the last stage, such as in the head, `layer_decay` in the last stage, its square in the stage
    below, and so on, as in BEiT (arXiv:2106.08254). A layer belongs to the first stage whose end depends on it.

    Args:
        model: The whole model, or the upper of the two that `backbones.split` makes of it.
        layer_decay: The factor from one stage to the next, above 0 and at most 1.
        stages: Names of the stages, first to last, each with the name of the layer that ends it, as in
            `backbones.Row`; by default the layers that have a stage's name, as in the networks of `tlkit.builders`.
        factors: Factors by the name of the stage, or `head`, instead of `layer_decay`; 1 for stages not named.

    Returns:
        The factor of each trainable variable of the stages, by the variable's path.

    Raises:
        InvalidInput: the model has none of the stages, or `factors` names one that does not exist.

    >>> x = keras.layers.Dense(2, name="stem")(keras.Input((4,)))
    >>> x = keras.layers.Dense(2, name="head")(keras.layers.Dense(2, name="stage1", use_bias=False)(x))
    >>> model = keras.Model(keras.utils.get_source_inputs(x), x)
    >>> stage_factors(model, 0.5)
    {'stem/kernel': 0.25, 'stem/bias': 0.25, 'stage1/kernel': 0.5}
    >>> stage_factors(model, 1.0, factors={"stage1": 0.1, "head": 2.0})
    {'head/kernel': 2.0, 'head/bias': 2.0, 'stem/kernel': 1.0, 'stem/bias': 1.0, 'stage1/kernel': 0.1}
    """
    layers = {layer.name: layer for layer in flat(model)}
    last_layers = stages or {name: name for name in layers if is_stage(name)}
    ends = {stage: layers[name] for stage, name in last_layers.items() if name in layers}
    by_path: dict[str, float] = {}
    if factors:
        _check_names(factors, [*last_layers, "head"])
        if "head" in layers and "head" in factors:
            by_path |= {variable.path: factors["head"] for variable in layers["head"].trainable_variables}
    elif not ends:
        raise InvalidInput(f"layer_decay is {layer_decay}, but model {model.name} has none of the stages")
    for number, (stage, end) in enumerate(ends.items()):
        factor = factors.get(stage, 1.0) if factors else layer_decay ** (len(ends) - number)
        for layer in keras.Model(keras.utils.get_source_inputs(end.output), end.output).layers:
            for variable in layer.variables:
                if variable.trainable:  # also where the layer is not, as BatchNormalization in inference mode
                    by_path.setdefault(variable.path, factor)
    return by_path


def _check_names(names: Iterable[str], allowed: Sequence[str]) -> None:
    for name in names:
        if name not in allowed:
            close = difflib.get_close_matches(name, allowed, n=1, cutoff=0.0)[0]
            raise InvalidInput(f"learning_rates has {name!r}; did you mean {close!r}? There are {', '.join(allowed)}")


def flat(model: keras.Model) -> Iterator[keras.Layer]:
    """Give all layers, those of models inside the model too."""
    for layer in model.layers:
        yield layer
        if isinstance(layer, keras.Model):
            yield from flat(layer)
