"""Keras' optimizers with a learning rate for each variable, and what else fine-tuning needs of them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from tlkit.errors import InvalidInput
from tlkit.layers import is_stage

NAMES = (
    "Adadelta", "Adafactor", "Adagrad", "Adam", "Adamax", "AdamW", "Lamb", "Lion", "Nadam", "RMSprop", "SGD",
)  # fmt: skip
REFUSED = {
    "schedulefreeadamw": "it evaluates other weights than it trains, which Keras 3.15 does not exchange",
    "ftrl": "it computes weights from the gradients alone, and so forgets pretrained ones at its first step",
    "muon": "Keras' trains kernels of dense layers alone, and all others, such as those of convolutions, as AdamW",
}
UNDECAYED = re.compile("bias|gamma|beta")


class Layerwise(keras.optimizers.Optimizer):
    """What the optimizers of `LAYERWISE` do otherwise than those of Keras that they are made of.

    Each variable is trained as by an optimizer of its own with its own learning rate, weight decay included, as in the
    fine-tuning of BEiT (arXiv:2106.08254). Factors on the gradients would do nothing: Adam divides by their size.

    - Weight decay is decoupled, times the variable's rate, and not of vectors (biases, the scales and offsets of
      normalization, layer scale) and what is called bias, gamma or beta. Keras leaves out what it is told to, but does
      not save that.
    - With gradient accumulation, a schedule and the moving average go by updates; in Keras they go by batches.
    - The moving average begins with the first update's weights; its momentum is then (1 + t) / (10 + t) at update t, up
      to `ema_momentum`, as in TensorFlow's ExponentialMovingAverage. In Keras the momentum is the same from the first:
      with 0.999, 90 % of the average over 100 updates would be the weights of the first one.
    - The end of `fit` leaves the weights as they are, where Keras puts the average in their place.

    Args:
        learning_rate: A number or a schedule.
        weight_decay: See above.
        factors: Of the learning rate, by the variable's `path`; 1 where a path is missing.
        rates: The same by the variable's place, which goes before: what is saved has it, as a path may be another once
            the model is loaded.
        kwargs: More arguments of Keras' optimizer.
    """

    def __init__(
        self,
        learning_rate: Any,
        weight_decay: float = 0.0,
        factors: Mapping[str, float] | None = None,
        rates: Sequence[float] | None = None,
        **kwargs: Any,
    ):
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay, **kwargs)
        self.factors, self.rates = dict(factors or {}), list(rates or [])

    def build(self, var_list: Any) -> None:
        """Make the optimizer's variables, and look up what holds for each of those to train."""
        if self.built:
            return
        # By place: on TensorFlow `update_step` is given variables that do not know their path.
        if len(self.rates) != len(var_list):
            self.rates = [self.factors.get(variable.path, 1.0) for variable in var_list]
        self.decayed = [
            len(variable.shape) > 1 and not UNDECAYED.search(variable.name) and self._use_weight_decay(variable)
            for variable in var_list
        ]
        super().build(var_list)
        product = getattr(
            self, "_u_product", None
        )  # of Nadam, which Keras 3.15 loses sight of where the loss is scaled
        if product is not None and all(variable is not product for variable in self.variables):
            self._track_variable(product)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Decay and update one variable, at its own rate."""
        place = self._get_variable_index(variable)
        rate = learning_rate * self.rates[place]
        if self.weight_decay and self.decayed[place]:
            self.assign_sub(variable, variable * ops.cast(rate * self.weight_decay, variable.dtype))
        super().update_step(gradient, variable, rate)

    def _apply_weight_decay(self, variables: Any) -> None:
        """Do nothing, where Keras would decay all variables at one rate: `update_step` does it."""

    def _get_current_learning_rate(self) -> Any:
        if isinstance(self._learning_rate, keras.optimizers.schedules.LearningRateSchedule):
            return self._learning_rate(self.iterations)
        return super()._get_current_learning_rate()

    def _update_model_variables_moving_average(self, trainable_variables: Any) -> None:
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

    def finalize_variable_values(self, var_list: Any) -> None:
        """Do nothing, where Keras would put the moving average in place of the weights."""

    def get_config(self) -> dict[str, Any]:
        """Give the arguments that make the same optimizer."""
        return {**super().get_config(), "factors": dict(self.factors), "rates": list(self.rates)}


def _layerwise(name: str) -> type[Layerwise]:
    made = type(f"Layerwise{name}", (Layerwise, getattr(keras.optimizers, name)), {"__module__": __name__})
    return keras.saving.register_keras_serializable(package="tlkit")(made)


LAYERWISE = {name.lower(): _layerwise(name) for name in NAMES}
"""Each of Keras' optimizers that `build` knows, by its name in lower case, as a `Layerwise` one."""


def check(name: str) -> None:
    """Raise InvalidInput unless the name, in any case, is that of an optimizer that `build` knows.

    >>> check("AdamW")
    """
    lower = str(name).lower()
    if lower in LAYERWISE:
        return
    known = f"There are {', '.join(LAYERWISE)}"
    if lower in REFUSED:
        raise InvalidInput(f"optimizer is {name!r}, which is not for fine-tuning: {REFUSED[lower]}. {known}")
    close = difflib.get_close_matches(lower, LAYERWISE, n=1, cutoff=0.0)[0]
    raise InvalidInput(f"optimizer is {name!r}; did you mean {close!r}? {known}")


