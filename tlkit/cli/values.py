"""Values of settings, from YAML or the command line, given the types that a config has for them."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import sys
import typing
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from tlkit import untrusted
from tlkit.cli import fields, suggestions
from tlkit.cli.fields import Hint
from tlkit.config import space
from tlkit.display import cut, shown
from tlkit.errors import InvalidInput

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Config = TypeVar("Config", bound="DataclassInstance")
MISMATCH = object()  # a value that is not of a type


class Text(str):
    """A value of the command line: YAML, unless the setting is text."""

    __slots__ = ()


class WrongSetting(Exception):
    """A setting that is unknown or has a wrong value.

    Args:
        name: Its dotted name.
        message: What is wrong with it.
    """

    def __init__(self, name: str, message: str):
        super().__init__(message)
        self.name, self.message = name, message


def from_settings(config_class: type[Config], settings: Mapping[str, Any]) -> Config:
    """Make a config from nested settings, as a file has them.

    Raises:
        InvalidInput: a setting is unknown, or its value is not allowed.

    >>> from tlkit.config import Train
    >>> from_settings(Train, {"builder": {"filters": [8, 16]}}).builder.filters
    [8, 16]
    """
    try:
        return construct(config_class, typed(config_class, settings))
    except WrongSetting as error:
        raise InvalidInput(error.message) from None


def typed(
    config_class: type, settings: Mapping[str, Any], prefix: str = "", root: type | None = None
) -> dict[str, Any]:
    """Convert nested settings to the types that a config has for them.

    Raises:
        WrongSetting: a setting is unknown, or its value is not of its type.
    """
    hints = fields.hints(config_class)
    converted: dict[str, Any] = {}
    for key, value in (settings if prefix else space.nested(settings)).items():
        name = f"{prefix}{key}"
        if key not in hints:
            raise WrongSetting(name, suggestions.unknown(root or config_class, name))
        if not dataclasses.is_dataclass(hints[key]):
            converted[key] = convert(hints[key], value, name)
        elif isinstance(value, Mapping):
            converted[key] = typed(hints[key], value, f"{name}.", root or config_class)
        else:
            hint = group_hint(hints[key], name, value)
            raise WrongSetting(name, f"{name}: expected a group of settings, got {written(value)}; {hint}")
    return converted


def convert(kind: Hint, value: object, name: str) -> Any:
    """Convert a value to a setting's type.

    Raises:
        WrongSetting: it is not of this type.
    """
    options, parsed = fields.options(kind), value
    if isinstance(value, str) and (str not in options or (isinstance(value, Text) and _is_yaml(value, options))):
        try:
            parsed = untrusted.parse_yaml(str(value), f"--{name}")
        except InvalidInput:
            if value[:1] in ("[", "{"):
                raise
    for option in options:
        if _is_choices(option) and isinstance(value, str) and isinstance(parsed, str):
            parsed = [word.strip() for word in value.split(",")]
        if typing.get_origin(option) is typing.Literal:
            if value in typing.get_args(option):
                return str(value)
        elif (result := _as_option(option, parsed, name)) is not MISMATCH:
            return result
    message = f"{name}: expected {expected(kind)}, got {written(value)}"
    if str in options and isinstance(parsed, bool | int | float):
        message += "; quote text that reads like a number, yes or no"
    raise WrongSetting(name, message)


def _as_option(option: Hint, value: Any, name: str) -> Any:
    """Convert a value to one member of a union, or return MISMATCH."""
    origin, inner = typing.get_origin(option), typing.get_args(option)
    if option is type(None) and value is None:
        return None
    if option in (bool, int) and type(value) is option:
        return value
    if option is float and (type(value) is float or (type(value) is int and abs(value) < sys.float_info.max)):
        return float(value)
    if option is str and isinstance(value, str):
        return str(value)
    if origin is list and isinstance(value, list):
        return [convert(inner[0], each, name) for each in value]
    if origin is dict and isinstance(value, Mapping):
        if inner[1] is Any:
            return space.nested(_parsed(value, name), f"{name}.")
        return {str(key): convert(inner[1], each, f"{name}.{key}") for key, each in value.items()}
    if dataclasses.is_dataclass(option) and isinstance(value, Mapping):
        config_class = typing.cast("type", option)
        return construct(config_class, typed(config_class, value, f"{name}.", config_class))
    return MISMATCH


def _is_choices(option: Hint) -> bool:
    """Tell whether a type is a list of fixed words, which may be written with commas between them."""
    return fields.is_list(option) and typing.get_origin(typing.get_args(option)[0]) is typing.Literal


def _is_yaml(text: str, options: Sequence[Hint]) -> bool:
    """Tell whether a value of the command line is null or a list, for a setting that may also be text."""
    lists = any(fields.is_list(option) for option in options)
    return (text == "null" and type(None) in options) or (lists and text.startswith("["))


def _parsed(value: Any, name: str) -> Any:
    """Parse the command line's values in a mapping with any names, whose types nobody knows, as YAML."""
    if isinstance(value, Mapping):
        return {key: _parsed(inner, f"{name}.{key}") for key, inner in value.items()}
    return untrusted.parse_yaml(str(value), f"--{name}") if isinstance(value, Text) else value


