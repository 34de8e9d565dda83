"""How many images a second a GPU trains: ResNet-50 by tlkit in each precision, beside timm's, and beside the hardware.

python benchmarks/gpu_training.py
KERAS_BACKEND=jax TLKIT_PEER_PYTHON=/path/to/python python benchmarks/gpu_training.py --precisions mixed_bfloat16

All weights are trained, BatchNormalization with batch statistics, by SGD with momentum, on one batch of noise over and
over: no photo is decoded. tlkit: `backbones.classifier`, `runtime.prepare` (which makes operations repeatable, as in
every recipe) and Keras' `fit`, with Keras' backends that are installed or the one in KERAS_BACKEND; each batch comes as
uint8 from the host. The peer: timm's resnet50 with torch.compile, channels last and autocast to bfloat16, its batch on
the GPU from the beginning; it runs in the interpreter that TLKIT_PEER_PYTHON names, if any. Each case has a process of
its own, and the largest batch, up to `--most`, that fits: tlkit's by `memory.batch_size`.

A step costs 3 times the forward pass, and a multiply-add is 2 operations, so an image at 224 pixels takes 6 x 3.86e9 in
Keras' network and 6 x 4.09e9 in timm's, which strides in the 3 x 3 convolutions. `share` is what of the GPU's peak that
makes: its dense peak in 16 bit, and half of it (TensorFloat-32) in float32, or what GPUs without that have. TensorFlow
and JAX use TensorFloat-32 for float32, PyTorch for its convolutions. Of a GPU that is not in the table the peak is the
rate of a large product of matrices in 16 bit, measured in the same run; that rate stands below in any case.

Memory has a roof too. Every layer's activations are at least written and read once in the forward pass, and they and
their gradients once more each in the backward pass, and normalization reads what it normalizes twice: with A bytes of
activations an image that is 6 A, unless a compiler fuses layers. `roof` is the lesser of what arithmetic and memory
allow, in images a second, and `of roof` how near the measured rate comes; above 100 % says that layers were fused.

Without a GPU it says so and ends; `--tiny` is a trial of the script at 32 pixels on whatever there is.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
TRAFFIC = 6  # times the bytes of all activations that a step moves, at least, where no layers are fused


class Gpu(NamedTuple):
    """What NVIDIA's data sheet says: 1e12 operations a second, dense, in 16 and 32 bit, and GB of memory a second."""

    half: float
    single: float
    memory: float


# By words of the name that nvidia-smi gives, the more special ones first.
GPUS = {
    "H100 PCIe": Gpu(756, 378, 2000),
    "H100 NVL": Gpu(835, 417.5, 3900),
    "H100": Gpu(989, 494.5, 3350),
    "GH200": Gpu(989, 494.5, 4000),
    "H200": Gpu(989, 494.5, 4800),
    "A100 80GB": Gpu(312, 156, 1935),
    "A100": Gpu(312, 156, 1555),
    "A30": Gpu(165, 82, 933),
    "L40S": Gpu(362, 183, 864),
    "L4": Gpu(121, 60, 300),
    "V100": Gpu(125, 15.7, 900),  # this and the next have no TensorFloat-32
    "T4": Gpu(65, 8.1, 320),
}


