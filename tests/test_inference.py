"""OpenVINO's graph of a network: the transposes that Keras' backend makes vanish, and the outputs stay as they were."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tlkit import cores, inference, startup

pytestmark = pytest.mark.skipif(not startup.is_installed("openvino"), reason="OpenVINO is not installed")

# Prints, for each network: how many transposes are computed, and the largest difference of an output, relative to its
# largest value; before the transposes are sunk, after it, and where the frontend that sinks them is missing.
NETWORKS = """
import json
import keras, numpy as np
from keras import layers
from openvino import frontend
from tlkit import inference

rng = np.random.default_rng(0)
sink = inference.sink_transposes


def block(x, width, stride=1, activation="relu6"):
    x = getattr(layers, f"Conv{len(x.shape) - 2}D")(width, 3, stride, "same", use_bias=False)(x)
    return layers.Activation(activation)(layers.BatchNormalization()(x))


def squeezed(x):
    y = layers.Conv2D(2, 1, activation="swish")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    return layers.Multiply()([x, layers.Conv2D(x.shape[-1], 1, activation="sigmoid")(y)])


def photos(height, width):
    pixels = keras.Input((height, width, 3))
    x = block(layers.Rescaling(1 / 127.5, -1)(pixels), 8, 2, "swish")
    y = layers.DepthwiseConv2D(3, 2)(layers.ZeroPadding2D(((0, 1), (2, 0)))(x))
    y = squeezed(layers.Activation("gelu")(layers.BatchNormalization()(y)))
    x = layers.Concatenate()([block(x, 4, activation="hard_silu"), layers.AveragePooling2D(3, 1, "same")(x)])
    x = layers.Conv2D(8, 1)(layers.MaxPooling2D(2)(layers.PReLU(shared_axes=[1, 2])(x)))
    return pixels, x, y


def several():
    pixels, x, y = photos(16, 20)
    other = keras.Input((8, 10, 3))
    y = layers.Conv2D(8, 1)(layers.LayerNormalization()(y))
    x = layers.Add()([x, y, layers.MaxPooling2D(2)(block(other, 8))])
    return keras.Model([other, pixels], {"map": x, "mean": layers.Dense(3)(layers.GlobalMaxPooling2D()(x))})


def any_size():
    pixels, x, y = photos(None, None)
    return keras.Model(pixels, layers.GlobalAveragePooling2D()(x))


def residual(*space):
    values = keras.Input((*space, 2))
    x = block(values, 4)
    x = layers.Add()([layers.AveragePooling3D(1)(x) if len(space) == 3 else x, block(block(x, 4), 4)])
    return keras.Model(values, layers.Dense(3)(layers.Flatten()(x)))


def measured(model, shapes):
    for weight in model.weights:  # no channel like another
        signs = [-1, 1] if len(weight.shape) > 1 else [1]
        weight.assign(rng.uniform(0.5, 1.5, weight.shape) * rng.choice(signs, weight.shape))
    inputs = [rng.integers(0, 256, (3, *shape)).astype(np.float32) for shape in shapes]
    found, outputs = {}, {}
    for way, missing in (("before", False), ("after", False), ("missing", True)):
        manager = frontend.FrontEndManager
        if missing:
            frontend.FrontEndManager = WithoutFrontend
        inference.sink_transposes = (lambda network: None) if way == "before" else sink
        network, _ = inference.graph(model, inputs if len(inputs) > 1 else inputs[0])
        frontend.FrontEndManager = manager
        compiled = inference.compile_network(network)
        outputs[way] = [list(compiled(inputs).to_tuple()), list(compiled([each[:1] for each in inputs]).to_tuple())]
        steps = [node.get_rt_info()["layerType"] for node in compiled.get_runtime_model().get_ops()]
        steps = [getattr(step, "value", step) for step in steps]
        pairs = [pair for both in zip(outputs[way], outputs["before"]) for pair in zip(*both, strict=True)]
        assert all(a.shape == b.shape for a, b in pairs)
        differ = max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)
        apart = min(float(np.ptp(b, 0).max() / np.abs(b).max()) for b in outputs[way][0])
        found[way] = {"transposes": steps.count("Transpose"), "differ": differ, "apart": apart}
    return found


class WithoutFrontend(frontend.FrontEndManager):
    def load_by_framework(self, framework):
        return super().load_by_framework("not installed")


