"""The command line of the recipes: a config's fields are its flags, and a user's mistake is one line."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import os
import re
import shlex
import shutil
import signal
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from tlkit import untrusted
from tlkit.config import space
from tlkit.display import called, cut, say, short, shown
from tlkit.errors import InvalidInput, reason

USAGE, FAILURE, INTERRUPTED = 2, 1, 130
MEANT = {
    "lr": "learning_rate",
    "bs": "batch_size",
    "wd": "weight_decay",
    **dict.fromkeys(("model", "arch", "architecture", "network", "backbone"), "backbone.name builder.name backbones"),
    **dict.fromkeys(("pretrained", "weights", "checkpoint"), "backbone.weights builder.weights"),
    **dict.fromkeys(("dataset", "dir", "folder", "root", "images", "train_dir"), "data.path"),
    **dict.fromkeys(("size", "img_size", "imgsz", "input_size", "resolution"), "data.image_size"),
    **dict.fromkeys(("val_split", "validation_split"), "data.val_fraction"),
    "test_split": "data.test_fraction",
    **dict.fromkeys(("optim", "opt"), "optimizer"),
    **dict.fromkeys(("sched", "scheduler", "lr_scheduler"), "schedule"),
    **dict.fromkeys(("warmup_epochs", "warmup_steps"), "warmup"),
    "freeze_epochs": "head.epochs",
    **dict.fromkeys(("amp", "fp16", "bf16", "dtype", "mixed_precision"), "precision"),
    **dict.fromkeys(("random_state", "random_seed"), "seed"),
    **dict.fromkeys(("n_trials", "max_trials"), "trials"),
    **dict.fromkeys(("aug", "augmentation"), "augment"),
    "project": "experiment",
}
"""What others call our settings: the name that is looked for, or the whole ones, of which a recipe has one."""

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
    "experiment",
    "precision",
)
"""Settings that people use first, in this order; a recipe has the first dozen of these, its own after the data."""
SEVERAL, COLUMN, WIDEST = 12, 24, 100  # settings of `--help`; letters of a name beside what is said of it; columns
HARD = "\N{NO-BREAK SPACE}"


class _Text(str):
    """A value of the command line: YAML, unless the setting is text."""

    __slots__ = ()


class _WrongSetting(Exception):
    """The dotted name of a setting, and what is wrong with it."""


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
    places = "[--config FILE] [--NAME VALUE ...]".replace(" VALUE ", f"{HARD}VALUE{HARD}")  # is not wrapped
    usage = f"usage: {usage_line(config_class, prog, positional)} {places}"
    made = [
        *textwrap.wrap(" ".join(doc.strip().partition("\n\n")[0].split()), width),
        "",
        *(line.replace(HARD, " ") for line in textwrap.wrap(usage, width, subsequent_indent=" " * 7)),
        *([f"example: {called(example[1])}"] if example else []),
    ]
    groups: dict[str, list[tuple[str, str]]] = {}
    for name in settings if whole else first:
        shown_as = name.upper() if name in positional else f"--{name}"
        explained = settings[name].explained if whole else re.split(r"[.;]\s", settings[name].explained)[0]
        text = f"{explained.rstrip('.')}. ({settings[name].takes})"
        groups.setdefault(settings[name].group if whole else "", []).append((shown_as, text))
    groups[""] = [
        *groups.get("", []),
        ("--config", "Read settings from this YAML file; what comes later on the command line changes them."),
        ("--print_config", "Print all settings as YAML and end; with =skip_default, those that are not the default."),
    ]
    left = min(max(len(name) for rows in groups.values() for name, _ in rows), COLUMN) + 4
    indent = " " * left
    for heading, rows in groups.items():
        made += ["", *textwrap.wrap(heading, width)]
        for name, text in rows:
            made += [] if len(name) <= COLUMN else [f"  {name}"]
            own = f"  {name}".ljust(left) if len(name) <= COLUMN else indent
            made += textwrap.wrap(text, width, initial_indent=own, subsequent_indent=indent, break_on_hyphens=False)
    if not whole:
        made += ["", f"All {len(settings)} settings: {prog} --help all"]
    return "\n".join(made)


class Setting(NamedTuple):
    """A setting as `--help all` shows it: its group with what that is for, its description, and the values it takes."""

    group: str
    explained: str
    takes: str


def describe_settings(config_class: Any, prefix: str = "", group: str = "") -> dict[str, Setting]:
    """Describe each setting, by its dotted name; those in no group come first."""
    import docstring_parser

    explained: dict[str, str] = {}
    for each in reversed(config_class.__mro__):  # a config explains its own settings, and its bases theirs
        style = docstring_parser.DocstringStyle.GOOGLE
        for param in docstring_parser.parse(vars(each).get("__doc__") or "", style).params:
            explained[param.arg_name] = " ".join((param.description or "").split())
    single: dict[str, Setting] = {}
    grouped: dict[str, Setting] = {}
    for field in dataclasses.fields(config_class):
        name, kind = f"{prefix}{field.name}", _kinds(config_class)[field.name]
        words = explained[field.name]
        if dataclasses.is_dataclass(kind):
            grouped |= describe_settings(kind, f"{name}.", f"{name} ({words[:1].lower()}{words[1:].rstrip('.')}):")
        else:
            takes = _expected(kind).removesuffix(" or null") + ("; required" if _required(field) else "")
            default = _default(field)
            known = default is not None and default not in ([], {})
            single[name] = Setting(group, words, f"{takes}; default {space.flow(default)}" if known else takes)
    return single | grouped


def _first(config_class: Any) -> list[str]:
    """Name the settings that `--help` shows: all where they are few, else those of `FIRST` and the recipe's own."""
    names = list(_names(config_class))
    inherited = {name for base in config_class.__mro__[1:] for name in getattr(base, "__dataclass_fields__", {})}
    own = [name for name in names if "." not in name and name not in inherited]
    wanted = dict.fromkeys([FIRST[0], *own, *FIRST[1:]])
    return names if len(names) <= SEVERAL else [name for name in wanted if name in names][:SEVERAL]


