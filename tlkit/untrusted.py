"""What comes from outside is checked where it enters: identifiers, sizes, JSON and archives, from whomever."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import shutil
import urllib.parse
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from tlkit.display import cut, shown
from tlkit.errors import InvalidInput, Unavailable

_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
_DEVICES = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)")  # what Windows takes for a device in any folder
LONGEST_JSON = 64 * 2**20  # bytes
DEEPEST_JSON = 100  # lists and objects in each other
EXPANSION = 100  # times that what is compressed may grow
UNSUSPECTED = 2**27  # bytes, up to which nobody asks how much it grows
LONGEST_YAML, DEEPEST_YAML = 2**20, 50  # bytes, and mappings and lists inside each other
_NUMBER = re.compile(
    r"[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[eE][-+]?[0-9]+)|\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?"
    r"|\.(?:inf|Inf|INF))\Z|\.(?:nan|NaN|NAN)\Z"
)  # YAML 1.1 takes 1e-4 for text
SHARE = 0.5  # of the memory that is available, what one file may take
Answer = TypeVar("Answer")


def identifier(text: object, what: str, error: type[Exception] = InvalidInput) -> str:
    """Give an identifier from outside, such as that of an MLflow run, once it is safe in a path, a query or a link.

    Args:
        text: From a server, a file, the environment or the command line.
        what: It identifies and where it comes from, for the error.
        error: What to raise; `Unavailable` for a server's answer.

    Raises:
        InvalidInput: it is not made of 1 to 128 letters, digits, - and _, or begins with - or _.

    >>> identifier("0f3a", "the run's id")
    '0f3a'
    >>> identifier("../../home", "the run's id")
    Traceback (most recent call last):
        ...
    tlkit.errors.InvalidInput: the run's id is '../../home'; it must be 1 to 128 letters, digits, - or _ ...
    """
    if isinstance(text, str) and _IDENTIFIER.fullmatch(text) and not _DEVICES.fullmatch(text):
        return text
    given = shown(text)
    given = repr(cut(given, 100)).replace("\\\\", "\\")
    raise error(f"{what} is {given}; it must be 1 to 128 letters, digits, - or _ and begin with a letter or digit")


def answered(answer: Answer) -> Answer:
    """Give back what a tracking server answered, a run, an experiment or a model, once its identifiers are safe.

    Where the server has artifacts written to this machine's disk, they must go where MLflow puts them: into a folder
    `artifacts` in one that is named after the run or model, and not among files that were there before.

    Raises:
        Unavailable: an identifier is none, see `identifier`, or the folder is another.
    """
    about = getattr(answer, "info", answer)
    for name in ("run_id", "experiment_id", "model_id", "source_run_id"):
        if value := getattr(about, name, None):
            identifier(value, f"{name} in the answer of the MLflow server", Unavailable)
    for place, owner in (("artifact_uri", "run_id"), ("artifact_location", "model_id")):
        uri, named = getattr(about, place, None), getattr(about, owner, None)
        path = local_path(uri) if uri and named else None
        if path and path.parts[-2:] != (named, "artifacts"):
            raise Unavailable(
                f"the MLflow server wants files in {shown(path)}; it must be MLflow's own {named}/artifacts"
            )
    return answer


def local_path(uri: str) -> Path | None:
    """Give the path of a URI on this machine's disk; None where it is elsewhere.

    >>> local_path("file:///srv/mlruns/1"), local_path("s3://bucket/1")
    (PosixPath('/srv/mlruns/1'), None)
    """
    from urllib.request import url2pathname  # at the top it would cost each `--help` a tenth of a second

    parts = urllib.parse.urlsplit(uri)
    return Path(url2pathname(parts.path)) if parts.scheme in ("", "file") else None


def remove(folder: Path, parent: Path) -> None:
    """Delete a folder that tlkit made directly below another one; anything else, a link too, is left as it is."""
    name = folder.name
    if name in ("", ".", "..") or folder.is_symlink() or not folder.is_dir():
        return
    with contextlib.suppress(OSError):
        if folder.resolve() == parent.resolve() / name:
            shutil.rmtree(folder, ignore_errors=True)


def parse_json(content: str | bytes, what: str) -> Any:
    """Parse JSON from outside.

    Raises:
        ValueError: it is none, or too large or nested too deeply to be one of ours.

    >>> parse_json('{"a": 1}', "state.json")
    {'a': 1}
    >>> parse_json("[" * 100_000, "state.json")
    Traceback (most recent call last):
        ...
    ValueError: state.json is nested too deeply
    """
    if len(content) > LONGEST_JSON:
        raise ValueError(f"{what} has {len(content):,} bytes, more than {LONGEST_JSON:,}")
    try:
        found = json.loads(content)
    except RecursionError:
        raise ValueError(f"{what} is nested too deeply") from None
    except MemoryError:
        raise ValueError(f"{what} is too large for the memory") from None
    level, depth = [found], 0
    while level := [inner for outer in level for inner in _inside(outer)]:
        depth += 1
        if depth > DEEPEST_JSON:  # else what goes through it later would have to mind
            raise ValueError(f"{what} is nested too deeply")
    return found


def _inside(value: Any) -> list[Any]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [one for one in inner if isinstance(one, dict | list)]


def read_json(path: Path) -> Any:
    """Read a file of JSON, as `parse_json`; a link is not followed.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not JSON, too large, or a link.
    """
    return parse_json(read_bytes(path, LONGEST_JSON + 1), path.name)


def read_bytes(path: Path, most: int = -1) -> bytes:
    """Read a file, or its first bytes, that lies where it is said to: no link is followed, and no pipe waited for.

    Raises:
        OSError: it cannot be read.
        ValueError: it is a link, or no file.
    """
    if path.is_symlink() or not path.is_file():
        path.lstat()  # raises where there is nothing
        raise ValueError(f"{path.name} is a link or no file")
    with open(path, "rb") as file:
        return file.read(most)


def parse_yaml(text: str, what: str) -> Any:
    """Parse YAML from outside: mappings, lists and scalars, each written out once.

    `1e-4` is a number and a date is text; `yes` and `no` are booleans, as in YAML 1.1.

    Raises:
        InvalidInput: it is none; a key comes twice; it has an anchor, an alias or a tag; it is too large or nested too
            deeply to be one of ours.

    >>> parse_yaml("{rate: 1e-4, day: 2024-01-01, strict: yes}", "run.yaml")
    {'rate': 0.0001, 'day': '2024-01-01', 'strict': True}
    >>> parse_yaml("a: 1\\na: 2", "run.yaml")
    Traceback (most recent call last):
        ...
    tlkit.errors.InvalidInput: run.yaml, line 2: a is there already; give it once
    """
    import yaml

    if len(text) > LONGEST_YAML:
        raise InvalidInput(f"{what} is larger than {LONGEST_YAML:,} bytes: it is no file of settings")
    loader, depth = _yaml_loader(), 0
    try:
        for event in yaml.parse(text, Loader=loader):  # before anything is made of it
            begins = isinstance(event, yaml.CollectionStartEvent)
            depth += begins - isinstance(event, yaml.CollectionEndEvent)
            mark, anchor, tag = event.start_mark, getattr(event, "anchor", None), getattr(event, "tag", None)
            if anchor is not None:
                sign = "*" if isinstance(event, yaml.AliasEvent) else "&"
                raise _Refused(f"{sign}{anchor} is an anchor or alias of YAML; write out what it stands for", mark)
            if tag is not None:
                name = tag.replace("tag:yaml.org,2002:", "!!")
                raise _Refused(f"{name} is a tag of YAML; plain settings have none", mark)
            if depth > DEEPEST_YAML:
                raise _Refused(f"it is nested more than {DEEPEST_YAML} deep", mark)
        return yaml.load(text, Loader=loader)  # noqa: S506 (a safe one)
    except _Refused as error:
        says, mark = error.args
    except yaml.MarkedYAMLError as error:
        scanned = isinstance(error, yaml.scanner.ScannerError)  # something begins there and does not end
        says, mark = f"it is not YAML: {error.problem}", (error.context_mark if scanned else None) or error.problem_mark
        if "another document" in says:
            says = "a second document begins; there may be one"
        elif mark and re.match(r" *\t", "".join(text.splitlines()[mark.line : mark.line + 1])):
            says = "a tab stands at its beginning; YAML is indented by blanks"
    except yaml.YAMLError as error:  # characters that it may not have
        says, mark = f"it is not YAML: {getattr(error, 'reason', error)}", None
    except ValueError:
        says, mark = "a number in it cannot be read", None
    except (RecursionError, MemoryError):
        says, mark = "it is too large", None
    place = f", line {mark.line + 1}" if mark and "\n" in text.strip() else ""
    raise InvalidInput(f"{what}{place}: {shown(says)}")


def read_yaml(path: str | os.PathLike[str]) -> Any:
    """Read a file of YAML, as `parse_yaml`.

    Raises:
        InvalidInput: it cannot be read, or is no YAML of ours.
    """
    return parse_yaml(yaml_text(path), shown(path))


def yaml_line(text: str, name: str) -> int:
    """Say in which line of YAML, as `parse_yaml` reads it, a dotted name stands, or the group that it belongs to.

    >>> yaml_line("seed: 1\\nfull:\\n  epochs: 3", "full.epochs")
    3
    """
    import yaml

    node, line = yaml.compose(text, Loader=_yaml_loader()), 1
    while name and isinstance(node, yaml.MappingNode):
        for key, inner in node.value:
            if f"{name}.".startswith(f"{key.value}."):
                node, line, name = inner, key.start_mark.line + 1, name[len(key.value) + 1 :]
                break
        else:
            break
    return line


def yaml_text(path: str | os.PathLike[str]) -> str:
    """Read the text of a file that ought to be YAML, no more of it than one may have.

    Raises:
        InvalidInput: it cannot be read, or is no text.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(LONGEST_YAML + 1)
    except FileNotFoundError:
        raise InvalidInput(f"there is no file {shown(path)}") from None
    except IsADirectoryError:
        raise InvalidInput(f"{shown(path)} is a folder; a file with settings as YAML is wanted") from None
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{shown(path)} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(content) > LONGEST_YAML:
        raise InvalidInput(f"{shown(path)} is larger than {LONGEST_YAML:,} bytes: it is no file of settings")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InvalidInput(
            f"{shown(path)}, line {line}: byte 0x{content[error.start]:02x} is not UTF-8; save the file as UTF-8"
        ) from None


