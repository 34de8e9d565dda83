"""The activation store: what is written is found again, and what is damaged, foreign or unfinished never is."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import pickle
import signal
import stat
import subprocess
import sys
import textwrap
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tlkit.errors import InvalidInput
from tlkit.features import space as spaces
from tlkit.features import store as module
from tlkit.features import verified as verified_list
from tlkit.features.segments import KEY
from tlkit.features.space import Space
from tlkit.features.store import GB, Store

DESCRIPTION = {"network": "a", "engine": "keras 3", "precision": "float32", "shape": [4], "dtype": "float32"}
posix = pytest.mark.skipif(os.name != "posix", reason="by means that only POSIX has")


def keys_of(*numbers: int) -> list[bytes]:
    return [hashlib.sha256(b"%d" % number).digest() for number in numbers]


def values_of(*numbers: int, shape: tuple[int, ...] = (4,), dtype: str = "float32") -> np.ndarray:
    """What the network would give for each photo: its number, everywhere."""
    return np.stack([np.full(shape, number, dtype) for number in numbers])


def put(space: Space, *numbers: int, age: float = 0) -> Path:
    """Write one segment, as if so many seconds ago, and give its path."""
    before = set(space.folder.glob("*.npy"))
    space.write(keys_of(*numbers), values_of(*numbers))
    (path,) = set(space.folder.glob("*.npy")) - before
    os.utime(path, (time.time() - age,) * 2)
    return path


def read(space: Space, *numbers: int) -> np.ndarray:
    parts, rows = space.use(keys_of(*numbers))
    return np.stack([space.segments[part].values[row] for part, row in zip(parts, rows, strict=True)])


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def child(code: str, *argv: object) -> subprocess.Popen:
    """Start a Python process in which `space` is the space of DESCRIPTION in the store that is the first argument."""
    head = f"""
    import os, sys, time
    sys.path.insert(0, {str(Path(__file__).parent)!r})
    from test_store import *
    space = Store(sys.argv[1]).space(DESCRIPTION, "a network")
    """
    command = [sys.executable, "-c", textwrap.dedent(head) + textwrap.dedent(code), *map(str, argv)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def done(process: subprocess.Popen) -> str:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out


@pytest.fixture
def space(tmp_path: Path) -> Space:
    return Store(tmp_path / "store").space(DESCRIPTION, "a network")


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("shape", [(), (1,), (1280,), (7, 7, 3), (2, 3, 4, 5)], ids=str)
def test_what_is_written_is_mapped_again_bit_for_bit(dtype: str, shape: tuple[int, ...], tmp_path: Path):
    description = DESCRIPTION | {"shape": list(shape), "dtype": dtype}
    rng = np.random.default_rng(0)
    values = [rng.standard_normal((count, *shape)).astype(dtype) for count in (5, 1, 3)]
    values[1][...] = np.finfo(dtype).max
    values[2][...] = -np.finfo(dtype).smallest_subnormal
    writer = Store(tmp_path).space(description)
    with writer.turn(1) as ours:
        assert ours
        for start, some in zip((0, 5, 6), values, strict=True):
            writer.write(keys_of(*range(start, start + len(some))), some)
    reader = Store(tmp_path).space(description).refresh()
    assert len(reader.segments) == 3
    assert reader.refresh() is reader
    assert len(reader.segments) == 3  # none twice
    parts, rows = reader.use(keys_of(*range(9)))
    found = np.stack([reader.segments[part].values[row] for part, row in zip(parts, rows, strict=True)])
    assert found.dtype == dtype
    assert found.tobytes() == np.concatenate(values).tobytes()
    for segment in reader.segments:
        assert isinstance(segment.values, np.memmap)
        assert not segment.values.flags.writeable
        assert segment.keys.shape == (len(segment.values), KEY)
    (usage,) = Store(tmp_path).usage(verify=True)
    assert (usage.activations, usage.damaged, usage.duplicates, usage.files) == (9, [], 0, 4)


def test_numpy_alone_reads_a_segment(space: Space):
    (record,) = np.load(put(space, 3, 4), allow_pickle=False)
    assert [key.tobytes() for key in record["keys"]] == keys_of(3, 4)
    assert np.array_equal(record["values"], values_of(3, 4))


def test_values_in_any_order_of_memory_are_written_by_rows(tmp_path: Path):
    space = Store(tmp_path).space(DESCRIPTION | {"shape": [2, 3]})
    values = np.asfortranarray(np.arange(24, dtype=np.float32).reshape(4, 2, 3))[::2]
    space.write(keys_of(0, 1), values)
    assert np.array_equal(space.refresh().segments[0].values, values)


def test_what_would_not_be_found_again_is_not_written(space: Space):
    for keys, values in [
        (keys_of(1), values_of(1, dtype="float16")),
        (keys_of(1), values_of(1, shape=(5,))),
        (keys_of(1), values_of(1, shape=(4, 1))),
        (keys_of(1, 2), values_of(1)),
        ([b"short"], values_of(1)),
        ([bytes(31), bytes(33)], values_of(1, 2)),
    ]:
        with pytest.raises(ValueError, match="do not fit the space"):
            space.write(keys, values)
    space.write([], np.empty((0, 4), np.float32))
    assert not space.folder.exists()


def test_a_space_without_a_folder_keeps_in_memory():
    space = Space(DESCRIPTION)
    with space.turn(1) as ours:
        assert ours
        space.write(keys_of(1, 2), values_of(1, 2))
    assert np.array_equal(read(space.refresh(), 2, 1), values_of(2, 1))


def test_the_name_of_a_segment_is_the_digest_of_its_bytes(space: Space):
    first, second = put(space, 1, 2), put(space, 3)
    for path in (first, second):
        assert path.name == hashlib.sha256(path.read_bytes()).hexdigest()[:32] + ".npy"
    space.write(keys_of(1, 2), values_of(1, 2))  # once more the same
    assert len(list(space.folder.glob("*.npy"))) == 2


def test_each_description_has_its_own_space(tmp_path: Path):
    store = Store(tmp_path)
    others = [{name: "b"} for name in ("network", "engine", "precision")]
    others += [{"shape": [5]}, {"shape": [2, 2]}, {"dtype": "float16"}, {"pixels": [8, 8, 3]}, {"format": 1}]
    folders = [store.space(DESCRIPTION | other).folder for other in [{}, *others]]
    assert len(set(folders)) == len(folders)
    assert all(folder.parent == tmp_path for folder in folders)
    backwards = store.space(dict(reversed(DESCRIPTION.items())), "another label").folder
    assert backwards == folders[0]
    assert store.space(DESCRIPTION | {"shape": (4,)}).folder == folders[0]


# What stands in the folder.


def header(shape: tuple[int, ...], dtype: str = "<f4", kind: str = "|u1", name: str = "values") -> bytes:
    text = (
        f"{{'descr': [('keys', '{kind}', ({shape[0]}, 32)), ('{name}', '{dtype}', {shape})], "
        f"'fortran_order': False, 'shape': (1,), }}\n"
    ).encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def saved(path: Path, array: np.ndarray) -> bytes:
    np.save(path, array, allow_pickle=True)
    return path.read_bytes()


class Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def bad(path: Path, whole: bytes, bomb: Path) -> dict[str, bytes]:
    """What a file with the name of a segment may hold in place of it."""
    n = 2
    rows = b"".join(keys_of(8, 9)) + bytes(n * 16)
    records = np.zeros(1, [("keys", np.uint8, (n, 32)), ("values", np.float32, (n, 4)), ("more", np.uint8)])
    objects = np.array([Bomb(bomb), Bomb(bomb)], dtype=object)
    return {
        "empty": b"",
        "cut in the magic": whole[:4],
        "cut in the header": whole[:60],
        "cut in the keys": whole[:200],
        "cut by a byte": whole[:-1],
        "longer": whole + b"\0",
        "zeros": bytes(len(whole)),
        "garbage": np.random.default_rng(0).bytes(len(whole)),
        "other shape": header((n, 3)) + b"".join(keys_of(8, 9)) + bytes(n * 12),
        "more sides": header((n, 4, 1)) + rows,
        "other count": header((3, 4)) + rows,
        "no rows": header((0, 4)),
        "other dtype": header((n, 4), "<i4") + rows,
        "half as wide": header((n, 4), "<f2") + b"".join(keys_of(8, 9)) + bytes(n * 8),
        "other order": header((n, 4), ">f4") + rows,
        "other kind of keys": header((n, 4), kind="|i1") + rows,
        "other name": header((n, 4), name="weights") + rows,
        "huge numbers": header((10**30, 4)) + rows,
        "too many digits": header((n, 4)).replace(b"(2, 32)", b"(" + b"9" * 5000 + b", 32)") + rows,
        "code": header((n, 4)).replace(b"False", b"open('x', 'w')") + rows,
        "deep": b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535 + rows,
        "a plain array": saved(path, np.zeros((n, 4), np.float32)),
        "more fields": saved(path, records),
        "objects": saved(path, objects),
        "a pickle": pickle.dumps(Bomb(bomb)),
        "a zip file": zipped(path, objects),
        "a broken zip file": b"PK\x03\x04" + bytes(100),
    }


def zipped(path: Path, objects: np.ndarray) -> bytes:
    with zipfile.ZipFile(path, "w") as archive, archive.open("keys.npy", "w") as file:
        np.lib.format.write_array(file, objects, allow_pickle=True)
    return path.read_bytes()


def test_what_is_no_segment_is_passed_over_and_nothing_is_unpickled(space: Space, tmp_path: Path):
    good, bomb = put(space, 1), tmp_path / "bomb"
    put(space, 8, 9)
    kinds = bad(tmp_path / "made.npy", put(space, 5, 6).read_bytes(), bomb)
    placed = {}
    for path in space.folder.glob("*.npy"):
        if path != good:
            path.unlink()
    for name, content in kinds.items():
        placed[name] = space.folder / f"{hashlib.sha256(content).hexdigest()[:32]}.npy"  # even of the right name
        placed[name].write_bytes(content)
    assert len(set(placed.values())) == len(placed)

    fresh = Store(space.store.folder).space(DESCRIPTION).refresh()
    taken = [name for name, path in placed.items() if path in fresh.paths]
    assert not taken
    assert fresh.paths == [good]
    for verify in (False, True):
        (usage,) = space.store.usage(verify)
        assert not [name for name, path in placed.items() if path not in usage.damaged]
        assert len(usage.damaged) == len(placed)
        assert usage.activations == 1
    assert not bomb.exists()
    pickle.loads(pickle.dumps(Bomb(bomb)))  # noqa: S301 (the bomb is one, so the test can fail)
    assert bomb.exists()

    size = sum(path.stat().st_size for path in placed.values())
    assert space.store.clear() == (len(placed), size)
    assert files(space.folder) == {good.name, "space.json", ".lock"}


def test_a_changed_byte_is_found_by_verifying_all(space: Space):
    good, path = put(space, 1), put(space, 2, 3)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert space.store.usage()[0].damaged == []
    (usage,) = space.store.usage(verify=True)
    assert (usage.damaged, usage.activations) == ([path], 1)
    assert space.store.clear() == (1, len(content))
    assert list(space.folder.glob("*.npy")) == [good]
    assert space.store.usage(verify=True)[0].damaged == []


def deep() -> bytes:
    return b"[" * 60_000


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'{"label": "x"}',
        b'{"label": 3, "description": {}}',
        b'{"label": "x", "description": 3}',
        b'{"label": "x", "description": {"shape": [4], "dtype": "float32"}}',  # of another space
        b"\xff\xfe\x00",
        deep(),
        b'{"label": ' + b"9" * 5000 + b"}",
        b" " * 10**6,
    ],
    ids=lambda content: repr(content[:40]),
)
def test_a_hostile_or_damaged_description_makes_the_space_unknown_until_it_is_used(content: bytes, space: Space):
    path = put(space, 1)
    (space.folder / "space.json").write_bytes(content)
    for verify in (False, True):
        (usage,) = space.store.usage(verify)
        assert sorted(usage.damaged) == sorted([path, space.folder / "space.json"])
        assert (usage.label, usage.description) == (f"unknown {space.folder.name[:8]}", {})
    # Who knows what it is of goes on with it, and mends it.
    again = Store(space.store.folder).space(DESCRIPTION, "a network").refresh()
    assert np.array_equal(read(again, 1), values_of(1))
    with again.turn(1):
        pass
    (usage,) = space.store.usage(verify=True)
    assert (usage.label, usage.damaged, usage.description) == ("a network", [], DESCRIPTION)


def test_a_space_that_nobody_can_tell_is_cleared(space: Space):
    put(space, 1)
    (space.folder / "space.json").write_text("{}", encoding="utf-8")
    assert space.store.clear()[0] == 2
    assert space.store.usage() == []
    assert not space.folder.exists()


@pytest.mark.parametrize(
    "other", [{"shape": [0]}, {"shape": ["x"]}, {"shape": None}, {"dtype": "object"}, {"dtype": "float64"}], ids=str
)
def test_a_description_that_no_activation_can_have_is_damaged(other: dict, tmp_path: Path):
    folder = Store(tmp_path).space(DESCRIPTION | other).folder
    folder.mkdir()
    (folder / "space.json").write_text(json.dumps({"label": "x", "description": DESCRIPTION | other}), encoding="utf-8")
    assert Store(tmp_path).usage()[0].damaged == [folder / "space.json"]


# What is verified -----------------------------------------------------------------------------------------------------


def flipped(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def permuted(content: bytes) -> bytes:
    """The values of the last two photos change places."""
    return content[:-32] + content[-16:] + content[-32:-16]


def keys_permuted(content: bytes) -> bytes:
    start = content.index(keys_of(2)[0])
    return content[:start] + keys_of(3)[0] + keys_of(2)[0] + content[start + 64 :]


def infinite(content: bytes) -> bytes:
    return content[:-4] + np.float32(-np.inf).tobytes()


def not_a_number(content: bytes) -> bytes:
    return content[:-32] + np.float32(np.nan).tobytes() + content[-28:]


def cut(content: bytes) -> bytes:
    return content[:-1]


def later_process() -> None:
    verified_list._list_at.cache_clear()


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are read whole to be verified."""
    found: list[Path] = []
    real = spaces.problem_of
    for reader in (spaces, module):
        monkeypatch.setattr(reader, "problem_of", lambda path, *rest: found.append(path) or real(path, *rest))
    return found


