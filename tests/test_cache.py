"""`python -m tlkit.recipes.cache`: what it says of a store, what it deletes, and its exit status."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from tlkit import cli, config
from tlkit.features import store
from tlkit.features.store import Store
from tlkit.recipes import cache

ENGINE = "keras 3.15.0 tensorflow 2.21.0 cpu"


def call(*argv: str) -> int:
    return cli.call(config.Cache, cache.run, argv, positional=("action",))


def fill(
    folder: Path, label: str = "MobileNetV2, pooled", count: int = 100, shape: tuple[int, ...] = (64,), age: float = 0
) -> Path:
    """Write a space with one segment, last used so many seconds ago, and give the segment's path."""
    about = {"engine": ENGINE, "precision": "mixed_bfloat16", "shape": list(shape), "dtype": "float16", "name": label}
    space = Store(folder).space(about, label)
    keys = [hashlib.sha256(f"{label}{number}".encode(errors="replace")).digest() for number in range(count)]
    with space.turn(1):
        space.write(keys, np.zeros((count, *shape), np.float16))
    (path,) = space.refresh().paths
    os.utime(path, (time.time() - age,) * 2)
    return path


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.fixture
def out(capsys: pytest.CaptureFixture):
    """What was printed since the last call; every line fits into 80 columns."""

    def read() -> str:
        text = capsys.readouterr().out
        assert max(map(len, text.splitlines()), default=0) <= 80
        return text

    return read


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A short name: where a folder's is longer than a line, so is the line."""
    (tmp_path / "store").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path / "store"


