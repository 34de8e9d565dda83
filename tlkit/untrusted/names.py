"""Identifiers, answers of a tracking server and paths from outside."""

from __future__ import annotations

import contextlib
import re
import shutil
import urllib.parse
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from tlkit.display import cut, shown
from tlkit.errors import InvalidInput, Unavailable

_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
_DEVICES = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)")  # Windows takes these names for devices in any folder
Answer = TypeVar("Answer")


def identifier(text: object, what: str, error: type[Exception] = InvalidInput) -> str:
    """Return an identifier from outside, such as an MLflow run's, once it is safe in a path, a query or a link.

    Args:
        text: From a server, a file, the environment or the command line.
        what: What it identifies and where it comes from, for the error.
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
    quoted = repr(cut(shown(text), 100)).replace("\\\\", "\\")
    raise error(f"{what} is {quoted}; it must be 1 to 128 letters, digits, - or _ and begin with a letter or digit")


def answered(answer: Answer) -> Answer:
    """Return a tracking server's answer (a run, an experiment or a model) once its identifiers are safe.

    Where the server has artifacts written to this machine's disk, they must go where MLflow puts them: into a folder
    `artifacts` in one that is named after the run or model, and not among files that were there before.

    Raises:
        Unavailable: an identifier is not safe, see `identifier`, or the folder is another one.
    """
    info = getattr(answer, "info", answer)
    for name in ("run_id", "experiment_id", "model_id", "source_run_id"):
        if value := getattr(info, name, None):
            identifier(value, f"{name} in the answer of the MLflow server", Unavailable)
    for location, owner in (("artifact_uri", "run_id"), ("artifact_location", "model_id")):
        uri, owner_id = getattr(info, location, None), getattr(info, owner, None)
        path = local_path(uri) if uri and owner_id else None
        if path and path.parts[-2:] != (owner_id, "artifacts"):
            raise Unavailable(
                f"the MLflow server wants files in {shown(path)}; it must be MLflow's own {owner_id}/artifacts"
            )
    return answer


def local_path(uri: str) -> Path | None:
    """Return the path of a URI on this machine's disk; None where it is elsewhere.

    >>> local_path("file:///srv/mlruns/1"), local_path("s3://bucket/1")
    (PosixPath('/srv/mlruns/1'), None)
    """
    from urllib.request import url2pathname  # at the top it would cost each `--help` a tenth of a second

    parts = urllib.parse.urlsplit(uri)
    return Path(url2pathname(parts.path)) if parts.scheme in ("", "file") else None


def remove(folder: Path, parent: Path) -> None:
    """Delete a folder that tlkit made directly below another one; leave anything else, links included, as it is."""
    name = folder.name
    if name in ("", ".", "..") or folder.is_symlink() or not folder.is_dir():
        return
    with contextlib.suppress(OSError):
        if folder.resolve() == parent.resolve() / name:
            shutil.rmtree(folder, ignore_errors=True)


def duplicates(names: Iterable[str]) -> list[str]:
    """Return the names that occur more than once.

    >>> duplicates(["a", "b", "a"])
    ['a']
    """
    return sorted(name for name, count in Counter(names).items() if count > 1)