def from_settings(config_class: type, settings: Mapping[str, Any]) -> Any:
    """Make a config from nested settings, as a file has them.

    Raises:
        InvalidInput: a setting is unknown, or its value is not allowed.

    >>> from tlkit.config import Train
    >>> from_settings(Train, {"builder": {"filters": [8, 16]}}).builder.filters
    [8, 16]
    """
    try:
        return _made(config_class, _typed(config_class, settings))
    except _WrongSetting as error:
        raise InvalidInput(error.args[1]) from None


def call(
    config_class: type, run: Callable[[Any], Any], argv: Sequence[str] | None = None, positional: Sequence[str] = ()
) -> int:
    """Parse `argv`, run the recipe and give the exit status: 0, 2 for wrong usage, 1 for a failure."""
    module = sys.modules[run.__module__]
    path = module.__spec__.name if module.__spec__ else run.__module__  # `__main__` has the name it was called by
    name, words = path.rpartition(".")[2], list(sys.argv[1:] if argv is None else argv)
    prog = called(name) if path == f"tlkit.recipes.{name}" else f"python -m {path}"
    _quiet()
    try:
        if asks := [number for number, word in enumerate(words) if word in ("-h", "--help", "--help=all")]:
            whole = "--help=all" in words or any(words[number + 1 : number + 2] == ["all"] for number in asks)
            width = min(shutil.get_terminal_size().columns, WIDEST)
            say(help_text(config_class, prog, module.__doc__ or "", positional, whole, width))
            sys.exit(0)
        usage = usage_line(config_class, prog, positional)
        settings, asked, notes = _read(config_class, words, positional, usage)
        for note in notes:
            say(f"{name}: {note}", error=asked is not None)
        if asked is not None:
            say(untrusted.dump_yaml(_written(config_class, settings, whole=not asked)), end="")
            return 0
        run(_made(config_class, settings, positional, usage))
    except InvalidInput as error:
        return _say(name, error, USAGE)
    except BrokenPipeError:  # `... | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes at its end
        return FAILURE
    except OSError as error:  # Unavailable, or a disk that is full
        return _say(name, reason(error), FAILURE)
    except KeyboardInterrupt:
        return _say(name, "interrupted", INTERRUPTED)
    return 0


