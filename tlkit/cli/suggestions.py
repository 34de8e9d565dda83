"""Which setting somebody may have meant by a name that does not exist."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Mapping, Sequence

from tlkit import config
from tlkit.cli import fields
from tlkit.display import shown

MEANT = {
    "lr": "learning_rate",
    "bs": "batch_size",
    "wd": "weight_decay",
    **dict.fromkeys(("model", "arch", "architecture", "network", "backbone"), "backbone.name builder.name backbones"),
    **dict.fromkeys(("pretrained", "weights", "checkpoint"), "backbone.weights builder.weights"),
    **dict.fromkeys(("dataset", "dir", "folder", "root", "images", "train_dir"), "data.path"),
    **dict.fromkeys(("size", "img_size", "imgsz", "input_size", "resolution"), "data.image_size"),
    **dict.fromkeys(("crop_pct", "crop_to_aspect_ratio", "pad_to_aspect_ratio", "resize_mode"), "data.resize"),
    **dict.fromkeys(("val_split", "validation_split"), "data.val_fraction"),
    "test_split": "data.test_fraction",
    **dict.fromkeys(("class", "target", "target_class"), "label"),
    **dict.fromkeys(("optim", "opt"), "optimizer"),
    **dict.fromkeys(("sched", "scheduler", "lr_scheduler"), "schedule"),
    **dict.fromkeys(("warmup_epochs", "warmup_steps"), "warmup"),
    "freeze_epochs": "head.epochs",
    **dict.fromkeys(("amp", "fp16", "bf16", "dtype", "mixed_precision"), "precision"),
    **dict.fromkeys(("random_state", "random_seed"), "seed"),
    **dict.fromkeys(("n_trials", "max_trials"), "trials"),
    **dict.fromkeys(("aug", "augmentation"), "augment"),
    **dict.fromkeys(("pos_label", "positive_class"), "positive"),
    **dict.fromkeys(("gpus", "n_gpus", "num_gpus", "num_devices", "nproc_per_node"), "devices"),
    **dict.fromkeys(("nodes", "nnodes", "num_nodes", "coordinator", "coordinator_address", "rdzv_endpoint"), "hosts"),
    **dict.fromkeys(("license", "licence", "accept_licence"), "backbone.accept_license"),
    "project": "experiment",
}
"""Other programs' names of our settings: our last part of the name, or whole names, of which a recipe has one."""

ON_BY_DEFAULT = ("full.", "backbone.", "builder.")  # groups that are suggested first
SIMILAR = 0.66  # similarity, from 0 to 1, from which a name is suggested


def unknown(config_class: type, name: str, others: Sequence[str] = ()) -> str:
    """Say that there is no setting of this name, and which one may be meant.

    Args:
        config_class: A dataclass.
        name: As the user wrote it.
        others: More names that the command line takes.
    """
    names = fields.names(config_class) | dict.fromkeys(others, "")
    if "space" in names:
        searched = fields.names(config.Finetune).items()
        names |= {f"space.{inner}": purpose for inner, purpose in searched if inner not in names}
    similar = meant(names, name.lower().replace("-", "_"))
    texts = [f"{each} ({names[each]})" if names.get(each) and len(similar) > 1 else each for each in similar]
    question = f"did you mean {' or '.join(texts)}? " if texts else ""
    return f"unknown setting {shown(name)}; {question}--help all lists them"


def stray(config_class: type, word: str, usage: str) -> str:
    """Say what to do about a word without a name, or, if there is a usage line, about one word too many."""
    if usage:
        return f"'{shown(word)}' is one word too many: {usage}"
    names = fields.names(config_class)
    same = [name for name in meant(names, word.lower().replace("-", "_")) if name == word]
    is_model = ":/" in word or word.endswith(".keras")
    takes = [name for name in (*["model"] * is_model, "data.path", "builder.name", "port") if name in names]
    fits = [name for name in takes if name != "port" or word.isdigit()]
    flag = f"--{same[0]} VALUE" if same else f"--{fits[0]} {shlex.quote(shown(word))}" if fits else ""
    hint = f"did you mean {flag}? " if flag else ""
    return f"'{shown(word)}' has no name: settings are written --name value; {hint}--help all lists them"


def meant(names: Mapping[str, str], name: str) -> list[str]:
    """List the settings that somebody may have meant, the most similar first.

    >>> meant({"head.epochs": "", "full.epochs": "", "seed": ""}, "epochs")
    ['full.epochs', 'head.epochs']
    """
    same = [each for each in names if each.replace(".", "_") == name.replace(".", "_")]
    group, _, last = name.rpartition(".")
    words = MEANT.get(last, last).split()
    if exact := same or _whole_names(names, group, last, words):
        return exact[:1]
    ends = [each for each in names if each.rpartition(".")[2] in words]
    if ends and not group:
        return sorted(ends, key=lambda each: not any(group in each for group in ON_BY_DEFAULT))[:3]

    def similarity(each: str) -> tuple[float, bool]:
        end = each.rpartition(".")[2]
        pairs = [(name, each)] if ends else [(name, each), (last, end)]
        ratio = max(difflib.SequenceMatcher(None, *pair).ratio() for pair in pairs)
        begins = not ends and min(len(last), len(end)) > 2 and (end.startswith(last) or last.startswith(end))
        return max(ratio, 0.9 * begins), "full." in each

    best = max(ends or names, key=similarity)
    return [best] if ends or similarity(best)[0] > SIMILAR else []


def _whole_names(names: Mapping[str, str], group: str, last: str, words: Sequence[str]) -> list[str]:
    """List the settings whose whole names other programs' words stand for."""
    whole = [f"{group}.{word}" for word in words] + [*words]
    whole += [f"builder.{last}"] * (group == "backbone") + [f"backbone.{last}"] * (group == "builder")
    return [name for each in whole for name in (each, f"space.{each}") if name in names]
