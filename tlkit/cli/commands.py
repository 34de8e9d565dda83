"""The table of the commands."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Command(NamedTuple):
    """A command, which is the module of its name in `tlkit.recipes`.

    Args:
        name: Its name.
        task: What it is for, in one word.
        does: What it does, in a line.
        keras: What it needs Keras for: it `trains` a network, it only `predicts`, or it has none.
    """

    name: str
    task: str
    does: str
    keras: Literal["trains", "predicts", ""] = ""


COMMANDS = (
    Command("auto", "train", "Find the best classifier in the minutes you have.", "trains"),
    Command("finetune", "train", "Fine-tune a pretrained network on your photos.", "trains"),
    Command("feature_extraction", "train", "Put a new head on a frozen network, within seconds.", "predicts"),
    Command("train", "train", "Train a network from random weights.", "trains"),
    Command("train_graph", "train", "Train on a graph, whose nodes have classes.", "trains"),
    Command("tune", "train", "Search for better settings of finetune or train.", "trains"),
    Command("pretrain", "train", "Pretrain LetterNet, tlkit's own small network.", "trains"),
    Command("inspect", "look", "Say what your data are, and what would falsify a score.", "predicts"),
    Command("preview", "look", "Draw what the network sees of the photos.", "predicts"),
    Command("find_lr", "look", "Look for a learning rate by a range test.", "trains"),
    Command("describe", "look", "Describe a network layer by layer, and what it costs.", "predicts"),
    Command("select", "compare", "Rank pretrained networks on your photos, before training.", "predicts"),
    Command("compare", "compare", "Compare runs: scores, a paired test, their settings.", "predicts"),
    Command("evaluate", "compare", "Test a model, or two, on labeled data they have not seen.", "predicts"),
    Command("ui", "compare", "Open the runs in MLflow's UI."),
    Command("predict", "use", "Label photos, or folders of them, by a trained model.", "predicts"),
    Command("explain", "use", "Show why: where in a photo the decision is made.", "predicts"),
    Command("serve", "use", "Serve a trained model over HTTP, with a page to try it.", "predicts"),
    Command("export", "use", "Export a model for another runtime, proven to be equal."),
    Command("cache", "maintain", "List, verify or prune the stored activations."),
    Command("sync", "maintain", "Send what runs logged while their server was away."),
)
"""All commands, in the order in which they are listed."""
