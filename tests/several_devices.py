"""A process with several virtual devices on the CPU, which trains on one and on all of them: `test_devices.py` runs it.

Virtual devices must be made before Keras computes anything, so the tests' own process cannot have them.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

BACKEND = os.environ.get("KERAS_BACKEND") or "tensorflow"
PLAIN: dict[str, Any] = {"epochs": 2, "learning_rate": 0.01, "batch_size": 16, "optimizer": "sgd"}


def make_devices(count: int) -> None:
    if BACKEND == "jax":
        os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={count}"
        os.environ["NPROC"] = "16"  # threads: those that wait for one another must all have one
        return
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)


def main(count: int, folder: Path, all_settings: list[dict[str, Any]]) -> None:
    make_devices(count)
    import keras
    import numpy as np

    from tlkit import layers, runtime, training
    from tlkit.data import Photos
    from tlkit.training import checkpoints

    runtime.prepare(0)
    checkpoints.pause = lambda cost: 0.0
    checkpoints.SECONDS = 0.0
    rng = np.random.default_rng(0)
    labels = np.arange(61) % 3  # the last of 16 is of 13; of the others' 37, 5
    pixels = (rng.integers(0, 150, (61, 12, 12, 1)) + labels[:, None, None, None] * 50).astype(np.uint8)
    train, val = Photos.of(pixels, labels), Photos.of(pixels[:37], labels[:37])

    def build(trains_statistics: bool) -> keras.Model:
        keras.utils.set_random_seed(0)
        x = inputs = keras.Input((12, 12, 1))
        x = keras.layers.Rescaling(1 / 255)(x)
        x = layers.conv(x, 4, 3, use_bias=False, name="stem")
        x = keras.layers.BatchNormalization(name="norm", trainable=trains_statistics)(x)
        x = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(x))
        if BACKEND == "jax":  # TensorFlow draws on each device
            x = keras.layers.Dropout(0.3)(x)
        x = keras.layers.Dense(3, name="head")(x)
        return keras.Model(inputs, keras.layers.Softmax()(x))

    class Killed(BaseException):
        pass

    class Kill(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.epoch = epoch

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if (self.epoch, batch) == (1, 2):
                raise Killed

    def fit(devices: int, settings: dict[str, Any], **more: Any) -> tuple[keras.Model, list[dict[str, Any]]]:
        model = build(BACKEND == "jax" or not settings.get("remat"))  # TensorFlow cannot recompute them
        phase = training.Settings(**{**PLAIN, **settings})
        history = training.fit_full(model, train, val, phase, augment={"shift": 0.1}, devices=devices, **more)
        return model, history.epochs

    def differences(one: Any, other: Any) -> dict[str, float]:
        curves = {
            name: max(abs(a[name] - b[name]) for a, b in zip(one[1], other[1], strict=True))
            for name in ("loss", "accuracy", "val_loss", "val_accuracy")
        }
        pairs = zip(one[0].get_weights(), other[0].get_weights(), strict=True)
        return {**curves, "weights": float(max(np.abs(a - b).max() for a, b in pairs))}

    results = []
    for settings in all_settings:
        single = fit(1, settings)
        several = fit(count, settings)
        results.append(differences(single, several))
    file = training.Checkpointing(folder / "phase.npz", within_epochs=True)
    with contextlib.suppress(Killed):
        fit(count, all_settings[-1], checkpointing=file, callbacks=[Kill()])
        raise AssertionError("it was not interrupted")
    resumed = fit(1, all_settings[-1], checkpointing=file)
    several[0].save(folder / "model.keras")
    np.save(folder / "pixels.npy", pixels)
    np.save(folder / "outputs.npy", training.predict(several[0], train))
    found = {"several": results, "resumed": differences(single, resumed)}
    (folder / "result.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]))
