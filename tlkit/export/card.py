"""The texts of an export: labels.json, parity.json, predict.py, and README.md, which is its model card."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from tlkit.display import code, markdown
from tlkit.errors import InvalidInput
from tlkit.export import script
from tlkit.export.formats import FORMATS
from tlkit.export.parity import Parity
from tlkit.report import card as shared
from tlkit.report.card import Origin


@dataclasses.dataclass(frozen=True)
class Exported:
    """An export, and how it compares with its model.

    Args:
        format: One of `FORMATS`.
        int8: Whether it computes with 8-bit numbers.
        parity: How its answers compare.
        one: Milliseconds for an example with one thread.
        every: Milliseconds with as many as there are cores.
        bytes: Of the model.
        temperature: By which predict.py divides the logarithms of the probabilities; 1 for not at all.
    """

    format: str
    int8: bool
    parity: Parity
    one: float
    every: float
    bytes: int
    temperature: float = 1.0

    def as_json(self) -> dict[str, Any]:
        """Return all numbers by name."""
        timed = {"milliseconds_one_thread": self.one, "milliseconds_all_threads": self.every}
        return {"format": self.format, "int8": self.int8, **self.parity.as_json(), **timed, "bytes": self.bytes}


def dumped(content: Mapping[str, Any]) -> str:
    """Write strict JSON: a number that is not finite, which it does not have, is null."""

    def finite(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: finite(inner) for name, inner in value.items()}
        return None if isinstance(value, float) and not abs(value) < float("inf") else value

    return json.dumps(finite(dict(content)), ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def write_script(name: str, folder: Path, rules: Mapping[str, Any]) -> None:
    """Write predict.py; see `script.compose`."""
    (folder / "predict.py").write_text(script.compose(FORMATS[name].load, rules), encoding="utf-8")


def card(exported: Exported, origin: Origin, labels: Mapping[str, Any], compared_on: str, photos: bool) -> str:
    """Write README.md.

    Args:
        exported: The export.
        origin: Where it comes from.
        labels: What labels.json holds.
        compared_on: What the model and the export were compared on, in words.
        photos: Whether the model takes photos.
    """
    row, classes = FORMATS[exported.format], labels["classes"]
    packages = " ".join(f"{package}=={_version(package)}" for package in (*row.packages, "numpy", "pillow"))
    kind = f"{exported.format}{', in int8' * exported.int8}"
    shape, one = ", ".join(map(str, labels["shape"])), ", one example at a time" * (row.batch == 1)
    what, example = ("pixels from 0 to 255", "PHOTO.jpg") if photos else (f"{labels['kind']} as numbers", "EXAMPLE.npy")
    takes = (
        f"`{labels['model']}` takes {what}, float32, of the shape (examples, {shape}){one}, and returns probabilities."
    )
    if photos:
        takes += (
            " The preprocessing is inside. `read` in predict.py shows how a photo becomes these pixels: "
            f"it is brought to the size by {code(labels['resize'])}."
        )
    use = ["```console", f"$ pip install {packages}", f"$ python predict.py {example} ...", "```", "", takes]
    unknown = "Not known here: the model was not exported by the URI of an MLflow run that has scored it."
    front = shared.front_matter(origin.model, str(labels["kind"]), origin.weights, library=exported.format)
    return "\n".join(
        [
            front,
            f"# {origin.what or 'A classifier'}, for {kind}",
            "",
            f"{shared.described(origin.model, origin.digest)} Made by tlkit {metadata.version('tlkit')}:",
            "",
            "```console",
            f"$ {origin.command}",
            "```",
            "",
            shared.named(classes),
            "",
            "## To use it",
            "",
            *use,
            "",
            *shared.part("Scores of the model before the export", origin.scores, unknown),
            "## The export beside its model",
            "",
            f"On {markdown(compared_on)}; see `parity.json`.",
            "",
            *table([exported]),
            "",
            *([_paired(exported.parity), ""] if exported.parity.paired else []),
            *shared.part("Data", origin.data, "Not known here, for the same reason."),
            *shared.part("Limits", _limits(exported, labels, compared_on)),
            *shared.licence(origin.weights),
        ]
    )


def table(rows: Sequence[Exported]) -> list[str]:
    """Write exports beside their model as a table in Markdown."""
    lines = [
        "| format | largest difference | equal labels | accuracy before | after | p | ms, one thread | all | MB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        found = row.parity
        before, after = (_share(value) for value in (found.before, found.after))
        p = f"{found.paired.p_value:.3g}" if found.paired else "–"
        cells = [
            f"{row.format}{' int8' * row.int8}", f"{found.largest:.1e}", f"{found.agreement:.4f}", before, after, p,
            f"{row.one:.2f}", f"{row.every:.2f}", f"{row.bytes / 1e6:.2f}",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _paired(found: Parity) -> str:
    paired = found.paired
    if paired is None:
        return ""
    return (
        f"{paired.test}: {paired.only_first} that only the model gets right, {paired.only_second} that only the export "
        f"does, p = {paired.p_value:.3g}."
    )


def _limits(exported: Exported, labels: Mapping[str, Any], compared_on: str) -> list[str]:
    first, *others = shared.limits(bool(labels["several_labels"]))
    lines = [f"{first}: unlike tlkit's own `predict` and `serve`, the export does not tell what is like none.", *others]
    if labels.get("target_accuracy"):
        lines.append(
            f"predict.py says `unsure` below a probability of {labels['threshold']:.4f}, so that "
            f"{labels['target_accuracy']:g} of the other answers are right, with 95 % confidence, of examples like "
            f"those that it was chosen on"
            f"{', by the model before it was quantized' * exported.int8}."
        )
    if labels.get("set_coverage"):
        lines.append(
            f"Of the sets of labels in {{}}, {labels['set_coverage']:g} have the right one; the same holds for them."
        )
    if exported.int8:
        lines.append("In int8, probabilities differ from the model's even where labels do not.")
        if exported.temperature != 1:
            lines.append(
                f"predict.py divides the logarithms of the probabilities by a temperature of {exported.temperature:.4f}"
                ", fitted after quantization; the file itself does not."
            )
    if "random" in compared_on:
        lines.append("It was compared with its model on random numbers alone.")
    return lines


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError as error:
        raise InvalidInput(f"{package} is not installed: pip install {package}") from error