def main(config_class: type, run: Callable[[Any], Any], positional: Sequence[str] = ()) -> NoReturn:
    """Run a recipe as a program: `if __name__ == "__main__": cli.main(Config, run)`."""
    signal.signal(signal.SIGTERM, _interrupt)
    sys.exit(call(config_class, run, positional=positional))


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt  # not by way of SIGINT, which shells turn off for what they run in the background


def usage_line(config_class: type, prog: str, positional: Sequence[str]) -> str:
    """Write how a command is called, without its flags."""
    kinds, fields = _kinds(config_class), {field.name: field for field in dataclasses.fields(config_class)}
    places = []
    for name in positional:
        choices = typing.get_args(kinds[name]) if typing.get_origin(kinds[name]) is typing.Literal else ()
        place = "|".join(choices) or name.upper()
        several = f"[{place} ...]" if typing.get_origin(kinds[name]) is list else ""
        if _required(fields[name]):
            places.append(f"{place} {several}".strip())
        else:
            places.append(several or f"[{place}]")
    return " ".join([prog, *places])


def _read(
    config_class: type, argv: Sequence[str], positional: Sequence[str], usage: str
) -> tuple[dict[str, Any], str | None, list[str]]:
    """Read a command line.

    Returns:
        Nested settings of the right types, those given later over those given before; how `--print_config` asks to see
        them, if it does; and what is to be said of them.
    """
    made: dict[str, Any] = {}
    seen: dict[str, str] = {}
    asked, notes, stray, words = None, [], [], list(argv)
    while words:
        word = words.pop(0)
        name, equals, text = word[2:].partition("=")
        if word == "--":
            stray += words
            break
        if not word.startswith("-") or word == "-":
            stray.append(word)
            continue
        if name == "print_config" and text in ("", "skip_default"):
            asked = text
            continue
        if not word.startswith("--") or (name != "config" and _kind(config_class, name) is None):
            if name == "print_config":
                raise InvalidInput(f"--print_config is {_got(text)}; it may be =skip_default or nothing")
            others = ("config", "print_config", "help")
            raise InvalidInput(_unknown(config_class, name if word.startswith("--") else word, others))
        if not equals and words and not words[0].startswith("--"):
            text = words.pop(0)
        elif not equals or (name == "config" and not text):
            expected = "the path of a file" if name == "config" else _expected(_kind(config_class, name))
            raise InvalidInput(f"--{name} needs a value: {expected}")
        if name != "config" and seen.get(name, text) != text:
            notes.append(f"--{name} is given twice; the last, {_got(_Text(text))}, counts")
        seen[name] = text
        above = _file(config_class, text) if name == "config" else _flag(config_class, name, text, positional)
        made = space.merged(made, above)
    kinds = _kinds(config_class)
    for name in positional:
        several = typing.get_origin(kinds[name]) is list
        if stray:
            made |= _flag(config_class, name, [_Text(word) for word in stray] if several else stray[0], positional)
            stray = [] if several else stray[1:]
    if stray:
        raise InvalidInput(_stray(config_class, stray[0], usage if positional else ""))
    return made, asked, notes


def _file(config_class: type, path: str) -> dict[str, Any]:
    """Read the settings of a file; what is wrong is named with its line."""
    try:
        text = untrusted.yaml_text(path)
    except InvalidInput as error:
        raise InvalidInput(f"--config: {error}") from None
    given = untrusted.parse_yaml(text, shown(path))
    if not isinstance(given, Mapping) or not given:
        holds = f"holds {_got(given)}" if given else "is empty"
        raise InvalidInput(f"{shown(path)} {holds}; it must have settings by their names, such as `seed: 1`")
    try:
        return _typed(config_class, given)
    except _WrongSetting as error:
        name, says = error.args
        raise InvalidInput(f"{shown(path)}, line {untrusted.yaml_line(text, name)}: {says}") from None
    except InvalidInput as error:
        raise InvalidInput(f"{shown(path)}: {error}") from None