def one_line(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("argv", [[], ["list"], ["verify"], ["prune"], ["prune", "--limit", "0"]], ids=" ".join)
def test_an_empty_store_and_none_at_all_are_said_to_be(argv: list[str], cache: Path, monkeypatch, out):
    assert call(*argv) == 0
    assert f"the activation store {cache} is empty; feature_extraction, finetune and select fill it" in one_line(out())
    monkeypatch.setenv("TLKIT_CACHE", str(cache / "none"))
    assert call(*argv) == 0
    assert f"the activation store {cache / 'none'} does not exist yet; feature_extraction" in one_line(out())
    assert not list(cache.iterdir())


def test_list_is_a_table_of_what_is_there(folder: Path, out):
    fill(folder, "MobileNetV2, pooled", 1000, age=7300)
    fill(folder, "LetterNet, up to stage2", 2, (7, 7, 112), age=86400 * 3.5)
    assert call("--store", "store") == 0
    text = out()
    lines = text.splitlines()
    assert lines[0] == "activations of"
    assert lines[2] == "MobileNetV2, pooled"
    assert lines[3].split() == ["mixed_bfloat16,", "keras", "3.15.0", "ten..", "64", "1,000", "160", "kB", "2", "h"]
    assert lines[4] == "LetterNet, up to stage2"
    assert lines[5].split()[-6:] == ["7x7x112", "2", "22.2", "kB", "3", "days"]
    assert [line.index("kB") for line in (lines[3], lines[5])] == [lines[1].index("size") + 2] * 2
    total = f"1,002 activations, 182 kB, in {folder}; a recipe keeps it below --features.limit, 20 GB by default"
    assert one_line(text).endswith(total)
    assert call("list", "--store", "store") == 0
    assert out() == text


def test_a_table_of_large_numbers_fits(folder: Path, monkeypatch, out):
    usage = store.Usage(
        name="0" * 32,
        label="a label that is much too long for any line of any terminal that anybody will ever have open",
        description={"engine": "e" * 50, "precision": "mixed_bfloat16", "shape": [1024, 1024, 2048]},
        activations=123_456_789,
        size=999_400_000_000_000,
        used=-1e300,
        damaged=[],
        duplicates=0,
        files=1,
    )
    monkeypatch.setattr(Store, "usage", lambda self, verify=False: [usage, usage._replace(used=1e300)])
    assert call() == 0
    assert "123,456,789   999 TB 9999 days" in out()


def test_a_strangers_description_does_not_steer_the_terminal(folder: Path, out):
    evil = "\x1b[2J\x9b1m\r\nroot\u202e\u0007\ud800é"
    path = fill(folder, evil)
    about = json.loads((path.parent / "space.json").read_text(encoding="utf-8"))
    description = about["description"] | {"engine": evil, "precision": {"a": evil}}
    there = Store(folder).space(description)
    there.folder.mkdir()
    (there.folder / "space.json").write_text(json.dumps({"label": evil, "description": description}), encoding="utf-8")
    for action in ("list", "verify"):
        assert call(action, "--store", "store") == 0
        text = out()
        assert text.replace("\n", "").isprintable()
    assert call("list", "--store", "store") == 0
    assert out().count("\\x1b[2J\\x9b1m\\r\\nroot\\u202e") >= 2
    damage(path)
    assert call("verify", "--store", "store") == 1
    assert "\x1b" not in out()


def test_verify_counts_what_is_whole(folder: Path, out):
    fill(folder, "a")
    fill(folder, "b")
    assert call("verify", "--store", "store") == 0
    assert out() == "4 files, all whole\n"


def test_verify_names_what_is_damaged_and_prune_mends_it(folder: Path, out, monkeypatch):
    kept, broken = fill(folder, "a"), fill(folder, "b")
    damage(broken)
    monkeypatch.setenv("TLKIT_CACHE", str(folder))
    assert call("verify") == 1
    assert out().splitlines()[:2] == ["damaged, of b:", f"  {broken.parent.name}/{broken.name}"]
    assert call("prune") == 0
    text = one_line(out())
    assert text.startswith("deleted 1 damaged or unfinished file, 16.2 kB 100 activations, 16.2 kB, stay in")
    assert kept.exists()
    assert not broken.parent.exists()
    assert call("verify") == 0
    assert call("prune") == 0
    assert one_line(out()) == f"2 files, all whole nothing to delete; 100 activations, 16.2 kB, stay in {folder}"


def test_the_command_that_mends_is_one_that_can_be_copied(folder: Path, capsys):
    damage(fill(folder / "a b"))
    assert call("verify", "--store", "store/a b") == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert f"1 of 2 files in {folder / 'a b'} are damaged; delete them by" in err
    assert "python -m tlkit.recipes.cache prune --store 'store/a b': what they held is computed again" in err


def test_verify_says_what_is_stored_twice(folder: Path, out):
    path = fill(folder, "a", 100)
    about = json.loads((path.parent / "space.json").read_text(encoding="utf-8"))["description"]
    space = Store(folder).space(about)
    space.write([hashlib.sha256(b"a0").digest()], np.ones((1, 64), np.float16))
    assert call("verify", "--store", "store") == 0
    assert one_line(out()) == "1 of 101 activations are stored twice, which does no harm 3 files, all whole"


def test_verify_tells_how_far_it_is(folder: Path, monkeypatch, capsys):
    for number in range(4):
        fill(folder, str(number))
    clock = iter(range(10**6))
    monkeypatch.setattr("tlkit.progress.time.monotonic", lambda: next(clock))
    assert call("verify", "--store", "store") == 0
    assert "verifying: 3 of 4 files" in capsys.readouterr().err


def test_prune_keeps_to_the_limit_by_deleting_the_least_recently_used(folder: Path, out):
    old, middle, new = (fill(folder, name, age=age) for name, age in [("a", 300), ("b", 200), ("c", 100)])
    size = new.stat().st_size
    assert call("prune", "--store", "store") == 0
    assert "nothing to delete" in out()
    assert call("prune", "--store", "store", "--limit", f"{2 * size / 1e9:.9f}") == 0
    text = one_line(out())
    assert text.startswith("deleted the least recently used activations, 16.2 kB 200 activations, 32.4 kB, stay in")
    assert [path.exists() for path in (old, middle, new)] == [False, True, True]
    assert not old.parent.exists()
    (folder / "notes.txt").write_text("mine", encoding="utf-8")
    assert call("prune", "--store", "store", "--limit", "0") == 0
    assert "is empty" in one_line(out())
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_prune_without_a_limit_deletes_nothing_whole(folder: Path, monkeypatch, out):
    path = fill(folder)
    monkeypatch.setattr(store, "LIMIT", 1e-9)
    assert call("prune", "--store", "store") == 0
    assert path.exists()
    assert "nothing to delete" in out()


def test_prune_deletes_what_dead_processes_have_left(folder: Path, out):
    path = fill(folder)
    part = path.parent / f".{path.stem}.0123abcd.part"
    part.write_bytes(bytes(1000))
    assert call("prune", "--store", "store") == 0
    assert "deleted 1 damaged or unfinished file, 1 kB\n" in out()
    assert path.exists()
    assert not part.exists()


def test_prune_leaves_a_process_that_computes_alone(folder: Path, out):
    space = Store(folder).space({"shape": [1], "dtype": "float16"})
    with space.turn(1):
        part = space.folder / f".{'0' * 32}.0123abcd.part"
        part.write_bytes(b"half")
        assert call("prune", "--store", "store", "--limit", "0") == 0
        assert part.exists()
        space.write([bytes(32)], np.zeros((1, 1), np.float16))
    assert len(space.refresh().places) == 1


def test_prune_that_may_not_delete_says_so(folder: Path, monkeypatch, capsys):
    damage(fill(folder, "a"))
    healthy = fill(folder, "b")
    (healthy.parent / f".{healthy.stem}.0.part").touch()
    real = Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path.suffix == ".npy":
            raise PermissionError(13, "Permission denied", str(path))
        real(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    assert call("prune", "--store", "store") == 1
    assert capsys.readouterr().err == f"cache: error: not all of {folder} can be deleted: Permission denied\n"
    assert not list(folder.glob("*/*.part"))  # what could be was


def test_run_returns_what_is_there(folder: Path, capsys):
    fill(folder, "a", 3)
    for action in ("list", "verify", "prune"):
        (usage,) = cache.run(config.Cache(action, str(folder)))
        assert (usage.label, usage.activations, usage.description["engine"]) == ("a", 3, ENGINE)
    assert cache.run(config.Cache("prune", str(folder), 0)) == []


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["lst"], "error: action: expected one of list, verify, prune, got 'lst'"),
        (["list", "verify"], "'verify' is one word too many: python -m "),
        (["list", "--stor", "x"], "unknown setting stor; did you mean store?"),
        (["prune", "--limit", "-1"], "limit is -1.0; it must be 0 or more"),
        (["prune", "--limit", "nan"], "limit"),
        (["prune", "--limit", "much"], "--limit: expected float or null, got 'much'"),
        (["list", "--limit", "1"], "limit is 1.0; it goes with prune"),
        (["--limit", "1"], "limit is 1.0; it goes with prune"),
        (["--store", __file__], "is a file: give a folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_is_one_line_and_status_2(argv: list[str], says: str, capsys: pytest.CaptureFixture):
    assert call(*argv) == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.startswith("cache: error: ")
    assert err.count("\n") == 1


def test_the_action_may_stand_in_a_file(folder: Path, out):
    fill(folder)
    (folder / "settings.yaml").write_text("action: verify\nstore: store\n", encoding="utf-8")
    assert call("--config", "store/settings.yaml") == 0
    assert out() == "2 files, all whole\n"


def test_help_says_what_may_be_left_out(capsys):
    with pytest.raises(SystemExit):
        call("--help")
    assert "python -m tlkit.recipes.cache [list|verify|prune] [--config FILE]" in capsys.readouterr().out
