"""The command line of the recipes: a config's fields are its flags, and a user's mistake is one line."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import os
import re
import signal
import sys
import typing
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import docstring_parser
import jsonargparse

from tlkit.display import say
from tlkit.errors import InvalidInput, reason

USAGE, FAILURE, INTERRUPTED = 2, 1, 130


class _Parser(jsonargparse.ArgumentParser):
    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        shown = [action for action in self._actions if action.help != argparse.SUPPRESS]
        keys = [option[2:] for action in shown for option in action.option_strings if option.startswith("--")]
        places = [action.dest for action in shown if not action.option_strings]
        raise InvalidInput(_one_line(message, keys, places))


def parser(config_class: type, prog: str, description: str = "", positional: Sequence[str] = ()) -> _Parser:
    """Make the parser of a recipe: `--config FILE`, `--print_config` and a flag for each leaf of the config.

    Args:
        config_class: A dataclass; its docstring explains the flags.
        prog: The command, for the usage line.
        description: What it does.
        positional: Fields that are given by place; one whose type is a list takes all that follow, and one that has a
            default may be left out.
    """
    types = typing.get_type_hints(config_class)
    lists = [name for name in positional if typing.get_origin(types[name]) is list]
    fields = [field for field in dataclasses.fields(config_class) if field.name in positional]
    defaults = {field.name: field.default for field in fields if field.default is not dataclasses.MISSING}
    optional = [*defaults, *(field.name for field in fields if field.default_factory is not dataclasses.MISSING)]
    places = []
    for name in positional:
        choices = typing.get_args(types[name]) if typing.get_origin(types[name]) is typing.Literal else ()
        place = "|".join(choices) or name.upper()
        if name in lists:
            places.append(f"[{place} ...]" if name in optional else f"{place} [{place} ...]")
        else:
            places.append(f"[{place}]" if name in optional else place)
    usage = " ".join([prog, *places, "[--config FILE] [--KEY VALUE ...]"])
    made = _Parser(prog=prog, usage=usage, description=description, allow_abbrev=False)
    explained = {
        param.arg_name: param.description for param in docstring_parser.parse(config_class.__doc__ or "").params
    }
    for name in positional:
        if name in defaults:
            # Without a default here: it would win over what a file says. The config has its own.
            given = f"{explained[name]} (default: {defaults[name]})"
            made.add_argument(name, nargs="?", type=types[name], default=argparse.SUPPRESS, help=given)
        elif name in optional:
            made.add_argument(name, nargs="*", default=argparse.SUPPRESS, help=explained[name])
        else:
            made.add_argument(name, nargs="+" if name in lists else None, help=explained[name])
    made.add_argument("--config", action="config", metavar="FILE", help="YAML with any of the keys below.")
    made.add_class_arguments(config_class, as_group=False, as_positional=False, skip=set(positional))
    for action in made._actions:
        if action.metavar == "CONFIG":
            action.help = argparse.SUPPRESS  # `--data FILE`, a file for a part of the config: nobody needs both
    return made


def from_settings(config_class: type, settings: dict[str, Any]) -> Any:
    """Make a config from nested settings, as a file has them.

    Raises:
        InvalidInput: a setting is unknown, or its value is not allowed.

    >>> from tlkit.config import Train
    >>> from_settings(Train, {"builder": {"filters": [8, 16]}}).builder.filters
    [8, 16]
    """
    made = parser(config_class, config_class.__name__.lower())
    try:
        values = vars(made.instantiate(made.parse_object(settings)))
    except TypeError as error:
        raise InvalidInput(str(error)) from error
    return config_class(**{key: value for key, value in values.items() if key != "config"})


def call(
    config_class: type, run: Callable[[Any], Any], argv: Sequence[str] | None = None, positional: Sequence[str] = ()
) -> int:
    """Parse `argv`, run the recipe and give the exit status: 0, 2 for wrong usage, 1 for a failure."""
    module = sys.modules[run.__module__]
    verb = module.__spec__.name if module.__spec__ else run.__module__  # `__main__` has the name it was called by
    made = parser(config_class, f"python -m {verb}", (module.__doc__ or "").strip().split("\n")[0], positional)
    _quiet()
    name = verb.rpartition(".")[2]
    try:
        try:
            values = vars(made.instantiate(made.parse_args(argv)))
        except (TypeError, UnicodeDecodeError) as error:  # what jsonargparse lets through, such as `head: 3` in a file
            raise InvalidInput(f"--config: {error}") from error
        run(config_class(**{key: value for key, value in values.items() if key != "config"}))
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


def _one_line(message: str, keys: Sequence[str] = (), places: Sequence[str] = ()) -> str:
    """Say what jsonargparse says, in the words of the command line, where `places` are given without their names.

    >>> _one_line('Parser key "head.epochs":\\n  Expected a <class \\'int\\'>. Got value: x')
    "--head.epochs: expected int, got 'x'"
    >>> _one_line("unrecognized arguments: --hed.epochs 1", ["head.epochs", "seed"])
    'unknown setting hed.epochs; did you mean head.epochs? --help lists all'
    """
    text = " ".join(message.split())
    text = re.sub(r'^Parser key "([\w.]+)": ', lambda key: f"{'' if key[1] in places else '--'}{key[1]}: ", text)
    unknown = re.search(r"unrecognized arguments: (?:--)?([^\s=]+)|Group '(.+)' does not accept option '(.+)'", text)
    if unknown:
        key = unknown[1] or f"{unknown[2]}.{unknown[3]}"
        close = difflib.get_close_matches(key, keys, n=1)
        return f"unknown setting {key}; {f'did you mean {close[0]}? ' if close else ''}--help lists all"
    text = re.sub(r"Does not validate against any of the Union subtypes.* Given value: (.*)$", _expected_union, text)
    return re.sub(r"Expected an? (?:<class '(\w+)'>|typing\.(\S.*?))\. Got value: (.*)$", _expected, text)


def _expected(match: re.Match[str]) -> str:
    expected = match[1] or re.sub(r"Literal\[(.*)\]", r"one of \1", match[2]).replace("'", "")
    return f"expected {expected}, got {match[3]!r}"


def _expected_union(match: re.Match[str]) -> str:
    found = re.findall(r"Expected an? (?:<class '(\w+)'>|typing\.Literal\[(.*?)\])", match[0])
    kinds = [kind or f"one of {names}".replace("'", "") for kind, names in found]
    return f"expected {' or '.join(kinds)}, got {match[1]!r}".replace("NoneType", "null")


def _say(name: str, error: object, status: int) -> int:
    say(f"{name}: error: {' '.join(str(error).split())}", error=True)
    return status


def _quiet() -> None:
    # Set before the frameworks load. The user's own settings win.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # with the password, where there is one
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