def _flag(config_class: type, name: str, given: str | list[Any], positional: Sequence[str]) -> dict[str, Any]:
    """Give the nested settings that a flag stands for."""
    value: Any = _Text(given) if isinstance(given, str) else given
    kind = _kind(config_class, name)
    if dataclasses.is_dataclass(kind):
        inside = untrusted.parse_yaml(str(value), f"--{name}") if ":" in value else None
        if not isinstance(inside, Mapping):
            raise InvalidInput(
                f"--{name} is a group of settings; {_inside(kind, name, value, '--')} --help all lists them"
            )
        value = inside
    for part in reversed(name.split(".")):
        value = {part: value}
    try:
        return _typed(config_class, value)
    except _WrongSetting as error:
        setting, says = error.args
        dashes = "--" if says.startswith(f"{setting}:") and setting not in positional else ""
        raise InvalidInput(f"{dashes}{says}") from None


def _kinds(config_class: Any) -> dict[str, Any]:
    """Give the type of each field of a dataclass."""
    kinds = typing.get_type_hints(config_class)
    return {field.name: kinds[field.name] for field in dataclasses.fields(config_class)}


def _kind(config_class: Any, name: str) -> Any:
    """Give the type of a setting by its dotted name; None where there is none of this name."""
    first, _, rest = name.partition(".")
    kind = _kinds(config_class).get(first)
    if rest and dataclasses.is_dataclass(kind):
        return _kind(kind, rest)
    return None if rest and not _free(kind) else kind


def _names(config_class: Any, prefix: str = "") -> dict[str, str]:
    """Give the dotted names of all settings, each with what its group is for, in the words of its docstring."""
    made: dict[str, str] = {}
    for name, kind in _kinds(config_class).items():
        if dataclasses.is_dataclass(kind):
            first = (kind.__doc__ or "").strip().partition("\n")[0].rstrip(".")
            made |= dict.fromkeys(_names(kind, f"{prefix}{name}."), first[:1].lower() + first[1:])
        else:
            made[f"{prefix}{name}"] = ""
    return made


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if _required(field) else field.default


def _options(kind: Any) -> tuple[Any, ...]:
    return typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else (kind,)


def _free(kind: Any) -> bool:
    return any(typing.get_origin(option) is dict for option in _options(kind))


def _typed(config_class: Any, given: Mapping[str, Any], prefix: str = "", root: Any = None) -> dict[str, Any]:
    """Give nested settings the types that a config has for them.

    Raises:
        _WrongSetting: a setting is unknown, or its value is none of its type.
    """
    kinds = _kinds(config_class)
    made: dict[str, Any] = {}
    for key, value in (given if prefix else space.nested(given)).items():
        name = f"{prefix}{key}"
        if key not in kinds:
            raise _WrongSetting(name, _unknown(root or config_class, name))
        if not dataclasses.is_dataclass(kinds[key]):
            made[key] = _value(kinds[key], value, name)
        elif isinstance(value, Mapping):
            made[key] = _typed(kinds[key], value, f"{name}.", root or config_class)
        else:
            inside = _inside(kinds[key], name, value)
            raise _WrongSetting(name, f"{name}: expected a group of settings, got {_got(value)}; {inside}")
    return made


