"""Training on several devices: a copy of the model shares each batch, and learns what one device would learn.

The model itself stays on one device: what predicts, is scored and saved knows nothing of the others. On JAX the copy is
spread by `keras.distribution.DataParallel`, on TensorFlow by `MirroredStrategy`.

Keras' own way goes wrong where a batch does not divide by the number of devices, as the last of an epoch: on JAX it
raises an error; on TensorFlow each device's mean counts alike, and one without examples has the mean nan. Here such a
batch is made to divide: on JAX by rows that the step leaves out again, on TensorFlow by giving each device all of it,
whose gradient is that of one device.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import keras
import numpy as np

from tlkit.errors import InvalidInput
from tlkit.training import hosts, memory, optimizers, variables

BACKENDS = ("jax", "tensorflow")


class Devices(NamedTuple):
    """Devices that share each batch.

    Args:
        names: Their names in Keras, such as `gpu:0`; those of a process are consecutive.
        processes: Number of processes, each with the same number of them.
        process: Number of this process.
    """

    names: tuple[str, ...]
    processes: int = 1
    process: int = 0

    def padded(self, count: int, batch_size: int) -> int:
        """Give the number of rows for a batch of `count` examples on JAX: each number says how many examples they are.

        >>> four = Devices(("cpu:0", "cpu:1", "cpu:2", "cpu:3"))
        >>> [four.padded(count, 32) for count in (32, 28, 5, 31)]
        [32, 28, 8, 36]
        """
        step = len(self.names)
        rows = -(-count // step) * step
        return rows + step if count < batch_size and rows == -(-batch_size // step) * step else rows

    def rows(self, batch_size: int) -> Callable[[int], np.ndarray]:
        """Give what `data.batches` takes as `rows`: from the number of examples to the positions of those read here.

        >>> two = Devices(("cpu:0", "cpu:1"))
        >>> sorted(set(two.rows(4)(3).tolist()))  # one of them, or all, twice
        [0, 1, 2]
        """
        if keras.backend.backend() == "tensorflow":
            return lambda count: np.tile(np.arange(count), 1 if count % len(self.names) == 0 else len(self.names))

        def part(count: int) -> np.ndarray:
            rows = np.resize(np.arange(count), self.padded(count, batch_size))
            return rows.reshape(self.processes, -1)[self.process]

        return part

    def counts(self, examples: int, batch_size: int) -> dict[int, int]:
        """Give the number of examples in a batch by its number of rows, for all batches of an epoch on JAX."""
        sizes = {min(batch_size, examples), examples % batch_size or batch_size}
        return {self.padded(count, batch_size): count for count in sizes}


def find(asked: int | Literal["auto"] = "auto") -> Devices | None:
    """Find the devices to train on; None for one, for which nothing changes.

    Args:
        asked: Number of devices of each host; `auto` is all GPUs or TPUs, or all CPU devices where there are none.

    Raises:
        InvalidInput: there are fewer, or Keras cannot train on several with this backend.
    """
    backend = keras.backend.backend()
    if asked != "auto" and asked < 1:
        raise InvalidInput(f"devices is {asked}: 1 or more, or auto")
    if backend not in BACKENDS:
        if asked in (1, "auto"):
            return None
        raise InvalidInput(f"devices is {asked}, but {_refusal(backend)}")
    here = _jax_devices() if backend == "jax" else [_tensorflow_devices()]
    count = len(here[0]) if asked == "auto" else asked
    least = min(map(len, here))
    if count > least:
        raise InvalidInput(f"devices is {count}, but {backend} has {least} here ({', '.join(here[0])}): give {least}")
    names = tuple(name for process in here for name in process[:count])
    return Devices(names, len(here), hosts.index()) if len(names) > 1 else None


def _refusal(backend: str) -> str:
    """Say why Keras does not train on several devices with a backend."""
    if backend == "torch":
        return (
            f"Keras trains on several devices with PyTorch from 3.16 on, and this is Keras {keras.version()}: set "
            "KERAS_BACKEND to jax or tensorflow, or give --devices 1"
        )
    return f"Keras' backend {backend} does not train: set KERAS_BACKEND to jax or tensorflow"


def _jax_devices() -> list[list[str]]:
    """List the devices of each process."""
    jax = importlib.import_module("jax")
    devices = jax.devices() if hosts.count() > 1 else jax.local_devices()
    return [
        [f"{device.platform}:{device.id}" for device in devices if device.process_index == process]
        for process in sorted({device.process_index for device in devices})
    ]


def _tensorflow_devices() -> list[str]:
    config = importlib.import_module("tensorflow").config
    devices = config.list_logical_devices("GPU") or config.list_logical_devices("CPU")
    return [f"{device.device_type.lower()}:{device.name.rpartition(':')[2]}" for device in devices]


def check(devices: Devices | None, accumulation: int, recomputed: keras.Model | None = None) -> None:
    """Refuse what the devices cannot do.

    Args:
        devices: The devices.
        accumulation: Number of batches whose gradients are accumulated.
        recomputed: The network, if its activations are to be recomputed.

    Raises:
        InvalidInput: under MirroredStrategy, gradients are to be accumulated, which Keras' optimizers cannot do; or
            trained batch normalization is to be recomputed, where devices wait for each other in different orders.
    """
    if devices is None or keras.backend.backend() != "tensorflow":
        return
    layers = recomputed._flatten_layers() if recomputed else ()  # inside blocks of other libraries too
    refused = {
        f"gradient_accumulation_steps is {accumulation}": accumulation > 1,
        "remat is true, and batch normalization is trained": any(map(_is_synchronized, layers)),
    }
    if reasons := [reason for reason, holds in refused.items() if holds]:
        raise InvalidInput(
            f"{reasons[0]}, which does not work on several devices with TensorFlow: leave it out, set KERAS_BACKEND to "
            "jax, or give --devices 1"
        )


def _is_synchronized(layer: keras.Layer) -> bool:
    """Whether a layer's outputs in training depend on what is on other devices."""
    return isinstance(layer, keras.layers.BatchNormalization) and layer.trainable


