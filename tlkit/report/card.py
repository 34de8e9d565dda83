"""The parts of a model card in Markdown, which a run and an export share, and the YAML in front of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from tlkit import untrusted
from tlkit.display import code, cut, markdown, shown

SHOWN = 50  # class names in a card
TASKS = {"photos": "image-classification", "sounds": "audio-classification", "nodes": "graph-ml"}
"""Tasks of Hugging Face's list, by the name of the modality; others are `other`."""
LICENCES = {"Apache": "apache-2.0", "MIT": "mit", "CC BY 4.0": "cc-by-4.0", "BSD": "bsd-3-clause"}
"""Names of Hugging Face's list, by a word of the text about the weights."""


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where a model comes from, in Markdown; what is not known is empty.

    Args:
        model: The user's name for it: an MLflow URI or a file.
        digest: SHA-256 of its `.keras` file.
        what: The network, its parameters and the recipe, in words.
        data: What it was trained on: a line for each split, with its digest.
        scores: What the run measured: a line for each score, with its interval.
        weights: The licence of the weights that training began with, in words.
        command: The command that made the export.
    """

    model: str
    digest: str
    what: str = ""
    data: Sequence[str] = ()
    scores: Sequence[str] = ()
    weights: str = ""
    command: str = ""


def front_matter(
    name: str,
    kind: str,
    weights: str = "",
    dataset: str = "",
    metrics: Mapping[str, float] | None = None,
    library: str = "keras",
) -> str:
    """Write the YAML that Hugging Face reads in front of a card, with its results as a `model-index`.

    Args:
        name: Of the model.
        kind: Name of its modality.
        weights: What is known of the licence of the weights that training began with.
        dataset: Name of the data.
        metrics: Scores by their names.
        library: That loads the model.

    >>> print(front_matter("flowers", "photos", dataset="flowers", metrics={"accuracy": 0.9}).split("model-index")[0])
    ---
    library_name: keras
    pipeline_tag: image-classification
    tags:
    - tlkit
    - keras
    <BLANKLINE>
    """
    task = TASKS.get(kind, "other")
    content: dict[str, Any] = {"library_name": library}
    found = [] if "does not know" in weights else [short for text, short in LICENCES.items() if text in weights]
    if len(found) == 1 and weights.count("Training began") <= 1:  # several weights may have others
        content["license"] = found[0]
    content |= {"pipeline_tag": task} if task != "other" else {}
    content["tags"] = list(dict.fromkeys(["tlkit", library]))
    if metrics:
        results = [{"type": each, "value": round(value, 4)} for each, value in metrics.items()]
        data = {"name": shown(cut(dataset or "unknown")), "type": "custom"}
        result = {"task": {"type": task}, "dataset": data, "metrics": results}
        content["model-index"] = [{"name": shown(cut(name)), "results": [result]}]
    return f"---\n{untrusted.dump_yaml(content)}---\n"


def named(classes: Sequence[str]) -> str:
    """Say which classes a model has."""
    names = ", ".join(markdown(cut(name)) for name in classes[:SHOWN]) + (", …" if len(classes) > SHOWN else "")
    return f"{len(classes)} classes: {names}."


def part(title: str, lines: Sequence[str], otherwise: str = "") -> list[str]:
    """Make a part of a card: a list, or a sentence where there is none."""
    return [f"## {title}", "", *([f"- {line}" for line in lines] or [otherwise]), ""]


def limits(several: bool) -> list[str]:
    """Say what holds for every classifier."""
    return [
        f"It knows these classes alone, and also gives {'any' if several else 'one'} of them to what is something else",
        "Its scores hold for examples like those that it was tested on.",
    ]


def licence(weights: str) -> list[str]:
    """Make the part about the weights that training began with."""
    return part("Licence of the weights", [], weights or "Not known to tlkit: look at where the weights came from.")


def model_card(
    front: str, title: str, sentence: str, classes: Sequence[str], origin: Origin, use: Sequence[str],
    worth: Sequence[str], several: bool = False,
) -> str:  # fmt: skip
    """Write the card of a run's model.

    Args:
        front: Of `front_matter`.
        title: Name of the run.
        sentence: Whether it is good enough.
        classes: Their names.
        origin: Where it comes from.
        use: Commands that use it.
        worth: What its probabilities are worth, a line each.
        several: Whether an example may have several labels.
    """
    first, *others = limits(several)
    lines = [
        front, f"# {markdown(title)}", "", origin.what, "", markdown(sentence), "", named(classes), "",
        "## To use it", "", "```console", *(f"$ {line}" for line in use), "```", "",
        *part("Scores", origin.scores), *part("Trust", [markdown(line.replace("  ", ": ", 1)) for line in worth], "–"),
        *part("Data", origin.data), *part("Limits", [f"{first}.", *others]), *licence(origin.weights),
    ]  # fmt: skip
    return "\n".join(lines)


def described(path: str, digest: str) -> str:
    """Name a model's file.

    >>> described("m.keras", "ab")
    'Model `m.keras`, SHA-256 of its file `ab`.'
    """
    return f"Model {code(path)}, SHA-256 of its file {code(digest)}."