class _Refused(Exception):
    """What it says, and the mark of the place."""


@functools.cache
def _yaml_loader() -> type:
    import yaml

    base = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    def construct_mapping(self: Any, node: Any, deep: bool = False) -> dict[Any, Any]:
        made: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise _Refused("a name of a setting is a list or a mapping; it must be a word", key_node.start_mark)
            key = self.construct_object(key_node)
            if key in made:
                raise _Refused(f"{key} is there already; give it once", key_node.start_mark)
            made[key] = self.construct_object(value_node, deep=deep)
        return made

    loader = type("Loader", (base,), {"construct_mapping": construct_mapping})
    kept = ("bool", "int", "null")  # no dates, which are text to us, and no merging of mappings
    loader.yaml_implicit_resolvers = {  # type: ignore[attr-defined]
        first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] in kept]
        for first, resolvers in base.yaml_implicit_resolvers.items()
    }
    loader.add_implicit_resolver("tag:yaml.org,2002:float", _NUMBER, list("-+0123456789."))  # type: ignore[attr-defined]
    return loader


def dump_yaml(value: Any, **style: Any) -> str:
    """Write what `parse_yaml` reads as it was.

    Args:
        value: Mappings, lists and scalars.
        style: Options of `yaml.dump`.

    >>> dump_yaml({"name": "12e3", "rates": [1e-5, 12]})
    "name: '12e3'\\nrates:\\n- 1.0e-05\\n- 12\\n"
    """
    import yaml

    return yaml.dump(value, Dumper=_yaml_dumper(), allow_unicode=True, **{"sort_keys": False, **style})