@contextlib.contextmanager
def spread(
    model: keras.Model, devices: Devices | None, examples: Sequence[int], batch_size: int, remat: bool = False
) -> Iterator[keras.Model]:
    """Give a copy of a model that is trained on several devices; afterwards the model has what the copy learned.

    The copy's `predict` is that of the model. In several processes the copy begins with the weights of the first.

    Args:
        model: A functional model, on one device. Without devices, it is given itself.
        devices: The devices.
        examples: Numbers of training and of validation examples.
        batch_size: Number of examples in a batch, over all devices.
        remat: Train by `memory.remat`.
    """
    if devices is None:
        yield memory.remat(model) if remat else model
        return
    make = _on_jax if keras.backend.backend() == "jax" else _on_tensorflow
    with make(model, devices, [devices.counts(count, batch_size) for count in examples], remat) as copy:
        yield copy


def _clone(model: keras.Model) -> keras.Model:
    """Copy a model; its values come from the first process."""
    clone = keras.models.clone_model(model)
    for variable, copied in zip(model.variables, clone.variables, strict=True):
        copied.trainable = variable.trainable
    variables.assign(clone.variables, hosts.share_arrays(variables.values(model.variables)))
    return clone


def _predict(model: keras.Model, clone: keras.Model, *args: Any, **kwargs: Any) -> Any:
    """Predict by the model itself with the values of its copy; in several processes the first decides."""
    variables.assign(model.variables, variables.values(clone.variables))
    return hosts.share_arrays([model.predict(*args, **kwargs)])[0]


