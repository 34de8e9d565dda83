"""What others' tools take for the work that feature_extraction.py, finetune_boundary.py and finetuning.py measure.

python benchmarks/_peers.py NAME --train data/train --test data/val

Those start it once for each peer, in a process of its own, so that the peak of memory is the peer's and no other
framework's threads are in its way. It prints one line of JSON. Nothing of tlkit is imported: each function is what a
user of the other tool would write. All begin with folders of JPEG files, one folder a class, and end with what they
have learned tested on the other folder.

- `keras-guide`: https://keras.io/guides/transfer_learning, a new top on a frozen network, tested after each epoch.
- `keras-predict-sklearn`: the features of `predict`, and scikit-learn's logistic regression, which chooses its penalty.
- `keras-last-stage`: the guide's second half, fine-tuning, for the network's last stage alone.
- `keras-finetune`: both halves of the guide: the new top, then everything at a low rate; augmented, as the guide does.
- `timm-frozen-head`: a linear layer on a frozen network of timm, which runs again in each epoch. Random weights.
- `openvino-bare`: the limit of the forward pass: photos decoded before, the best batch and streams found before.
- `-bf16`: the same in bfloat16, where the processor has it.

The line's keys: `seconds` is all the work but the imports, and `parts` is what it consists of, `epoch` apart, which is
the median of those in `fit` after the first. `photos_per_second` is the rate of the pass that makes the features, with
its compilation, and `warm_photos_per_second` the rate after it; OpenVINO's is always warm. `cpu_seconds` is the
processor time of all threads, also that for checks outside `seconds`: look at it where other programs compete. A peer
that cannot run here gives `skipped` and the reason.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

BATCH = 32
Parts = dict[str, float]


class Peer(NamedTuple):
    """One peer.

    Args:
        run: Does the work and fills in the seconds of its parts; gives more of the line's keys.
        imports: Modules to import before the clock starts.
        arguments: Of `run`, beside the options and the parts.
    """

    run: Callable[..., dict[str, Any]]
    imports: tuple[str, ...]
    arguments: dict[str, Any] = {}  # noqa: RUF012, never changed


def main() -> None:
    """Run one peer and print one line of JSON."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("name", choices=PEERS, metavar="NAME", help=", ".join(PEERS))
    parser.add_argument("--train", type=Path, required=True, help="folder with a folder of photos for each class")
    parser.add_argument("--test", type=Path, required=True, help="the same, for the accuracy")
    parser.add_argument("--size", type=int, default=224, help="height and width in pixels")
    parser.add_argument("--network", choices=("MobileNet", "MobileNetV2"), default="MobileNet")
    parser.add_argument("--alpha", type=float, default=0.75, help="the network's width multiplier")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, help="by default 10 (each phase), and 3 for the last stage")
    parser.add_argument("--once", action="store_true", help="keras-finetune: test at the end, not after each epoch")
    options = parser.parse_args()
    with contextlib.redirect_stdout(sys.stderr):  # progress bars, and the like
        line = measure(options.name, options)
    print(json.dumps(rounded(line)))


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Import what the peer needs, run it and give the line."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # which sends, and slows the conversion
    peer = PEERS[name]
    start = time.perf_counter()
    try:
        for module in peer.imports:
            importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = (error.name or "something").split(".")[0]
        return {"peer": name, "skipped": f"{missing} is not installed"}
    imported, cpu = time.perf_counter(), time.process_time()
    parts: Parts = {}
    found = peer.run(options, parts, **peer.arguments)
    cpu = time.process_time() - cpu
    if "skipped" in found:
        return {"peer": name, **found}
    return {
        "peer": name,
        "seconds": sum(seconds for key, seconds in parts.items() if key != "epoch"),
        "cpu_seconds": cpu,
        "parts": parts,
        "accuracy": None,
        "photos_per_second": None,
        "peak_memory_mb": peak_memory(),
        "disk_mb": 0,
        "import_seconds": imported - start,
        **found,
    }


def keras_guide(options: argparse.Namespace, parts: Parts) -> dict[str, Any]:
    """Train a new top on a frozen network by `fit`, with the photos in memory."""
    import keras

    keras.utils.set_random_seed(options.seed)
    with part(parts, "decode"):
        train, test = (folder(path, options, shuffle=path == options.train) for path in (options.train, options.test))
    with part(parts, "build"):
        _, model = guide_model(options, len(classes(options.train)))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(), loss, metrics=["accuracy"])
    with part(parts, "fit"):
        history = model.fit(train, epochs=options.epochs or 10, validation_data=test).history
    return {"accuracy": history["val_accuracy"][-1], "losses": history["loss"]}