@functools.cache
def _yaml_dumper() -> type:
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _NUMBER, list("-+0123456789."))
    return Dumper


def member(archive: zipfile.ZipFile, name: str, most: int = LONGEST_JSON) -> bytes:
    """Read a member of a zip file, whose size is looked at before memory is taken for it.

    Raises:
        KeyError: there is none of this name.
        ValueError: there are several, or it is larger than `most` bytes.
        zipfile.BadZipFile: it is damaged.
    """
    found = [info for info in archive.infolist() if info.filename == name]
    if len(found) > 1:
        raise ValueError(f"it holds {len(found)} members {shown(name)}")
    if not found:
        raise KeyError(name)
    if found[0].file_size > most:
        raise ValueError(f"its member {shown(name)} has {found[0].file_size:,} bytes, more than {most:,}")
    with archive.open(found[0]) as file:  # which gives no more than the size that was announced
        return file.read(most + 1)


def check_expansion(size: int, stored: int, what: str) -> None:
    """Refuse what a small file only announces: compressed far more tightly than data are.

    Args:
        size: Bytes that it takes once it is read.
        stored: Bytes that it has in the file.
        what: It is, for the error.

    Raises:
        InvalidInput: it takes over 128 MiB, and over 100 times what is stored.

    >>> check_expansion(10**9, 10**6, "x.npy in photos.npz")
    Traceback (most recent call last):
        ...
    tlkit.errors.InvalidInput: x.npy in photos.npz would grow from 1,000,000 to 1,000,000,000 bytes, as no ...
    """
    if size > EXPANSION * stored and size > UNSUSPECTED:
        raise InvalidInput(
            f"{what} would grow from {stored:,} to {size:,} bytes, as no real data do: if they are yours, write them "
            "without compression"
        )


