"""The version of a registered model that an alias points at, and the moment when it moves."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import NamedTuple

from tlkit.display import say, short
from tlkit.errors import InvalidInput, first_line


class Version(NamedTuple):
    """A model as it was named, and as it is loaded.

    Args:
        uri: What is loaded: `models:/NAME/3` where an alias was given, so that it cannot move meanwhile.
        number: Of the version; empty where no alias was given.
    """

    uri: str
    number: str


def resolve(model: str) -> Version:
    """Look up the version that an alias points at; anything but an alias is returned as it is.

    Raises:
        InvalidInput: there is no such model or alias.
        Unavailable: the store does not answer.

    >>> resolve("model.keras")
    Version(uri='model.keras', number='')
    """
    found = alias(model)
    if not found:
        return Version(model, "")
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    from tlkit import tracking

    name, label = found
    tracking.open_store()
    try:
        number = str(MlflowClient().get_model_version_by_alias(name, label).version)
    except (MlflowException, OSError) as error:
        raise InvalidInput(f"MLflow has no model {model!r}: {first_line(error)}") from error
    return Version(f"models:/{name}/{number}", number)


def alias(model: str) -> tuple[str, str] | None:
    """Return the name and the alias of an MLflow URI that has one.

    >>> alias("models:/flowers@champion"), alias("models:/flowers/3")
    (('flowers', 'champion'), None)
    """
    found = re.fullmatch(r"models:/+([^/@]+)@([^/@]+)", model)
    return (found[1], found[2]) if found else None


def numbered(model: str) -> tuple[str, str] | None:
    """Return the name and the number of an MLflow URI of a version.

    >>> numbered("models:/flowers/3"), numbered("models:/flowers@champion")
    (('flowers', '3'), None)
    """
    found = re.fullmatch(r"models:/+([^/@]+)/(\d+)", model)
    return (found[1], found[2]) if found else None


def watch(model: str, number: str, seconds: float, take: Callable[[Version], object]) -> threading.Event:
    """Look up an alias again and again, in a thread, and have a version that it moves to taken.

    What goes wrong is said in one line, once; the version before stays.

    Args:
        model: With an alias.
        number: Of the version that is taken already.
        seconds: Between two looks.
        take: Called with a version that is new; it may raise any error.

    Returns:
        An event that ends the thread when it is set.
    """
    ended = threading.Event()

    def look() -> None:
        at, before = number, ""
        while not ended.wait(seconds):
            version = Version(model, "?")
            try:
                version = resolve(model)
                if version.number != at:
                    take(version)
                    say(f"serve: version {version.number} of {model} has taken over from version {at}", error=True)
                    at = version.number
                problem = ""
            except Exception as error:
                what = "cannot be looked up" if version.number == "?" else f"moved to version {version.number}"
                problem = f"serve: {model} {what}, and version {at} stays: {first_line(error)}"
            if problem and problem != before and not ended.is_set():
                say(short(problem), error=True)
            before = problem

    threading.Thread(target=look, name="alias", daemon=True).start()
    return ended
