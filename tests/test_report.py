"""The report and the model card: what they say, that nothing in them is loaded from outside, that runs have them."""

from __future__ import annotations

import html.parser
import re
from pathlib import Path

import mlflow
import numpy as np
import pytest
import yaml
from PIL import Image

from tlkit import report, tracking
from tlkit.config import Backbone, Data, Evaluate, Explain, FeatureExtraction
from tlkit.recipes import _export_origin, evaluate, explain, feature_extraction
from tlkit.report import Mistake, Report, Score, verdict

EVIL = '"><script>alert(1)</script>\x1b[31m<img src=http://example.org/x.png>'


class Outside(html.parser.HTMLParser):
    """Collects tags, and addresses that a browser would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.loaded: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.loaded |= {value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")}


def check_alone(page: str) -> None:
    found = Outside(page)
    assert not found.tags & {"script", "link", "iframe", "object", "form"}
    assert all(address.startswith("data:image/") for address in found.loaded)
    assert "default-src 'none'" in page
    assert "url(" not in page


def test_text_from_outside_is_escaped_wherever_it_stands():
    classes = {
        "class": [EVIL, "b"],
        "examples": [3, 4],
        "recall": [0.5, 1.0],
        "precision": [0.5, 1.0],
        "f1": [0.5, 1.0],
    }
    whole = Report(
        title=EVIL, what=EVIL, verdict=report.Verdict(EVIL, False, [EVIL]), scores=[Score(EVIL, 0.5, (0.4, 0.6), 0.2)],
        constant=EVIL, split="test", kind="photos", classes=classes, counts={EVIL: 3}, data=[EVIL], leaks=[EVIL],
        worth=[f"{EVIL}  {EVIL}"], charts={"training": [report.Chart(EVIL, "data:image/png;base64,")]},
        mistakes=[Mistake(EVIL, EVIL, EVIL, 0.9, "data:image/png;base64,", "data:image/png;base64,")], wrong=1,
        explained=EVIL, trained=[EVIL], settings={EVIL: EVIL}, environment={EVIL: EVIL}, repeat=EVIL, use=[EVIL],
    )  # fmt: skip
    for each in (whole, whole._replace(mistakes=[whole.mistakes[0]._replace(picture="")])):
        page = report.page(each)
        check_alone(page)
        assert "\x1b" not in page
        assert page.count("&lt;script&gt;") > 15
    card = report.model_card("", EVIL, EVIL, [EVIL], report.Origin("", ""), ["x"], [f"a  {EVIL}"])
    assert "<script>" not in card
    assert "<img" not in card


@pytest.mark.parametrize(
    ("interval", "constant", "good"),
    [((0.8, 0.9), 0.5, True), ((0.8, 0.9), 0.85, False), ((0.8, 0.9), 0.8, False)],
)
def test_good_is_what_is_clearly_better_than_a_constant(interval: tuple[float, float], constant: float, good: bool):
    found = verdict("accuracy", 0.86, interval, "photos", ("always 'cat'", constant))
    assert found.good is good
    assert found.sentence.startswith("Of new photos like these, 80 to 90 of 100 are classified rightly (86 here)")
    assert any("not clearly better than a constant" in each for each in found.more) is not good


def test_the_verdict_names_what_makes_it_worse():
    classes = {"class": ["a", "b"], "examples": [50, 50], "recall": [0.5, 1.0], "recall_high": [0.63, 1.0]}
    found = verdict(
        "accuracy", 0.75, (0.7, 0.8), "photos", None, chosen_by=True, classes=classes, leaks=3, surest=[(0.9, 0.8)]
    )
    assert not found.good
    text = " ".join(found.more)
    for each in ("also chose the weights", "3 of the scored photos have a near copy", "weakest for 'a'", "surest 90%"):
        assert each in text


def test_hugging_face_can_read_the_front_of_a_card():
    text = report.front_matter("flowers #1: x", "photos", "under Apache-2.0.", "my: set", {"accuracy": 0.81234})
    front = yaml.safe_load(text.removeprefix("---\n").removesuffix("---\n"))
    assert (front["license"], front["library_name"], front["pipeline_tag"]) == (
        "apache-2.0", "keras", "image-classification",
    )  # fmt: skip
    (model,) = front["model-index"]
    (result,) = model["results"]
    assert model["name"] == "flowers #1: x"
    assert result["task"]["type"] == "image-classification"
    assert (result["dataset"]["name"], result["metrics"]) == ("my: set", [{"type": "accuracy", "value": 0.8123}])


@pytest.mark.parametrize(
    ("params", "license_"),
    [
        ({"backbone.name": "MobileNet", "backbone.weights": "pretrained"}, "apache-2.0"),
        ({"backbone.name": "DenseNet121", "backbone.weights": "pretrained"}, "bsd-3-clause"),
        ({"chosen.networks": "MobileNet 0.25, ResNet50"}, None),  # two licences
        ({"chosen.networks": "MobileNet 0.25, EfficientNetB0"}, None),  # one that is not known
        ({"backbone.name": "MobileNet", "backbone.weights": "/MIT/a.keras"}, None),
        ({"backbone.name": "MobileNet", "backbone.weights": "none"}, None),
    ],
)
def test_a_card_has_the_licence_of_the_weights_where_there_is_one(params: dict[str, str], license_: str | None):
    front = report.front_matter("x", "photos", _export_origin.licence(params))
    assert yaml.safe_load(front.replace("---", "")).get("license") == license_


@pytest.fixture
def photos(folder: Path) -> Path:
    """Squares in the color of their class, on noise; some have the other color."""
    rng = np.random.default_rng(0)
    for number in range(120):
        label = number % 2
        pixels = rng.integers(0, 90, (32, 32, 3)).astype(np.uint8)
        row, column = rng.integers(0, 20, 2)
        pixels[row : row + 12, column : column + 12, label if number % 10 > 1 else 1 - label] = 250
        path = folder / "photos" / ("<red>", "green")[label] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return folder / "photos"


def test_every_run_leaves_a_report_a_card_and_mistakes_with_heatmaps(photos: Path, capsys: pytest.CaptureFixture[str]):
    settings = {"data": Data(path=str(photos), image_size=32), "seed": 1}
    result = feature_extraction.run(FeatureExtraction(backbone=Backbone("LetterNet"), **settings))
    artifacts = tracking.run_folder(result.run_id)
    page = (artifacts / "report.html").read_text(encoding="utf-8")
    check_alone(page)
    name = mlflow.get_run(result.run_id).info.run_name
    assert f"<h1>{name}</h1>" in page
    wrong = round((1 - result.scores.accuracy) * result.scores.photos)
    assert wrong
    assert f"{wrong} of the photos are wrong; these are the worst" in page
    assert page.count('alt="where in it that is"') == wrong
    for part in ("Leaks", "Data", "Trust", "How it was made", "How to use it", "&lt;red&gt;", "power"):
        assert part in page
    assert f"{result.scores.accuracy:.3f}" in page
    assert width(artifacts / "worst_mistakes_heatmaps.png") > 100
    card = (artifacts / "model_card.md").read_text(encoding="utf-8")
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["model-index"][0]["results"][0]["metrics"][0]["value"] == round(result.scores.accuracy, 4)
    assert "&lt;red&gt;" in card
    out = capsys.readouterr().out
    assert re.search(r"report +\S*report\.html", out)

    (tested,) = evaluate.run(Evaluate([f"runs:/{result.run_id}"], Data(path=str(photos)), seen=True))
    page = (tracking.run_folder(tested.run_id) / "report.html").read_text(encoding="utf-8")
    check_alone(page)
    assert "that the model has seen were scored too" in page
    assert f"of {tested.scores.photos:,} photos" in page
    explained(photos, result.run_id, capsys)


def explained(photos: Path, run_id: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A photo that was trained on is most like itself, and is drawn from its file."""
    manifest = (tracking.run_folder(run_id) / "split_manifest.csv").read_text(encoding="utf-8")
    rows = [line.split(",") for line in manifest.splitlines()[1:]]
    trained = next(row for row in rows if row[3] == "train")
    capsys.readouterr()
    output = explain.run(Explain(f"runs:/{run_id}", [str(photos / trained[1])], nearest=2, output="why.png"))
    assert width(output) > 600
    said = capsys.readouterr()
    assert f"looks like {trained[1]}" in said.out
    assert "class activation" in said.out


def width(path: Path) -> int:
    with Image.open(path) as picture:
        return picture.width