@pytest.mark.parametrize("named", [False, True], ids=["of its old name", "of the right name"])
@pytest.mark.parametrize("damage", [flipped, permuted, keys_permuted, infinite, not_a_number, cut])
def test_a_damaged_segment_is_named_and_not_used(space: Space, capsys, damage: Callable[[bytes], bytes], named: bool):
    if named and damage in (flipped, permuted, keys_permuted):
        pytest.skip("then it is a segment like any other: nobody can tell that its values are wrong")
    good, path = put(space, 1), put(space, 2, 3)
    before, content = path.stat(), path.read_bytes()
    if named:
        path.unlink()
        path = path.with_name(f"{hashlib.sha256(damage(content)).hexdigest()[:32]}.npy")
    path.write_bytes(damage(content))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    for _ in range(2):  # in this process, which wrote it and knew it to be whole, and in a later one
        fresh = Store(space.store.folder).space(DESCRIPTION).refresh()
        assert fresh.verify(keys_of(1, 2, 3)) == 1
        assert np.array_equal(read(fresh, 1), values_of(1))
        with pytest.raises(KeyError):
            read(fresh, 2)
        fresh.refresh()
        assert fresh.verify(keys_of(2)) == 0
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"ignored because damaged: {path} (")
        assert line.endswith(f"prune --store {space.store.folder} deletes it)")
        later_process()
    assert space.store.usage(verify=True)[0].damaged == [path]

    again = Store(space.store.folder).space(DESCRIPTION).refresh()
    again.verify(keys_of(2))
    again.write(keys_of(2, 3), values_of(2, 3))  # over it, where it has the same name
    assert np.array_equal(read(again.refresh(), 1, 2, 3), values_of(1, 2, 3))
    assert good.exists()


