"""Whether what two devices learn differs from what one learns by more than rounding.

    python benchmarks/rounding.py [float32|float64] [--epochs 3] [--learning_rate 0.01]

A small network whose convolutions have a bias in front of batch normalization learns the embedded digits by Adam, on
two virtual devices of TensorFlow beside one, and on one from initial weights that differ in the last digits. The
gradient of such a bias is zero but for rounding, and Adam makes steps of full size of it.
"""

from __future__ import annotations

import argparse
import json
from typing import Any


def in_float64(keras: Any) -> None:
    """Have the loss, which is float32 in tlkit whatever the policy, computed in float64 too."""
    cast, one_hot = keras.ops.cast, keras.ops.one_hot
    keras.ops.cast = lambda x, dtype: cast(x, "float64" if str(dtype) == "float32" else dtype)
    keras.ops.one_hot = lambda *args, dtype=None, **more: one_hot(*args, dtype="float64", **more)


def main() -> None:
    """Train and print the largest differences of each epoch's losses, and of the weights at the end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dtype", nargs="?", default="float32", choices=["float32", "float64"])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--learning_rate", type=float, default=0.01)
    arguments = parser.parse_args()
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    import keras
    import numpy as np

    from tlkit import data, runtime, training

    keras.config.set_floatx(arguments.dtype)
    runtime.prepare(0, "float32")
    keras.config.set_dtype_policy(arguments.dtype)
    if arguments.dtype == "float64":
        in_float64(keras)
    splits = data.load("embedded", size=(8, 8), channels=1, quiet=True)

    def build(change: float) -> keras.Model:
        keras.utils.set_random_seed(0)
        x = inputs = keras.Input((8, 8, 1))
        for number, filters in enumerate((16, 32)):
            x = keras.layers.Conv2D(filters, 3, padding="same", name=f"conv{number}")(x)
            x = keras.layers.BatchNormalization(name=f"norm{number}")(x)
            x = keras.layers.MaxPooling2D()(keras.layers.ReLU()(x))
        x = keras.layers.Dense(64, activation="relu", name="dense")(keras.layers.Flatten()(x))
        model = keras.Model(inputs, keras.layers.Dense(10, activation="softmax", name="head")(x))
        rng = np.random.default_rng(1)
        changed = [w * (1 + change * rng.standard_normal(w.shape)) for w in model.get_weights()]
        model.set_weights([w.astype(arguments.dtype) for w in changed] if change else model.get_weights())
        return model

    def fit(devices: int = 1, change: float = 0.0) -> tuple[keras.Model, list[dict[str, Any]]]:
        model = build(change)
        settings = training.Settings(arguments.epochs, arguments.learning_rate, optimizer="adam", patience=None)
        augment = {"shift": 0.1, "rotation": 10}
        return model, training.fit_full(model, *parts, settings, augment=augment, devices=devices).epochs

    def differences(other: tuple[keras.Model, list[dict[str, Any]]]) -> dict[str, Any]:
        found = {name: [abs(a[name] - b[name]) for a, b in zip(one[1], other[1], strict=True)] for name in curves}
        pairs = zip(one[0].weights, other[0].weights, strict=True)
        weights = {a.path: float(np.abs(np.subtract(a.numpy(), b.numpy())).max()) for a, b in pairs}
        return {**found, "bias": max(weights[f"conv{n}/bias"] for n in (0, 1)), "weights": max(weights.values())}

    parts, curves = (splits.train, splits.val), ("loss", "val_loss")
    one, last = fit(), 1e-7 if arguments.dtype == "float32" else 1e-16
    runs = {"again": fit(), "two devices": fit(2), f"weights changed by {last:g}": fit(change=last)}
    for name, run in runs.items():
        print(name, json.dumps(differences(run)), flush=True)


if __name__ == "__main__":
    main()
