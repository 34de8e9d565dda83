"""What low-rank adaptation takes and gives, beside fine-tuning of all and of the last stage: time, memory, accuracy.

python benchmarks/low_rank.py --data pets2 trash             # folders with train/CLASS/*.jpg and test/CLASS/*.jpg
python benchmarks/low_rank.py --data trash --networks "MobileNet 0.75" --seeds 3
python benchmarks/low_rank.py --step vit_b_16                # a step on two photos of a transformer with random weights

Each run is a process of its own, one after the other, and prints a row. `cpu s` is the processor time of all threads
during ten epochs of `training.fine_tune`, the solved head included. `peak MB` is the most memory that the process
had beyond what it had when the photos and the network were loaded. The photos of test/ are the test; a share of train/
validates.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from finetuning import NETWORKS

SIZE = 96
WAYS: dict[str, dict[str, Any]] = {
    "solved head": {"epochs": 0},
    "last stage": {"unfreeze_from": "stage4"},
    "all": {},
    "rank 8": {"lora_rank": 8},
    "rank 8, last stage": {"lora_rank": 8, "unfreeze_from": "stage4"},
}
COLUMNS = "| data | network | way | seed | learn | test accuracy | log loss | kept | cpu s | peak MB |"


def main() -> None:
    """Run all, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="*", type=Path, default=[])
    parser.add_argument("--networks", nargs="*", choices=NETWORKS, default=["MobileNetV2 0.35", "MobileNet 0.75"])
    parser.add_argument("--ways", nargs="*", choices=WAYS, default=list(WAYS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--step", help="a network of tlkit.builders, such as vit_b_16")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(run(**json.loads(options.child))))
        return
    if options.step:
        print("| network | way | learn | cpu s a step | peak MB |\n|---|---|---|---|---|", flush=True)
        for way in [way for way in options.ways if way != "solved head"]:
            line = start(step=options.step, way=way)
            print("| {network} | {way} | {learn:,} | {cpu:.1f} | {peak:.0f} |".format(**line), flush=True)
        return
    print(COLUMNS + "\n" + "|---" * COLUMNS.count(" |") + "|", flush=True)
    for seed in range(options.seeds):
        for folder in options.data:
            for network in options.networks:
                for way in options.ways:
                    line = start(folder=str(folder.resolve()), network=network, way=way, seed=seed)
                    print(
                        "| {data} | {network} | {way} | {seed} | {learn:,} | {accuracy:.3f} | {loss:.3f} | {kept} | "
                        "{cpu:.0f} | {peak:.0f} |".format(**line),
                        flush=True,
                    )


def start(**arguments: Any) -> dict[str, Any]:
    """Do one run in a process of its own."""
    command = [sys.executable, __file__, "--child", json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603, our own file
    if done.returncode:
        raise SystemExit(f"{arguments} failed:\n{done.stderr[-3000:]}")
    line: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return line


def run(**arguments: Any) -> dict[str, Any]:
    """Do what a child is asked for."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    return one_step(**arguments) if "step" in arguments else fine_tuned(**arguments)


def fine_tuned(folder: str, network: str, way: str, seed: int) -> dict[str, Any]:
    """Fine-tune a network and score it."""
    import keras

    from tlkit import backbones, data, training

    name, alpha = NETWORKS[network]
    splits = data.load("folder", path=folder, size=(SIZE, SIZE), channels=3)
    keras.utils.set_random_seed(seed)
    backbone = backbones.build(name, (SIZE, SIZE, 3), weights(name, alpha), alpha)
    model = backbones.classifier(backbone, len(splits.classes), pooled_stages=2)
    model.predict(np.zeros((1, SIZE, SIZE, 3), "float32"), verbose=0)
    before, cpu = memory(), time.process_time()
    history = training.fine_tune(model, splits, augment={"flip": True}, seed=seed, **{"epochs": 10, **WAYS[way]})
    cpu = time.process_time() - cpu
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before) / 1e6
    outputs, labels = training.predict(model, splits.test), splits.test.labels
    share = f"{history.best.get('kept', 1):g} of {history.best['phase']}" if WAYS[way] != {"epochs": 0} else ""
    return {
        "data": Path(folder).name,
        "network": network,
        "way": way,
        "seed": seed,
        "learn": learning(model, way),
        "accuracy": float((outputs.argmax(axis=1) == labels).mean()),
        "loss": float(-np.log(np.maximum(outputs[np.arange(len(labels)), labels], 1e-12)).mean()),
        "kept": share,
        "cpu": cpu,
        "peak": peak,
    }


def one_step(step: str, way: str) -> dict[str, Any]:
    """Take a step of a transformer with random weights: time and memory do not depend on them."""
    import keras

    from tlkit import backbones, builders, training

    network = builders.build(step, (224, 224, 3), include_top=False)
    model = backbones.classifier(keras.Model(network.input, network.output, name="backbone"), 5)
    rng = np.random.default_rng(0)
    pixels, labels = rng.uniform(0, 255, (2, 224, 224, 3)).astype("float32"), rng.integers(0, 5, 2)
    model.predict(pixels[:1], verbose=0)
    stage, rank = WAYS[way].get("unfreeze_from"), WAYS[way].get("lora_rank")
    backbones.unfreeze(model, from_stage=stage)
    before = memory()
    with backbones.low_rank(model, rank):
        logits = training.to_logits(model)
        training.compiled(logits, training.Settings(1, 1e-4), 1e-4)
        logits.train_on_batch(pixels, labels)  # compiles
        cpu = time.process_time()
        logits.train_on_batch(pixels, labels)
        cpu = time.process_time() - cpu
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before) / 1e6
    return {"network": step, "way": way, "learn": learning(model, way), "cpu": cpu, "peak": peak}


def learning(model: Any, way: str) -> int:
    """Count the weights that learn."""
    from tlkit import backbones

    changes = WAYS[way]
    if "epochs" in changes:
        backbones.freeze(model)
    else:
        backbones.unfreeze(model, from_stage=changes.get("unfreeze_from"))
    with backbones.low_rank(model, changes.get("lora_rank")):
        return int(sum(np.prod(variable.shape) for variable in model.trainable_variables))


def weights(name: str, alpha: float) -> str:
    """Find the weights that Keras has for 224 pixels, which do for others too."""
    file = f"mobilenet_{f'{alpha:.2f}'[2]}_5_224_tf_no_top.h5"
    if name == "MobileNetV2":
        file = f"mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{alpha}_224_no_top.h5"
    return str(Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "models" / file)


def memory() -> int:
    """Give the bytes of memory that the process has now."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    main()