def test_many_damaged_segments_are_one_line(space: Space, capsys):
    paths = [put(space, number) for number in range(5)]
    for path in paths:
        path.write_bytes(flipped(path.read_bytes()))
    assert space.refresh().verify(keys_of(*range(5))) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert " and 4 more; " in line


def test_what_stands_in_two_segments_is_found_in_the_whole_one(space: Space):
    paths = sorted([put(space, 1, 2), put(space, 2, 3), put(space, 2, 4)])
    for path in paths[:2]:
        path.write_bytes(flipped(path.read_bytes()))
    assert space.refresh().verify(keys_of(2)) == 1
    assert np.array_equal(read(space, 2), values_of(2))
    assert space.paths[space.places[keys_of(2)[0]][0]] == paths[2]


def test_only_what_is_used_is_verified_and_once_for_each_state_of_its_file(space: Space, hashed: list[Path]):
    one, two = put(space, 1), put(space, 2)
    later_process()
    os.utime(one)  # whatever happens to a file makes it another one: this, a copy, a stranger's change
    os.utime(two)
    for _ in range(3):
        other = Store(space.store.folder).space(DESCRIPTION).refresh()
        assert np.array_equal(read(other, 1, 1), values_of(1, 1))
        later_process()
    assert hashed == [one]
    content = one.read_bytes()
    one.unlink()
    one.write_bytes(content)
    assert np.array_equal(read(Store(space.store.folder).space(DESCRIPTION).refresh(), 1), values_of(1))
    assert hashed == [one, one]


