"""What a user sees of the runs: MLflow's UI, in a real Chromium on a real server.

The screenshots go to the folder that TLKIT_SCREENSHOTS names, to be looked at, else to pytest's own.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
import pytest
from mlflow.entities.model_registry import ModelVersion
from servers import mlflow_server

from tlkit.recipes import _links

pytestmark = pytest.mark.slow

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "chrome")
WAIT = 180_000  # milliseconds, for pages of a server on a machine that has other things to do
IDLE = 10_000  # milliseconds, for a page that may ask for more

UNNAMED = "feature_extraction LetterNet digits #1"
QUICK = ["--features.engine", "keras", "--experiment", "digits", "--register", "digits"]
FINETUNE = ["--head.epochs", "1", "--full.epochs", "2", "--full.unfreeze_from", "stage3"]
RUNS = {
    "linear": ("feature_extraction", ["--seed", "0"]),
    "linear_other_seed": ("feature_extraction", ["--seed", "1"]),
    "gentle": ("finetune", [*FINETUNE, "--full.learning_rate", "1e-4", "--head.solved", "false"]),
    "fierce": ("finetune", [*FINETUNE, "--full.learning_rate", "1e-3"]),
    UNNAMED: ("feature_extraction", ["--seed", "2"]),
}
FOUR = [name for name in RUNS if name != UNNAMED]


class Site(NamedTuple):
    """A server with finished runs."""

    uri: str
    experiment_id: str
    runs: dict[str, str]  # ids, by name
    versions: dict[str, ModelVersion]  # of the registered model, by their runs' names


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server on a store that the recipes have filled with four runs, each a version of one registered model."""
    folder = tmp_path_factory.mktemp("browser")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    environment |= {"TLKIT_CACHE": str(folder / "cache"), "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
    for name, (recipe, settings) in RUNS.items():
        named = [] if name == UNNAMED else ["--run_name", name]
        command = [sys.executable, "-m", f"tlkit.recipes.{recipe}", *QUICK, *named, *settings]
        wanted = {"MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "true"} if name == "fierce" else {}
        done = subprocess.run(
            command, cwd=folder, env=environment | wanted, capture_output=True, text=True, timeout=1200
        )
        assert done.returncode == 0, done.stderr
    with mlflow_server(folder / "server", environment["MLFLOW_TRACKING_URI"]) as server:
        client = mlflow.MlflowClient(server.uri)
        experiment = client.get_experiment_by_name("digits").experiment_id
        runs = {run.info.run_name: run for run in client.search_runs([experiment])}
        assert set(runs) == set(RUNS)
        names = {run.info.run_id: name for name, run in runs.items()}
        versions = {names[entry.run_id]: entry for entry in client.search_model_versions("name = 'digits'")}
        assert set(versions) == set(RUNS)
        yield Site(server.uri, experiment, {name: run.info.run_id for name, run in runs.items()}, versions)


@pytest.fixture(scope="module")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(os.environ.get("TLKIT_SCREENSHOTS") or tmp_path_factory.mktemp("shots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    """A page of a headless Chromium; a fresh profile."""
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("playwright is not installed: pip install playwright")
    from playwright.sync_api import sync_playwright

    chromium = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if chromium is None:
        pytest.skip(f"there is no Chromium on PATH: none of {', '.join(CHROMIUM)}")
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox"] if root else [], timeout=WAIT
        )
        opened = browser.new_page(viewport={"width": 1600, "height": 1100})
        opened.set_default_timeout(WAIT)
        # Else MLflow's assistant opens itself, over a third of the page.
        opened.add_init_script("localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')")
        yield opened
        browser.close()


@pytest.fixture
def see(page: Any, shots: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., None]]:
    """Open a page and wait until all of these texts are to be seen; a screenshot is kept, also where they are not."""

    def look(url: str | None, *texts: str | re.Pattern[str]) -> None:
        if url:
            page.goto("about:blank")  # else only the fragment changes, and the page is not loaded again
            page.goto(url)
        for text in texts:
            page.get_by_text(text).first.wait_for(state="visible")

    yield look
    settle(page)
    page.screenshot(path=shots / f"{request.node.name.removeprefix('test_')}.png")


def settle(page: Any) -> None:
    """Wait until a page asks for nothing more, which some of MLflow's never do, and its pictures are there."""
    from playwright.sync_api import TimeoutError as TimedOut

    with contextlib.suppress(TimedOut):
        page.wait_for_load_state("networkidle", timeout=IDLE)
    page.wait_for_function("[...document.images].every(image => image.complete)")


def run_page(site: Site, name: str, tab: str = "") -> str:
    return f"{site.uri}/#/experiments/{site.experiment_id}/runs/{site.runs[name]}{tab}?{_links.MODE}"


def test_the_experiment_page_lists_the_runs(site: Site, see: Callable[..., None], page: Any):
    see(_links.runs_link(site.uri, site.experiment_id), *RUNS, "Run Name", "Created", "Duration", "Models")
    see(None, "Dataset")
    page.get_by_text(re.compile(r"^digits")).nth(len(RUNS) - 1).wait_for()


def test_the_chart_page_draws_the_metrics(site: Site, see: Callable[..., None], page: Any):
    see(_links.chart_link(site.uri, site.experiment_id), *RUNS, "best_val_accuracy", "learning_rate")
    page.locator(".js-plotly-plot .scatterlayer").first.wait_for(state="visible")
    page.get_by_placeholder("Search metric charts").fill("test_accuracy")
    see(None, "test_accuracy", "test_accuracy_low")


def test_the_overview_of_a_run(site: Site, see: Callable[..., None], page: Any):
    see(run_page(site, "fierce"), "fierce", "full.learning_rate", "0.001", "test_accuracy", "Finished")
    page.get_by_text(re.compile("^recipe")).first.wait_for(state="visible")  # a tag
    page.get_by_text("Show more").click()
    see(None, "LetterNet", "To use it", "mlflow.pyfunc.load_model", "Datasets", "Training")


def test_the_metrics_of_a_run_are_curves(site: Site, see: Callable[..., None], page: Any):
    see(run_page(site, "fierce", "/model-metrics"), "val_accuracy", "learning_rate")
    page.locator(".js-plotly-plot .scatterlayer").first.wait_for(state="visible")


def test_the_system_metrics_of_a_run(site: Site, see: Callable[..., None], page: Any):
    see(run_page(site, "fierce", "/system-metrics"), "cpu_utilization_percentage")
    see(run_page(site, "linear", "/system-metrics"), "linear")
    settle(page)
    assert page.get_by_text("cpu_utilization_percentage").count() == 0  # of a run of seconds it says nothing


def test_a_picture_of_a_run_is_shown(site: Site, see: Callable[..., None], page: Any):
    see(run_page(site, "fierce", "/artifacts/confusion_matrix.png"), "confusion_matrix.png", "learning_curves.png")
    page.wait_for_function("[...document.querySelectorAll('img')].some(img => img.complete && img.naturalWidth > 200)")


def test_a_table_of_a_run_is_shown(site: Site, see: Callable[..., None]):
    see(run_page(site, "fierce", "/artifacts/predictions.json"), "probability_of_label", "predicted")


def test_the_split_of_a_run_is_shown(site: Site, see: Callable[..., None]):
    see(run_page(site, "fierce", "/artifacts/split_manifest.csv"), "split_manifest.csv", "train")


def test_four_runs_are_compared(site: Site, see: Callable[..., None], page: Any):
    four = [site.runs[name] for name in FOUR]
    see(_links.compare_link(site.uri, four, site.experiment_id), "Comparing 4 Runs", *FOUR)
    see(None, "full.learning_rate", "test_accuracy")
    page.locator(".js-plotly-plot").first.wait_for(state="visible")


def preselected(page: Any) -> list[str]:
    """What MLflow's comparison page has chosen by itself: up to three parameters that differ, and a metric."""
    page.locator(".js-plotly-plot").first.wait_for(state="visible")
    settle(page)
    chosen = page.locator("[class*=select-selection-item]")
    chosen.nth(1).wait_for()
    items = chosen.all_inner_texts()
    return list(dict.fromkeys(filter(None, items)))


@pytest.mark.parametrize(
    ("names", "parameter", "metric"),
    [
        (("gentle", "fierce"), "full.learning_rate", "val_accuracy"),
        (("linear", "linear_other_seed", UNNAMED), "seed", "test_accuracy"),
    ],
    ids=["finetune", "feature_extraction"],
)
def test_a_comparison_shows_what_differs_and_a_score(
    site: Site, see: Callable[..., None], page: Any, names: tuple[str, ...], parameter: str, metric: str
):
    ids = [site.runs[name] for name in names]
    see(_links.compare_link(site.uri, ids, site.experiment_id), f"Comparing {len(ids)} Runs", *names)
    *parameters, chosen = preselected(page)
    assert chosen == metric
    assert parameter in parameters
    assert not [name for name in parameters if name.startswith(("augment.", "features."))]


def test_a_run_without_a_name_says_what_it_is(site: Site, see: Callable[..., None]):
    see(run_page(site, UNNAMED), UNNAMED, "Finished", "seed", "test_accuracy")


def test_the_registry_has_the_model_with_its_alias(site: Site, see: Callable[..., None], page: Any):
    see(f"{site.uri}/#/models?{_links.MODE}", "digits", "Version 5", re.compile("champion|challenger"))  # one and "+1"
    page.keyboard.press("Escape")  # what MLflow has to say about its registry


def test_the_versions_of_a_registered_model(site: Site, see: Callable[..., None]):
    versions = [f"Version {number}" for number in range(1, 5)]
    about = "beats the present champion on the same test examples"
    see(f"{site.uri}/#/models/digits?{_links.MODE}", "digits", about, "@ champion", "@ challenger", *versions)


@pytest.mark.parametrize(
    ("name", "promotion", "said", "reason"),
    [
        ("linear", "champion", "Champion", "there was no champion to compare with"),
        (
            "linear_other_seed",
            "challenger",
            "Challenger",
            "does not beat version 1, the champion then, on the same 279",
        ),
        ("gentle", "none", "No alias", "is worse than version 1, the champion then, on the same 279 test examples"),
    ],
    ids=["champion", "challenger", "none"],
)
def test_a_version_of_a_registered_model(
    site: Site, see: Callable[..., None], page: Any, name: str, promotion: str, said: str, reason: str
):
    version = site.versions[name]
    assert version.tags["promotion"] == promotion
    assert version.tags["promotion_reason"].startswith(reason)
    see(f"{site.uri}/#/models/digits/versions/{version.version}?{_links.MODE}", name, "Source Run", "Inputs (1)")
    see(None, f"{said}: {version.tags['promotion_reason']}.", "test accuracy (95 % interval")
    see(None, *(f"@ {alias}" for alias in version.aliases))
    for tag in ("kind", "backbone", "dataset_digest", "promotion"):
        page.get_by_role("cell", name=tag, exact=True).scroll_into_view_if_needed()
        see(None, version.tags[tag])


@pytest.mark.parametrize("width", [390, 1200])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_report_opens_without_a_server_on_a_phone_and_in_dark(
    width: int, scheme: str, site: Site, page: Any, shots: Path, tmp_path: Path
):
    report = Path(mlflow.MlflowClient(site.uri).download_artifacts(site.runs["gentle"], "report.html", str(tmp_path)))
    context = page.context.browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
    context.set_default_timeout(WAIT)
    opened, asked, said = context.new_page(), [], []
    opened.on("request", lambda request: asked.append(request.url))
    opened.on("console", lambda message: said.append(message.text))
    opened.goto(report.as_uri())
    opened.get_by_text("Of new photos like these").wait_for(state="visible")
    for heading in ("Scores", "Leaks", "Worst mistakes", "Trust", "How to use it"):
        opened.get_by_role("heading", name=heading).wait_for(state="visible")
    assert opened.locator("h1").inner_text() == "gentle"
    assert opened.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    opened.wait_for_function("[...document.images].every(image => image.complete)")
    assert opened.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert said == []
    opened.screenshot(path=shots / f"report_{width}_{scheme}.png", full_page=True)
    context.close()
