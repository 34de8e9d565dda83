"""Open each example of a source once: hash it, decode it, and find the value that is white in all of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tlkit import cluster
from tlkit.cluster import Cluster
from tlkit.data import bits, modalities
from tlkit.data.contents import Content, Made, Piece, read
from tlkit.data.modalities import Reading, Shape
from tlkit.data.photos import file_format
from tlkit.data.sources import Examples
from tlkit.data.split import content_hash
from tlkit.data.threads import threads_for
from tlkit.display import say
from tlkit.errors import InvalidInput
from tlkit.progress import Progress
from tlkit.untrusted import available_memory

NAMED = 10  # damaged examples that are printed; a run logs all
TOGETHER = 16  # examples that a thread opens at a time, at least
PARTS = 2**13  # that wait for a thread at most
SENT = 256  # examples that a worker of a cluster opens at a time
SHARE = 0.4  # of the available memory, to fill with decoded examples or their features at most


class Opened(NamedTuple):
    """The examples of a source after each was opened once."""

    stored: np.ndarray | Sequence[Content]  # decoded values, (n, *shape), where they fit into memory, else contents
    hashes: list[str]  # "" where an example cannot be decoded
    set_aside: list[str]  # examples that cannot be decoded, each with the reason
    reading: Reading  # in the end with the value that is white in all of them
    ranges: dict[int, bits.Range]  # of those that cannot be decoded before the ranges of all are known
    notes: list[str]  # what was found out and taken for granted


class Look(NamedTuple):
    """What was seen of an example: its hash, or "" and the problem; its range, or else its value if it was decoded."""

    hash: str = ""
    problem: str = ""
    range: bits.Range | None = None
    value: np.ndarray | None = None


class How(NamedTuple):
    """How examples are opened: which modality they are, and what `open_examples` takes."""

    kind: str
    shape: Shape
    reading: Reading
    check: bool
    strict: bool


def open_examples(
    examples: Examples,
    shape: Shape,
    reading: Reading,
    check: bool,
    strict: bool,
    memory: int | None,
    workers: Cluster | None = None,
) -> Opened:
    """Hash every example and, if `check`, decode it; values are kept where they all fit into memory.

    Args:
        examples: What a source lists.
        shape: That each gets.
        reading: How files become examples; its `white` is the setting, which `find_white` replaces.
        check: Decode every example now.
        strict: Raise an error for an example that cannot be decoded.
        memory: Maximum bytes of decoded examples; by default 40 % of the available memory.
        workers: Of a cluster, which open files in place of this process; no values are kept then.

    Raises:
        InvalidInput: `strict`, and an example cannot be decoded.
        Unavailable: there is no worker for minutes.
    """
    contents = examples.contents
    if isinstance(contents, np.ndarray):
        return Opened(contents, [content_hash(array) for array in contents], [], reading, {}, [])
    form, how = file_format(examples.modality), How(examples.kind, shape, reading, check, strict)
    count = len(contents)
    hashes, problems = [""] * count, [""] * count
    ranges: dict[int, bits.Range] = {}
    made = isinstance(contents, Made)  # of files, of which a million need not be made to see that
    files = workers and (made or all(isinstance(each, Path | Piece) for each in contents))
    afar = workers if files else None
    budget = int(SHARE * available_memory()) if memory is None else memory
    fits = check and not afar and count * math.prod(shape) * form.dtype.itemsize <= budget
    values = np.empty((count, *shape), form.dtype) if fits else None

    def note(index: int, seen: Look) -> None:
        hashes[index], problems[index] = seen.hash, seen.problem
        if seen.range:
            ranges[index] = seen.range
        elif values is not None and seen.value is not None:
            values[index] = seen.value

    if afar:
        _open_afar(afar, examples, how, note)
    else:

        def act(index: int) -> None:
            note(index, look(contents[index], examples.names[index], how))

        for_each(act, range(count), f"opening {examples.kind}", examples.kind, contents)
    stored = contents if values is None else values
    return Opened(stored, hashes, [problem for problem in problems if problem], reading, ranges, [])


def look(content: Content, name: str, how: How) -> Look:
    """Open an example: hash it and, if that is asked for, decode it.

    Raises:
        InvalidInput: `strict`, and it cannot be decoded.
    """
    form, value = file_format(modalities.row(how.kind)), None
    try:
        content = read(content)
        value_range = form.value_range(content, name) if form.value_range else None
        if how.check and not value_range:
            value = form.decode(content, how.shape, name, how.reading)
        return Look(content_hash(content), "", value_range, value)
    except (OSError, InvalidInput) as error:
        problem = str(error) if isinstance(error, InvalidInput) else f"{name}: {error.strerror}"
        if how.strict:  # raised here, in its thread, so that no further file is opened
            raise InvalidInput(f"{problem}; without data.strict it would be set aside") from error
        return Look(problem=problem)


def _open_afar(workers: Cluster, examples: Examples, how: How, note: Callable[[int, Look], None]) -> None:
    """Have files opened by the workers of a cluster."""
    contents: Sequence[Path | Piece] = examples.contents  # type: ignore[assignment]  # see `open_examples`
    said = False

    def chunks() -> Iterator[list[File]]:
        for start in range(0, len(contents), SENT):
            places = range(start, min(start + SENT, len(contents)))
            yield [File(place, _absolute(contents[place]), examples.names[place]) for place in places]

    def again(file: File) -> Look:
        return look(file.content, file.name, how)._replace(value=None)

    with Progress(f"opening {examples.kind}", len(contents), examples.kind) as progress:
        for chunk, looks in cluster.map_unordered(workers, look_at, how, chunks()):
            unseen = [file for file, seen in zip(chunk, looks, strict=True) if seen is None]
            own = dict(zip(unseen, threads_for(contents).map(again, unseen), strict=True))
            if not said and (sent := next((file for file, seen in own.items() if seen.hash), None)):
                said = True
                say(f"workers do not see {sent.name}: this process reads what they do not, and sends it", error=True)
            for file, seen in zip(chunk, looks, strict=True):
                note(file.place, seen or own[file])
            progress.note = workers.status
            progress.advance(len(chunk))


def _absolute(content: Path | Piece) -> Path | Piece:
    return content.absolute() if isinstance(content, Path) else content


class File(NamedTuple):
    """A file that a worker opens: its position among the examples, where it is, and what the user knows it by."""

    place: int
    content: Path | Piece
    name: str


def look_at(how: How, chunk: list[File]) -> list[Look | None]:
    """Open files on a worker; None for one that it cannot read."""

    def seen(file: File) -> Look | None:
        content: Content = file.content
        try:
            content = read(content)
        except OSError:
            return None
        except InvalidInput:  # as `look` says
            pass
        return look(content, file.name, how)._replace(value=None)

    return list(threads_for([file.content for file in chunk[:1]]).map(seen, chunk))


class SomeOf(Collection[tuple[str, Content]]):
    """Some of the examples, each with its name; a path of each of a million would take 0.5 GB."""

    def __init__(self, names: Sequence[str], contents: Sequence[Content], places: Sequence[int]):
        self.names, self.contents, self.places = names, contents, places

    def __len__(self) -> int:
        return len(self.places)

    def __iter__(self) -> Iterator[tuple[str, Content]]:
        return ((self.names[place], self.contents[place]) for place in self.places)

    def __contains__(self, example: object) -> bool:
        return any(each == example for each in self)


def find_white(examples: Examples, shape: Shape, opened: Opened, check: bool) -> Opened:
    """Find the value that is white in the whole set, and decode what could not be decoded without it.

    Args:
        examples: What a source lists.
        shape: That each gets.
        opened: The same examples, opened.
        check: As for `open_examples`.

    Raises:
        InvalidInput: it is unclear which value is white.
    """
    form = examples.modality.files
    good = [index for index, hash_ in enumerate(opened.hashes) if hash_]
    names, contents, ranges, values = examples.names, examples.contents, opened.ranges, opened.stored
    if isinstance(contents, np.ndarray) or form is None or form.white is None or examples.white is not None or not good:
        return opened
    others = SomeOf(names, contents, [index for index in good if index not in ranges] if ranges else good)
    found, note = form.white({names[index]: each for index, each in ranges.items()}, others, opened.reading.white)
    reading = opened.reading._replace(white=found)

    def decode(index: int) -> None:
        value = form.decode(contents[index], shape, names[index], reading)
        if isinstance(values, np.ndarray):
            values[index] = value

    # A small white is one of the photos with 8 bits too.
    again = good if reading.white and reading.white <= bits.DIM else sorted(ranges)
    if check and again:
        for_each(decode, again, f"scaling {examples.kind}", examples.kind, contents)
    return opened._replace(reading=reading, notes=[note] if note else [])


def about_damaged(problems: list[str], kind: str) -> list[str]:
    """Name the examples that cannot be decoded, one in a line."""
    if not problems:
        return []
    more = [f"and {len(problems) - NAMED:,} more"] if len(problems) > NAMED else []
    return [f"{kind} set aside, because they cannot be decoded ({len(problems)}):", *problems[:NAMED], *more]


def for_each(
    act: Callable[[int], None], indices: Sequence[int], label: str, unit: str, contents: Sequence[Content] | np.ndarray
) -> None:
    """Do something for each example, in several threads, and show how far it is.

    Args:
        act: Takes the position of an example.
        indices: The positions.
        label: What is done, such as `opening photos`.
        unit: What the examples are called.
        contents: Of all examples, by which the number of threads is chosen.
    """
    # Several at a time: handing a file to a thread takes longer than reading it, and each part waits as 2 kB of memory.
    together = max(TOGETHER, len(indices) // PARTS)
    parts = [indices[start : start + together] for start in range(0, len(indices), together)]

    def act_on(part: Sequence[int]) -> int:
        for index in part:
            act(index)
        return len(part)

    with Progress(label, len(indices), unit) as progress:
        for done in threads_for(contents).map(act_on, parts):
            progress.advance(done)