def test_who_writes_a_segment_need_not_verify_it(space: Space, hashed: list[Path]):
    space.write(keys_of(1), values_of(1))
    assert np.array_equal(read(space.refresh(), 1), values_of(1))
    later_process()
    assert np.array_equal(read(Store(space.store.folder).space(DESCRIPTION).refresh(), 1), values_of(1))
    assert hashed == []


@posix
def test_the_list_of_verified_files_is_the_users_own(space: Space, hashed: list[Path]):
    space.write(keys_of(1), values_of(1))
    path = Path(os.environ["XDG_STATE_HOME"]) / "tlkit" / "verified"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def verified() -> bool:
        later_process()
        before = len(hashed)
        assert np.array_equal(read(Store(space.store.folder).space(DESCRIPTION).refresh(), 1), values_of(1))
        return len(hashed) > before

    assert not verified()
    path.chmod(0o622)  # others may have written it
    assert verified()
    path.chmod(0o600)
    path.write_bytes(b"\xff" * 100)
    assert verified()
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")
    assert verified()
    path.unlink()
    path.mkdir()
    assert verified()  # it cannot be written: no harm
    path.rmdir()
    path.write_bytes(b"0" * (verified_list.LARGEST + 1))
    path.chmod(0o600)
    assert verified()
    assert path.stat().st_size == 33  # it began anew
    assert not verified()


