"""A recipe run as a program: its exit status, and errors in one line."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from tlkit import untrusted
from tlkit.cli.helptext import help_text
from tlkit.cli.parsing import parse, usage
from tlkit.cli.values import Config, construct, nested_settings
from tlkit.display import called, say, short
from tlkit.errors import InvalidInput, reason

USAGE, FAILURE, INTERRUPTED = 2, 1, 130
WIDEST = 100  # columns of `--help`


def call(
    config_class: type[Config],
    run: Callable[[Config], object],
    argv: Sequence[str] | None = None,
    positional: Sequence[str] = (),
) -> int:
    """Parse `argv`, run the recipe and return the exit status: 0, 2 for wrong usage, 1 for a failure.

    A recipe whose result has an `exit_status` ends with that.
    """
    module = sys.modules[run.__module__]
    path = module.__spec__.name if module.__spec__ else run.__module__  # of `__main__`, the name it was called by
    name, words = path.rpartition(".")[2], list(sys.argv[1:] if argv is None else argv)
    prog = called(name) if path == f"tlkit.recipes.{name}" else f"python -m {path}"
    _quiet()
    try:
        if places := [place for place, word in enumerate(words) if word in ("-h", "--help", "--help=all")]:
            whole = "--help=all" in words or any(words[place + 1 : place + 2] == ["all"] for place in places)
            width = min(shutil.get_terminal_size().columns, WIDEST)
            say(help_text(config_class, prog, module.__doc__ or "", positional, whole, width))
            sys.exit(0)
        line = parse(config_class, words, positional, usage(config_class, prog, positional))
        for note in line.notes:
            say(f"{name}: {note}", error=line.print_config is not None)
        if line.print_config is not None:
            whole = line.print_config != "skip_default"
            say(untrusted.dump_yaml(nested_settings(config_class, line.settings, whole)), end="")
            return 0
        result = run(construct(config_class, line.settings, positional, usage(config_class, prog, positional)))
    except InvalidInput as error:
        return _fail(name, error, USAGE)
    except BrokenPipeError:  # `... | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes at its end
        return FAILURE
    except OSError as error:  # Unavailable, or a disk that is full
        return _fail(name, reason(error), FAILURE)
    except KeyboardInterrupt:
        return _fail(name, "interrupted", INTERRUPTED)
    return getattr(result, "exit_status", 0)


def main(config_class: type[Config], run: Callable[[Config], object], positional: Sequence[str] = ()) -> NoReturn:
    """Run a recipe as a program: `if __name__ == "__main__": cli.main(Config, run)`."""
    signal.signal(signal.SIGTERM, _interrupt)
    sys.exit(call(config_class, run, positional=positional))


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt  # not by way of SIGINT, which shells turn off for background processes


def _fail(name: str, error: object, status: int) -> int:
    say(f"{name}: error: {short(' '.join(str(error).split()))}", error=True)
    return status


def _quiet() -> None:
    """Set environment variables before the frameworks load; the user's own settings win."""
    if os.path.expanduser("~") == "~":  # no HOME and an unknown user, as in some containers: MLflow cannot be imported
        os.environ["HOME"] = os.getcwd()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # it would show a password in the URL
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
