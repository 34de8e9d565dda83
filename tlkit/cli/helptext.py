"""What `--help` prints."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Sequence
from typing import NamedTuple

from tlkit.cli import fields
from tlkit.cli.parsing import usage
from tlkit.cli.values import expected
from tlkit.config import space
from tlkit.display import called

FIRST = (
    "data.path",
    "backbone.name",
    "builder.name",
    "data.image_size",
    "augment.policy",
    "batch_size",
    "seed",
    "full.unfreeze_from",
    "full.epochs",
    "full.learning_rate",
    "run_name",
    "resume",
    "register",
    "export",
    "experiment",
    "precision",
)
"""Settings that people use first, in this order; a recipe has the first dozen of these, its own after the data."""
SEVERAL, COLUMN = 12, 24  # settings that `--help` shows; letters of a name that has its text beside it
HARD = "\N{NO-BREAK SPACE}"


def help_text(
    config_class: type, prog: str, doc: str = "", positional: Sequence[str] = (), whole: bool = False, width: int = 80
) -> str:
    """Write what `--help` prints: what a command is for, an example, and its settings.

    Args:
        config_class: A dataclass; its docstring explains the settings.
        prog: The command, for the usage line.
        doc: Docstring of its module: a line, and an example as `python -m` runs it.
        positional: Settings that are given by place; one whose type is a list takes all that follow, and one that has a
            default may be left out.
        whole: Explain all settings, and not only those that people use first.
        width: Columns.
    """
    import textwrap

    settings = describe_settings(config_class)
    first = _first(config_class)
    whole = whole or len(settings) == len(first)
    example = re.search(r"^python -m tlkit\.recipes\.(.+)$", doc, re.MULTILINE)
    flags = "[--config FILE] [--NAME VALUE ...]".replace(" VALUE ", f"{HARD}VALUE{HARD}")  # is not wrapped
    line = f"usage: {usage(config_class, prog, positional)} {flags}"
    lines = [
        *textwrap.wrap(" ".join(doc.strip().partition("\n\n")[0].split()), width),
        "",
        *(part.replace(HARD, " ") for part in textwrap.wrap(line, width, subsequent_indent=" " * 7)),
        *([f"example: {called(example[1])}"] if example else []),
        *_table(_groups(settings, settings if whole else first, positional, whole), width),
    ]
    if not whole:
        lines += ["", f"All {len(settings)} settings: {prog} --help all"]
    return "\n".join(lines)


class Setting(NamedTuple):
    """A setting's group with its purpose, its description in the config's docstring, and what it takes."""

    group: str
    description: str
    takes: str


def describe_settings(config_class: type, prefix: str = "", group: str = "") -> dict[str, Setting]:
    """Describe each setting, by its dotted name; those that are in no group come first."""
    descriptions = _descriptions(config_class)
    single: dict[str, Setting] = {}
    grouped: dict[str, Setting] = {}
    for field in dataclasses.fields(config_class):
        name, kind = f"{prefix}{field.name}", fields.hints(config_class)[field.name]
        words = descriptions[field.name]
        if dataclasses.is_dataclass(kind):
            heading = f"{name} ({words[:1].lower()}{words[1:].rstrip('.')}):"
            grouped |= describe_settings(typing.cast("type", kind), f"{name}.", heading)
        else:
            takes = expected(kind).removesuffix(" or null") + ("; required" if fields.required(field) else "")
            default = fields.default(field)
            has_default = default is not None and default not in ([], {})
            single[name] = Setting(group, words, f"{takes}; default {space.flow(default)}" if has_default else takes)
    return single | grouped


def _descriptions(config_class: type) -> dict[str, str]:
    import docstring_parser

    descriptions: dict[str, str] = {}
    for each in reversed(config_class.__mro__):  # a config describes its own settings, and its bases theirs
        style = docstring_parser.DocstringStyle.GOOGLE
        for param in docstring_parser.parse(vars(each).get("__doc__") or "", style).params:
            descriptions[param.arg_name] = " ".join((param.description or "").split())
    return descriptions


def _first(config_class: type) -> list[str]:
    """Name the settings that `--help` shows: all where they are few, else those of `FIRST` and the recipe's own."""
    names = list(fields.names(config_class))
    inherited = {name for base in config_class.__mro__[1:] for name in getattr(base, "__dataclass_fields__", {})}
    own = [name for name in names if "." not in name and name not in inherited]
    ordered = dict.fromkeys([FIRST[0], *own, *FIRST[1:]])
    return names if len(names) <= SEVERAL else [name for name in ordered if name in names][:SEVERAL]


def _groups(
    settings: dict[str, Setting], names: Sequence[str] | dict[str, Setting], positional: Sequence[str], whole: bool
) -> dict[str, list[tuple[str, str]]]:
    """Give the rows of the table under each heading: the flag and its text."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for name in names:
        setting = settings[name]
        flag = name.upper() if name in positional else f"--{name}"
        description = setting.description if whole else re.split(r"[.;]\s", setting.description)[0]
        text = f"{description.rstrip('.')}. ({setting.takes})"
        groups.setdefault(setting.group if whole else "", []).append((flag, text))
    groups[""] = [
        *groups.get("", []),
        ("--config", "Read settings from this YAML file; what comes later on the command line changes them."),
        ("--print_config", "Print all settings as YAML and end; with =skip_default, those that are not the default."),
    ]
    return groups


def _table(groups: dict[str, list[tuple[str, str]]], width: int) -> list[str]:
    """Write flags with their texts in a second column; a long flag has a line of its own."""
    import textwrap

    left = min(max(len(flag) for rows in groups.values() for flag, _ in rows), COLUMN) + 4
    indent = " " * left
    lines: list[str] = []
    for heading, rows in groups.items():
        lines += ["", *textwrap.wrap(heading, width)]
        for flag, text in rows:
            lines += [] if len(flag) <= COLUMN else [f"  {flag}"]
            start = f"  {flag}".ljust(left) if len(flag) <= COLUMN else indent
            lines += textwrap.wrap(text, width, initial_indent=start, subsequent_indent=indent, break_on_hyphens=False)
    return lines
