"""What tests of clusters run in a process of its own, on Keras' openvino backend, which workers load in seconds.

python cluster_client.py FOLDER prints what came out as JSON. In FOLDER are `photos`, with a file that is none.
"""

from __future__ import annotations

import functools
import io
import json
import os
import pickle
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from tlkit import cluster, startup


def main(folder: Path) -> dict[str, Any]:
    """Do everything here and on a cluster."""
    startup.start_keras()
    from tlkit import backbones, data, features
    from tlkit.features import remote
    from tlkit.features.store import Store
    from tlkit.serving import afar, many

    def listed(workers: cluster.Cluster | None, check: bool) -> data.Splits:
        return data.load(
            "folder", path=folder / "photos", size=(32, 32), channels=1, check=check, quiet=True, cluster=workers
        )

    model = backbones.classifier(backbones.build("LetterNet"), 2)
    network = features.pooled(model)
    workers = cluster.connect("local:2")
    here, there = listed(None, True), listed(workers, True)
    sets = [here.train, here.val, data.Mirrored(here.test), data.View(there.test, {"rotation": 9}, 0, 1)]
    expected = features.Extractor(network, None, "openvino").extract(*sets)

    def equal(store: Store | None) -> bool:
        extractor = features.Extractor(network, store, "openvino", cluster=workers)
        found = extractor.extract(*sets)
        same = all(np.array_equal(a[:], b[:]) for a, b in zip(expected, found, strict=True))
        return same and extractor.computed == sum(map(len, sets))

    shared, own = Store(folder / "shared"), Store(folder / "own")
    result: dict[str, Any] = {"written": equal(shared), "memory": equal(None)}
    written = features.Extractor(network, shared, "openvino").extract(*sets)
    result["found"] = all(np.array_equal(a[:], b[:]) for a, b in zip(expected, written, strict=True))
    probe, remote._probe = remote._probe, _of_another_folder
    result["sent"] = equal(own)
    remote._probe = probe
    for name, store in (("shared", shared), ("own", own)):
        (usage,) = store.usage(verify=True)
        result[f"usage of {name}"] = [usage.activations, usage.duplicates, len(usage.damaged)]
    result["loaded"] = [here.manifest() == there.manifest(), here.set_aside == there.set_aside, len(here.set_aside)]
    result["kept"] = not isinstance(there.train.stored, np.ndarray)
    result |= shards(folder, workers, network)
    result["with keras"] = sorted(workers.client.run(_has_keras).values())
    path = folder / "model.keras"
    model.save(path)
    photos = dict.fromkeys(sorted(map(str, (folder / "photos").rglob("*.*"))), "")
    engine, _ = many.engine(model, "it", True, here.train.read(range(4)))
    ours = list(many.predictions(photos, many.reader(model.input_shape[1:], here.reading), lambda _: engine))
    afar.CHUNK = 7
    theirs = list(
        afar.predictions(
            workers, photos, afar.Job(path.read_bytes(), "openvino", engine.name, here.reading, novelty=False)
        )
    )
    result["answers"] = [a.path == b.path and a.error == b.error for a, b in zip(ours, theirs, strict=True)]
    result["equal"] = all(np.array_equal(a.probabilities, b.probabilities) for a, b in zip(ours, theirs, strict=True))
    result["unread"] = sum(bool(answer.error) for answer in theirs)
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    ports = [port for process in processes for port in process.net_connections() if port.status == "LISTEN"]
    result["open"] = sorted({port.laddr.ip for port in ports})
    result["scheme"] = workers.client.scheduler.address.partition(":")[0]
    result["pickled"] = len(pickle.dumps(here.train.select([0])))
    cluster.close(workers)
    result["left"] = len(psutil.Process().children(recursive=True))
    return result


def shards(folder: Path, workers: cluster.Cluster, network: Any) -> dict[str, Any]:
    """Compute features of photos in tar files: on disk, at a URL, and in the memory of this process alone."""
    import fsspec

    from tlkit import data, features
    from tlkit.features import remote
    from tlkit.features.store import Store

    remote.SENT = 20_000  # some photos
    archive = folder / "photos.tar"
    with tarfile.open(archive, "w") as tar:
        for number, photo in enumerate(sorted((folder / "photos").rglob("*.png"))):
            for suffix, content in (("png", photo.read_bytes()), ("cls", photo.parent.name.encode())):
                info = tarfile.TarInfo(f"{number:04}.{suffix}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    fsspec.filesystem("memory").pipe("/only/here.tar", archive.read_bytes())
    places = {"disk": str(archive), "url": archive.as_uri(), "client": "memory://only/here.tar"}
    load, found = functools.partial(data.load, "webdataset", size=(32, 32), channels=1, quiet=True), {}
    for name, path in places.items():
        here, there = load(path=path), load(path=path, cluster=workers)
        expected = features.Extractor(network, None, "openvino").extract(here.train, data.Mirrored(here.val))
        extractor = features.Extractor(network, Store(folder / name), "openvino", cluster=workers)
        computed = extractor.extract(there.train, data.Mirrored(there.val))
        found[name] = (
            here.manifest() == there.manifest()
            and here.set_aside == there.set_aside
            and extractor.computed == len(here.train) + len(here.val)
            and all(np.array_equal(a[:], b[:]) for a, b in zip(expected, computed, strict=True))
        )
    return {"shards": found}


def _of_another_folder(space: Any) -> Any:
    """Write no file, as where workers see another folder of that name."""
    import contextlib

    from tlkit.features import worker

    return contextlib.nullcontext(worker.Place(str(space.store.folder), str(space.folder / "space.json"), "another"))


def _has_keras() -> bool:
    return "keras" in sys.modules


if __name__ == "__main__":
    os.environ["KERAS_BACKEND"] = "openvino"
    print(json.dumps(main(Path(sys.argv[1]))))
