"""The pages of docs/ and the README: their code runs and draws their pictures, and what they name is there."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import mlflow  # noqa: F401  which loads tlkit.mlflow_plugin, and cannot while that is being imported
import pytest
from conftest import write_photos
from test_floors import FLOORS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
BUILT = ("_build", "reference/commands", "reference/packages")  # by `make docs`
PAGES = sorted(page for page in DOCS.rglob("*.md") if not page.relative_to(DOCS).as_posix().startswith(BUILT))
WRITTEN = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES]


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> str:
    """The Python of a page, each line where it stands there, so that a traceback tells the page's line."""
    lines, inside = [], False
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            inside = line == "```python"
            line = "```"
        lines.append(line if inside and line != "```" else "")
    return "\n".join(lines)


def pictures(page: Path) -> list[str]:
    return re.findall(r"!\[[^]]*\]\(([^)]+)\)", page.read_text(encoding="utf-8"))


TRAINING = {"convolution", "kerashub", "python", "tuning"}  # pages whose code trains
WITH_CODE = [page for page in PAGES if blocks(page).strip()]


def test_there_are_pages_with_code():
    expected = {"docs/start/python.md", "docs/concepts/convolution.md", "docs/guides/tuning.md"}
    assert expected <= {name(page) for page in WITH_CODE}


def test_the_readmes_code_is_that_of_the_page_on_python():
    """Which runs."""
    code = blocks(ROOT / "README.md").strip()
    assert "training.fine_tune" in code
    assert code in blocks(DOCS / "start" / "python.md")


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MobileNetV2's published file in Keras' cache, with random weights in place of those that a download gives."""
    import h5py
    import keras
    from keras.src.legacy.saving import legacy_h5_format
    from keras.src.utils import file_utils

    monkeypatch.setattr(file_utils.config, "keras_home", lambda: str(tmp_path / "keras"))
    network = keras.applications.MobileNet(include_top=False, weights=None, input_shape=(96, 96, 3))
    (tmp_path / "keras" / "models").mkdir(parents=True)
    file = "mobilenet_1_0_224_tf_no_top.h5"
    with h5py.File(tmp_path / "keras" / "models" / file, "w") as group:
        legacy_h5_format.save_weights_to_hdf5_group(group, network)


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=pytest.mark.thorough if page.stem in TRAINING else []) for page in WITH_CODE],
    ids=name,
)
def test_the_code_of_a_page_runs_and_makes_its_pictures(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
):
    monkeypatch.chdir(tmp_path)
    code = blocks(page)
    if 'path="photos"' in code:
        write_photos(tmp_path / "photos", {"cat": 15, "dog": 15})
    if '"MobileNetV2"' in code:
        request.getfixturevalue("weights")
    code = code.replace('"MobileNetV2"', '"MobileNet"')  # half as many layers to trace
    code = code.replace('build("MobileNet")', 'build("MobileNet", (64, 64, 3))').replace(
        "size=(224, 224)", "size=(64, 64)"
    )
    exec(compile(code, str(page), "exec"), {"__name__": "page"})  # noqa: S102
    for picture in pictures(page):
        assert (tmp_path / picture).is_file(), f"{page.name} shows {picture}, which its code does not make"


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_every_file_that_a_page_names_is_there(page: Path):
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"(?<![\w/(])((?:tlkit|tests|benchmarks|recipes|docs)/[\w/]+\.(?:py|md|yaml|h5))\b", text)
    links = [link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text) if ":" not in link]
    links = [link for link in links if "reference/" not in link]  # which `make docs` writes, and checks
    missing = [name for name in named if not (ROOT / name).exists()]
    assert not missing + [link for link in links if not (page.parent / link).exists()]


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_a_pages_pictures_are_small(page: Path):
    assert all((page.parent / picture).stat().st_size < 100_000 for picture in pictures(page))


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_everything_of_tlkit_that_a_page_names_is_there(page: Path):
    """Names in code, such as `tlkit.recipes._jobs.start`."""
    named = re.findall(r"`(tlkit(?:\.\w+)+)(?:\(\))?`", page.read_text(encoding="utf-8"))
    assert not [each for each in dict.fromkeys(named) if not exists(each)]


def exists(dotted: str) -> bool:
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


def test_names_that_are_not_there_are_found():
    assert exists("tlkit.data.load")
    assert exists("tlkit.recipes._jobs.start")
    assert not exists("tlkit.data.loaded")
    assert not exists("tlkit.nothing")


def test_the_floors_of_the_architecture_page_are_those_of_the_code():
    text = (DOCS / "develop" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \|", text, re.MULTILINE)
    floors = {int(number): set(re.findall(r"`(\w+)`", names)) for number, names in rows}
    assert floors == dict(enumerate(FLOORS, 1))
