"""The activation store: arrays on disk that are computed once, found by what they were computed from.

    FOLDER/SPACE/space.json      what the activations of this space are of: network, weights, cut, pixels, engine ...
    FOLDER/SPACE/SEGMENT.npy     the activations of some photos, and the photos' keys

A space is named by the SHA-256 of its description, a segment by that of its own bytes, so what has changed has another
name and what is damaged can be told: a segment is compared with its name before the first of its values is used, and
its values must be finite. A segment is an .npy file with one record (`keys`, `values`), which is mapped into memory;
its header is matched with what stands there, not evaluated, so nothing in it can be executed. It is written under
another name and then renamed, so it is whole or not there. One process at a time computes for a space, under a lock
that the system takes away from a process that dies.

Only what has these names, in a folder with a space.json, is ever counted or deleted, and no link is followed.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import io
import json
import math
import os
import re
import shlex
import stat
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import filelock
import numpy as np
import platformdirs

from tlkit import atomic
from tlkit.display import called, say
from tlkit.errors import InvalidInput
from tlkit.progress import Progress

GB = 10**9
LIMIT = 20.0  # GB
KEY = 32  # bytes of SHA-256
_NAME = re.compile(r"[0-9a-f]{32}")
_SEGMENT = re.compile(r"[0-9a-f]{32}\.npy")
_UNFINISHED = re.compile(r"\.([0-9a-f]{32}|space)\..*\.part")
_HEADER = re.compile(
    rb"\{'descr': \[\('keys', '\|u1', \((\d+), 32\)\), \('values', '([<>]f[24])', \(([\d, ]+)\)\)\], "
    rb"'fortran_order': False, 'shape': \(1,\), \} *\n"
)
_LONGEST = 2**16  # bytes of a space.json, at most
_MARK = re.compile(r"[0-9a-f]{32}")
_MARKS = 2**22  # bytes of the list of verified files, at most: then it begins anew
_TOGETHER = 2**18  # values that are looked at together: they stay in a CPU's cache
THREADS = 2  # that verify
POLL = 0.02  # seconds between two tries for the lock


class Segment(NamedTuple):
    """A segment in memory, or mapped into it."""

    keys: np.ndarray  # (n, 32), uint8
    values: np.ndarray  # (n, *shape), float16 or float32


class _File(NamedTuple):
    """What a segment was read from, until it has been verified."""

    content: np.ndarray  # (bytes,), uint8, with the header
    inode: tuple[int, int] | None  # with the device; None where it is a copy in memory and not mapped


class Usage(NamedTuple):
    """What one space holds.

    Args:
        name: Of its folder.
        label: What it is, for people.
        description: All that its values depend on beside the photo.
        activations: How many it has.
        size: Bytes.
        used: When it was last read or written, in seconds since 1970.
        damaged: Files that are not what their name says, cannot be read, or hold values that are not finite. Where
            space.json is one, all are: nobody can tell what they are of.
        twice: Activations that are there more than once; counted where all is verified, else 0.
        files: How many there are.
    """

    name: str
    label: str
    description: dict[str, Any]
    activations: int
    size: int
    used: float
    damaged: list[Path]
    twice: int
    files: int


class Store:
    """A folder of activations.

    Args:
        folder: Where; by default what the environment's TLKIT_CACHE names, else the platform's place for caches
            (`~/.cache/tlkit` on Linux). It is made when something is written.
        limit: Most bytes that it may hold; the least recently used segments make room.

    Raises:
        InvalidInput: the folder is a file.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     space = Store(folder).space({"network": "an example", "shape": [3], "dtype": "float32"})
    ...     space.write([bytes(32)], np.ones((1, 3), np.float32))
    ...     part, row = space.refresh().places[bytes(32)]
    ...     space.segments[part].values[row].tolist()
    [1.0, 1.0, 1.0]
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None, limit: float = LIMIT * GB):
        chosen = folder or os.environ.get("TLKIT_CACHE") or platformdirs.user_cache_dir("tlkit", False)
        self.folder = Path(os.path.expanduser(chosen)).absolute()  # the program may change to another folder
        self.limit = limit
        self.used: set[Path] = set()  # segments that this process reads: they are not to make room
        if self.folder.exists() and not self.folder.is_dir():
            raise InvalidInput(f"the activation store is {str(self.folder)!r}, which is a file: give a folder")

    def space(self, description: Mapping[str, Any], label: str = "") -> Space:
        """Give the space of a description: any JSON, with the `shape` and `dtype` of an activation.

        The label says what it is, for people.
        """
        return Space(description, label, self, self.folder / _name(description))

    def usage(self, verify: bool = False) -> list[Usage]:
        """Say what each space holds, the last used first.

        Args:
            verify: Read every file whole and compare it with its name, and tell on stderr how far that is.
        """
        folders = self._folders()
        if verify:
            with Progress("verifying", sum(len(_segments(folder)) for folder in folders), "files") as progress:
                found = [_usage(folder, progress) for folder in folders]
        else:
            found = [_usage(folder) for folder in folders]
        return sorted(found, key=lambda usage: -usage.used)

    def make_room(self, size: int) -> int:
        """Delete the least recently used segments until `size` more bytes keep the limit, and give the bytes deleted.

        Raises:
            OSError: what this process uses, and `size`, are more than the limit; nothing is deleted then. Or what
                should make room cannot be deleted.
        """
        files = []
        for folder in self._folders():
            files += [(status.st_mtime, status.st_size, path) for path, status in _segments(folder).items()]
        excess = sum(length for _, length, _ in files) + size - self.limit
        if excess <= 0:
            return 0
        spare = sorted(file for file in files if file[2] not in self.used)
        freed, emptied = 0, set()
        if sum(length for _, length, _ in spare) >= excess:
            for _, length, path in spare:
                if freed >= excess:
                    break
                # Where another process has deleted it just now, there is as much room: it must not cost one more.
                # It stays where it is somebody else's, or, on Windows, in use by another process.
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)
                    freed += length
                    emptied.add(path.parent)
        for folder in emptied:
            _tidy(folder)
        if freed < excess:
            raise OSError(errno.EDQUOT, f"the limit of {self.limit / GB:g} GB is reached")
        return freed

    def clear(self) -> tuple[int, int]:
        """Delete what is no use: damaged and unfinished files, and spaces without segments.

        Returns:
            How many files were damaged or unfinished, and their bytes.

        Raises:
            OSError: some could not be deleted; all others are.
        """
        count, size, failed = 0, 0, None
        folders = self._folders()
        with Progress("verifying", sum(len(_segments(folder)) for folder in folders), "files") as progress:
            for folder in folders:
                for path in _usage(folder, progress).damaged:
                    try:
                        length = path.stat().st_size
                        path.unlink()
                        count, size = count + 1, size + length
                    except FileNotFoundError:
                        pass
                    except OSError as error:
                        failed = error
                unfinished = _tidy(folder)
                count, size = count + len(unfinished), size + sum(unfinished)
        if failed:
            raise failed
        return count, size

    def _folders(self) -> list[Path]:
        """The folders of spaces: by their names and their space.json, so that no other folder is taken for one."""
        try:
            with os.scandir(self.folder) as entries:
                named = [
                    entry for entry in entries if _NAME.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)
                ]
        except (FileNotFoundError, NotADirectoryError):
            return []
        paths = [self.folder / entry.name for entry in named]
        return [path for path in paths if _is_plain(path / "space.json") and os.access(path / "space.json", os.R_OK)]