def _value(kind: Any, given: Any, name: str) -> Any:
    options, value = _options(kind), given
    if isinstance(given, str) and (str not in options or (isinstance(given, _Text) and _is_yaml(given, options))):
        try:
            value = untrusted.parse_yaml(str(given), f"--{name}")
        except InvalidInput:
            if given[:1] in ("[", "{"):
                raise
    for option in options:
        origin, inner = typing.get_origin(option), typing.get_args(option)
        if origin is typing.Literal and given in inner:
            return str(given)
        if option is type(None) and value is None:
            return None
        if option in (bool, int) and type(value) is option:
            return value
        if option is float and (type(value) is float or (type(value) is int and abs(value) < sys.float_info.max)):
            return float(value)
        if option is str and isinstance(value, str):
            return str(value)
        if origin is list and isinstance(value, list):
            return [_value(inner[0], each, name) for each in value]
        if origin is dict and isinstance(value, Mapping):
            if inner[1] is Any:
                return space.nested(_untexted(value, name), f"{name}.")
            return {str(key): _value(inner[1], each, f"{name}.{key}") for key, each in value.items()}
        if dataclasses.is_dataclass(option) and isinstance(value, Mapping):
            return _made(option, _typed(option, value, f"{name}.", option))
    says = f"{name}: expected {_expected(kind)}, got {_got(given)}"
    if str in options and isinstance(value, bool | int | float):
        says += "; text that reads like a number, yes or no stands in quotes"
    raise _WrongSetting(name, says)


def _is_yaml(given: str, options: Sequence[Any]) -> bool:
    """Say whether a value of the command line is none of the text that its setting may also be."""
    lists = any(typing.get_origin(option) is list for option in options)
    return (given == "null" and type(None) in options) or (lists and given.startswith("["))


def _untexted(value: Any, name: str) -> Any:
    """Give the values of a free group, of which nobody knows the types, the ones that YAML has for them."""
    if isinstance(value, Mapping):
        return {key: _untexted(inner, f"{name}.{key}") for key, inner in value.items()}
    return untrusted.parse_yaml(str(value), f"--{name}") if isinstance(value, _Text) else value


def _made(
    config_class: Any, settings: Mapping[str, Any], positional: Sequence[str] = (), usage: str = "", prefix: str = ""
) -> Any:
    """Make a config from settings that have their types."""
    values = {}
    for field in dataclasses.fields(config_class):
        kind, name = _kinds(config_class)[field.name], f"{prefix}{field.name}"
        if dataclasses.is_dataclass(kind) and (field.name in settings or _required(field)):
            values[field.name] = _made(kind, settings.get(field.name, {}), prefix=f"{name}.")
        elif field.name in settings:
            values[field.name] = settings[field.name]
        elif _required(field):
            raise InvalidInput(f"{name} is missing: {usage if name in positional else f'give --{name}'}")
    return config_class(**values)


def _written(config_class: Any, settings: Mapping[str, Any], whole: bool) -> dict[str, Any]:
    """Give the settings as a file has them: all, or those that are not the default."""
    written: dict[str, Any] = {}
    for field in dataclasses.fields(config_class):
        kind, name = _kinds(config_class)[field.name], field.name
        default = _default(field)
        if dataclasses.is_dataclass(kind):
            inner = _written(kind, settings.get(name, {}), whole)
            written |= {name: inner} if inner else {}
            continue
        value = settings.get(name, default)
        if whole or value != default:
            several = value if isinstance(value, list) else []
            plain = [dataclasses.asdict(one) if dataclasses.is_dataclass(one) else one for one in several]  # type: ignore[arg-type]
            written[name] = plain or value
    return written


def _expected(kind: Any) -> str:
    """Say what a setting may be.

    >>> _expected(int | list[int] | None), _expected(float | typing.Literal["auto"])
    ('int or a list such as [3, 5] or null', 'float or auto')
    """
    words = {bool: "true or false", int: "int", float: "float", str: "text", type(None): "null"}
    texts = []
    for option in _options(kind):
        origin, inner = typing.get_origin(option), typing.get_args(option)
        if origin is typing.Literal:
            texts.append(f"one of {', '.join(inner)}" if len(inner) > 1 else inner[0])
        elif origin is list:
            texts.append("a list such as [3, 5]" if inner[0] is int else "a list such as [NAME, NAME]")
        elif origin is dict:
            texts.append("a mapping such as {NAME: 1}")
        else:
            texts.append(words.get(option, "a mapping"))
    return " or ".join(texts)