def main() -> None:
    """Run each case in a process of its own and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--most", type=int, default=1024, help="largest batch to try, a power of two of at least 32")
    parser.add_argument("--steps", type=int, default=30, help="that are timed")
    parser.add_argument("--size", type=int, default=224, help="height and width in pixels")
    parser.add_argument("--alone", action="store_true", help="without the peer")
    parser.add_argument("--tiny", action="store_true", help="a trial at 32 pixels; no measurement")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.tiny:
        options.size, options.most, options.steps = 32, 32, 2
    if options.case:
        line = {"timm": timm_peer, "product": product}.get(options.case, ours)(options)
        print(json.dumps(line))
        return
    gpu = gpu_name()
    if gpu is None and not options.tiny:
        print("no GPU here (nvidia-smi names none): nothing is measured; --tiny tries the script")
        return
    wanted = os.environ.get("KERAS_BACKEND")
    backends = [b for b in ("tensorflow", "jax", "torch") if (wanted or b) == b and importlib.util.find_spec(b)]
    if not backends:
        raise SystemExit(f"KERAS_BACKEND is {wanted!r}: neither it nor another backend of Keras is installed")
    measured = child(options, "product", sys.executable, backends[0])
    if "skipped" in measured:
        raise SystemExit(f"{backends[0]}: {measured['skipped']}")
    known = data_sheet(gpu or "")
    peaks = known or Gpu(measured["teraflops"], measured["teraflops"] / 2, float("inf"))
    print(f"{gpu or 'CPU'}, {options.size} x {options.size} pixels; peak in 16 bit: {peaks.half:.4g} TFLOP/s", end=", ")
    print(f"memory {peaks.memory:,.0f} GB/s (data sheet)" if known else "measured, below; memory unknown")
    heads = ("images/s", "ms a step", "TFLOP/s", "share", "roof", "of roof", "memory GB")
    print(f"\n{'':<32}{'batch':>7}" + "".join(f"{head:>11}" for head in heads))
    for backend in backends:
        for precision in options.precisions:
            show(f"tlkit, {backend}, {precision}", child(options, precision, sys.executable, backend), peaks)
    if not options.alone:
        python = os.environ.get("TLKIT_PEER_PYTHON") or sys.executable
        show("timm, torch.compile, bfloat16", child(options, "timm", python), peaks)
    print(f"\na product of matrices in bfloat16, {backends[0]}: {measured['teraflops']:.4g} TFLOP/s")


def data_sheet(gpu: str) -> Gpu | None:
    """Look a GPU up by the name that the driver gives.

    >>> data_sheet("NVIDIA L40S").half, data_sheet("NVIDIA H100 NVL").half, data_sheet("NVIDIA L40")
    (362, 835, None)
    """
    words = re.split(r"[\s-]+", gpu)
    return next((row for name, row in GPUS.items() if set(name.split()) <= set(words)), None)


def show(name: str, line: dict[str, Any], peaks: Gpu) -> None:
    """Print one row."""
    if "skipped" in line:
        print(f"{name:<32}{line['skipped']}", flush=True)
        return
    rate = line["batch"] / line["seconds"]
    done = rate * 6 * line["multiply_adds"] / 1e12
    peak = peaks.single if name.endswith("float32") else peaks.half
    moved = TRAFFIC * line["activations"]
    roof = min(peak * 1e12 / (6 * line["multiply_adds"]), peaks.memory * 1e9 / moved)
    memory = f"{line['memory_gb']:.1f}" if line["memory_gb"] else "-"
    cells = [f"{rate:,.1f}", f"{1000 * line['seconds']:.1f}", f"{done:.3g}", f"{done / peak:.1%}"]
    cells += [f"{roof:,.0f}", f"{rate / roof:.0%}", memory]
    print(f"{name:<32}{line['batch']:>7}" + "".join(f"{cell:>11}" for cell in cells), flush=True)


def gpu_name() -> str | None:
    """Ask the driver for the name of the first GPU."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    asked = [program, "--query-gpu=name", "--format=csv,noheader"]
    done = subprocess.run(asked, capture_output=True, text=True)  # noqa: S603 (the driver's own program)
    return done.stdout.splitlines()[0].strip() if done.returncode == 0 and done.stdout.strip() else None