def keras_predict(options: argparse.Namespace, parts: Parts) -> dict[str, Any]:
    """Solve a logistic regression on the features that `predict` gives."""
    import keras
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    keras.utils.set_random_seed(options.seed)
    with part(parts, "decode"):
        train, test = (folder(path, options) for path in (options.train, options.test))
        y, y_test = (np.concatenate([labels for _, labels in dataset]) for dataset in (train, test))
    with part(parts, "build"):
        model = feature_model(options)
    with part(parts, "features"):
        x, x_test = model.predict(train), model.predict(test)
    with part(parts, "solve"):
        classifier = make_pipeline(StandardScaler(), LogisticRegressionCV(Cs=10, cv=5, max_iter=1000))
        accuracy = classifier.fit(x, y).score(x_test, y_test)
    again: Parts = {}
    with part(again, "warm"):
        model.predict(test)
    return {
        "accuracy": accuracy,
        "photos_per_second": (len(x) + len(x_test)) / parts["features"],
        "warm_photos_per_second": len(x_test) / again["warm"],
    }


def keras_last_stage(options: argparse.Namespace, parts: Parts) -> dict[str, Any]:
    """Fine-tune the last stage through the frozen layers before, with the normalization's averages left alone."""
    import keras

    keras.utils.set_random_seed(options.seed)
    with part(parts, "decode"):
        x, y = decode(options.train, options)
        x_test, y_test = decode(options.test, options)
    with part(parts, "build"):
        base, model = guide_model(options, len(classes(options.train)))
        base.trainable = True
        first = base.layers.index(base.get_layer("conv_dw_12"))
        for i, layer in enumerate(base.layers):
            layer.trainable = i >= first and not isinstance(layer, keras.layers.BatchNormalization)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.AdamW(1e-4), loss, metrics=["accuracy"])
    ends: list[float] = []
    clock = keras.callbacks.LambdaCallback(
        on_train_begin=lambda logs: ends.append(time.perf_counter()),
        on_epoch_end=lambda epoch, logs: ends.append(time.perf_counter()),
    )
    with part(parts, "fit"):
        history = model.fit(x, y, batch_size=BATCH, epochs=options.epochs or 3, callbacks=[clock]).history
    with part(parts, "evaluate"):
        _, accuracy = model.evaluate(x_test, y_test)
    epochs = np.diff(ends)
    parts["epoch"] = float(np.median(epochs[1:] if len(epochs) > 1 else epochs))  # the first one compiles
    return {"accuracy": accuracy, "losses": history["loss"], "epochs": epochs.tolist()}


