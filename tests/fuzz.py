"""Files of every kind that tlkit reads, damaged at random, and what it makes of them: one line, or nothing wrong.

python tests/fuzz.py FOLDER --count 5000 --seed 0

Each input is a whole file changed by a seeded generator. What is reported: for each kind how many were taken and how
many refused in one line; every other outcome is a failure, with the input kept in FOLDER/failed. Nothing may take more
than 20 s or the process more than 1.5 GB, and no file outside FOLDER may be written or removed, nor any in
FOLDER/secret, at which the inputs point, be read.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import io
import json
import os
import random
import resource
import shutil
import sys
import time
import traceback
import wave
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import numpy as np
from PIL import Image

SECONDS, GB = 20.0, 1.5
NOWHERE = "http://127.0.0.1:9"  # a tracking server that nothing is sent to
ODD = [
    None,
    True,
    -1,
    0,
    2**31,
    2**63,
    10**400,
    1e308,
    float("nan"),
    "",
    "x",
    "../secret/thesis.txt",
    "\x1b[2J",
    "é",
    "\ud800",
]
ODD += [[], {}, [[]], {"a": 1}, "a" * 10_000, "/etc/passwd", ["x"], [-1], [10**9, 10**9], "\0"]
WORDS = [
    bytes(4),
    b"\xff" * 4,
    b"\xff\xff\xff\x7f",
    b"\x00\x00\x00\x80",
    b"\x01\x00\x00\x00",
    b"\x00\x00\x00\x01",
    bytes(8),
]


class Kind(NamedTuple):
    """One kind of input.

    Args:
        share: Of all inputs.
        suffix: Of its files.
        make: Writes a whole one.
        change: Writes a damaged one over it.
        read: What tlkit does with it.
    """

    share: int
    suffix: str
    make: Callable[[Path, random.Random], None]
    change: Callable[[Path, random.Random], None]
    read: Callable[[Path], Any]


# Changes --------------------------------------------------------------------------------------------------------------


def bytes_changed(data: bytes, draw: random.Random) -> bytes:
    """Flip, cut, repeat, insert or overwrite some bytes."""
    changed = bytearray(data)
    for _ in range(draw.choice([1, 1, 2, 5, 20])):
        if not changed:
            break
        place = draw.randrange(len(changed))
        if draw.random() < 0.4:
            place = draw.randrange(min(len(changed), 200))  # headers are at the beginning
        way = draw.randrange(7)
        if way == 0:
            changed[place] ^= 1 << draw.randrange(8)
        elif way == 1:
            word = draw.choice(WORDS)
            changed[place : place + len(word)] = word
        elif way == 2:
            del changed[place:]
        elif way == 3:
            changed[place:place] = changed[place : place + draw.randrange(1, 2000)] * draw.choice([1, 2, 50])
        elif way == 4:
            changed[place:place] = draw.randbytes(draw.randrange(1, 50))
        elif way == 5:
            changed[place : place + draw.randrange(1, 100)] = bytes(draw.randrange(1, 100))
        else:
            del changed[place : place + draw.randrange(1, 100)]
    return bytes(changed)


def file_changed(path: Path, draw: random.Random) -> None:
    path.write_bytes(bytes_changed(path.read_bytes(), draw))


def value_changed(value: Any, draw: random.Random, depth: int = 0) -> Any:
    """Put something odd somewhere into JSON."""
    if isinstance(value, dict) and value and draw.random() < 0.85:
        key = draw.choice(sorted(value))
        changed = dict(value)
        way = draw.random()
        if way < 0.1:
            del changed[key]
        elif way < 0.15:
            changed[str(draw.choice(ODD))] = changed[key]
        else:
            changed[key] = value_changed(changed[key], draw, depth + 1)
        return changed
    if isinstance(value, list) and value and draw.random() < 0.85:
        place = draw.randrange(len(value))
        return [*value[:place], value_changed(value[place], draw, depth + 1), *value[place + 1 :]]
    return draw.choice(ODD)


def json_changed(text: bytes, draw: random.Random) -> bytes:
    way = draw.random()
    if way < 0.05:
        return b'{"a":' * draw.choice([50, 2000, 100_000])
    if way < 0.2:
        return bytes_changed(text, draw)
    try:
        return json.dumps(value_changed(json.loads(text), draw)).encode("utf-8", "surrogatepass")
    except ValueError:
        return bytes_changed(text, draw)


def zip_changed(path: Path, draw: random.Random) -> None:
    """Change a member, its name, their number or the whole file."""
    if draw.random() < 0.35:
        file_changed(path, draw)
        return
    with zipfile.ZipFile(path) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    place = draw.randrange(len(members))
    name, content = members[place]
    way = draw.random()
    if way < 0.1:
        del members[place]
    elif way < 0.2:
        members.append((name, draw.choice([content, bytes_changed(content, draw)])))
    elif way < 0.3:
        members[place] = (draw.choice(["../secret/x", "x" * 3000, "", name.upper(), "/etc/x"]), content)
    elif name.endswith(".json"):
        members[place] = (name, json_changed(content, draw))
    elif way < 0.4:
        members[place] = (name, content + bytes(draw.choice([10**6, 3 * 10**7])))
    else:
        members[place] = (name, bytes_changed(content, draw))
    with (
        contextlib.suppress(UserWarning),
        zipfile.ZipFile(path, "w", draw.choice([0, zipfile.ZIP_DEFLATED])) as archive,
    ):
        for name, content in members:
            archive.writestr(name, content)


def folder_changed(path: Path, draw: random.Random) -> None:
    """Change one of the files of a folder."""
    files = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.endswith(".lock"))
    file = draw.choice(files)
    if draw.random() < 0.05:
        file.unlink()
        file.symlink_to(SECRET)
    elif file.suffix == ".json":
        file.write_bytes(json_changed(file.read_bytes(), draw))
    elif file.suffix == ".jsonl":
        lines = file.read_bytes().split(b"\n")
        place = draw.randrange(len(lines))
        lines[place] = json_changed(lines[place] or b"{}", draw)
        file.write_bytes(b"\n".join(lines))
    else:
        file_changed(file, draw)


# Kinds ----------------------------------------------------------------------------------------------------------------

SECRET = Path()  # a file at which inputs point


def make_photo(path: Path, draw: random.Random) -> None:
    mode = draw.choice(["L", "RGB", "RGBA", "P", "CMYK", "I;16", "1"])
    allowed = {
        "JPEG": ("L", "RGB", "CMYK"),
        "PNG": ("L", "RGB", "RGBA", "P", "I;16", "1"),
        "GIF": ("L", "RGB", "P", "1"),
        "BMP": ("L", "RGB", "P", "1"),
        "WEBP": ("RGB", "RGBA"),
        "TIFF": ("L", "RGB", "RGBA", "P", "CMYK", "I;16", "1"),
    }
    chosen = draw.choice([name for name, modes in allowed.items() if mode in modes])
    size = draw.randrange(1, 120), draw.randrange(1, 120)
    noise = np.random.default_rng(draw.randrange(2**32)).integers(0, 256, (size[1], size[0], 4), np.uint8)
    image = Image.fromarray(noise[..., 0]) if mode != "I;16" else Image.fromarray(noise[..., 0].astype(np.uint16) * 256)
    image = image if mode == "I;16" else image.convert(mode)
    options: dict[str, Any] = {"progressive": draw.random() < 0.5} if chosen == "JPEG" else {}
    if chosen == "TIFF" and mode not in ("1", "I;16"):
        options["compression"] = draw.choice([None, "tiff_lzw", "tiff_deflate", "packbits"])
    exif = Image.Exif()
    exif[0x0112] = draw.randrange(10)
    image.save(path, chosen, **options, **({} if chosen in ("GIF", "BMP", "TIFF") else {"exif": exif}))


def read_photo(path: Path) -> None:
    from tlkit.data import images, resizing

    for content in (path, path.read_bytes()):
        for resize in resizing.RESIZES:
            images.decode(content, (32, 24), 3, path.name, resize)
        images.decode(content, None, 1, path.name)


def make_npz(path: Path, draw: random.Random) -> None:
    draws = np.random.default_rng(draw.randrange(2**32))
    shape = draw.choice([(8, 8), (8, 8, 3), (6, 6, 6), (20,)])
    arrays = {}
    for split in ("train", "val", "test")[: draw.choice([1, 3])]:
        arrays[f"{split}_images"] = draws.integers(0, 256, (6, *shape)).astype(draw.choice(["u1", "f4", "i8"]))
        arrays[f"{split}_labels"] = np.arange(6)[:, None] % 2
    draw.choice([np.savez, np.savez_compressed])(path, **arrays)


def make_graph(path: Path, draw: random.Random) -> None:
    draws = np.random.default_rng(draw.randrange(2**32))
    known = {"train_idx": [0, 1, 2], "val_idx": [3, 4], "test_idx": [5, 6]}
    edges = draws.integers(0, 8, (12, 2))
    np.savez(path, features=np.eye(8, dtype=np.float32), labels=np.arange(8) % 2, edges=edges, **known)


def read_npz(path: Path) -> None:
    from tlkit.data import load

    load("npz", path=path, val_fraction=0.3, test_fraction=0.3)


def read_graph(path: Path) -> None:
    from tlkit.data import graph

    graph.load(path)


def make_sound(path: Path, draw: random.Random) -> None:
    width, channels = draw.choice([1, 2, 3, 4]), draw.choice([1, 2, 6])
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(draw.choice([8000, 44100]))
        file.writeframes(draw.randbytes(width * channels * draw.randrange(1, 900)))


def read_sound(path: Path) -> None:
    from tlkit.data import sounds

    sounds.frame([path, path.read_bytes()], ["a", "b"])
    sounds.decode(path, 1000, path.name)
    sounds.decode(path.read_bytes(), None, path.name)


def make_csv(path: Path, draw: random.Random) -> None:
    rows = []
    for number, split in enumerate(["train"] * 6 + ["val"] * 2 + ["test"] * 2):
        Image.new("L", (8, 8), 20 * number).save(path.parent / f"{number}.png")
        rows.append(f"{number}.png,{('cat', 'dog', 'ä|b')[number % 3]},{split}")
    path.write_text("\n".join(["path,label,split", *rows, ""]), encoding="utf-8-sig")


def change_csv(path: Path, draw: random.Random) -> None:
    if draw.random() < 0.4:
        file_changed(path, draw)
        return
    lines = [line.split(",") for line in path.read_text(encoding="utf-8-sig").splitlines()]
    for _ in range(draw.choice([1, 3])):
        row = draw.choice(lines)
        row[draw.randrange(len(row))] = str(draw.choice([*ODD, str(SECRET), '"', "a,b", "../" * 30]))
    path.write_bytes("\n".join(",".join(row) for row in lines).encode("utf-8", "surrogatepass"))


def read_csv(path: Path) -> None:
    from tlkit.data import load

    load("csv", path=path, size=(8, 8), separator=None)


_WHOLE: dict[str, bytes] = {}


def make_model(path: Path, draw: random.Random) -> None:
    if "model" not in _WHOLE:
        import keras

        from tlkit import backbones, labels

        layers = [keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, name="stage1"), keras.layers.BatchNormalization()]
        layers += [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2, activation="softmax")]
        keras.Sequential(layers).save(path)
        labels.write(path, ["cat", "dog"], {"resize": "crop"})
        _WHOLE["model"] = path.read_bytes()
        backbones.build("LetterNet").save_weights(path.with_suffix(".weights.h5"))
        _WHOLE["weights"] = path.with_suffix(".weights.h5").read_bytes()
    path.write_bytes(_WHOLE["model"])


def read_model(path: Path) -> None:
    from tlkit.recipes import predict

    Image.new("RGB", (8, 8)).save(path.parent / "asked.png")
    predict.run(predict.Predict(model=str(path), photos=[str(path.parent / "asked.png")]))


def make_weights(path: Path, draw: random.Random) -> None:
    if "weights" not in _WHOLE:
        make_model(path.with_suffix(".keras"), draw)
    path.write_bytes(_WHOLE["weights"])


def read_weights(path: Path) -> None:
    from tlkit import backbones

    backbones.build("LetterNet", weights=path)


def _space(path: Path) -> Any:
    from tlkit.features.store import Store

    return Store(path).space({"network": "an example", "shape": [3], "dtype": "float32"})


def make_store(path: Path, draw: random.Random) -> None:
    space = _space(path)
    for number in range(3):
        keys = [bytes([number, place]) * 16 for place in range(5)]
        space.write(keys, np.arange(15, dtype=np.float32).reshape(5, 3) + number)


def read_store(path: Path) -> None:
    """What is read is what was written; all else is not there."""
    from tlkit.features.store import Store

    space = _space(path).refresh()
    for key in list(space.places):
        with contextlib.suppress(KeyError):  # what is damaged is found out when it is used
            (part,), (row,) = space.use([key])
            values = space.segments[part].values[row]
            assert values.tolist() == [key[1] * 3 + place + key[0] for place in range(3)], "wrong values were believed"
    Store(path).usage(verify=True)
    with space.turn(0.1):
        pass
    Store(path).clear()


def make_checkpoint(path: Path, draw: random.Random) -> None:
    from tlkit.training import checkpoints

    epoch = {"epoch": 1, "phase": "full", "loss": 1.0, "val_loss": 0.5, "seconds": 0.1}
    arrays = {name: [np.ones((3, 2), np.float32)] for name in ("last", "optimizer", "best", "metrics", "generators")}
    checkpoints.save(path, checkpoints.State([epoch], 0, 0, False, 3, 1.5, arrays), {"batch_size": 16, "epochs": 3})


def change_checkpoint(path: Path, draw: random.Random) -> None:
    if draw.random() < 0.4:
        zip_changed(path, draw)
        return
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    told = json_changed(str(arrays["told"]).encode(), draw).decode("utf-8", "replace")
    np.savez(path, **{**arrays, "told": np.array(told)})


def read_checkpoint(path: Path) -> None:
    from tlkit.training import checkpoints

    state, _ = checkpoints.load(path, {"batch_size": 16})
    checkpoints.fits(path, state, {"best": [(3, 2)]})


def make_record(path: Path, draw: random.Random) -> None:
    told = {"recipe": "finetune", "asked": {"seed": 0}, "config": {"seed": 0}, "digest": "0" * 64}
    path.mkdir()
    (path / "run.json").write_text(json.dumps(told), encoding="utf-8")


def read_record(path: Path) -> None:
    from tlkit.training import checkpoints

    checkpoints.FOLDER = path.parent
    assert "whole" in {run.run_id for run in checkpoints.unfinished()}, "a bad record hid a good one"


def make_journal(path: Path, draw: random.Random) -> None:
    path.mkdir()
    (path / "files" / "0").mkdir(parents=True)
    (path / "files" / "0" / "notes.txt").write_text("notes", encoding="utf-8")
    header = {"run_id": "0" * 32, "experiment_id": "1", "uri": NOWHERE}
    entries: list[dict[str, Any]] = [
        {"do": "params", "values": {"a": "1"}},
        {"do": "metrics", "values": {"loss": 1.0}, "step": 1, "time": 5},
        {"do": "artifact", "file": "files/0/notes.txt", "to": ""},
        {"do": "model", "file": "files/0", "name": "model", "step": 0, "key": "0f"},
        {"do": "end", "status": "FINISHED", "time": 5},
    ]
    (path / "header.json").write_text(json.dumps(header), encoding="utf-8")
    (path / "state.json").write_text(json.dumps({"next": 1, "refused": []}), encoding="utf-8")
    lines = "".join(json.dumps({"n": number, **entry}) + "\n" for number, entry in enumerate(entries))
    (path / "journal.jsonl").write_text(lines, encoding="utf-8")


def read_journal(path: Path) -> None:
    from tlkit.errors import InvalidInput
    from tlkit.tracking import journal, journal_files

    if path not in journal.left(path.parent):
        return
    found = journal.resume(path)
    if found is None:
        return
    try:
        _ = found.unsent, found.reason, found.model_uri, found.registered, found._bytes()
        while found._queue:
            group = found._group()
            for entry in (found.entries[number] for number in group):
                if "file" in entry:
                    with contextlib.suppress(InvalidInput):
                        journal_files.entry_path(found.folder, entry)
            found._queue = [number for number in found._queue if number not in group]
    finally:
        journal_files.release(found._lock, path)


def make_yaml(path: Path, draw: random.Random) -> None:
    path.write_text(
        "seed: 1\nfull: {epochs: 3, unfreeze_from: [stage3, stage2]}\ndata:\n  path: photos\n", encoding="utf-8"
    )


def change_yaml(path: Path, draw: random.Random) -> None:
    if draw.random() < 0.5:
        file_changed(path, draw)
        return
    pieces = ["&a [*a]", "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]", "seed: 2", "!!python/object/apply:os.system [ls]"]
    pieces += [
        "full: {" * 300,
        "- " * 5000,
        "seed: .nan",
        "seed: 1e999",
        "\t",
        "? [a]: b",
        "<<: *x",
        "0o777: 2",
        "null",
    ]
    text = path.read_text(encoding="utf-8").splitlines()
    text.insert(draw.randrange(len(text)), draw.choice(pieces))
    path.write_text("\n".join(text), encoding="utf-8")


def read_yaml(path: Path) -> None:
    from tlkit import cli, config

    status = cli.call(config.Finetune, read_yaml_run, ["--config", str(path)])
    assert status in (0, 2), f"exit status {status}"


def read_yaml_run(config: Any) -> None:
    """Stand where a recipe would be run."""


KINDS = {
    "photo": Kind(28, ".png", make_photo, file_changed, read_photo),
    "npz": Kind(12, ".npz", make_npz, zip_changed, read_npz),
    "graph": Kind(6, ".npz", make_graph, zip_changed, read_graph),
    "wav": Kind(12, ".wav", make_sound, file_changed, read_sound),
    "csv": Kind(10, ".csv", make_csv, change_csv, read_csv),
    "keras": Kind(6, ".keras", make_model, zip_changed, read_model),
    "weights": Kind(3, ".weights.h5", make_weights, file_changed, read_weights),
    "store": Kind(7, "", make_store, folder_changed, read_store),
    "checkpoint": Kind(6, ".npz", make_checkpoint, change_checkpoint, read_checkpoint),
    "record": Kind(3, "", make_record, folder_changed, read_record),
    "journal": Kind(5, "", make_journal, folder_changed, read_journal),
    "yaml": Kind(2, ".yaml", make_yaml, change_yaml, read_yaml),
}


# The run --------------------------------------------------------------------------------------------------------------


class Watch:
    """Notes what the process opens, writes and removes where it must not."""

    def __init__(self, folder: Path):
        self.folder, self.wrong, self.on, self.kind = str(folder), [], False, ""
        self.secret = str(folder / "secret")
        sys.addaudithook(self)

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.on or not event.startswith(("open", "os.", "shutil.", "subprocess", "socket.connect")):
            return
        if event in ("os.listdir", "os.scandir", "os.walk", "os.fwalk", "os.putenv", "os.unsetenv"):
            return
        if event.startswith(("subprocess", "socket", "os.system", "os.exec", "os.posix_spawn")):
            self.wrong.append(f"{event} {args[:1]}")
            return
        path = args[0]
        if not isinstance(path, str | bytes | os.PathLike):
            return
        path = os.path.abspath(os.fsdecode(path))
        writes = event != "open" or bool((args[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        allowed = path.startswith((f"{self.folder}/", "/dev/", "/proc/")) or path == self.folder
        # A user's table may name photos anywhere; all else has no business outside.
        secret = self.kind != "csv" and os.path.realpath(path).startswith(self.secret)
        if secret or (writes and not allowed and not path.startswith(CACHES)):
            self.wrong.append(f"{event} {path}")


CACHES = (os.path.join(sys.prefix, ""), os.path.join(os.path.expanduser("~"), ".cache", ""), "/tmp/")  # noqa: S108


def run(folder: Path, count: int, seed: int, seconds: float = float("inf")) -> dict[str, Counter[str]]:
    """Try so many inputs, or as many as the seconds allow, and give for each kind how many came to which end."""
    global SECRET
    from tlkit.errors import InvalidInput, Unavailable

    folder = folder.resolve()
    (folder / "secret").mkdir(parents=True)
    SECRET = folder / "secret" / "thesis.txt"
    SECRET.write_text("a thesis", encoding="utf-8")
    work, failed = folder / "work", folder / "failed"
    for place in (work, failed):
        place.mkdir()
    os.chdir(work)
    os.environ["MLFLOW_TRACKING_URI"] = NOWHERE
    os.environ["TLKIT_CACHE"], os.environ["XDG_STATE_HOME"] = str(work / "cache"), str(work / "state")
    draw, ended, ends = random.Random(seed), Counter[str](), {name: Counter[str]() for name in KINDS}
    names = [name for name, kind in KINDS.items() for _ in range(kind.share)]
    for kind in KINDS.values():  # what is loaded on the way is none of an input's doing
        path = work / f"whole{kind.suffix}"
        kind.make(path, random.Random(0))
        kind.read(path)
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    watch, began, worst = Watch(folder), time.monotonic(), (0.0, "")
    for number in range(count):
        if time.monotonic() - began > seconds:
            break
        name = names[number] if number < len(names) else draw.choice(names)
        kind = KINDS[name]
        here = work / str(number)
        here.mkdir()
        if name == "record":
            make_record(here / "whole", draw)
        path = here / f"input{kind.suffix}"
        once = random.Random(f"{seed} {number}")
        kind.make(path, once)
        with contextlib.suppress(ValueError, OSError, IndexError):  # a change that cannot be written is none
            kind.change(path, once)
        faulthandler.dump_traceback_later(3 * SECONDS, exit=True)
        watch.on, watch.kind, start, wrong = True, name, time.monotonic(), ""
        try:
            with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
                kind.read(path)
            end = "taken"
        except (InvalidInput, Unavailable) as error:
            end = "refused"
            if "\n" in str(error):
                wrong = f"more than a line: {error}"
        except BaseException as error:
            end, wrong = "failed", "".join(traceback.format_exception(error))
        watch.on = False
        faulthandler.cancel_dump_traceback_later()
        took = time.monotonic() - start
        worst = max(worst, (took, name))
        said = out.getvalue() + err.getvalue()
        if "Traceback" in said or "\x1b" in said:
            wrong = f"what was said: {said}"
        if took > SECONDS:
            wrong = f"took {took:.1f} s"
        if watch.wrong:
            wrong, watch.wrong = f"touched {watch.wrong}", []
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        if peak > GB:
            wrong = f"the process has {peak:.2f} GB"
        if wrong:
            end = "failed"
            kept = failed / f"{number}-{name}{kind.suffix}"
            shutil.copytree(path, kept, symlinks=True) if path.is_dir() else shutil.copy(path, kept)
            (failed / f"{number}-{name}.txt").write_text(wrong, encoding="utf-8", errors="replace")
            print(f"{number} {name}: {wrong[-1500:]}", flush=True)
            if peak > GB:
                break
        ends[name][end] += 1
        ended[end] += 1
        shutil.rmtree(here, ignore_errors=True)
    if SECRET.read_text(encoding="utf-8") != "a thesis":
        ends["store"]["failed"] += 1
        print("the secret file was changed")
    print(f"{'kind':12}{'taken':>8}{'refused':>9}{'failed':>8}")
    for name, counts in [*ends.items(), ("all", ended)]:
        print(f"{name:12}{counts['taken']:8,}{counts['refused']:9,}{counts['failed']:8,}")
    print(f"the slowest took {worst[0]:.1f} s ({worst[1]}); the process had {peak:.2f} GB at most", flush=True)
    return ends


def main() -> int:
    """Read the arguments, run and give the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    given = parser.parse_args()
    ends = run(given.folder, given.count, given.seed, given.seconds)
    return sum(counts["failed"] for counts in ends.values()) > 0


if __name__ == "__main__":
    sys.exit(main())
