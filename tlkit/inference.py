"""Prediction by OpenVINO in the precision that is asked for.

Keras' openvino backend compiles a network without a hint, and OpenVINO then computes float32 networks in bfloat16 on a
CPU with AMX: probabilities were off by 0.05 there. Here, every network is compiled with the hint.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import queue
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tlkit import cores, startup

if TYPE_CHECKING:
    import keras

PRECISIONS = {"float32": "f32", "mixed_bfloat16": "bf16"}  # those of OpenVINO on a CPU
BATCH = 4  # examples at a time: their activations stay in the CPU's cache; larger batches were slower


class Engine(NamedTuple):
    """A network that is ready to run.

    Args:
        name: One of `tlkit.features.engines.ENGINES`.
        batch_size: The batch size that suits it, which no batch exceeds.
        run: Turns batches (k, *space, channels) into outputs (k, *shape), float32, in the same order.
        graph: OpenVINO's graph of the network; None for other engines.
    """

    name: str
    batch_size: int
    run: Callable[[Iterable[np.ndarray]], Iterator[np.ndarray]]
    graph: Any = None


def in_full_precision(model: keras.Model) -> keras.Model:
    """Have a model predict in float32 on Keras' openvino backend too; on other backends, nothing changes.

    Args:
        model: Its methods `predict` and `predict_on_batch` are affected.

    Returns:
        The same model.

    >>> import keras
    >>> double = keras.Sequential([keras.Input((2,)), keras.layers.Rescaling(2.0)])
    >>> in_full_precision(double).predict_on_batch(np.array([[1.0, 2.0]])).tolist()
    [[2.0, 4.0]]
    """
    import keras

    if keras.backend.backend() == "openvino":
        model.predict_function = _predict_function(model)
    return model


def _predict_function(model: keras.Model) -> Callable[[Sequence[Any]], Any]:
    """Make what `predict` of Keras' openvino backend calls for each batch, in place of its own."""
    import keras

    compiled: dict[Any, tuple[Any, Any, Any]] = {}

    def predict(data: Sequence[Any]) -> Any:
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data[0])
        arrays = [np.asarray(array) for array in keras.tree.flatten(x)]
        values = [weight.value for weight in model.weights]
        form = (*((array.shape[1:], array.dtype.name) for array in arrays), *map(id, values))
        if form not in compiled:
            compiled.clear()
            network, outputs = graph(model, keras.tree.pack_sequence_as(x, arrays))
            compiled[form] = compile_network(network), outputs, values  # values live on, so that ids stay theirs
        network, outputs, _ = compiled[form]
        return keras.tree.pack_sequence_as(outputs, [np.array(result) for result in network(arrays).to_tuple()])

    return predict


def graph(model: keras.Model, example: Any, dtype: np.dtype | None = None) -> tuple[Any, Any]:
    """Make OpenVINO's graph of a network, on Keras' openvino backend.

    Args:
        model: The network; it runs in inference mode.
        example: An array, or the structure of arrays, of any number of examples: what the graph takes.
        dtype: What the network is given, if that is not the example's.

    Returns:
        The graph, and the structure of its outputs.
    """
    import keras
    from keras.src.backend.openvino import core  # there is no public way to call a network on a parameter

    def parameter(array: np.ndarray) -> Any:
        shape, kind = [-1, *array.shape[1:]], core.OPENVINO_DTYPES[array.dtype.name]
        return core.OpenVINOKerasTensor(core.ov_opset.parameter(shape=shape, dtype=kind).output(0))

    inputs = keras.tree.map_structure(parameter, example)
    cast = inputs if dtype is None else keras.tree.map_structure(lambda x: keras.ops.cast(x, dtype), inputs)
    with _tiled_by_sizes():
        outputs = model(cast, training=False)
    results = [core.ov_opset.result(output.output) for output in keras.tree.flatten(outputs)]
    parameters = [tensor.output.get_node() for tensor in keras.tree.flatten(inputs)]
    network = startup.openvino().Model(results=results, parameters=parameters)
    sink_transposes(network)
    return network, outputs


_TILING = threading.Lock()


@contextlib.contextmanager
def _tiled_by_sizes() -> Iterator[None]:
    """Let a tensor be repeated as often as there are examples, as the class token of a transformer is.

    `tile` of Keras 3.15 takes no sizes that are known only when the graph runs.
    """
    from keras.src.backend.openvino import core, numpy

    def tile_by_sizes(x: Any, repeats: Any) -> Any:
        if isinstance(repeats, list | tuple):
            sizes = core.ov_opset.convert(core.shape_to_ov_output(repeats), "i64")
            repeats = core.OpenVINOKerasTensor(sizes.output(0))
        return tile(x, repeats)

    with _TILING:  # two threads would each put back what the other has put there
        tile, numpy.tile = numpy.tile, tile_by_sizes
        try:
            yield
        finally:
            numpy.tile = tile


def from_tensorflow(traced: Any) -> Any:
    """Make OpenVINO's graph of a function of TensorFlow.

    Args:
        traced: A concrete function.
    """
    startup.openvino()
    from openvino import convert_model
    from openvino.frontend.tensorflow import ConversionExtension

    network = convert_model(traced, extension=[ConversionExtension("XlaDynamicUpdateSlice", _slice_update)])
    for output in network.outputs[len(traced.outputs) :]:  # sizes that nothing needs
        network.remove_result(output.get_node())
    return network