@posix
def test_a_segment_that_vanishes_or_is_replaced_while_it_is_mapped_is_verified_as_mapped(space: Space, tmp_path: Path):
    path = put(space, 1)
    content = path.read_bytes()
    path.write_bytes(flipped(content))
    mapped = Store(space.store.folder).space(DESCRIPTION).refresh()
    (tmp_path / "whole").write_bytes(content)
    os.replace(tmp_path / "whole", path)
    whole = Store(space.store.folder).space(DESCRIPTION).refresh()
    assert np.array_equal(read(whole, 1), values_of(1))
    assert mapped.verify(keys_of(1)) == 0
    gone = Store(space.store.folder).space(DESCRIPTION).refresh()
    path.unlink()
    later_process()
    assert np.array_equal(read(gone, 1), values_of(1))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_what_is_not_finite_is_not_written(tmp_path: Path, value: float, dtype: str):
    space = Store(tmp_path).space(DESCRIPTION | {"dtype": dtype})
    values = values_of(1, 2, dtype=dtype)
    values[1, 3] = value
    with pytest.raises(ValueError, match="not finite"):
        space.write(keys_of(1, 2), values)
    assert not list(tmp_path.iterdir())


def test_activations_that_are_there_twice_are_counted_and_do_no_harm(space: Space):
    put(space, 1, 2, 3)
    put(space, 2, 3, 4)
    (usage,) = space.store.usage(verify=True)
    assert (usage.activations, usage.duplicates) == (6, 2)
    assert space.store.usage()[0].duplicates == 0  # not looked for
    assert np.array_equal(read(space.refresh(), 4, 3, 2, 1), values_of(4, 3, 2, 1))


# Only the store's own files.


def foreign(root: Path, space: Space) -> list[Path]:
    """Files that only look like the store's, and are not."""
    digest = "0123456789abcdef" * 2
    made = [
        root / digest / f"{digest}.npy",  # no space.json beside it
        root / digest / f".{digest}.x.part",
        root / digest.upper() / f"{digest}.npy",
        root / f"{digest}.npy",
        root / "space.json",
        root / "notes" / f"{digest}.npy",
        space.folder / "array.npy",
        space.folder / f"{digest}.npy.bak",
        space.folder / f"{digest.upper()}.npy",
        space.folder / f".{digest}.part2",
        space.folder / "notes.txt",
        space.folder / f"{digest}.npy" / "inside.txt",  # a folder with the name of a segment
    ]
    for path in made:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine", encoding="utf-8")
    return made


def test_only_what_is_the_stores_own_is_deleted(space: Space, tmp_path: Path):
    mine = foreign(space.store.folder, space)
    put(space, 1)
    store = Store(space.store.folder, limit=0)
    assert store.clear() == (0, 0)
    assert [usage.name for usage in store.usage()] == [space.folder.name]
    assert store.make_room(0) > 0
    store.clear()
    assert not [path for path in mine if not path.exists()]
    assert not list(store.folder.glob("*/.lock"))
    assert store.usage() == []


@posix
def test_links_are_not_followed(space: Space, tmp_path: Path):
    elsewhere = Store(tmp_path / "elsewhere").space(DESCRIPTION | {"network": "b"})
    kept = put(elsewhere, 1)
    inside = put(space, 2)
    (space.store.folder / elsewhere.folder.name).symlink_to(elsewhere.folder)  # a space
    (space.folder / f"{'0' * 32}.npy").symlink_to(kept)  # a segment
    (space.folder / f".{'0' * 32}.x.part").symlink_to(kept)
    hidden = Store(space.store.folder).space(DESCRIPTION | {"network": "c"}).folder
    hidden.mkdir()
    (hidden / "space.json").symlink_to(elsewhere.folder / "space.json")
    (hidden / kept.name).write_bytes(b"")
    assert [usage.name for usage in space.store.usage()] == [space.folder.name]
    assert space.refresh().paths == [inside]
    store = Store(space.store.folder, limit=0)
    store.clear()
    store.make_room(0)
    assert kept.exists()
    assert (hidden / kept.name).exists()
    assert not inside.exists()


@posix
def test_pipes_do_not_hang(space: Space):
    put(space, 1)
    os.mkfifo(space.folder / f"{'0' * 32}.npy")
    other = space.store.space(DESCRIPTION | {"network": "b"})
    other.folder.mkdir()
    os.mkfifo(other.folder / "space.json")
    assert len(space.refresh().paths) == 1
    assert len(space.store.usage(verify=True)) == 1
    put(other, 2)  # what is no file gives way to one
    assert len(space.store.usage()) == 2