def construct(
    config_class: type[Config],
    settings: Mapping[str, Any],
    positional: Sequence[str] = (),
    usage: str = "",
    prefix: str = "",
) -> Config:
    """Make a config from settings of the right types.

    Raises:
        InvalidInput: a setting that has no default is missing, or the config refuses a value.
    """
    values = {}
    for field in dataclasses.fields(config_class):
        kind, name = fields.hints(config_class)[field.name], f"{prefix}{field.name}"
        if dataclasses.is_dataclass(kind) and (field.name in settings or fields.required(field)):
            group = typing.cast("type[DataclassInstance]", kind)
            values[field.name] = construct(group, settings.get(field.name, {}), prefix=f"{name}.")
        elif field.name in settings:
            values[field.name] = settings[field.name]
        elif fields.required(field):
            raise InvalidInput(f"{name} is missing: {usage if name in positional else f'give --{name}'}")
    return config_class(**values)


def nested_settings(config_class: type[DataclassInstance], settings: Mapping[str, Any], whole: bool) -> dict[str, Any]:
    """Return the settings as a file has them: all, or only those that are not the default."""
    nested: dict[str, Any] = {}
    for field in dataclasses.fields(config_class):
        kind, name = fields.hints(config_class)[field.name], field.name
        default = fields.default(field)
        if dataclasses.is_dataclass(kind):
            group = typing.cast("type[DataclassInstance]", kind)
            inner = nested_settings(group, settings.get(name, {}), whole)
            nested |= {name: inner} if inner else {}
            continue
        value = settings.get(name, default)
        if whole or value != default:
            nested[name] = [_as_mapping(each) for each in value] if isinstance(value, list) else value
    return nested


def _as_mapping(value: Any) -> Any:
    is_config = dataclasses.is_dataclass(value) and not isinstance(value, type)
    return dataclasses.asdict(value) if is_config else value


def expected(kind: Hint) -> str:
    """Say what a setting may be.

    >>> expected(int | list[int] | None), expected(float | typing.Literal["auto"])
    ('int or a list such as [3, 5] or null', 'float or auto')
    """
    words = {bool: "true or false", int: "int", float: "float", str: "text", type(None): "null"}
    texts = []
    for option in fields.options(kind):
        origin, inner = typing.get_origin(option), typing.get_args(option)
        if origin is typing.Literal:
            texts.append(f"one of {', '.join(inner)}" if len(inner) > 1 else inner[0])
        elif _is_choices(option):
            texts.append(f"any of {', '.join(typing.get_args(inner[0]))}, with commas between them")
        elif origin is list:
            texts.append("a list such as [3, 5]" if inner[0] is int else "a list such as [NAME, NAME]")
        elif origin is dict:
            texts.append("a mapping such as {NAME: NAME}" if inner[1] is str else "a mapping such as {NAME: 1}")
        else:
            texts.append(words.get(option, "a mapping"))
    return " or ".join(texts)


def written(value: object) -> str:
    """Write a value in a message: text in quotes, anything else as YAML in one line."""
    text = cut(shown(value if isinstance(value, str) else space.flow(value)), 80)
    return f"'{text}'" if isinstance(value, str) else text


def group_hint(group: type, name: str, value: object, dashes: str = "") -> str:
    """Say which setting of a group was meant, by the type of its value; else list them all."""
    for inner, kind in fields.hints(group).items():
        with contextlib.suppress(WrongSetting, InvalidInput):
            if value not in ("", None) and convert(kind, value, inner) is not None:
                text = f" {shlex.quote(shown(value))}" if dashes else ""
                return f"did you mean {dashes}{name}.{inner}{text}?"
    inside = ", ".join(f"{dashes}{name}.{inner}" for inner in fields.hints(group))
    return f"it has {inside};" if dashes else f"it has {inside}"
