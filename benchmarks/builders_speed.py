"""How fast the networks of tlkit.builders are beside the same networks of keras.applications, on the same backend.

python benchmarks/builders_speed.py
python benchmarks/builders_speed.py --networks efficientnet_b0 --batch_size 32 --budget 300

Both of a pair have random weights, the same input and labels, SGD without momentum and the same compilation (XLA or
not). They are measured in turn: ours, theirs, theirs, ours, ours ... A measurement calls `predict_on_batch` or
`train_on_batch` as often as it takes to fill a moment, and a ratio compares two measurements that follow each other, so
that what else the machine does meets both.

The table's columns: the medians of both times for one batch; the median of the ratios ours / theirs with their
quartiles; the multiply-adds of one example, ours / theirs; and which share of the arithmetic that plain matrix products
reach in the same run and precision both networks reach, a training step counting as three forward passes.

The pairs are the same networks, with these exceptions: `resnet50` halves its maps in 3 x 3 convolutions where ResNet50
does so in the 1 x 1 before, which is 6 % more multiply-adds; ResNet50's convolutions have biases in front of the
normalization, where they do nothing; the rescaling inside EfficientNetB0, which cannot be left out, is built in front
of ours. Both ConvNeXt are without stochastic depth, as in keras.applications by default.

Where other programs compete for the processor, `--clock cpu` compares processor time, all threads together, instead.
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

CLASSES = 1000
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
ENOUGH = 3  # measurements, after the budget is used up
SIDE, CHAIN = 4096, 2  # rows and columns of the matrices, and how many products in a row


class Pair(NamedTuple):
    """A network of ours and one of theirs.

    Args:
        variant: Of `tlkit.builders`.
        application: Of `keras.applications`.
        preprocessed: Whether theirs rescales and normalizes inside.
        ours: More arguments for ours.
        theirs: More arguments for theirs.
    """

    variant: str
    application: str
    preprocessed: bool = False
    ours: dict[str, Any] = {}  # noqa: RUF012, never changed
    theirs: dict[str, Any] = {}  # noqa: RUF012


PAIRS = {
    pair.variant: pair
    for pair in (
        Pair("resnet50_v1", "ResNet50"),
        Pair("resnet50", "ResNet50"),
        Pair("efficientnet_b0", "EfficientNetB0", preprocessed=True),
        Pair("convnext_tiny", "ConvNeXtTiny", ours={"drop_path": 0.0}, theirs={"include_preprocessing": False}),
        Pair("vgg16", "VGG16"),
    )
}


class Row(NamedTuple):
    """What one line of the table says.

    Args:
        name: Of our network and theirs.
        step: `inference` or `training`.
        ours: Seconds for a batch, in each measurement.
        theirs: The same.
        operations: Of a batch for ours and for theirs, a multiply-add being two; None where they are not known.
    """

    name: str
    step: str
    ours: list[float]
    theirs: list[float]
    operations: tuple[float | None, float | None]


def main() -> None:
    """Time networks of tlkit.builders beside the same of keras.applications and print a Markdown table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--networks", nargs="+", choices=PAIRS, default=list(PAIRS), help="by default all")
    parser.add_argument("--batch_size", type=int, default=4, help="examples")
    parser.add_argument("--size", type=int, default=224, help="height and width of the input")
    parser.add_argument("--repeats", type=int, default=15, help="measurements of each network at most")
    parser.add_argument(
        "--budget", type=float, default=30, help=f"seconds after which {ENOUGH} measurements are enough"
    )
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="`cpu`: processor time of all threads")
    parser.add_argument("--precision", default="float32", help="Keras' dtype policy, such as mixed_bfloat16")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS), help="by default both")
    parser.add_argument("--seconds", type=float, default=0.2, help="least length of a measurement")
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import keras

    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(options.precision)
    rows, limit = [], 0.0
    for name in options.networks:
        limit = max(limit, matrix_product(options))
        rows += measure(PAIRS[name], options)
        keras.utils.clear_session()
        gc.collect()
    limit = max(limit, matrix_product(options))
    print("\n".join(table(rows, options.batch_size, limit)))
    counts = [len(row.ours) for row in rows]
    shape = f"{options.batch_size} x {options.size} x {options.size} x 3"
    print(f"\n{shape}, {options.clock} clock, {min(counts)} to {max(counts)} measurements of each.")
    print(f"Matrix products, {SIDE} x {SIDE}: {limit / 1e9:.0f} GFLOP/s. {surroundings(options.precision)}")


def measure(pair: Pair, options: argparse.Namespace) -> Iterator[Row]:
    """Build a pair of networks and time both, in turn, at inference and training."""
    import keras

    from tlkit import runtime

    shape = (options.size, options.size, 3)
    generator = np.random.default_rng(0)
    x = keras.ops.convert_to_tensor(generator.normal(size=(options.batch_size, *shape)).astype("float32"))
    y = keras.ops.convert_to_tensor(generator.integers(0, CLASSES, options.batch_size))
    models = build(pair, shape)
    for model in models:
        model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=runtime.jit_compile())
    for step in options.steps:
        call, passes = STEPS[step]
        calls = [lambda model=model, call=call: call(model, x, y) for model in models]
        ours, theirs = in_turn(calls, options)
        counts = [count(model) for model in models]
        operations = tuple(n and 2 * n * passes * options.batch_size for n in counts)
        print(f"{pair.variant}, {step}: {np.median(ours):.3f} s, {np.median(theirs):.3f} s", file=sys.stderr)
        yield Row(f"`{pair.variant}`, {pair.application}", step, ours, theirs, operations)