@contextlib.contextmanager
def _on_jax(
    model: keras.Model, devices: Devices, counts: Sequence[dict[int, int]], remat: bool
) -> Iterator[keras.Model]:
    training, validation = counts

    class Spread(keras.Model):
        """Its batches may have more rows than examples."""

        def train_step(self, state: Any, data: Any) -> Any:  # type: ignore[override]  # as on JAX
            return super().train_step(state, _examples(data, training))  # type: ignore[call-arg]

        def test_step(self, state: Any, data: Any) -> Any:  # type: ignore[override]
            return super().test_step(state, _examples(data, validation))  # type: ignore[call-arg]

        def predict(self, *args: Any, **kwargs: Any) -> Any:
            keras.distribution.set_distribution(None)
            try:
                return _predict(model, clone, *args, **kwargs)
            finally:
                keras.distribution.set_distribution(distribution)

    distribution = keras.distribution.DataParallel(devices=list(devices.names), auto_shard_dataset=False)
    with distribution.scope():
        clone = _clone(model)
        network = memory.remat(clone) if remat else clone
        yield Spread(network.inputs, network.output)
    variables.assign(model.variables, variables.values(clone.variables))


def _examples(data: Any, counts: dict[int, int]) -> tuple[Any, Any]:
    """Leave out the rows that were added, and the weights, which say nothing more."""
    x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
    count = counts[x.shape[0]]
    return (x, y) if count == x.shape[0] else (x[:count], y[:count])


@contextlib.contextmanager
def _on_tensorflow(
    model: keras.Model, devices: Devices, counts: Sequence[dict[int, int]], remat: bool
) -> Iterator[keras.Model]:
    tf = importlib.import_module("tensorflow")
    strategy = _strategy(devices.names)

    class Spread(keras.Model):
        """Its weights are below 1 where several devices have the same examples."""

        creating = staticmethod(strategy.scope)  # in which its optimizer is created

        def compile(self, *args: Any, metrics: Any = None, **kwargs: Any) -> None:
            super().compile(*args, weighted_metrics=metrics, **kwargs)
            _sum_no_more(self.optimizer)

        def train_step(self, data: Any) -> Any:
            x, y, weights = keras.utils.unpack_x_y_sample_weight(data)
            with tf.GradientTape() as tape:
                outputs = self(x, training=True)
                loss = self.compute_loss(x, y, outputs, training=True)  # divided by the number of devices
                scaled = self.optimizer.scale_loss(loss)
            trained = self.trainable_variables
            gradients = tape.gradient(scaled, trained)
            # Before the optimizer and not in it, which would clip the gradient of each device by itself.
            gradients = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, gradients)
            self.optimizer.apply_gradients(zip(gradients, trained, strict=True))
            return self.measured(x, y, outputs, weights, loss)

        def test_step(self, data: Any) -> Any:
            x, y, weights = keras.utils.unpack_x_y_sample_weight(data)
            outputs = self(x, training=False)
            return self.measured(x, y, outputs, weights, self.compute_loss(x, y, outputs, training=False))

        def measured(self, x: Any, y: Any, outputs: Any, weights: Any, loss: Any) -> Any:
            """Update the metrics, in which each example counts once."""
            mean = next(metric for metric in self.metrics if metric.name == "loss")
            mean.update_state(loss * len(devices.names), sample_weight=tf.reduce_sum(weights))
            return self.compute_metrics(x, y, outputs, sample_weight=weights)

        def predict(self, *args: Any, **kwargs: Any) -> Any:
            return _predict(model, clone, *args, **kwargs)

    with strategy.scope():
        clone = _clone(model)
        for layer in optimizers.flat(clone):
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.synchronized = True
        network = memory.remat(clone) if remat else clone
        copy = Spread(network.inputs, network.output)
    yield copy
    variables.assign(model.variables, variables.values(clone.variables))


@functools.cache
def _strategy(names: tuple[str, ...]) -> Any:
    """Make a strategy once: TensorFlow takes what another one of the same devices sums up for its own, of any shape."""
    return importlib.import_module("tensorflow").distribute.MirroredStrategy(list(names))


def _sum_no_more(optimizer: keras.optimizers.Optimizer) -> None:
    """Have an optimizer of Keras on TensorFlow take gradients that are summed up over the devices already."""
    for part in (optimizer, getattr(optimizer, "inner_optimizer", optimizer)):
        if not hasattr(part, "_all_reduce_sum_gradients"):  # else gradients would be multiplied in silence
            raise RuntimeError(f"Keras {keras.version()} sums gradients elsewhere")
        setattr(part, "_all_reduce_sum_gradients", lambda gradients: gradients)  # noqa: B010  # mypy sees a method