def _got(value: object) -> str:
    text = shown(value if isinstance(value, str) else space.flow(value))
    text = cut(text, 80)
    return f"'{text}'" if isinstance(value, str) else text


def _inside(group: Any, name: str, value: Any, dashes: str = "") -> str:
    """Say which setting of a group was meant, by the type of what was given."""
    for inner, kind in _kinds(group).items():
        with contextlib.suppress(_WrongSetting, InvalidInput):
            if value not in ("", None) and _value(kind, value, inner) is not None:
                given = f" {shlex.quote(shown(value))}" if dashes else ""
                return f"did you mean {dashes}{name}.{inner}{given}?"
    return f"it has {', '.join(f'{dashes}{name}.{inner}' for inner in _kinds(group))};".rstrip("" if dashes else ";")


def _unknown(config_class: Any, given: str, others: Sequence[str] = ()) -> str:
    names = _names(config_class) | dict.fromkeys(others, "")
    if "space" in names:
        from tlkit import config

        names |= {f"space.{name}": meaning for name, meaning in _names(config.Finetune).items() if name not in names}
    found = _meant(names, given.lower().replace("-", "_"))
    texts = [f"{name} ({names[name]})" if names.get(name) and len(found) > 1 else name for name in found]
    meant = f"did you mean {' or '.join(texts)}? " if texts else ""
    return f"unknown setting {shown(given)}; {meant}--help all lists them"


def _meant(names: Mapping[str, str], given: str) -> list[str]:
    """Find the settings that somebody may have meant, the likeliest first.

    >>> _meant({"head.epochs": "", "full.epochs": "", "seed": ""}, "epochs")
    ['full.epochs', 'head.epochs']
    """
    same = [name for name in names if name.replace(".", "_") == given.replace(".", "_")]
    group, _, last = given.rpartition(".")
    words = MEANT.get(last, last).split()
    whole = [f"{group}.{word}" for word in words] + words
    whole += [f"builder.{last}"] * (group == "backbone") + [f"backbone.{last}"] * (group == "builder")
    whole = [name for one in whole for name in (one, f"space.{one}") if name in names]
    ends = [name for name in names if name.rpartition(".")[2] in words]
    if same or whole:
        return (same or whole)[:1]
    if ends and not group:
        return sorted(ends, key=lambda name: not any(group in name for group in ("full.", "backbone.", "builder.")))[
            :3
        ]  # the phase that is on by default

    def alike(name: str) -> tuple[float, bool]:
        end = name.rpartition(".")[2]
        pairs = [(given, name)] if ends else [(given, name), (last, end)]
        ratio = max(difflib.SequenceMatcher(None, *pair).ratio() for pair in pairs)
        begins = not ends and min(len(last), len(end)) > 2 and (end.startswith(last) or last.startswith(end))
        return max(ratio, 0.9 * begins), "full." in name

    best = max(ends or names, key=alike)
    return [best] if ends or alike(best)[0] > 0.66 else []


def _stray(config_class: Any, word: str, usage: str) -> str:
    if usage:
        return f"'{shown(word)}' is one word too many: {usage}"
    names = _names(config_class)
    same = [name for name in _meant(names, word.lower().replace("-", "_")) if name == word]
    takes = [name for name in ("data.path", "builder.name", "port") if name in names]
    fits = [name for name in takes if name != "port" or word.isdigit()]
    meant = f"--{same[0]} VALUE" if same else f"--{fits[0]} {shlex.quote(shown(word))}" if fits else ""
    hint = f"did you mean {meant}? " if meant else ""
    return f"'{shown(word)}' has no name: settings are written --name value; {hint}--help all lists them"


def _say(name: str, error: object, status: int) -> int:
    say(f"{name}: error: {short(' '.join(str(error).split()))}", error=True)
    return status


def _quiet() -> None:
    # Set before the frameworks load. The user's own settings win.
    if os.path.expanduser("~") == "~":  # no HOME and an unknown user, as in some containers: MLflow cannot be imported
        os.environ["HOME"] = os.getcwd()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # with the password, where there is one
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
