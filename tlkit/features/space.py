"""One space of the activation store: the activations of one network, shared with other processes that compute them."""

from __future__ import annotations

import contextlib
import os
import shlex
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock
import numpy as np

from tlkit.display import called, say
from tlkit.features.folders import segment_files, unfinished_files, write_description, write_file
from tlkit.features.segments import KEY, File, Segment, blocks_of, finite, form_of, keys_of, problem_of, read_segment
from tlkit.features.verified import mark_of, verified_files

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from tlkit.features.store import Store

THREADS = 2  # that verify
POLL = 0.02  # seconds between two tries for the lock


class Space:
    """The activations of one network, computed up to one layer; `Store.space` makes one.

    Args:
        description: Everything that the values depend on except the example, with their `shape` and `dtype`.
        label: A short name of the network, for people.
        store: The store that it belongs to.
        folder: The folder of its files; None keeps it in memory.
    """

    def __init__(
        self, description: Mapping[str, Any], label: str = "", store: Store | None = None, folder: Path | None = None
    ):
        self.description, self.label, self.store, self.folder = description, label, store, folder
        self.segments: list[Segment] = []
        self.paths: list[Path | None] = []
        self.places: dict[bytes, tuple[int, int]] = {}  # of each key: (segment, row)
        self.unverified: dict[int, File] = {}  # by segment

    def refresh(self) -> Space:
        """Add segments that other processes have written; damaged files are skipped and named on stderr."""
        files, known, verified = segment_files(self.folder) if self.folder else {}, set(self.paths), verified_files()
        new = [
            path for path in sorted(files) if path not in known and mark_of(path, files[path]) not in verified.damaged
        ]
        mapped = _allow_files(len(self.paths) + len(new))
        damaged = {}
        for path in new:
            try:
                self._add(path, *read_segment(path, self.description, len(self.paths) < mapped))
            except ValueError as error:
                damaged[path] = str(error)
                verified.damaged.add(mark_of(path, files[path]))
            except OSError:
                pass  # another process is making room, or the file is another user's
        self._warn(damaged)
        return self

    def keep(self, keys: Sequence[bytes], values: np.ndarray) -> None:
        """Keep activations in memory only; shapes as for `write`."""
        self._add(None, Segment(np.frombuffer(b"".join(keys), np.uint8).reshape(-1, KEY), values))

    def use(self, keys: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
        """Mark the segments of some keys as in use, and return the segment and the row of each key.

        Raises:
            KeyError: a key is missing, perhaps because its segment turned out to be damaged; call `verify` first.
        """
        if self.unverified:
            self.verify(keys)
        places = np.array([self.places[key] for key in keys], np.int64).reshape(-1, 2)
        return places[:, 0], places[:, 1]

    def verify(self, keys: Collection[bytes]) -> int:
        """Verify the segments of some keys, each only once; damaged ones are dropped, and named on stderr.

        Returns:
            The number of these keys in segments that are whole.
        """
        while True:
            segments = [place[0] for place in map(self.places.get, keys) if place]
            parts = sorted(self.unverified.keys() & set(segments))
            unknown = [part for part in parts if not self._is_known(part)]
            damaged: dict[int, str] = {}
            if unknown:
                with ThreadPoolExecutor(THREADS) as pool:
                    reasons = zip(unknown, pool.map(self._problem, unknown), strict=True)
                    damaged = {part: reason for part, reason in reasons if reason}
            for part in parts:
                del self.unverified[part]
                if self.store and part not in damaged:
                    self.store.used.add(self._path(part))
            verified_files().save()
            if not damaged:
                return len(segments)
            self._warn({self._path(part): reason for part, reason in damaged.items()})
            self._drop(damaged)  # their keys may be in other segments too, so look again

    def _is_known(self, part: int) -> bool:
        """Whether a segment was verified before and its file is unchanged; if so, it counts as used now."""
        path, inode, verified = self._path(part), self.unverified[part].inode, verified_files()
        if inode is None or mark_of(path, inode=inode) not in verified.whole:
            return False
        # Touching the file changes its mark. A write between these two lines goes unnoticed, but whoever may write the
        # file may also do so at any time later.
        if (mark := self._touch(path, inode)) is not None:
            verified.add(mark)
        return True

    def _problem(self, part: int) -> str:
        """Read a segment and return what is wrong with it, or ""; it counts as used now."""
        path, (content, inode), verified = self._path(part), self.unverified[part], verified_files()
        mark = self._touch(path, inode)
        if reason := problem_of(path, content, self.segments[part].values):
            verified.damaged.add(mark)
        elif mark and inode and mark_of(path, inode=inode) == mark:
            verified.add(mark)
        return reason

    def _path(self, part: int) -> Path:
        path = self.paths[part]
        if path is None:
            raise RuntimeError("a segment in memory has no file")
        return path

    @staticmethod
    def _touch(path: Path, inode: tuple[int, int] | None) -> str | None:
        with contextlib.suppress(OSError):  # the store is read-only
            os.utime(path)
        return mark_of(path, inode=inode)

    def _drop(self, parts: Collection[int]) -> None:
        for part in parts:
            segment = self.segments[part]
            self.segments[part], self.paths[part] = Segment(segment.keys[:0], segment.values[:0]), None
        self.places.clear()
        for part, segment in enumerate(self.segments):
            self._place(part, segment)

    def _warn(self, damaged: Mapping[Path, str]) -> None:
        if damaged and self.store:
            path, reason = next(iter(damaged.items()))
            more = f" and {len(damaged) - 1:,} more" if len(damaged) > 1 else ""
            say(
                f"ignored because damaged: {path} ({reason}){more}; missing activations are computed again "
                f"({called('cache')} prune --store {shlex.quote(str(self.store.folder))} deletes it)",
                error=True,
            )

    @contextlib.contextmanager
    def turn(self, seconds: float) -> Iterator[bool]:
        """Lock the space and delete unfinished files of dead processes; yield False where the lock is not free in time.

        Args:
            seconds: Time to wait for the lock.

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
            except FileNotFoundError:  # another process deleted the empty space between these two lines
                if time.monotonic() > end:
                    raise
                continue
            if (self.folder / ".lock").exists() or time.monotonic() > end:
                break
            lock.release()  # its file was deleted while we waited: a third process would lock another one
        try:
            for path in unfinished_files(self.folder):
                with contextlib.suppress(OSError):  # another user's, which does no harm
                    path.unlink()
            write_description(self.folder, self.label, self.description)
            yield True
        finally:
            lock.release()

    @contextlib.contextmanager
    def shared(self) -> Iterator[bool]:
        """Let other processes in this block compute for the space too; yield False while one has a `turn`."""
        if self.folder is None or fcntl is None:  # Windows has no such locks: unfinished files may be deleted there
            yield True
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / ".lock", "a+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(50 * POLL)
                yield False
                return
            write_description(self.folder, self.label, self.description)
            yield True

    def write(self, keys: Sequence[bytes], values: np.ndarray) -> Path | None:
        """Write a segment, whole or not at all; it is not read back until the next `refresh`.

        Returns:
            Its path; None where it is kept in memory.

        Shapes:
            keys: (n,), of 32 bytes each
            values: (n, *shape), float16, float32 or uint8

        Raises:
            OSError: the disk is full, the limit is reached, or the folder cannot be written.
            ValueError: keys or values do not fit the space, or values are not finite.
        """
        form = ([KEY] * len(keys), *form_of(self.description))
        if (list(map(len, keys)), values.dtype.name, values.shape[1:]) != form or len(values) != len(keys):
            raise ValueError(f"{len(keys)} keys and {values.dtype.name} {values.shape} do not fit the space")
        if not finite(values):
            raise ValueError("values that are not finite are not stored")
        if not len(keys):
            return None
        if self.folder is None or self.store is None:
            self.keep(keys, values)
            return None
        name, blocks = blocks_of(keys, values)
        self.store.make_room(sum(map(len, blocks)))
        self.folder.mkdir(parents=True, exist_ok=True)
        write_description(self.folder, self.label, self.description)
        path = self.folder / name
        self.store.used.add(path)
        write_file(path, blocks)
        if mark := mark_of(path):
            verified_files().add(mark)
            verified_files().save()
        return path

    def _add(self, path: Path | None, segment: Segment, file: File | None = None) -> None:
        part = len(self.segments)
        self.segments.append(segment)
        self.paths.append(path)
        if file:
            self.unverified[part] = file
        self._place(part, segment)

    def _place(self, part: int, segment: Segment) -> None:
        for row, key in enumerate(keys_of(segment.keys)):
            self.places.setdefault(key, (part, row))


def _allow_files(count: int) -> int:
    """Raise this process's limit of open files, and return how many segments it may map: each counts as open."""
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
    return count if soft == endless else min(count, soft // 2)  # the rest is for other files