def build(pair: Pair, shape: tuple[int, ...]) -> tuple[Any, Any]:
    """Build ours and theirs, with the same work in front."""
    import keras

    from tlkit import builders

    theirs = getattr(keras.applications, pair.application)
    inputs = x = keras.Input(shape)
    if pair.preprocessed:
        x = keras.layers.Normalization()(keras.layers.Rescaling(1 / 255)(inputs))
    return (
        builders.build(pair.variant, input_tensor=x, classes=CLASSES, **pair.ours),
        theirs(weights=None, input_shape=shape, classes=CLASSES, **pair.theirs),
    )


def predict(model: Any, x: Any, _: Any) -> None:
    """Run the network on a batch."""
    model.predict_on_batch(x)


def train(model: Any, x: Any, y: Any) -> None:
    """Take one step of SGD on a batch."""
    model.train_on_batch(x, y)


STEPS = {"inference": (predict, 1), "training": (train, 3)}  # and how many forward passes' arithmetic it takes


def in_turn(calls: Sequence[Callable[[], None]], options: argparse.Namespace) -> list[list[float]]:
    """Time calls in turn, each round in the other order.

    Returns:
        For each call the seconds that one took, in each of the measurements.
    """
    clock = CLOCKS[options.clock]
    for call in calls:
        call()
    often = [max(1, round(options.seconds / timed(call, 1, time.perf_counter))) for call in calls]
    times: list[list[float]] = [[] for _ in calls]
    end = time.perf_counter() + options.budget
    for repeat in range(options.repeats):
        if repeat >= ENOUGH and time.perf_counter() > end:
            break
        for which in range(len(calls)) if repeat % 2 == 0 else reversed(range(len(calls))):
            times[which].append(timed(calls[which], often[which], clock))
    return times


def timed(call: Callable[[], None], often: int, clock: Callable[[], float]) -> float:
    """Give the seconds that a call takes, on average."""
    start = clock()
    for _ in range(often):
        call()
    return (clock() - start) / often


def matrix_product(options: argparse.Namespace) -> float:
    """Measure operations per second of plain matrix products, in the precision set; the best of some measurements."""
    import keras

    from tlkit import runtime

    products = [keras.layers.Dense(SIDE, use_bias=False) for _ in range(CHAIN)]
    model = keras.Sequential([keras.Input((SIDE,)), *products, keras.layers.Dense(1)])
    model.compile(jit_compile=runtime.jit_compile())
    x = keras.ops.convert_to_tensor(np.random.default_rng(0).normal(size=(SIDE, SIDE)).astype("float32"))
    few = argparse.Namespace(**{**vars(options), "repeats": ENOUGH})
    (times,) = in_turn([lambda: predict(model, x, None)], few)
    return 2 * CHAIN * SIDE**3 / min(times)


def count(model: Any) -> int | None:
    """Count the multiply-adds of one example."""
    from tlkit import arithmetic

    return arithmetic.totals(arithmetic.describe(model)).multiply_adds


def table(rows: list[Row], batch_size: int, limit: float) -> list[str]:
    """Give the lines of a Markdown table."""
    lines = ["| network, beside | step | ours, ms | theirs, ms | ours / theirs | G multiply-adds | of the limit |"]
    lines.append("|---|---|--:|--:|--:|--:|--:|")
    for row in rows:
        ratios = [mine / yours for mine, yours in zip(row.ours, row.theirs, strict=True)]
        low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
        ratio = f"{middle:.3f} ({low:.3f} – {high:.3f})"
        passes = 2e9 * batch_size * STEPS[row.step][1]
        work = " / ".join("?" if n is None else f"{n / passes:.2f}" for n in row.operations)
        shares = zip(row.operations, (row.ours, row.theirs), strict=True)
        share = " / ".join("?" if n is None else f"{n / np.median(times) / limit:.0%}" for n, times in shares)
        times = f"{1e3 * np.median(row.ours):.1f} | {1e3 * np.median(row.theirs):.1f}"
        lines.append(f"| {row.name} | {row.step} | {times} | {ratio} | {work} | {share} |")
    return lines


def surroundings(precision: str) -> str:
    """Name the processor, the backend and the versions."""
    from importlib import metadata

    import keras

    from tlkit import runtime

    backend = keras.backend.backend()
    named = f"{precision}, {backend} {metadata.version(backend)}, Keras {keras.__version__}"
    xla = {True: "with XLA", False: "without XLA", "auto": "XLA where Keras chooses it"}[runtime.jit_compile()]
    return f"{named}, {xla}, Python {platform.python_version()}, {accelerator()}."


def accelerator() -> str:
    """Name the device that computes."""
    from tlkit import runtime

    kind, _ = runtime.device()
    if kind != "cpu":
        return kind.upper()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{processor()}, {cores} cores"


def processor() -> str:
    """Give the processor's name."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
