"""What Keras' optimizers have not: a learning rate for each variable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="tlkit")
class LayerwiseAdamW(keras.optimizers.AdamW):
    """AdamW whose learning rate differs by variable, as in the fine-tuning of BEiT (arXiv:2106.08254).

    Each variable is trained as by an AdamW of its own with that rate, its weight decay included. Factors on the
    gradients would do nothing: Adam divides by their size.

    Args:
        learning_rate: A number or a schedule.
        weight_decay: Decoupled decay, times the variable's rate.
        factors: Of the learning rate, by the variable's `path`; 1 where a path is missing.
        kwargs: More arguments of `keras.optimizers.AdamW`.

    >>> slow, fast = keras.Variable([1.0], name="slow"), keras.Variable([1.0], name="fast")
    >>> optimizer = LayerwiseAdamW(0.1, 0.0, {"slow": 0.5})
    >>> optimizer.apply([ops.ones(1), ops.ones(1)], [slow, fast])
    >>> [round(float(ops.convert_to_numpy(variable)[0]), 3) for variable in (slow, fast)]
    [0.95, 0.9]
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        weight_decay: float = 0.004,
        factors: Mapping[str, float] | None = None,
        **kwargs: Any,
    ):
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay, **kwargs)
        self.factors = dict(factors or {})

    def build(self, var_list: Any) -> None:
        """Make the variables of Adam, and look up each one's factor."""
        if self.built:
            return
        # By place: on TensorFlow `update_step` is given variables that do not know their path.
        self.rates = [self.factors.get(variable.path, 1.0) for variable in var_list]
        super().build(var_list)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Decay and update one variable, at its own rate."""
        rate = learning_rate * self.rates[self._get_variable_index(variable)]
        if self._use_weight_decay(variable):
            self.assign_sub(variable, variable * ops.cast(rate * self.weight_decay, variable.dtype))
        super().update_step(gradient, variable, rate)

    def _apply_weight_decay(self, variables: Any) -> None:
        """Do nothing, where Keras would decay all variables at one rate: `update_step` does it."""

    def get_config(self) -> dict[str, Any]:
        """Give the arguments that make the same optimizer."""
        return {**super().get_config(), "factors": dict(self.factors)}
