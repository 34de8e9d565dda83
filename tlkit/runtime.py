"""Settings of a run before its first tensor: seed and precision; and a description of the machine."""

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
    policy = best_precision() if precision == "auto" else precision
    keras.config.set_dtype_policy(policy)
    return policy


@functools.cache  # once: later, what runs leave behind must be collected
def _keep_imports() -> None:
    """Exclude the objects of imports from garbage collection, which took 0.4 s each time with TensorFlow and MLflow."""
    gc.freeze()


def best_precision() -> Literal["float32", "mixed_float16", "mixed_bfloat16"]:
    """Choose the precision for the device.

    `mixed_bfloat16` on a GPU that has it (compute capability 8) or a TPU, `mixed_float16` on an older GPU, else
    `float32`: on a CPU, half precision is emulated for most operations.
    """
    kind, capability = device()
    if kind == "tpu":
        return "mixed_bfloat16"
    if kind == "gpu":
        return "mixed_bfloat16" if capability >= (8, 0) else "mixed_float16"
    return "float32"


def device() -> tuple[str, tuple[int, int]]:
    """Return the kind of the device that Keras computes on, `cpu`, `gpu` or `tpu`, and a GPU's compute capability."""
    backend = keras.backend.backend()
    framework: Any = importlib.import_module(backend) if backend in ("tensorflow", "torch", "jax") else None
    if backend == "tensorflow":
        if gpus := framework.config.list_physical_devices("GPU"):
            return "gpu", framework.config.experimental.get_device_details(gpus[0]).get("compute_capability", (0, 0))
        return ("tpu" if framework.config.list_physical_devices("TPU") else "cpu"), (0, 0)
    if backend == "torch":
        return ("gpu", framework.cuda.get_device_capability()) if framework.cuda.is_available() else ("cpu", (0, 0))
    if backend == "jax":
        first = framework.devices()[0]
        capability = re.fullmatch(r"(\d+)\.(\d+)", str(getattr(first, "compute_capability", "")))
        return first.platform, (int(capability[1]), int(capability[2])) if capability else (0, 0)
    return "cpu", (0, 0)


def jit_compile() -> bool | str:
    """Decide whether `compile` should use XLA: not with TensorFlow on a CPU, where networks become 3-6 times slower."""
    return False if keras.backend.backend() == "tensorflow" and device()[0] == "cpu" else "auto"


def environment() -> dict[str, str]:
    """Describe what a result depends on besides the config.

    Python, the backend, the device and the packages' versions, and the commit of the working folder, with `-dirty`
    where files have changed since; no commit where there is no git.
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
        result = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=5, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return {"git_commit": result.stdout.strip()} if result.returncode == 0 else {}