def _slice_update(node: Any) -> list[Any]:
    """Make what `keras.ops.slice_update` is in TensorFlow, of operations that OpenVINO has; Swin's masks need it."""
    from openvino import opset14 as ops

    values, update, start = (node.get_input(number) for number in range(3))
    size = ops.shape_of(update, "i32")
    begin = ops.convert(start, "i32")
    end = ops.subtract(ops.subtract(ops.shape_of(values, "i32"), begin), size)
    zero = ops.constant(0, np.int32)
    whole = ops.pad(update, begin, end, "constant", ops.convert_like(zero, update))
    ones = ops.broadcast(ops.constant(1, np.int32), size)
    inside = ops.convert(ops.pad(ones, begin, end, "constant", zero), "boolean")
    return [ops.select(inside, whole, values).output(0)]


def sink_transposes(network: Any) -> None:
    """Remove the transposes that Keras' openvino backend puts around each convolution, pooling and batch normalization.

    Those steps take channels first there, all others channels last. The CPU plugin keeps nearly all of the transposes,
    and they cost more than a small network's convolutions. The frontend for TensorFlow Lite, whose networks have
    channels last too, moves transposes until they meet their inverse; it does not know batch normalization, which the
    first pass takes apart.

    Args:
        network: As Keras makes it; it is changed, and its outputs stay the same up to rounding.
    """
    startup.openvino()
    from openvino import frontend
    from openvino._offline_transformations import apply_moc_transformations  # NNCF calls it too: nothing public does it

    try:
        sinking = frontend.FrontEndManager().load_by_framework("tflite")
    except frontend.InitializationFailure:  # some packages of OpenVINO leave it out: slower, with the same outputs
        return
    apply_moc_transformations(network, cf=True)
    sinking.normalize(network)


def compile_network(network: Any, precision: str = "float32", throughput: bool = False) -> Any:
    """Compile OpenVINO's graph of a network for the CPU.

    Args:
        network: As `graph` or `from_tensorflow` makes it.
        precision: Name of a Keras dtype policy, float32 or mixed_bfloat16.
        throughput: Whether several batches are computed at a time.
    """
    hints = {"INFERENCE_PRECISION_HINT": PRECISIONS[precision]}
    if throughput:
        hints["PERFORMANCE_HINT"] = "THROUGHPUT"
    if cores.limited():
        hints["INFERENCE_NUM_THREADS"] = str(cores.cores())
        # Each process pins its threads to the first cores: one-core workers all computed on the same core.
        hints["ENABLE_CPU_PINNING"] = "NO"
    return core().compile_model(network, "CPU", hints)


@functools.cache
def core() -> Any:
    """Return OpenVINO's runtime."""
    return startup.openvino().Core()


def has_bfloat16() -> bool:
    """Whether OpenVINO computes in bfloat16 on this processor."""
    return "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def engine(network: Any, precision: str = "float32") -> Engine:
    """Make an engine of OpenVINO's graph of a network, for several batches at a time.

    Args:
        network: As `graph` or `from_tensorflow` makes it, with one input and one output.
        precision: Name of a Keras dtype policy, float32 or mixed_bfloat16.
    """
    compiled = compile_network(network, precision, throughput=True)
    # OpenVINO fills its table of dtypes at the first use, for which it needs Python's lock while others wait for the
    # table: two threads that came first at once waited for each other for good.
    compiled.input(0).get_element_type().to_dtype()
    count = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
    idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for _ in range(count):
        idle.put(compiled.create_infer_request())

    def compute(batch: np.ndarray) -> np.ndarray:
        request = idle.get()
        try:
            return request.infer({0: batch}, share_inputs=True)[0].astype(np.float32, copy=False)
        finally:
            idle.put(request)

    # Python's threads, not openvino.AsyncInferQueue: its threads call back into Python, which aborted every second
    # process that ended shortly after the last batch or after an error (OpenVINO 2026.4).
    return Engine("openvino", BATCH, lambda batches: in_order(compute, batches, threads=count, ahead=count), network)


def version() -> str:
    """Return OpenVINO with everything that its outputs may depend on: Keras makes the graphs that it computes."""
    return ", ".join(f"{name} {metadata.version(name)}" for name in ("openvino", "keras"))


def packed(network: Any) -> tuple[bytes, bytes]:
    """Return the contents of OpenVINO's two files of a graph: XML, and the weights."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "network.xml")
        startup.openvino().save_model(network, file, compress_to_fp16=False)
        return file.read_bytes(), file.with_suffix(".bin").read_bytes()


def unpacked(graph: bytes, weights: bytes) -> Any:
    """Return the graph of which `packed` made two contents."""
    return core().read_model(graph, weights)


def in_order(function: Callable[[Any], Any], items: Iterable[Any], threads: int, ahead: int) -> Iterator[Any]:
    """Call a function on items in other threads, a few items ahead, and yield the results in order."""
    with ThreadPoolExecutor(threads) as pool:
        waiting: collections.deque[Future[Any]] = collections.deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