def child(options: argparse.Namespace, case: str, python: str, backend: str | None = None) -> dict[str, Any]:
    """Run one case and read the last line that it prints."""
    command = [python, __file__, "--case", case, "--most", str(options.most), "--steps", str(options.steps)]
    command += ["--size", str(options.size), *(["--tiny"] if options.tiny else [])]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "XLA_PYTHON_CLIENT_PREALLOCATE": "true"}
    environment |= {"KERAS_BACKEND": backend} if backend else {}
    # The checkout may not be installed where the GPU is.
    environment["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(command, capture_output=True, text=True, env=environment)  # noqa: S603 (our own program)
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
        return {"skipped": f"failed: {(done.stderr.strip().splitlines() or ['without a word'])[-1][:80]}"}
    return json.loads(done.stdout.splitlines()[-1])


def ours(options: argparse.Namespace) -> dict[str, Any]:
    """Train by tlkit and Keras' `fit`."""
    import keras
    import numpy as np

    from tlkit import arithmetic, backbones, runtime
    from tlkit.training import memory

    if not options.tiny and runtime.device()[0] != "gpu":
        return {"skipped": f"{keras.backend.backend()} sees no GPU: install it with CUDA"}
    runtime.prepare(0, options.case)
    classes = 1000
    whole = backbones.classifier(backbones.build("ResNet50", (options.size, options.size, 3), "none"), classes, 0.0)
    model = keras.Model(whole.inputs, whole.get_layer("head").output)
    model.compile(
        keras.optimizers.SGD(0.01, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=runtime.jit_compile(),
    )
    batch = memory.batch_size(model, (options.size, options.size, 3), classes, memory.STEPS * options.most)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (batch, options.size, options.size, 3), dtype=np.uint8)
    labels = rng.integers(0, classes, batch)

    class Repeated(keras.utils.PyDataset):
        def __len__(self) -> int:
            return options.steps

        def __getitem__(self, index: int) -> Any:
            return pixels, labels

    class Clock(keras.callbacks.Callback):
        seconds: float  # of the last epoch; its logs are fetched at the end, so all its work is done

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.began = time.perf_counter()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.seconds = time.perf_counter() - self.began

    clock = Clock()
    forget_peak(keras.backend.backend())
    model.fit(Repeated(), epochs=2, verbose=0, callbacks=[clock])  # the first compiles
    return {
        "batch": batch,
        "seconds": clock.seconds / options.steps,
        "multiply_adds": arithmetic.totals(arithmetic.describe(whole)).multiply_adds,
        "activations": memory.activations(whole),
        "memory_gb": used_memory(keras.backend.backend()),
    }


def forget_peak(backend: str) -> None:
    """Begin to count the most memory anew: the search for the batch has used more. JAX cannot."""
    framework = importlib.import_module(backend)
    if backend == "torch" and framework.cuda.is_available():
        framework.cuda.reset_peak_memory_stats()
    elif backend == "tensorflow" and framework.config.list_physical_devices("GPU"):
        framework.config.experimental.reset_memory_stats("GPU:0")


def used_memory(backend: str) -> float | None:
    """Give the most that was in use on the GPU at a time, in GB; None on a CPU."""
    framework = importlib.import_module(backend)
    if backend == "torch":
        return framework.cuda.max_memory_allocated() / 1e9 if framework.cuda.is_available() else None
    if backend == "jax":
        told = framework.devices()[0].memory_stats()
        return told["peak_bytes_in_use"] / 1e9 if told else None
    if not framework.config.list_physical_devices("GPU"):
        return None
    return framework.config.experimental.get_memory_info("GPU:0")["peak"] / 1e9


def product(options: argparse.Namespace) -> dict[str, Any]:
    """Time a large product of matrices in bfloat16."""
    import keras
    import numpy as np

    from tlkit import runtime

    if not options.tiny and runtime.device()[0] != "gpu":
        return {"skipped": "it sees no GPU: install it with CUDA"}
    side, count = (256, 2) if options.tiny else (8192, 20)
    layers = [keras.layers.Dense(side, use_bias=False, dtype="mixed_bfloat16") for _ in range(count)]
    ends = keras.layers.Dense(side, dtype="mixed_bfloat16"), keras.layers.Dense(1)  # little comes and goes by the bus
    model = keras.Sequential([keras.Input((1,)), ends[0], *layers, ends[1]])
    model.compile(jit_compile=runtime.jit_compile())
    x = np.ones((side, 1), "float32")
    model.predict_on_batch(x)
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        model.predict_on_batch(x)
        seconds.append(time.perf_counter() - began)
    return {"teraflops": count * 2 * side**3 / min(seconds) / 1e12}


def timm_peer(options: argparse.Namespace) -> dict[str, Any]:
    """Train as a user of timm would who looks for speed."""
    try:
        import timm
        import torch
    except ImportError as error:
        return {"skipped": f"{error}: name an interpreter that has it in TLKIT_PEER_PYTHON"}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not options.tiny:
        return {"skipped": "torch sees no GPU: install it with CUDA"}
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    size = options.size

    def rate(batch: int) -> tuple[float, float | None]:
        """Seconds a step, and the most memory in use."""
        torch.compiler.reset()
        if device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        model = timm.create_model("resnet50", num_classes=1000).to(device, memory_format=torch.channels_last).train()
        compiled = torch.compile(model, backend="eager" if options.tiny else "inductor")
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        pixels = torch.randn(batch, 3, size, size, device=device).to(memory_format=torch.channels_last)
        labels = torch.randint(0, 1000, (batch,), device=device)

        def step() -> Any:
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device, torch.bfloat16):
                loss = torch.nn.functional.cross_entropy(compiled(pixels), labels)
            loss.backward()
            optimizer.step()
            return loss

        for _ in range(3):
            step().item()
        began = time.perf_counter()
        for _ in range(options.steps):
            loss = step()
        loss.item()  # waits for all of them
        seconds = (time.perf_counter() - began) / options.steps
        return seconds, torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else None

    batch, (seconds, memory) = 32, rate(32)
    while 2 * batch <= options.most:
        try:
            gc.collect()
            seconds, memory = rate(2 * batch)
        except torch.OutOfMemoryError:
            break
        batch *= 2
    return {
        "batch": batch,
        "seconds": seconds,
        "multiply_adds": 4.09e9 * (size / 224) ** 2,
        "activations": 2 * layer_outputs(timm.create_model("resnet50", num_classes=1000), size),  # bytes, in bfloat16
        "memory_gb": memory,
    }


def layer_outputs(model: Any, size: int) -> int:
    """Count the numbers that all layers of a PyTorch network give for one image; additions are no layers there."""
    import torch

    numbers: list[int] = []
    for layer in model.modules():
        if not list(layer.children()):
            layer.register_forward_hook(lambda layer, given, output: numbers.append(output.numel()))
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, size, size))
    return sum(numbers)


if __name__ == "__main__":
    main()
