"""Words of a command line and settings of files, read into nested settings of the right types."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tlkit import untrusted
from tlkit.cli import fields, suggestions
from tlkit.cli.values import Text, WrongSetting, expected, group_hint, typed, written
from tlkit.config import space
from tlkit.display import shown
from tlkit.errors import InvalidInput


class CommandLine(NamedTuple):
    """What a command line says.

    Args:
        settings: Nested settings of the right types; later ones replace earlier ones.
        print_config: Value of `--print_config`, which asks for the settings to be printed; None where it is absent.
        notes: What to tell the user about the command line.
    """

    settings: dict[str, Any]
    print_config: str | None
    notes: list[str]


def usage(config_class: type, prog: str, positional: Sequence[str]) -> str:
    """Write the command with the settings that are given by place."""
    hints, by_name = fields.hints(config_class), {field.name: field for field in dataclasses.fields(config_class)}
    places = []
    for name in positional:
        choices = typing.get_args(hints[name]) if typing.get_origin(hints[name]) is typing.Literal else ()
        place = "|".join(choices) or name.upper()
        several = f"[{place} ...]" if fields.is_list(hints[name]) else ""
        if fields.required(by_name[name]):
            places.append(f"{place} {several}".strip())
        else:
            places.append(several or f"[{place}]")
    return " ".join([prog, *places])


def parse(config_class: type, argv: Sequence[str], positional: Sequence[str], usage: str) -> CommandLine:
    """Read a command line.

    Raises:
        InvalidInput: a word is not a setting, or a value is not allowed.
    """
    return _Parser(config_class, positional, usage).parse(argv)


class _Parser:
    def __init__(self, config_class: type, positional: Sequence[str], usage: str):
        self.config_class, self.positional, self.usage = config_class, positional, usage
        self.settings: dict[str, Any] = {}
        self.texts: dict[str, str] = {}  # the last value of each flag, as it was written
        self.print_config: str | None = None
        self.notes: list[str] = []

    def parse(self, argv: Sequence[str]) -> CommandLine:
        words, without_name = list(argv), list[str]()
        while words:
            word = words.pop(0)
            if word == "--":
                without_name += words
                break
            if word.startswith("-") and word != "-":
                self._take_flag(word, words)
            else:
                without_name.append(word)
        self._take_positional(without_name)
        return CommandLine(self.settings, self.print_config, self.notes)

    def _take_flag(self, word: str, words: list[str]) -> None:
        """Read a flag, and its value from the words that follow where it has none in itself."""
        name, equals, text = word[2:].partition("=")
        if name == "print_config" and text in ("", "skip_default"):
            self.print_config = text
            return
        self._check_name(word, name, text)
        if not equals and words and not words[0].startswith("--"):
            text = words.pop(0)
        elif not equals and fields.hint(self.config_class, name) is bool:
            text = "true"
        elif not equals or (name == "config" and not text):
            kind = fields.hint(self.config_class, name)
            allowed = "the path of a file" if name == "config" else expected(kind)
            raise InvalidInput(f"--{name} needs a value: {allowed}")
        if name != "config" and self.texts.get(name, text) != text:
            self.notes.append(f"--{name} is given twice; the last, {written(Text(text))}, counts")
        self.texts[name] = text
        if name == "config":
            above = from_file(self.config_class, text)
        else:
            above = _from_flag(self.config_class, name, Text(text), self.positional)
        self.settings = space.merged(self.settings, above)

    def _check_name(self, word: str, name: str, text: str) -> None:
        if word.startswith("--") and (name == "config" or fields.hint(self.config_class, name) is not None):
            return
        if name == "print_config":
            raise InvalidInput(f"--print_config is {written(text)}; it may be =skip_default or nothing")
        others = ("config", "print_config", "help")
        raise InvalidInput(suggestions.unknown(self.config_class, name if word.startswith("--") else word, others))

    def _take_positional(self, words: list[str]) -> None:
        hints = fields.hints(self.config_class)
        for name in self.positional:
            if not words:
                return
            several = fields.is_list(hints[name])
            value = [Text(word) for word in words] if several else Text(words[0])
            self.settings |= _from_flag(self.config_class, name, value, self.positional)
            words = [] if several else words[1:]
        if words:
            raise InvalidInput(suggestions.stray(self.config_class, words[0], self.usage if self.positional else ""))


def from_file(config_class: type, path: str) -> dict[str, Any]:
    """Read the settings of a file; an error names its line.

    Raises:
        InvalidInput: it is not a file of settings, or a setting is unknown or wrong.
    """
    try:
        text = untrusted.yaml_text(path)
    except InvalidInput as error:
        raise InvalidInput(f"--config: {error}") from None
    settings = untrusted.parse_yaml(text, shown(path))
    if not isinstance(settings, Mapping) or not settings:
        holds = f"holds {written(settings)}" if settings else "is empty"
        raise InvalidInput(f"{shown(path)} {holds}; it must have settings by their names, such as `seed: 1`")
    try:
        return typed(config_class, settings)
    except WrongSetting as error:
        line = untrusted.yaml_line(text, error.name)
        raise InvalidInput(f"{shown(path)}, line {line}: {error.message}") from None
    except InvalidInput as error:
        raise InvalidInput(f"{shown(path)}: {error}") from None


def _from_flag(config_class: type, name: str, value: Text | list[Text], positional: Sequence[str]) -> dict[str, Any]:
    """Return the nested settings that a flag stands for."""
    nested: Any = value
    kind = fields.hint(config_class, name)
    if dataclasses.is_dataclass(kind):
        nested = untrusted.parse_yaml(str(value), f"--{name}") if ":" in value else None
        if not isinstance(nested, Mapping):
            hint = group_hint(typing.cast("type", kind), name, value, "--")
            raise InvalidInput(f"--{name} is a group of settings; {hint} --help all lists them")
    for part in reversed(name.split(".")):
        nested = {part: nested}
    try:
        return typed(config_class, nested)
    except WrongSetting as error:
        is_flag = error.message.startswith(f"{error.name}:") and error.name not in positional
        raise InvalidInput(f"{'--' if is_flag else ''}{error.message}") from None