def test_the_folder_may_be_missing_vanish_or_be_named_by_the_environment(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("TLKIT_CACHE", "~/kept")
    store = Store()
    assert store.folder == tmp_path / "kept"
    assert Store("~/other").folder == tmp_path / "other"
    assert (store.usage(), store.usage(verify=True), store.make_room(10), store.clear()) == ([], [], 0, (0, 0))
    assert not store.folder.exists()  # looking makes nothing
    space = store.space(DESCRIPTION)
    assert space.refresh().segments == []
    with space.turn(1):
        put(space, 1)
        for path in space.folder.iterdir():
            path.unlink()
        space.folder.rmdir()
        store.folder.rmdir()
        put(space, 2)
    assert np.array_equal(read(space.refresh(), 2), values_of(2))
    assert store.usage(verify=True)[0].damaged == []

    monkeypatch.chdir(tmp_path)
    relative = Store("kept")
    monkeypatch.chdir("/")
    assert len(relative.usage()) == 1
    monkeypatch.delenv("TLKIT_CACHE")
    assert Store().folder.is_absolute()
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInput, match="which is a file: give a folder"):
        Store(tmp_path / "file")
    assert Store(tmp_path / "file" / "below").usage() == []
    with pytest.raises(OSError), Store(tmp_path / "file" / "below").space(DESCRIPTION).turn(1):  # noqa: PT011
        pass


# The limit.


def sized(tmp_path: Path, *ages: float) -> tuple[Store, list[Path], int]:
    """A store with segments of one size, last used so many seconds ago, alternately in two spaces."""
    filler = Store(tmp_path / "store")
    spaces = [filler.space(DESCRIPTION | {"network": name}, name) for name in "ab"]
    paths = [put(spaces[number % 2], number, age=age) for number, age in enumerate(ages)]
    (size,) = {path.stat().st_size for path in paths}
    return Store(tmp_path / "store"), paths, size


def test_the_least_recently_used_makes_room(tmp_path: Path):
    store, paths, size = sized(tmp_path, 50, 10, 40, 20, 30)
    store.limit = 5 * size
    assert store.make_room(0) == 0
    assert all(path.exists() for path in paths)
    assert store.make_room(1) == size
    assert [path.exists() for path in paths] == [False, True, True, True, True]
    assert store.make_room(3 * size) == 2 * size
    assert [path.exists() for path in paths] == [False, True, False, True, False]
    (usage,) = store.usage()  # a space without segments goes
    assert (usage.label, usage.activations, usage.size) == ("b", 2, 2 * size)


def test_reading_keeps_from_making_room(tmp_path: Path):
    store, paths, size = sized(tmp_path, 50, 40)
    other = Store(store.folder, limit=2 * size)
    read(other.space(DESCRIPTION | {"network": "a"}).refresh(), 0)
    assert time.time() - paths[0].stat().st_mtime < 20
    store.limit = 2 * size
    store.make_room(size)
    assert [path.exists() for path in paths] == [True, False]


def test_what_this_process_uses_stays_and_nothing_is_deleted_in_vain(tmp_path: Path):
    store, paths, size = sized(tmp_path, 50, 40, 30, 20)
    store.limit = 4 * size
    held = store.space(DESCRIPTION | {"network": "a"}).refresh()
    read(held, 0)
    os.utime(paths[0], (0, 0))
    with pytest.raises(OSError, match=r"the limit of .* GB is reached") as raised:
        store.make_room(3 * size + 1)
    assert raised.value.errno == errno.EDQUOT
    assert all(path.exists() for path in paths)
    assert store.make_room(3 * size) == 3 * size
    assert [path.exists() for path in paths] == [True, False, False, False]


def test_writing_keeps_the_limit_and_what_was_written_in_this_process(tmp_path: Path):
    store, _, size = sized(tmp_path, 50, 40)
    store.limit = 3 * size
    space = store.space(DESCRIPTION)
    with space.turn(1):
        mine = [put(space, 10, age=100), put(space, 11, age=100), put(space, 12, age=100)]
        assert store.usage()[0].size == 3 * size
        assert len(store.usage()) == 1
        with pytest.raises(OSError, match="the limit of"):
            put(space, 13)
    assert files(space.folder) == {path.name for path in mine} | {"space.json", ".lock"}
    assert np.array_equal(read(space.refresh(), 10, 11, 12), values_of(10, 11, 12))


def test_what_another_process_deletes_at_the_same_time_costs_no_more(tmp_path: Path, monkeypatch):
    store, paths, size = sized(tmp_path, 50, 40, 30)
    store.limit = 2 * size
    real = module.segment_files

    def listed(folder: Path):
        found = real(folder)
        if paths[0] in found:
            paths[0].unlink(missing_ok=True)  # between listing and deleting
        return found

    monkeypatch.setattr(module, "segment_files", listed)
    store.make_room(0)
    assert [path.exists() for path in paths] == [False, True, True]
    assert len(store.usage(verify=True)) == 2


def test_a_segment_that_another_process_deletes_stays_readable(tmp_path: Path, space: Space):
    put(space, 1)
    space.refresh()
    if os.name == "posix":
        Store(space.store.folder, limit=0).make_room(0)
        assert not space.folder.exists()
    assert np.array_equal(read(space, 1), values_of(1))
    with space.turn(1):
        put(space, 2)
    assert np.array_equal(read(space.refresh(), 1, 2), values_of(1, 2))


