"""Figures are returned with what they promise in them, and never need a screen."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from tlkit import evaluation, plots


def epoch(number: int, phase: str) -> dict:
    return {"epoch": number, "phase": phase, "loss": 1.0, "val_loss": 1.0, "accuracy": 0.5, "val_accuracy": 0.5}


def test_learning_curves_mark_both_phases_and_the_kept_epoch():
    figure = plots.learning_curves([epoch(1, "head"), epoch(2, "head"), epoch(3, "full")], best=3)
    loss, accuracy = figure.axes
    assert [text.get_text() for text in loss.texts] == ["head", "full"]
    assert "kept: epoch 3" in [text.get_text() for text in accuracy.get_legend().get_texts()]
    assert accuracy.get_ylabel() == "accuracy"


def test_names_of_short_phases_do_not_touch():
    """Of a solved head, a trial of three epochs and twenty more, which is the usual run."""
    epochs = [epoch(1, "head"), *(epoch(n, "trial") for n in (2, 3, 4)), *(epoch(n, "full") for n in range(5, 25))]
    figure = plots.learning_curves(epochs)
    figure.draw_without_rendering()
    for axes in figure.axes:
        boxes = [text.get_window_extent() for text in axes.texts]
        assert len(boxes) == 3
        assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))


@pytest.mark.parametrize("classes", [2, 10, 40])
def test_a_confusion_matrix_has_its_counts_and_names(classes: int, tmp_path):
    confusion = np.eye(classes, dtype=int) * 7
    figure = plots.confusion_matrix(confusion, [f"class {index}" for index in range(classes)], "title")
    axes = figure.axes[0]
    assert axes.get_title() == "title"
    assert len(axes.texts) == (classes if classes <= 30 else 0)
    assert [label.get_text() for label in axes.get_yticklabels()][1] == "class 1"
    figure.savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 1000


def texts(figure) -> str:
    """All that is written on a figure."""

    return "\n".join(text.get_text() for text in figure.findobj(Text))


@pytest.mark.parametrize(("classes", "drawn"), [(2, 2), (30, 30), (120, 30)])
def test_class_scores_have_the_worst_classes_on_top_with_their_counts(classes: int, drawn: int, tmp_path):
    confusion = 20 * np.eye(classes, dtype=int)
    confusion[-1] = confusion[-2] = 0
    confusion[-1, [0, -1]] = 3, 1  # the last class is taken for the first
    confusion[-2, -2] = 5
    names = [f"a class with a long name, number {index}" for index in range(classes)]
    figure = plots.class_scores(evaluation.by_class(confusion, names), "test")
    axes = figure.axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert len(labels) == drawn
    assert labels[0].endswith(f"number {classes - 1} (4)")
    assert ("the 30 worst of 120 classes" in axes.get_xlabel()) == (classes == 120)
    recall, precision, f1 = (line.get_xdata()[0] for line in [axes.lines[0], *axes.lines[-2:]])
    assert (recall, precision, f1) == (0.25, 1, 0.4)
    spans = axes.collections[0].get_segments()[0]  # of the interval, in the direction of the score
    assert spans[:, 0] == pytest.approx(evaluation.wilson(1, 4))
    assert spans[0, 1] == spans[1, 1] == 0
    figure.savefig(tmp_path / "figure.png")


def test_class_scores_leave_out_classes_without_examples_and_precision_where_none_is_predicted(tmp_path):
    confusion = np.array([[4, 0, 0, 0], [0, 0, 0, 0], [2, 0, 0, 0], [0, 0, 0, 9]])
    figure = plots.class_scores(evaluation.by_class(confusion, ["a", "absent", "$missed$", "d"]))
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["$missed$ (2)", "a (4)", "d (9)"]
    assert axes.lines[-2].get_ydata().tolist() == [1, 2]  # precision
    assert "1 class has no examples here" in axes.get_xlabel()
    nothing = evaluation.by_class(np.zeros((2, 2), int), ["a", "b"])
    plots.class_scores(nothing).savefig(tmp_path / "figure.png")


def test_mistakes_are_sorted_by_confidence_and_only_they_are_read(tmp_path):
    photos = np.random.default_rng(0).integers(0, 256, (40, 12, 12, 3), np.uint8)
    labels, predicted = ["cat"] * 40, ["cat"] * 8 + ["a dog of a breed with a very long name"] * 32
    probabilities = np.linspace(0.2, 0.99, 40)
    asked = []

    def read(places):
        asked.extend(places)
        return photos[places]

    names = [f"folder/of/some/length/below/another/{index:02}.jpg" for index in range(40)]
    figure = plots.mistakes(read, labels, predicted, probabilities, names=names)
    assert asked == list(range(39, 15, -1))
    sheet = figure.axes[0]
    assert [text.get_text() for text in sheet.texts[:3]] == ["cat", "a dog o…ng name (0.99)", f"…{names[39][-31:]}"]
    (page,) = (image.get_array() for image in sheet.images)
    photo = Image.fromarray(photos[39]).resize((160, 160), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(page[95:255, 7:167, :3], photo)
    assert (page[:95] == 255).all()
    assert "32 of 40 photos are classified wrongly: the 24 most confident mistakes" in texts(figure)
    for scale in 1, 2:  # as it is, and resampled
        figure.savefig(tmp_path / "figure.png", dpi=100 * scale)
        saved = np.asarray(Image.open(tmp_path / "figure.png"))[..., :3]
        np.testing.assert_array_equal(saved[95 * scale : 255 * scale : scale, 7 * scale : 167 * scale : scale], photo)


def test_without_mistakes_the_sheet_says_so():
    figure = plots.mistakes(
        lambda places: pytest.fail("nothing is to be read"), ["a"] * 3, ["a"] * 3, [1.0] * 3, "sounds"
    )
    assert texts(figure) == "no mistakes among 3 sounds"


@pytest.mark.parametrize(
    ("shape", "draw"),
    [
        ((500, 1), plots.draw_sound),
        ((7, 2), plots.draw_array),
        ((9, 6, 1), plots.draw_array),
        ((4, 5, 6, 1), plots.draw_array),
        ((700, 30, 3), plots.draw_photo),
        ((700, 30, 3), None),
    ],
)
def test_mistakes_of_every_modality_and_rank_are_drawn(shape: tuple[int, ...], draw: Callable | None, tmp_path):
    values = np.random.default_rng(0).normal(128, 40, (2, *shape)).astype(np.float32)
    values[1] = 0  # flat
    figure = plots.mistakes(values.__getitem__, ["a", "a"], ["b", "b"], [0.9, 0.8], draw=draw)
    first = figure.axes[0 if draw is None else 1]
    assert bool(first.images) == (len(shape) > 2)
    if len(shape) == 4:  # the middle slice, from black to white
        drawn = np.asarray(first.images[0].get_array())
        assert drawn.argmax() == values[0, 2, ..., 0].argmax()
        assert (drawn.min(), drawn.max()) == (0, 1)
    elif len(shape) == 2:
        assert first.dataLim.y1 == pytest.approx(values[0, :, 0].max(), rel=1e-4)
    figure.savefig(tmp_path / "figure.png")


def test_a_name_is_shortened_to_its_ends():
    assert plots.shortened("short", 5) == "short"
    for most in range(4, 12):
        said = plots.shortened("a-long-name-of-a-class-07", most)
        assert len(said) == most
        assert said.startswith("a-")
        assert said.endswith("7")


ODD = ["$\\frac{$", "\x1b[31mred\n", "\udce9", "कुत्ता", "x" * 300]


def test_names_are_drawn_as_they_are_and_never_warn(tmp_path: Path):
    count = len(ODD)
    table = evaluation.by_class(np.ones((count, count), int), ODD)
    photos, name = np.zeros((count, 8, 8, 1), np.uint8), ODD[0]
    stages = {stage: np.ones((4, 4, 2)) for stage in ODD[:4]}
    fields = {stage: weights[..., 0] for stage, weights in stages.items()}
    figures = [
        plots.confusion_matrix(np.ones((count, count), int), ODD, name),
        plots.class_scores(table, name),
        plots.mistakes(photos.__getitem__, ODD, ODD[1:] + ODD[:1], [0.5] * count, names=ODD),
        plots.ranking(ODD[:4], [0.5] * 4, [(0.4, 0.6)] * 4),
        plots.arrays(dict.fromkeys(ODD[:4], np.ones((2, 2)))),
        plots.filters(np.ones((3, 3, 1, 2)), name),
        plots.feature_maps(photos[0], stages, name),
        plots.receptive_fields(fields, dict.fromkeys(fields, (2, 2)), dict.fromkeys(fields, 1.0), name),
        plots.parallel_coordinates({name: ODD}, [0.1 * place for place in range(count)], name),
        plots.sheet([[photo] for photo in photos], [name], [[text] for text in map(plots.shortened, ODD, [24] * 5)]),
    ]
    for figure in figures:
        plots.save(figure, tmp_path / "figure.png")
        assert "\x1b" not in texts(figure)


def test_long_titles_are_whole(tmp_path: Path):
    title = "m-718865e44edf42ba8acdab7744fa2060, with its weights: receptive fields of all of its stages"
    fields = {f"stage{number}": np.ones((4, 4)) for number in range(6)}  # one more than a row has
    for figure in (
        plots.filters(np.ones((3, 3, 1, 2)), title),
        plots.feature_maps(np.zeros((8, 8, 1)), {"stem": np.ones((4, 4, 2))}, title),
        plots.receptive_fields(fields, dict.fromkeys(fields, (2, 2)), dict.fromkeys(fields, 1.0), title),
        plots.receptive_fields({"a": np.ones((4, 4))}, {"a": (2, 2)}, {"a": 1.0}, title),
    ):
        plots.save(figure, tmp_path / "figure.png")
        written = figure.get_suptitle() or figure.axes[0].get_title()
        assert "".join(written.split()) == "".join(title.split())
        drawn = next(text for text in figure.findobj(Text) if text.get_text() == written).get_window_extent()
        assert drawn.x0 >= 0
        assert drawn.x1 <= figure.bbox.width


def test_the_legend_of_a_reliability_diagram_covers_no_error_bar(tmp_path: Path):
    """Wherever they are: it is above the diagram."""
    confidence = np.array([0.2, 0.4, 0.6])
    bins = confidence, np.array([0.5, 0.6, 0.7]), np.array([[0.1, 0.4, 0.5], [0.9, 0.8, 0.9]])
    table = {"coverage": [1.0], "accuracy": [0.6], "accuracy_low": [0.5], "accuracy_high": [0.7]}
    figure = plots.calibration(bins, bins, np.array([0.9, 0.5]), np.array([True, False]), table)
    figure.savefig(tmp_path / "figure.png")
    axes = figure.axes[0]
    assert axes.get_legend().get_window_extent().y0 >= axes.get_window_extent().y1 - 1
    assert axes.get_legend().get_window_extent().x1 <= figure.axes[1].get_window_extent().x0


# Prints whether the pictures of a command are those of this process, and whether Matplotlib was needed for them.
ELSEWHERE = """
import json, os, signal, sys
from tlkit import cores, plots, startup
from tlkit.plots import elsewhere