print(json.dumps({
    "several inputs and outputs": measured(several(), [(8, 10, 3), (16, 20, 3)]),
    "photos of any size": measured(any_size(), [(12, 14, 3)]),
    "1-D": measured(residual(20), [(20, 2)]),
    "3-D": measured(residual(6, 7, 8), [(6, 7, 8, 2)]),
}))
"""
LEFT = {
    "several inputs and outputs": 3,
    "photos of any size": 1,
    "1-D": 2,
    "3-D": 2,
}  # at inputs, and where steps are flat


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    environment = {**os.environ, "KERAS_BACKEND": "openvino"}
    ended = subprocess.run([sys.executable, "-c", NETWORKS], capture_output=True, text=True, env=environment)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


@pytest.mark.parametrize("name", LEFT)
def test_transposes_vanish_and_outputs_stay(measured: dict[str, Any], name: str):
    before, after, missing = (measured[name][way] for way in ("before", "after", "missing"))
    assert after["transposes"] <= LEFT[name] < before["transposes"] / 2
    assert after["differ"] < 5e-6  # other kernels round otherwise
    assert before["apart"] > 0.1  # outputs tell examples apart, so that a difference would show
    assert missing["transposes"] == before["transposes"]
    assert missing["differ"] == 0


REPEATED = """
import keras, numpy as np
from tlkit import inference


class Token(keras.layers.Layer):
    def call(self, x):
        token = keras.ops.tile([[[1.0, 2.0]]], (keras.ops.shape(x)[0], 1, 1))
        return keras.ops.concatenate([token, keras.ops.tile(x, [1, 2, 1])], axis=1)

    def compute_output_shape(self, shape):
        return shape[0], 5, 2


tokens = keras.Input((2, 2))
model = inference.in_full_precision(keras.Model(tokens, Token()(tokens)))
for count in (3, 1):
    values = np.arange(4.0 * count, dtype="float32").reshape(count, 2, 2)
    expected = np.concatenate([np.tile([[[1, 2]]], (count, 1, 1)), values, values], 1)
    np.testing.assert_array_equal(model.predict(values, verbose=0), expected)
"""


@pytest.mark.thorough
def test_a_token_is_repeated_as_often_as_there_are_examples():
    environment = {**os.environ, "KERAS_BACKEND": "openvino"}
    ended = subprocess.run([sys.executable, "-c", REPEATED], capture_output=True, text=True, env=environment)
    assert ended.returncode == 0, ended.stderr


AT_ONCE = """
import sys, threading
import numpy as np
import openvino
from openvino import opset13
from tlkit import inference


def at_once(compute, batches, threads, ahead):
    barrier = threading.Barrier(threads)
    each = [threading.Thread(target=lambda: (barrier.wait(), compute(batches))) for _ in range(threads)]
    [thread.start() for thread in each]
    [thread.join() for thread in each]


inference.in_order = at_once
inference.compile_network = lambda *given, **_: inference.core().compile_model(given[0], "CPU", {"NUM_STREAMS": "4"})
sys.setswitchinterval(1e-6)
rows = opset13.parameter([-1, 4], openvino.Type.f32)
inference.engine(openvino.Model([opset13.relu(rows)], [rows])).run(np.zeros((2, 4), np.float32))
"""


def test_threads_that_compute_first_at_once_do_not_wait_for_each_other():
    """In a process of its own, since what they waited for is made once; several, as it did not happen each time."""
    running = [subprocess.Popen([sys.executable, "-c", AT_ONCE]) for _ in range(6)]
    try:
        assert [process.wait(timeout=60) for process in running] == [0] * len(running)
    finally:
        for process in running:
            process.kill()


def test_one_of_several_workers_leaves_its_threads_free_to_move(monkeypatch: pytest.MonkeyPatch):
    # Pinned, those of each process go to the first cores, and workers with one core each all compute on the same one.
    openvino, opset = startup.openvino(), pytest.importorskip("openvino.opset13")
    monkeypatch.setattr(cores, "_limit", 1)
    rows = opset.parameter([-1, 4], openvino.Type.f32)
    compiled = inference.compile_network(openvino.Model([opset.relu(rows)], [rows]), throughput=True)
    assert compiled.get_property("ENABLE_CPU_PINNING") is False
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 1