def test_usage_is_sorted_by_last_use(tmp_path: Path):
    store, paths, size = sized(tmp_path, 50, 10, 500)
    names = [usage.label for usage in store.usage()]
    assert names == ["b", "a"]
    read(store.space(DESCRIPTION | {"network": "a"}).refresh(), 2)
    used = store.usage()
    assert [usage.label for usage in used] == ["a", "b"]
    assert [usage.size for usage in used] == [2 * size, size]
    assert used[1].used == pytest.approx(paths[1].stat().st_mtime)


# Full disks, forbidden folders, dying processes.


def test_an_unfinished_file_goes_at_the_next_turn(space: Space):
    path = put(space, 1)
    left = [space.folder / f".{'0' * 32}.abcd1234.part", space.folder / ".space.abcd1234.part"]
    for part in left:
        part.write_bytes(b"half")
    space.refresh()
    assert len(space.segments) == 1
    assert space.store.usage(verify=True)[0].damaged == []
    with space.turn(1):
        assert files(space.folder) == {path.name, "space.json", ".lock"}
    for part in left:
        part.write_bytes(b"half")
    with space.turn(1):
        for part in left:
            part.write_bytes(b"half")
        assert Store(space.store.folder).clear() == (0, 0)  # this process may just be writing them
        assert left[0].exists()
    assert space.store.clear() == (2, 8)
    assert files(space.folder) == {path.name, "space.json", ".lock"}


@posix
def test_a_full_disk_leaves_nothing_half_written(space: Space):
    code = """
    import resource
    with space.turn(1):
        put(space, 1)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # Python ignores the signal, so it is an error
        try:
            put(space, *range(2, 500))
        except OSError as error:
            print(error.errno)
        put(space, 2)
    """
    assert int(done(child(code, space.store.folder))) == errno.EFBIG
    assert len(files(space.folder)) == 4
    assert not [name for name in files(space.folder) if name.endswith(".part")]
    (usage,) = space.store.usage(verify=True)
    assert (usage.activations, usage.damaged) == (2, [])


def test_an_interruption_leaves_nothing_half_written(space: Space, monkeypatch):
    put(space, 1)
    before = files(space.folder)

    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with contextlib.suppress(KeyboardInterrupt), space.turn(1):
        space.write(keys_of(2), values_of(2))
    assert files(space.folder) == before | {".lock"}
    with space.turn(0) as ours:  # and the lock is free again
        assert ours


HOLD = """
with space.turn(5) as ours:
    assert ours
    put(space, 1)
    real = os.fsync
    def stuck(handle):
        print("writing", flush=True)
        time.sleep(60)
    os.fsync = stuck
    put(space, 2)
"""


@posix
def test_a_killed_process_loses_its_turn_and_its_unfinished_file(space: Space):
    holder = child(HOLD, space.store.folder)
    try:
        assert holder.stdout.readline() == "writing\n", holder.stderr.read()
        (part,) = space.folder.glob("*.part")
        began = time.monotonic()
        with space.turn(0.3) as ours:
            assert not ours
            assert part.exists()
        assert 0.25 < time.monotonic() - began < 5
        assert Store(space.store.folder).clear() == (0, 0)
        assert part.exists()
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate(timeout=60)
    with space.turn(2) as ours:
        assert ours
        assert not part.exists()
        put(space, 3)
    assert set(space.refresh().places) == set(keys_of(1, 3))
    assert space.store.usage(verify=True)[0].damaged == []


@posix
def test_a_process_that_waits_survives_that_the_empty_space_is_deleted(space: Space):
    wait = """
    print("waits", flush=True)
    with space.turn(20) as ours:
        assert ours
        print(sorted(files(space.folder)))
        put(space, 1)
        with Store(sys.argv[1]).space(DESCRIPTION).turn(0) as theirs:
            assert not theirs
    """
    with space.turn(1):
        waiting = child(wait, space.store.folder)
        assert waiting.stdout.readline() == "waits\n", waiting.stderr.read()
        time.sleep(0.2)
        (space.folder / "space.json").unlink()  # as `clear` does, under the lock, and no more once its file is gone
        (space.folder / ".lock").unlink()
        with contextlib.suppress(OSError):  # the other process may have asked for it between these two lines
            space.folder.rmdir()
    assert done(waiting) == "['.lock', 'space.json']\n"
    assert space.store.usage(verify=True)[0].activations == 1