startup.COMMAND.append("a command")
cores.cores = lambda: 2
call = "ranking", ["a", "b"], [0.5, 0.7], [(0.4, 0.6), (0.6, 0.8)], "accuracy"
first, second = plots.Picture(*call).png(), plots.Picture(*call).png()
found = {"needed": "matplotlib" in sys.modules}
wrong = plots.Picture("ranking", ["a"], None, [], "accuracy")
after = plots.Picture(*call).png()
try:
    wrong.png()
except ValueError as error:
    found["error"] = str(error)
unsent = plots.Picture("mistakes", lambda places: [], ["a"], ["a"], [0.5]).png()
found["unsent"] = unsent[1:4].decode()
elsewhere.PATIENCE = 1
plots.begin().process.send_signal(signal.SIGSTOP)  # it does not answer, and is killed
killed = plots.Picture(*call).png()
plots.begin().process.wait(10)
later = plots.Picture(*call).png()
own = elsewhere._draw(call[0], call[1:], {})
found["equal"] = [picture == own for picture in (first, second, after, killed, later)]
print(json.dumps(found))
"""


def test_a_command_has_its_figures_drawn_by_another_process_until_that_dies(tmp_path: Path):
    run = subprocess.run([sys.executable, "-c", ELSEWHERE], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert found["needed"] is False
    assert found["equal"] == [True] * 5
    assert "xerr" in found["error"]
    assert found["unsent"] == "PNG"
    assert not run.stderr


def test_a_users_program_has_its_figures_drawn_in_its_own_process():
    assert plots.begin.__wrapped__() is None
    assert plots.Picture("importance", [], "val_loss")._answer is None
