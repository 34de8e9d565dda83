"""The command `tlkit`: it lists the recipes by task, and runs one as `python -m tlkit.recipes.NAME` does."""

from __future__ import annotations

import difflib
import os
import runpy
import shutil
import sys
from collections.abc import Sequence

import tlkit
from tlkit import display
from tlkit.cli.commands import COMMANDS
from tlkit.display import say, short, shown


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return 2 where it does not exist, and 0 for `--help` and `--version`.

    Args:
        argv: The name of a command and its settings; by default those of the command line.

    Raises:
        SystemExit: a command has run; its status is that of the recipe.
    """
    name, *words = [*(sys.argv[1:] if argv is None else argv), ""]
    program = sys.argv[0]
    is_module = os.path.basename(program) == "__main__.py"
    on_path = not is_module and shutil.which("tlkit") == program
    display.PROGRAM[:] = ["python", "-m", "tlkit"] if is_module else ["tlkit" if on_path else program]
    if name in ("", "-h", "--help"):
        say(listing())
        return 0
    if name == "--version":
        say(f"tlkit {tlkit.__version__}")
        return 0
    names = [command.name for command in COMMANDS]
    if name not in names:
        similar = difflib.get_close_matches(name.lower().replace("-", "_"), names, 1, 0.5)
        hint = f"did you mean {similar[0]}?" if similar else f"{display.called('--help')} lists all"
        say(f"tlkit: error: there is no command '{short(shown(name), 80)}'; {hint}", error=True)
        return 2
    sys.argv = [program, *words[:-1]]
    runpy.run_module(f"tlkit.recipes.{name}", run_name="__main__", alter_sys=True)
    return 0


def listing() -> str:
    """Write the commands by task, a line each."""
    program = display.called("COMMAND")
    lines = [
        "Transfer learning with Keras 3: from a pretrained network and a folder of photos",
        "to a tracked, tested classifier.",
        "",
        f"usage: {program} [--config FILE] [--NAME VALUE ...]",
    ]
    width = max(len(command.name) for command in COMMANDS)
    for task in dict.fromkeys(command.task for command in COMMANDS):
        lines += ["", f"{task}:"]
        lines += [f"  {row.name:{width}}  {row.does}" for row in COMMANDS if row.task == task]
    return "\n".join([*lines, "", f"{program} --help explains a command."])


if __name__ == "__main__":
    sys.exit(main())
