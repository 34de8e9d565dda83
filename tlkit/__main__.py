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
from tlkit.display import say, short, shown

COMMANDS = (
    ("finetune", "train", "Fine-tune a pretrained network on your photos."),
    ("feature_extraction", "train", "Put a new head on a frozen network, within seconds."),
    ("train", "train", "Train a network from random weights."),
    ("train_graph", "train", "Train on a graph, whose nodes have classes."),
    ("tune", "train", "Search for better settings of finetune or train."),
    ("pretrain", "train", "Pretrain LetterNet, tlkit's own small network."),
    ("inspect", "look", "Say what your data are, and what would falsify a score."),
    ("preview", "look", "Draw what the network sees of the photos."),
    ("find_lr", "look", "Look for a learning rate by a range test."),
    ("describe", "look", "Describe a network layer by layer, and what it costs."),
    ("select", "compare", "Rank pretrained networks on your photos, before training."),
    ("compare", "compare", "Compare runs: scores, a paired test, their settings."),
    ("ui", "compare", "Open the runs in MLflow's UI."),
    ("predict", "use", "Print the labels of photos by a trained model."),
    ("export", "use", "Export a model for another runtime, proven to be equal."),
    ("cache", "maintain", "List, verify or prune the stored activations."),
    ("sync", "maintain", "Send what runs logged while their server was away."),
)
"""Each command with its task and what it does; a module of `tlkit.recipes` has its name."""


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
    names = [row[0] for row in COMMANDS]
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
    width = max(len(name) for name, _, _ in COMMANDS)
    for task in dict.fromkeys(task for _, task, _ in COMMANDS):
        lines += ["", f"{task}:"]
        lines += [f"  {name:{width}}  {does}" for name, of, does in COMMANDS if of == task]
    return "\n".join([*lines, "", f"{program} --help explains a command."])


if __name__ == "__main__":
    sys.exit(main())
