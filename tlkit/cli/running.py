"""A recipe run as a program: its exit status, and errors in one line."""

from __future__ import annotations

import gc
import logging
import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from tlkit import startup, untrusted
from tlkit.cli.commands import COMMANDS
from tlkit.cli.helptext import help_text
from tlkit.cli.parsing import parse, usage
from tlkit.cli.values import Config, construct, nested_settings
from tlkit.display import called, cut, say, short
from tlkit.errors import InvalidInput, reason

USAGE, FAILURE, INTERRUPTED = 2, 1, 130
WIDEST = 100  # columns of `--help`
COLLECTED = 50_000, 20, 100  # objects until garbage is collected: with Python's 700, imports spend a tenth of a command


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
        config = construct(config_class, line.settings, positional, usage(config_class, prog, positional))
        result = _run(name, run, config, words)
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


def _run(name: str, run: Callable[[Config], object], config: Config, words: list[str]) -> object:
    """Run a command with the backend of Keras that suits it, and again with TensorFlow if OpenVINO cannot do it.

    Raises:
        InvalidInput: the backend that the user has chosen cannot be used.
    """
    needs = next((row.keras for row in COMMANDS if row.name == name), "")
    backend = startup.choose(needs == "trains", not _needs_more(config)) if needs else None
    if backend is None:
        return run(config)
    is_command_line = sys.orig_argv[len(sys.orig_argv) - len(words) :] == words  # else a program calls us
    try:
        with startup.taking(backend if is_command_line else None):
            return run(config)
    except (KeyboardInterrupt, OSError):
        raise
    except Exception as error:
        problem = startup.openvino_problem(error)
        if not (is_command_line and problem and startup.is_installed(startup.DEFAULT)):
            raise
        _rewind(words, f"OpenVINO cannot do this ({cut(problem, 200)})")
        say(f"{name}: OpenVINO cannot do this ({cut(problem, 200)}): again with TensorFlow", error=True)
        sys.stdout.flush()
        environment = {**os.environ, startup.VARIABLE: startup.DEFAULT}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)  # noqa: S606  the same command


def _rewind(words: Sequence[str], problem: str) -> None:
    """Go back to the beginning of standard input, if the command reads it.

    Raises:
        InvalidInput: it comes from a pipe.
    """
    if "-" not in words:
        return
    try:
        os.lseek(0, 0, os.SEEK_SET)
    except OSError as error:
        setting = f"{startup.VARIABLE}={startup.DEFAULT}"
        raise InvalidInput(f"{problem}, and a pipe cannot be read again: set {setting}") from error


def _needs_more(config: object) -> bool:
    """Whether a command that does not train needs gradients, exports, half precision, Keras' own engine or KerasHub."""
    return (
        getattr(config, "pictures", None) is not None
        or getattr(config, "precision", "auto") not in ("auto", "float32")
        or bool(getattr(config, "export", None))  # Keras writes most formats from TensorFlow
        or getattr(getattr(config, "features", None), "engine", "auto") == "keras"
        or _uses_keras_hub(config)
    )


def _uses_keras_hub(config: object) -> bool:
    """Whether a backbone is KerasHub's: it imports TensorFlow anyway, and Keras' OpenVINO lacks a part of it."""
    groups = [getattr(config, "backbone", None), getattr(config, "builder", None)]
    networks = [*groups, *(getattr(config, "backbones", None) or [])]
    return any(str(getattr(each, "name", each)).startswith("hub:") for each in networks)


def main(config_class: type[Config], run: Callable[[Config], object], positional: Sequence[str] = ()) -> NoReturn:
    """Run a recipe as a program: `if __name__ == "__main__": cli.main(Config, run)`."""
    signal.signal(signal.SIGTERM, _interrupt)
    gc.set_threshold(*COLLECTED)
    startup.COMMAND.append(run.__module__)
    status = call(config_class, run, positional=positional)
    gc.freeze()  # the operating system frees it all at once: to look for cycles first takes a third of a second
    sys.exit(status)


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
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it warns of a function compiled for each phase
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # it would show a password in the URL
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
