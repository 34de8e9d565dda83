"""The fields of a config class: their types, names and defaults."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeAlias

Hint: TypeAlias = Any  # what an annotation can be: a class, a union, a Literal, list[int] ...


@functools.cache
def hints(config_class: type) -> Mapping[str, Hint]:
    """Return the type of each field of a dataclass."""
    resolved = typing.get_type_hints(config_class)
    return {field.name: resolved[field.name] for field in dataclasses.fields(config_class)}


def hint(config_class: type, name: str) -> Hint | None:
    """Return the type of a setting by its dotted name; None where there is none of this name."""
    first, _, rest = name.partition(".")
    outer = hints(config_class).get(first)
    if rest and dataclasses.is_dataclass(outer):
        return hint(typing.cast("type", outer), rest)
    return None if rest and not is_mapping(outer) else outer


def names(config_class: type, prefix: str = "") -> dict[str, str]:
    """Return the dotted names of all settings, each with its group's purpose, in the words of its docstring."""
    purposes: dict[str, str] = {}
    for name, kind in hints(config_class).items():
        if dataclasses.is_dataclass(kind):
            first = (kind.__doc__ or "").strip().partition("\n")[0].rstrip(".")
            purposes |= dict.fromkeys(
                names(typing.cast("type", kind), f"{prefix}{name}."), first[:1].lower() + first[1:]
            )
        else:
            purposes[f"{prefix}{name}"] = ""
    return purposes


def required(field: dataclasses.Field[Any]) -> bool:
    """Tell whether a field has no default."""
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def default(field: dataclasses.Field[Any]) -> Any:
    """Return the default of a field; None where it has none."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if required(field) else field.default


def options(kind: Hint) -> tuple[Hint, ...]:
    """Return the members of a union; of any other type, the type itself."""
    return typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else (kind,)


def is_list(kind: Hint) -> bool:
    """Tell whether a setting takes a list and nothing else."""
    return typing.get_origin(kind) is list


def is_mapping(kind: Hint) -> bool:
    """Tell whether a setting takes a mapping with any names."""
    return any(typing.get_origin(option) is dict for option in options(kind))
