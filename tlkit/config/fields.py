"""Checks of values and dotted names, for all settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tlkit import cluster
from tlkit.display import shown
from tlkit.errors import InvalidInput

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def require(holds: bool, name: str, value: object, allowed: str) -> None:
    """Refuse a value of a setting unless a condition holds; the message says what is allowed.

    Raises:
        InvalidInput: the condition does not hold.

    >>> require(False, "tta", -1, "it must be 0 or more")
    Traceback (most recent call last):
    tlkit.errors.InvalidInput: tta is -1; it must be 0 or more
    """
    if not holds:
        raise InvalidInput(f"{name} is {value!r}; {allowed}")


def require_names(experiment: str, run_name: str | None) -> None:
    """Refuse names that a terminal or MLflow's store cannot hold.

    Raises:
        InvalidInput: the experiment has no name, or a name has control characters or is not UTF-8.
    """
    require(bool(experiment), "experiment", experiment, "it must have a name")
    for name, value in (("experiment", experiment), ("run_name", run_name)):
        plain = value is None or shown(value) == value
        require(plain, name, value, "it must be UTF-8 in one line, without control characters")


def require_cluster(address: str | None) -> None:
    """Refuse what is no address of a cluster.

    Raises:
        InvalidInput: it is none; the message says what is.
    """
    if address is not None:
        problem = cluster.check(address)
        require(not problem, "cluster", address, problem)


def flatten(config: DataclassInstance, prefix: str = "") -> dict[str, Any]:
    """Return every leaf of a config under its dotted name, as on the command line.

    >>> from tlkit.config import Head
    >>> flatten(Head(epochs=3), "head.")["head.epochs"]
    3
    """
    return dict(_leaves(config, prefix))


def defaults(config: DataclassInstance) -> dict[str, Any]:
    """Return what every leaf of a config is by default, under its dotted name; required ones have their own value.

    >>> from tlkit.config import Finetune
    >>> defaults(Finetune(seed=3))["seed"]
    0
    """
    required = {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    return flatten(type(config)(**required))


def _leaves(config: DataclassInstance, prefix: str) -> Iterator[tuple[str, Any]]:
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield from _leaves(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", value