def keras_finetune(options: argparse.Namespace, parts: Parts) -> dict[str, Any]:
    """Train a new top, then everything at a low rate, on augmented photos; all are in memory, unlike in the guide."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(options.seed)
    began = time.perf_counter()
    with part(parts, "decode"):
        photos, test = folder(options.train, options, batch=None), folder(options.test, options)
        flip, turn = keras.layers.RandomFlip("horizontal"), keras.layers.RandomRotation(0.1)
        train = photos.shuffle(photos.cardinality(), seed=options.seed).batch(BATCH)
        train = train.map(lambda x, y: (turn(flip(x, training=True), training=True), y), tf.data.AUTOTUNE)
        train = train.prefetch(tf.data.AUTOTUNE)
    with part(parts, "build"):
        base, model = guide_model(options, len(classes(options.train)))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    trace: list[dict[str, Any]] = []
    pauses: list[float] = []

    def check(phase: str) -> None:
        stopped = time.perf_counter()
        _, accuracy = model.evaluate(test, verbose=0)
        trace.append({"phase": phase, "seconds": stopped - began - sum(pauses), "accuracy": accuracy})
        pauses.append(time.perf_counter() - stopped)

    for phase, rate in (("head", 1e-3), ("full", 1e-5)):
        base.trainable = phase == "full"
        model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
        tested = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs, phase=phase: check(phase))
        before = sum(pauses)
        with part(parts, phase):
            model.fit(train, epochs=options.epochs or 10, callbacks=[] if options.once else [tested])
        parts[phase] -= sum(pauses) - before
    with part(parts, "evaluate"):
        outputs = model.predict(test)
    labels = np.concatenate([y.numpy() for _, y in test])
    probabilities = keras.ops.convert_to_numpy(keras.ops.softmax(outputs))
    order = np.argsort([hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in test_files(options)])
    right = (outputs.argmax(axis=1) == labels)[order]
    return {
        "accuracy": float(right.mean()),
        "trace": trace,
        "correct": right.astype(int).tolist(),  # of each test photo, by the SHA-256 of its file
        "probability": probabilities[np.arange(len(labels)), labels][order].tolist(),  # of the right class, likewise
    }


def openvino_bare(options: argparse.Namespace, parts: Parts, precision: str) -> dict[str, Any]:
    """Run the network alone on photos that are in memory, as fast as OpenVINO can."""
    import keras
    import openvino
    import tensorflow as tf

    core = openvino.Core()
    if precision.upper() not in ("F32", *core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")):
        return {"skipped": f"the processor has no {precision}"}
    keras.utils.set_random_seed(options.seed)
    with part(parts, "decode"):
        photos = np.concatenate([decode(path, options)[0] for path in (options.train, options.test)])
    with part(parts, "build"):
        model = feature_model(options)
    with part(parts, "convert"):
        signature = tf.TensorSpec((None, options.size, options.size, 3), tf.uint8)
        function = tf.function(lambda x: model(tf.cast(x, tf.float32), training=False), input_signature=[signature])
        network = openvino.convert_model(function.get_concrete_function())
    best: tuple[float, int, str] = (0.0, 0, "")
    with part(parts, "tune"):
        for batch in (4, 8, 16):
            for streams in ("", "1", "2"):
                compiled = compile_network(core, network, batch, streams, precision)
                passed(compiled, photos[: 2 * batch])
                start = time.perf_counter()
                few = passed(compiled, photos[:160])
                best = max(best, (len(few) / (time.perf_counter() - start), batch, streams))
    _, batch, streams = best
    compiled = compile_network(core, network, batch, streams, precision)
    passed(compiled, photos[: 2 * batch])
    with part(parts, "features"):
        features = passed(compiled, photos)
    peak = peak_memory()  # before the check, in which Keras takes more
    some = slice(None, None, max(1, len(photos) // 64))
    mine, theirs = features[some][:64], model.predict(photos[some][:64].astype("float32"))
    norms = np.linalg.norm(mine, axis=1) * np.linalg.norm(theirs, axis=1)
    return {
        "photos_per_second": len(photos) / parts["features"],
        "peak_memory_mb": peak,
        "min_cosine": float(np.min(np.sum(mine * theirs, axis=1) / norms)),
        "batch": batch,
        "streams": int(compiled.get_property("NUM_STREAMS")),
    }


def compile_network(core: Any, network: Any, batch: int, streams: str, precision: str) -> Any:
    """Compile a converted network for one batch size; `streams`: how many run at once, or empty for its own choice."""
    _, height, width, channels = network.inputs[0].partial_shape
    network.reshape([batch, height, width, channels])
    more = {"NUM_STREAMS": streams} if streams else {}
    hints = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": precision}
    return core.compile_model(network, "CPU", {**hints, **more})


def passed(compiled: Any, photos: np.ndarray) -> np.ndarray:
    """Give the features of all photos; the last batch reaches back, as the compiled network takes full ones alone."""
    import openvino

    batch = compiled.inputs[0].shape[0]
    features = np.empty((len(photos), compiled.outputs[0].shape[1]), "float32")
    queue = openvino.AsyncInferQueue(compiled)

    def store(request: Any, first: int) -> None:
        features[first : first + batch] = request.get_output_tensor().data

    queue.set_callback(store)
    for start in range(0, len(photos), batch):
        first = min(start, len(photos) - batch)
        queue.start_async(photos[first : first + batch], first)
    queue.wait_all()
    return features


def timm_frozen_head(options: argparse.Namespace, parts: Parts) -> dict[str, Any]:
    """Train a linear layer on a frozen network that runs again for each batch; its weights are random."""
    import torch
    from timm.models import efficientnet

    torch.manual_seed(options.seed)
    with part(parts, "decode"):
        (x, y), (x_test, y_test) = (
            map(torch.from_numpy, read(path, options)) for path in (options.train, options.test)
        )
    with part(parts, "build"):
        # what timm.create_model("mobilenetv1_100") calls, which takes no width; with 0.75 it is Keras' MobileNet
        base = efficientnet._gen_mobilenet_v1("mobilenetv1_100", options.alpha, num_classes=0)
        base.eval().requires_grad_(False)
        head = torch.nn.Linear(base.num_features, len(classes(options.train)))
        optimizer = torch.optim.AdamW(head.parameters(), 1e-3)
    seconds = []

    def features(photos: torch.Tensor) -> torch.Tensor:
        start = time.perf_counter()
        with torch.no_grad():
            found = base(photos.permute(0, 3, 1, 2) / 127.5 - 1)  # still channels last in memory, the faster layout
        seconds.append((time.perf_counter() - start) / len(photos))
        return found

    losses = []
    with part(parts, "fit"):
        for _ in range(options.epochs or 10):
            for batch in torch.randperm(len(x)).split(BATCH):
                loss = torch.nn.functional.cross_entropy(head(features(x[batch])), y[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
            with torch.no_grad():
                found = torch.cat([head(features(batch)) for batch in x_test.split(BATCH)])
    return {
        "photos_per_second": 1 / float(np.mean(seconds)),
        "random_weights_accuracy": (found.argmax(1) == y_test).float().mean().item(),
        "losses": np.mean(np.array_split(losses, options.epochs or 10), axis=1).tolist(),
    }


def guide_model(options: argparse.Namespace, count: int) -> tuple[Any, Any]:
    """Build the guide's network; give its frozen base, too."""
    import keras

    shape = (options.size, options.size, 3)
    network = getattr(keras.applications, options.network)
    base = network(shape, alpha=options.alpha, include_top=False, weights="imagenet")
    base.trainable = False
    inputs = keras.Input(shape)
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    x = base(x, training=False)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dropout(0.2)(x)
    return base, keras.Model(inputs, keras.layers.Dense(count)(x))