@posix
def test_processes_that_write_at_once_lose_nothing(space: Space):
    code = """
    os.fsync = lambda handle: None
    missing = list(range(60))
    while missing:
        with space.turn(0.05) as ours:
            space.refresh()
            missing = [number for number in missing if keys_of(number)[0] not in space.places]
            if ours and missing:
                put(space, *missing[:4])
                space.refresh()
        time.sleep(0.03)
    assert np.array_equal(read(space, *range(60)), values_of(*range(60)))
    """
    for process in [child(code, space.store.folder) for _ in range(2)]:
        done(process)
    (usage,) = space.store.usage(verify=True)
    assert (usage.activations, usage.duplicates, usage.damaged, usage.files) == (60, 0, [], 16)


@posix
def test_one_process_writes_while_another_deletes(space: Space):
    code = """
    os.fsync = lambda handle: None
    for number in range(100):
        with space.turn(5) as ours:
            assert ours
            put(space, number)
    """
    writer, deleter = child(code, space.store.folder), Store(space.store.folder, limit=2000)
    while writer.poll() is None:
        deleter.clear()
        deleter.make_room(0)
        deleter.usage()
    done(writer)
    assert all(usage.damaged == [] for usage in deleter.usage(verify=True))


@posix
def test_others_may_read_what_the_umask_lets_them(space: Space):
    code = """
    for umask in (0o022, 0o002, 0o077):
        os.umask(umask)
        space = Store(sys.argv[1]).space(DESCRIPTION | {"umask": umask})
        with space.turn(1):
            put(space, 1)
    """
    done(child(code, space.store.folder))
    for umask, mode in [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)]:
        folder = space.store.space(DESCRIPTION | {"umask": umask}).folder
        modes = {path.suffix: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
        assert modes[".npy"] == modes[".json"] == mode
        assert stat.S_IMODE(folder.stat().st_mode) == 0o777 & ~umask


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="root of Linux can give files to another user")
def test_a_store_that_may_only_be_read_is_read(tmp_path: Path):
    # Root lays down what lets it pass over the permissions of others' files, and has it back only while it imports: who
    # became somebody else could import nothing more from an environment where only root may look.
    code = """
    import builtins, ctypes
    libc, header, had = ctypes.CDLL(None), (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, had) == 0
    laid_down = type(had)(0, had[1], 0, 0, had[4], 0)
    take_in, depth = builtins.__import__, 0
    def import_as_root(*args, **kwargs):
        global depth
        depth += 1
        libc.capset(header, had)
        try:
            return take_in(*args, **kwargs)
        finally:
            depth -= 1
            if not depth:
                assert libc.capset(header, laid_down) == 0
    builtins.__import__ = import_as_root
    assert libc.capset(header, laid_down) == 0
    assert np.array_equal(read(space.refresh(), 2), values_of(2))
    try:
        with space.turn(0.5):
            print("written")
    except OSError as error:
        print(type(error).__name__)
    store = Store(sys.argv[1], limit=0)
    (usage,) = store.usage(verify=True)  # what one may not read is not damaged
    print(usage.activations, usage.damaged)
    print(store.clear())
    try:
        store.make_room(0)
    except OSError as error:
        print(error.strerror)
    """
    folder = tmp_path / "store"
    space = Store(folder).space(DESCRIPTION)
    path, hidden = put(space, 1, 2, age=100), put(space, 4)
    secret = put(space.store.space(DESCRIPTION | {"network": "secret"}), 3)
    for each in (folder, *folder.rglob("*")):
        each.chmod(0o755 if each.is_dir() else 0o644)  # whatever the umask is
        os.chown(each, 65534, 65534)
    secret.parent.chmod(0o700)
    hidden.chmod(0o600)
    out = done(child(code, folder)).splitlines()
    assert path.exists()
    assert out == ["PermissionError", "2 []", "(0, 0)", "the limit of 0 GB is reached"]


@posix
def test_more_segments_than_files_may_be_open_are_found_all_the_same(space: Space):
    code = """
    import resource
    os.fsync = lambda handle: None
    for number in range(150):
        space.write(keys_of(number), values_of(number))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, int(sys.argv[2])))
    assert len(space.refresh().segments) == 150
    assert np.array_equal(read(space, *range(150)), values_of(*range(150)))
    with open(sys.executable, "rb"):  # and others can be opened
        pass
    print(sum(isinstance(segment.values, np.memmap) for segment in space.segments))
    """
    assert int(done(child(code, space.store.folder, 4096))) == 150  # the limit is raised
    assert int(done(child(code, space.store.folder, 64))) == 32  # it cannot be: the rest is read


def test_many_segments_are_listed_at_once(space: Space):
    content = put(space, 0).read_bytes()
    for number in range(2000):
        (space.folder / f"{number:032x}.npy").write_bytes(content)
    seconds = []
    for _ in range(3):  # the fastest of three: the machine may be busy
        began = time.perf_counter()
        assert space.store.usage()[0].activations == 2001
        seconds.append(time.perf_counter() - began)
    assert min(seconds) < 0.5


def test_the_default_limit_is_generous():
    assert Store("anywhere").limit == 20 * GB