def build(
    name: str,
    learning_rate: Any,
    *,
    weight_decay: float = 0.0,
    factors: Mapping[str, float] | None = None,
    global_clipnorm: float | None = None,
    gradient_accumulation_steps: int = 1,
    ema_momentum: float | None = None,
) -> keras.optimizers.Optimizer:
    """Make one of Keras' optimizers, as a `Layerwise` one.

    `sgd` has Nesterov's momentum of 0.9. All else is as Keras has it by default; `adafactor` is then relative: it keeps
    the rate below one over the root of the number of updates, and multiplies it by the variable's root mean square.

    Args:
        name: Of the optimizer: Keras' own, in any case.
        learning_rate: A number or a schedule.
        weight_decay: Decoupled decay, times the rate; not of biases and normalization.
        factors: Of the learning rate, by the variable's `path`, as `stage_factors` gives them.
        global_clipnorm: Largest norm of the gradient of all variables together.
        gradient_accumulation_steps: Batches whose mean gradient makes one update.
        ema_momentum: Of the moving average of the weights; see `averages`.

    Raises:
        InvalidInput: no such optimizer.

    >>> slow, fast = keras.Variable([1.0], name="slow"), keras.Variable([1.0], name="fast")
    >>> optimizer = build("adam", 0.1, factors={"slow": 0.5})
    >>> optimizer.apply([ops.ones(1), ops.ones(1)], [slow, fast])
    >>> [round(float(ops.convert_to_numpy(variable)[0]), 3) for variable in (slow, fast)]
    [0.95, 0.9]
    """
    check(name)
    name = name.lower()
    # Also without factors: Keras' own, once saved, forgets what is not decayed, and follows schedules by batches.
    given: dict[str, Any] = {"momentum": 0.9, "nesterov": True} if name == "sgd" else {}
    if ema_momentum is not None:
        given |= {"use_ema": True, "ema_momentum": ema_momentum}
    return LAYERWISE[name](
        float(learning_rate) if isinstance(learning_rate, int) else learning_rate,
        weight_decay,
        factors,
        global_clipnorm=global_clipnorm,
        gradient_accumulation_steps=gradient_accumulation_steps if gradient_accumulation_steps > 1 else None,
        **given,
    )


def averages(optimizer: keras.optimizers.Optimizer) -> list[Any]:
    """Give the moving averages of the trainable variables, in their order, also where the loss is scaled.

    They are among `optimizer.variables`. After t updates with momentum m they are what these lines give:

        average = weights[1]
        for t in range(1, updates):
            momentum = min(m, (1 + t) / (10 + t))
            average = momentum * average + (1 - momentum) * weights[t + 1]

    Args:
        optimizer: What `build` makes with `ema_momentum`, once it is built; else there are none.
    """
    inner: Any = getattr(optimizer, "inner_optimizer", optimizer)
    return list(inner._model_variables_moving_average) if inner.use_ema and inner.built else []


def stage_factors(
    model: keras.Model,
    layer_decay: float,
    stages: Mapping[str, str] | None = None,
    factors: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Give the factor of each variable's learning rate where each stage learns more slowly than the one above it.

    What lies above the last stage, such as the head, has 1, the last stage `layer_decay`, the one below its square, and
    so on, counted as in BEiT (arXiv:2106.08254). A layer belongs to the first stage whose end depends on it.

    Args:
        model: The whole one, or the upper of the two that `backbones.split` makes of it.
        layer_decay: The factor, above 0 and at most 1.
        stages: Name of each stage, first to last, and of the layer that ends it, as in `backbones.Row`; by default the
            layers that bear a stage's name, as those of `tlkit.builders` do.
        factors: By the name of the stage, or `head`, in place of `layer_decay`; what is not named has 1.

    Returns:
        The factor, by the path of the variable, of all that is trainable in the stages.

    Raises:
        InvalidInput: the model has none of the stages, or there is none of a name that `factors` has.

    >>> x = keras.layers.Dense(2, name="stem")(keras.Input((4,)))
    >>> x = keras.layers.Dense(2, name="head")(keras.layers.Dense(2, name="stage1", use_bias=False)(x))
    >>> model = keras.Model(keras.utils.get_source_inputs(x), x)
    >>> stage_factors(model, 0.5)
    {'stem/kernel': 0.25, 'stem/bias': 0.25, 'stage1/kernel': 0.5}
    >>> stage_factors(model, 1.0, factors={"stage1": 0.1, "head": 2.0})
    {'head/kernel': 2.0, 'head/bias': 2.0, 'stem/kernel': 1.0, 'stem/bias': 1.0, 'stage1/kernel': 0.1}
    """
    layers = {layer.name: layer for layer in _flat(model)}
    known = stages or {name: name for name in layers if is_stage(name)}
    ends = {stage: layers[name] for stage, name in known.items() if name in layers}
    found: dict[str, float] = {}
    if factors:
        for name in factors:
            if name not in known and name != "head":
                close = difflib.get_close_matches(name, [*known, "head"], n=1, cutoff=0.0)[0]
                raise InvalidInput(
                    f"learning_rates has {name!r}; did you mean {close!r}? There are {', '.join([*known, 'head'])}"
                )
        if "head" in layers and "head" in factors:
            found |= {variable.path: factors["head"] for variable in layers["head"].trainable_variables}
    elif not ends:
        raise InvalidInput(f"layer_decay is {layer_decay}, but model {model.name} has none of the stages")
    for number, (stage, end) in enumerate(ends.items()):
        factor = factors.get(stage, 1.0) if factors else layer_decay ** (len(ends) - number)
        for layer in keras.Model(keras.utils.get_source_inputs(end.output), end.output).layers:
            for variable in layer.variables:
                if variable.trainable:  # also where the layer is not, as BatchNormalization in inference mode
                    found.setdefault(variable.path, factor)
    return found


def _flat(model: keras.Model) -> Iterator[Any]:
    for layer in model.layers:
        yield layer
        if isinstance(layer, keras.Model):
            yield from _flat(layer)