def feature_model(options: argparse.Namespace) -> Any:
    """Build the network from pixels to pooled features."""
    import keras

    shape = (options.size, options.size, 3)
    base = keras.applications.MobileNet(
        shape, alpha=options.alpha, include_top=False, weights="imagenet", pooling="avg"
    )
    return keras.Sequential([keras.Input(shape), keras.layers.Rescaling(1 / 127.5, offset=-1), base])


def folder(path: Path, options: argparse.Namespace, shuffle: bool = False, batch: int | None = BATCH) -> Any:
    """Give a tf.data.Dataset of batches, or of photos, with all photos decoded and in memory."""
    import keras

    shape = (options.size, options.size)
    photos = keras.utils.image_dataset_from_directory(
        path, image_size=shape, batch_size=batch, shuffle=shuffle, seed=options.seed
    )
    photos = photos.cache()
    for _ in photos:  # fills it
        pass
    return photos


def test_files(options: argparse.Namespace) -> list[Path]:
    """Give the test photos in the order of `folder`, which goes by class and by name."""
    return [file for name in classes(options.test) for file in sorted((options.test / name).iterdir())]


def decode(path: Path, options: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Decode a folder's photos with TensorFlow into one array of bytes; give the labels, too."""
    import keras

    shape = (options.size, options.size)
    photos = keras.utils.image_dataset_from_directory(path, image_size=shape, batch_size=BATCH, shuffle=False)
    x, y = zip(*((np.rint(x).astype("uint8"), y.numpy()) for x, y in photos), strict=True)
    return np.concatenate(x), np.concatenate(y)


def read(path: Path, options: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Do as `decode`, with Pillow."""
    from PIL import Image

    x, y = [], []
    for label, name in enumerate(classes(path)):
        for file in sorted((path / name).iterdir()):
            with Image.open(file) as photo:
                x.append(
                    np.asarray(photo.convert("RGB").resize((options.size, options.size), Image.Resampling.BILINEAR))
                )
            y.append(label)
    return np.stack(x), np.array(y)


def classes(path: Path) -> list[str]:
    """Name the classes of a folder."""
    return sorted(entry.name for entry in path.iterdir() if entry.is_dir())


@contextlib.contextmanager
def part(parts: Parts, name: str) -> Iterator[None]:
    """Note how many seconds a block takes."""
    start = time.perf_counter()
    yield
    parts[name] = time.perf_counter() - start


def peak_memory() -> float:
    """Give the most memory that the process has held, in MB.

    On Linux not from `getrusage`: there a child begins with what its parent held when it started it.
    """
    with contextlib.suppress(OSError, StopIteration), open("/proc/self/status", encoding="utf-8") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) * 1024 / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def rounded(value: Any) -> Any:
    """Round the numbers in a line of JSON, which are measurements, to six digits."""
    if isinstance(value, dict):
        return {key: rounded(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [rounded(entry) for entry in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


KERAS = ("tensorflow", "keras")
SKLEARN = (*KERAS, "sklearn.linear_model", "sklearn.pipeline", "sklearn.preprocessing")
OPENVINO = (*KERAS, "openvino")
TIMM = ("timm.models.efficientnet", "torch", "PIL.Image")
PEERS = {
    "keras-guide": Peer(keras_guide, KERAS),
    "keras-predict-sklearn": Peer(keras_predict, SKLEARN),
    "keras-last-stage": Peer(keras_last_stage, KERAS),
    "keras-finetune": Peer(keras_finetune, KERAS),
    "openvino-bare": Peer(openvino_bare, OPENVINO, {"precision": "f32"}),
    "openvino-bare-bf16": Peer(openvino_bare, OPENVINO, {"precision": "bf16"}),
    "timm-frozen-head": Peer(timm_frozen_head, TIMM),
}

if __name__ == "__main__":
    main()