def check_hdf5(file: str | BinaryIO, stored: int, what: str) -> int:
    """Look at what an HDF5 file announces, before anything of it is read.

    Args:
        file: Its path, or a stream.
        stored: Bytes that it has.
        what: It is, for errors.

    Returns:
        How many numbers it holds; those of an optimizer, which stay unread, are not counted.

    Raises:
        InvalidInput: it points to other files, or announces far more than it has.
        OSError: it is no HDF5 file, or damaged.
    """
    import h5py

    numbers, size = 0, 0

    def link(name: str, found: Any) -> str | None:  # what is returned ends the visit; h5py's may not be left by raising
        return None if isinstance(found, h5py.HardLink) else name

    def item(name: str, found: Any) -> str | None:
        nonlocal numbers, size
        if isinstance(found, h5py.Dataset):
            if found.external or found.is_virtual:
                return name
            if not name.startswith("optimizer"):
                numbers += int(found.size or 0)
                size += int(found.size or 0) * found.dtype.itemsize
        return None

    with h5py.File(file, "r") as opened:
        outside = opened.visititems_links(link) or opened.visititems(item)
    if outside:
        raise InvalidInput(f"{what} takes {shown(outside)} from elsewhere, as no file of weights does")
    check_expansion(size, stored, what)
    check_memory(size, what)
    return numbers


def check_memory(size: int, what: str) -> None:
    """Refuse what would fill the memory, before it is read.

    Args:
        size: Bytes that it takes, by its header.
        what: It is, for the error.

    Raises:
        InvalidInput: it would take more than half of the memory that is available.

    >>> check_memory(1000, "photos.npz")
    """
    free = available_memory()
    if size > SHARE * free:
        raise InvalidInput(
            f"{what} would take {size / 1e9:,.1f} GB of memory, more than half of the {free / 1e9:,.1f} GB that are "
            "available: free some, or give a smaller one"
        )


def available_memory() -> int:
    """Bytes that can still be used: what Linux and its containers tell, else half of what is built in, or 4 GiB."""
    limits = []
    try:
        fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines())
        limits.append(int(fields["MemAvailable"].split()[0]) * 1024)
    except (OSError, KeyError, ValueError):
        pass
    try:
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text(encoding="utf-8"))  # "max" where there is none
        stat = (group / "memory.stat").read_text(encoding="utf-8")
        counts = dict(line.split() for line in stat.splitlines())
        cached = int(counts["active_file"]) + int(counts["inactive_file"])  # given back when memory runs short
        limits.append(limit - int((group / "memory.current").read_text(encoding="utf-8")) + cached)
    except (OSError, KeyError, ValueError):
        pass
    if not limits:
        try:
            limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)
        except (AttributeError, ValueError, OSError):
            limits.append(4 * 2**30)
    return min(limits)


def duplicates(names: Collection[str]) -> list[str]:
    """Give the names that come more than once.

    >>> duplicates(["a", "b", "a"])
    ['a']
    """
    seen: set[str] = set()
    return sorted({name for name in names if name in seen or seen.add(name)})  # type: ignore[func-returns-value]
