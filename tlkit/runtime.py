"""What a run needs before the first tensor: its seed, its precision, and what the machine is."""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import re
import shutil
import subprocess
import sys
from importlib import metadata
from typing import Any, Literal

import keras


def prepare(seed: int, precision: str = "auto") -> str:
    """Seed every generator, make operations repeatable and set Keras' dtype policy.

    With TensorFlow on a GPU operations are repeatable up to rounding alone: XLA, which makes training faster there,
    refuses what TensorFlow calls deterministic.

    Args:
        seed: From 0 to 2**32 - 1.
        precision: `auto`, `float32`, `mixed_bfloat16` or `mixed_float16`.

    Returns:
        The precision that was set, never `auto`.
    """
    _keep_imports()
    keras.utils.set_random_seed(seed)
    if keras.backend.backend() == "tensorflow":
        if device()[0] == "cpu":
            importlib.import_module("tensorflow").config.experimental.enable_op_determinism()
    elif keras.backend.backend() == "torch":
        importlib.import_module("torch").use_deterministic_algorithms(True, warn_only=True)
    chosen = best_precision() if precision == "auto" else precision
    keras.config.set_dtype_policy(chosen)
    return chosen


@functools.cache  # once: what runs leave behind is to be collected
def _keep_imports() -> None:
    """Look for garbage no more among what imports have made, which took 0.4 s each time with TensorFlow and MLflow."""
    gc.freeze()


def best_precision() -> Literal["float32", "mixed_float16", "mixed_bfloat16"]:
    """Give `mixed_bfloat16` on a GPU that has it (compute capability 8) or a TPU, `mixed_float16` on an older GPU, else
    `float32`: on a CPU, half precision is emulated for most operations.
    """
    kind, capability = device()
    if kind == "tpu":
        return "mixed_bfloat16"
    if kind == "gpu":
        return "mixed_bfloat16" if capability >= (8, 0) else "mixed_float16"
    return "float32"


def device() -> tuple[str, tuple[int, int]]:
    """Give the kind of the device that Keras computes on, `cpu`, `gpu` or `tpu`, and a GPU's compute capability."""
    backend = keras.backend.backend()
    found: Any = importlib.import_module("tensorflow" if backend == "tensorflow" else backend)
    if backend == "tensorflow":
        if gpus := found.config.list_physical_devices("GPU"):
            return "gpu", found.config.experimental.get_device_details(gpus[0]).get("compute_capability", (0, 0))
        return ("tpu" if found.config.list_physical_devices("TPU") else "cpu"), (0, 0)
    if backend == "torch":
        return ("gpu", found.cuda.get_device_capability()) if found.cuda.is_available() else ("cpu", (0, 0))
    if backend == "jax":
        first = found.devices()[0]
        capability = re.fullmatch(r"(\d+)\.(\d+)", str(getattr(first, "compute_capability", "")))
        return first.platform, (int(capability[1]), int(capability[2])) if capability else (0, 0)
    return "cpu", (0, 0)


def jit_compile() -> bool | str:
    """Say whether `compile` should use XLA: not on a CPU with TensorFlow, where it makes these networks 3-6x slower."""
    return False if keras.backend.backend() == "tensorflow" and device()[0] == "cpu" else "auto"


def environment() -> dict[str, str]:
    """Give what a result depends on beside the config: Python, the backend, the device and the packages' versions, and
    the commit of the working folder, with `-dirty` where files have changed since; no commit where there is no git.
    """
    packages = ("tlkit", "keras", "tensorflow", "jax", "torch", "openvino", "mlflow", "numpy", "pillow", "scikit-learn")
    versions = {}
    for name in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {
        "python": ".".join(map(str, sys.version_info[:3])),
        "backend": keras.backend.backend(),
        "device": device()[0],
        **versions,
        **_commit(),
    }


def _commit() -> dict[str, str]:
    git = shutil.which("git")
    if git is None:
        return {}
    command = [git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        found = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=5, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return {"git_commit": found.stdout.strip()} if found.returncode == 0 else {}