class Space:
    """The activations of one network, cut at one place; `Store.space` makes one.

    Args:
        description: All that the values depend on beside the photo, with their `shape` and `dtype`.
        label: What it is, for people.
        store: Its store.
        folder: Its folder; None for a space in memory.
    """

    def __init__(
        self, description: Mapping[str, Any], label: str = "", store: Store | None = None, folder: Path | None = None
    ):
        self.description, self.label, self.store, self.folder = description, label, store, folder
        self.segments: list[Segment] = []
        self.paths: list[Path | None] = []
        self.places: dict[bytes, tuple[int, int]] = {}  # of a key: which segment, which row
        self.unverified: dict[int, _File] = {}  # by segment

    def refresh(self) -> Space:
        """Look for segments that other processes have written; what is no segment is passed over, and named."""
        found, known, seen = _segments(self.folder) if self.folder else {}, set(self.paths), _verified()
        new = [path for path in sorted(found) if path not in known and _mark(path, found[path]) not in seen.damaged]
        mapped = _allow_files(len(self.paths) + len(new))
        damaged = {}
        for path in new:
            try:
                self._add(path, *_read(path, self.description, len(self.paths) < mapped))
            except ValueError as error:
                damaged[path] = str(error)
                seen.damaged.add(_mark(path, found[path]))
            except OSError:
                pass  # another process is making room, or it is somebody else's
        self._tell(damaged)
        return self

    def keep(self, keys: Sequence[bytes], values: np.ndarray) -> None:
        """Hold activations in memory alone; shapes as for `write`."""
        joined = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, KEY)
        self._add(None, Segment(joined, values))

    def use(self, keys: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
        """Say which segment, and which of its rows, each key has, and that these segments are in use.

        Raises:
            KeyError: it has one no more, since the segment is damaged; `verify` first.
        """
        if self.unverified:
            self.verify(keys)
        places = np.array([self.places[key] for key in keys], np.int64).reshape(-1, 2)
        return places[:, 0], places[:, 1]

    def verify(self, keys: Collection[bytes]) -> int:
        """Verify the segments that have some of these keys, each once; damaged ones are forgotten, and named.

        Returns:
            How many of the keys there are, in segments that are whole.
        """
        while True:
            found = [place[0] for place in map(self.places.get, keys) if place]
            parts = sorted(self.unverified.keys() & set(found))
            unknown = [part for part in parts if not self._known(part)]
            damaged: dict[int, str] = {}
            if unknown:
                with ThreadPoolExecutor(THREADS) as pool:
                    reasons = zip(unknown, pool.map(self._damage, unknown), strict=True)
                    damaged = {part: reason for part, reason in reasons if reason}
            for part in parts:
                del self.unverified[part]
                if self.store and part not in damaged:
                    self.store.used.add(self._path(part))
            _verified().save()
            if not damaged:
                return len(found)
            self._tell({self._path(part): reason for part, reason in damaged.items()})
            self._forget(damaged)  # what they have may stand in others too, so look again

    def _known(self, part: int) -> bool:
        """Whether a segment was verified before and its file is as it was then; if so, it counts as used just now."""
        path, inode, seen = self._path(part), self.unverified[part].inode, _verified()
        if inode is None or _mark(path, inode=inode) not in seen.whole:
            return False
        # Touched, it has another mark. Who may write the file and does so between these lines is not found out; but
        # then they may also do so at any time later.
        if (mark := self._touched(path, inode)) is not None:
            seen.add(mark)
        return True

    def _damage(self, part: int) -> str:
        """Say what is wrong with a segment, if anything is; it counts as used just now."""
        path, (content, inode), seen = self._path(part), self.unverified[part], _verified()
        mark = self._touched(path, inode)
        if reason := _wrong(path, content, self.segments[part].values):
            seen.damaged.add(mark)
        elif mark and inode and _mark(path, inode=inode) == mark:
            seen.add(mark)
        return reason

    def _path(self, part: int) -> Path:
        path = self.paths[part]
        if path is None:
            raise RuntimeError("a segment in memory has no file")
        return path

    @staticmethod
    def _touched(path: Path, inode: tuple[int, int] | None) -> str | None:
        with contextlib.suppress(OSError):  # a store that may only be read
            os.utime(path)
        return _mark(path, inode=inode)

    def _forget(self, parts: Collection[int]) -> None:
        for part in parts:
            segment = self.segments[part]
            self.segments[part], self.paths[part] = Segment(segment.keys[:0], segment.values[:0]), None
        self.places.clear()
        for part, segment in enumerate(self.segments):
            self._place(part, segment)

    def _tell(self, damaged: Mapping[Path, str]) -> None:
        if damaged and self.store:
            path, reason = next(iter(damaged.items()))
            more = f" and {len(damaged) - 1:,} more" if len(damaged) > 1 else ""
            say(
                f"damaged, so that it is not used: {path} ({reason}){more}; what is missing is computed again "
                f"({called('cache')} prune --store {shlex.quote(str(self.store.folder))} deletes it)",
                error=True,
            )

    @contextlib.contextmanager
    def turn(self, seconds: float) -> Iterator[bool]:
        """Hold the space, if it is to be had within so many seconds, and tidy up after processes that died in theirs.

        Raises:
            OSError: the folder cannot be written.
        """
        if self.folder is None:
            yield True
            return
        lock, end = filelock.FileLock(self.folder / ".lock"), time.monotonic() + seconds
        while True:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(timeout=max(0.0, end - time.monotonic()), poll_interval=POLL)
            except filelock.Timeout:
                yield False
                return
            except FileNotFoundError:  # another process has deleted the empty space between these two lines
                if time.monotonic() > end:
                    raise
                continue
            if (self.folder / ".lock").exists() or time.monotonic() > end:
                break
            lock.release()  # deleted while we waited for it: a third process would get another one
        try:
            for path in _unfinished(self.folder):
                with contextlib.suppress(OSError):  # somebody else's, which does no harm
                    path.unlink()
            self._describe()
            yield True
        finally:
            lock.release()

    def write(self, keys: Sequence[bytes], values: np.ndarray) -> None:
        """Write a segment, whole or not at all. Does not look for it: call `refresh` afterwards.

        Shapes:
            keys: (n,), of 32 bytes each
            values: (n, *shape), float16 or float32

        Raises:
            OSError: the disk is full, the limit is reached, or the folder cannot be written.
            ValueError: they are not of this space or not finite: nobody would find them again.
        """
        form = ([KEY] * len(keys), *_form(self.description))
        if (list(map(len, keys)), values.dtype.name, values.shape[1:]) != form or len(values) != len(keys):
            raise ValueError(f"{len(keys)} keys and {values.dtype.name} {values.shape} do not fit the space")
        if not finite(values):
            raise ValueError("values that are not finite are not stored")
        if not len(keys):
            return None
        if self.folder is None or self.store is None:
            return self.keep(keys, values)
        record = np.dtype([("keys", np.uint8, (len(keys), KEY)), ("values", values.dtype, values.shape)])
        header = io.BytesIO()
        described = {"descr": np.lib.format.dtype_to_descr(record), "fortran_order": False, "shape": (1,)}
        np.lib.format.write_array_header_1_0(header, described)
        blocks = [header.getvalue(), b"".join(keys), values.tobytes()]
        digest = hashlib.sha256()
        for block in blocks:
            digest.update(block)
        self.store.make_room(sum(map(len, blocks)))
        self.folder.mkdir(parents=True, exist_ok=True)
        self._describe()
        path = self.folder / f"{digest.hexdigest()[:32]}.npy"
        self.store.used.add(path)
        _write(path, blocks)
        if mark := _mark(path):
            _verified().add(mark)
            _verified().save()
        return None

    def _describe(self) -> None:
        """Write space.json, where it is not there or not what it should be."""
        if self.folder and _about(self.folder) is None:
            text = json.dumps({"label": self.label, "description": dict(self.description)}, indent=1)
            _write(self.folder / "space.json", [text.encode()])

    def _add(self, path: Path | None, segment: Segment, file: _File | None = None) -> None:
        part = len(self.segments)
        self.segments.append(segment)
        self.paths.append(path)
        if file:
            self.unverified[part] = file
        self._place(part, segment)

    def _place(self, part: int, segment: Segment) -> None:
        for row, key in enumerate(_keys(segment.keys)):
            self.places.setdefault(key, (part, row))


class _Verified:
    """Which files were found whole, so that each is read for that once: by this process, and by this user before.

    The list is the user's own and no part of a store. It knows a file by its mark, which changes with whatever is
    written into it; so no stranger's file is on it unseen. What a failing disk changes by itself, `Store.usage` finds.

    Args:
        path: Of the list; None where there is none.
    """

    def __init__(self, path: Path | None):
        self.path, self.new = path, list[str]()
        self.whole, self.damaged = set[str | None](), set[str | None]()  # without None
        with contextlib.suppress(OSError, ValueError):
            if path:
                with open(_own(path, os.O_RDONLY), encoding="ascii") as file:
                    self.whole.update(line for line in file.read(2 * _MARKS).split("\n") if _MARK.fullmatch(line))

    def add(self, mark: str) -> None:
        if mark not in self.whole:
            self.whole.add(mark)
            self.new.append(mark)

    def save(self) -> None:
        new, self.new = self.new, []
        if not self.path or not new:
            return
        with contextlib.suppress(OSError):  # then later processes verify again
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                if self.path.lstat().st_size > _MARKS:
                    self.path.unlink()
            with open(_own(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab", buffering=0) as file:
                file.write("".join(f"{mark}\n" for mark in new).encode())  # at once: others append too


def _verified() -> _Verified:
    # Elsewhere the system does not tell when a file was changed, only what somebody says that it was.
    path = platformdirs.user_state_path("tlkit", False) / "verified"
    return _list_of(path if os.name == "posix" and path.is_absolute() else None)


_list_of = functools.cache(_Verified)


def _own(path: Path, flags: int) -> int:
    """Open a file that nobody but this user can have written.

    Raises:
        OSError: it is not one, or cannot be opened.
    """
    handle = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        os.close(handle)
        raise PermissionError(errno.EACCES, "others may write it", str(path))
    return handle


def _mark(path: Path, status: os.stat_result | None = None, inode: tuple[int, int] | None = None) -> str | None:
    """Name a file and the state that it is in, which no user can put back to what it was: by its time of change.

    Args:
        path: Of the file.
        status: Of it, if that is known.
        inode: That it must still have, with its device.

    Returns:
        None where the file is gone, or is another one.
    """
    with contextlib.suppress(OSError):
        status = status or path.lstat()
        if inode in (None, (status.st_dev, status.st_ino)):
            state = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
            return hashlib.sha256(f"{path.name} {state}".encode()).hexdigest()[:32]
    return None


def _wrong(path: Path, content: np.ndarray, values: np.ndarray) -> str:
    """Say what is wrong with a segment, or nothing."""
    if hashlib.sha256(content.data).hexdigest()[:32] != path.stem:
        return "does not hold what its name stands for"
    return "" if finite(values) else "holds values that are not finite"


def finite(values: np.ndarray) -> bool:
    """Tell whether all values, float16 or float32, are finite: by their bits, which is ten times as fast for float16.

    >>> finite(np.ones(3, np.float16)), finite(np.array([1, np.inf], np.float32)), finite(np.float32([[np.nan]]))
    (True, False, False)
    """
    bits = np.ascontiguousarray(values).reshape(-1).view(f"u{values.itemsize}")
    highest = bits.dtype.type(0x7C00 if values.itemsize == 2 else 0x7F800000)
    parts = (bits[start : start + _TOGETHER] for start in range(0, len(bits), _TOGETHER))
    return not any(((part & highest) == highest).any() for part in parts)


def _name(description: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(dict(description), sort_keys=True).encode()).hexdigest()[:32]


def _keys(joined: np.ndarray) -> list[bytes]:
    return np.asarray(joined).view(f"V{KEY}").ravel().tolist()


def _is_plain(path: Path) -> bool:
    with contextlib.suppress(OSError):  # not there, or in a folder that is somebody else's
        return stat.S_ISREG(path.lstat().st_mode)
    return False


def _files(folder: Path) -> dict[str, os.stat_result]:
    """The files of a folder, without links; of a folder that is gone or somebody else's, none."""
    found = {}
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # another process may be making room
                if entry.is_file(follow_symlinks=False):
                    found[entry.name] = entry.stat(follow_symlinks=False)
    return found


def _segments(folder: Path) -> dict[Path, os.stat_result]:
    return {folder / name: status for name, status in _files(folder).items() if _SEGMENT.fullmatch(name)}


def _unfinished(folder: Path) -> dict[Path, os.stat_result]:
    return {folder / name: status for name, status in _files(folder).items() if _UNFINISHED.fullmatch(name)}


def _tidy(folder: Path) -> list[int]:
    """Delete what processes that died have left, and a space without segments, unless a process is at it.

    Gives the bytes of each unfinished file.
    """
    sizes = []
    with contextlib.suppress(OSError), filelock.FileLock(folder / ".lock", timeout=0):  # Timeout is an OSError too
        for path, status in _unfinished(folder).items():
            path.unlink()
            sizes.append(status.st_size)
        if not _segments(folder):
            (folder / "space.json").unlink(missing_ok=True)
            (folder / ".lock").unlink(missing_ok=True)
            folder.rmdir()  # not where something of the user's is in it
    return sizes


def _write(path: Path, blocks: Sequence[bytes]) -> None:
    with atomic.writing(path) as file:
        for block in blocks:
            file.write(block)


def _allow_files(count: int) -> int:
    """Let this process have so many segments open, and give how many it may: each that is mapped counts as open."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return count
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    endless = resource.RLIM_INFINITY
    if soft != endless and soft < 2 * count:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(4 * count, hard) if hard != endless else 4 * count, hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return count if soft == endless else min(count, soft // 2)  # the rest is for whatever else it does


def _form(description: Mapping[str, Any]) -> tuple[str, tuple[int, ...]]:
    """Name of the dtype, and shape, of an activation.

    Raises:
        ValueError: a space cannot have them.
    """
    dtype, shape = description.get("dtype"), description.get("shape")
    if dtype not in ("float16", "float32") or not isinstance(shape, list | tuple):
        raise ValueError(f"activations of dtype {dtype!r} and shape {shape!r}")
    if not all(isinstance(side, int) and side > 0 for side in shape):
        raise ValueError(f"activations of shape {shape!r}")
    return dtype, tuple(shape)


def _about(folder: Path) -> tuple[str, dict[str, Any]] | None:
    """A space's label and description; None where its space.json is not there or is not of this space."""
    path = folder / "space.json"
    with contextlib.suppress(FileNotFoundError, ValueError, TypeError, KeyError, RecursionError):
        if not _is_plain(path):  # opening a pipe would wait forever
            return None
        with open(path, "rb") as file:
            written = json.loads(file.read(_LONGEST))
        label, description = written["label"], dict(written["description"])
        if isinstance(label, str) and _name(description) == folder.name and _form(description):
            return label, description
    return None


def _head(file: BinaryIO | io.FileIO, size: int, form: tuple[str, tuple[int, ...]]) -> tuple[int, int]:
    """Where a segment's keys begin, and how many there are.

    Raises:
        ValueError: the file is not a segment of activations of this form; says what it is.
        OSError: it cannot be read.
    """
    head = file.read(512) or b""
    start = 10 + int.from_bytes(head[8:10], "little")
    if len(head) < start:
        head += file.read(start - len(head)) or b""
    match = _HEADER.fullmatch(head[10:start])
    if not head.startswith(b"\x93NUMPY\x01\x00") or not match:
        raise ValueError("is not a segment of an activation store")
    count, dtype = int(match[1]), np.dtype(match[2].decode())
    shape = tuple(int(side) for side in match[3].split(b",") if side.strip())
    if (dtype.name, dtype.isnative, shape) != (form[0], True, (count, *form[1])):
        raise ValueError("is not a segment of its space")
    if not count or size != start + count * (KEY + math.prod(form[1]) * dtype.itemsize):
        raise ValueError("is not whole")
    return start, count


def _read(path: Path, description: Mapping[str, Any], mapped: bool = True) -> tuple[Segment, _File]:
    """Map a segment into memory, or read it.

    Raises:
        ValueError: the file is not one; says what it is.
        OSError: it cannot be read.
    """
    dtype, shape = form = _form(description)
    with open(path, "rb", buffering=0) as file:  # once, so that what is verified is what is used
        status = os.fstat(file.fileno())
        start, count = _head(file, status.st_size, form)
        file.seek(0)
        content = np.memmap(file, np.uint8, "r") if mapped else np.frombuffer(file.readall(), np.uint8)
    joined, end = content[start:], count * KEY
    segment = Segment(joined[:end].reshape(count, KEY), joined[end:].view(dtype).reshape(count, *shape))
    return segment, _File(content, (status.st_dev, status.st_ino) if mapped else None)


def _usage(folder: Path, progress: Progress | None = None) -> Usage:
    """What a space holds; every file is read whole where there is a progress to tell."""
    about = _about(folder)
    label, description = about or ("", {})
    segments = _segments(folder)
    damaged = [] if about else [path for path in (folder / "space.json", *segments) if path.exists()]
    seen: set[bytes] = set()
    count = 0
    for path, status in segments.items():
        try:
            if about and progress:
                segment, file = _read(path, description)
                if _wrong(path, file.content, segment.values):
                    raise ValueError
                seen.update(_keys(segment.keys))
                count += len(segment.keys)
            elif about:
                with open(path, "rb", buffering=0) as opened:
                    count += _head(opened, status.st_size, _form(description))[1]
        except (FileNotFoundError, PermissionError):
            pass  # another process is making room, or it is somebody else's
        except (OSError, ValueError):
            damaged.append(path)
        if progress:
            progress.advance()
    used = [status.st_mtime for status in segments.values()]
    if not used:
        with contextlib.suppress(OSError):
            used = [folder.stat().st_mtime]
    return Usage(
        name=folder.name,
        label=label or f"unknown {folder.name[:8]}",
        description=description,
        activations=count,
        size=sum(status.st_size for status in segments.values()),
        used=max(used, default=0.0),
        damaged=damaged,
        twice=count - len(seen) if progress else 0,
        files=len(segments) + 1,
    )
