"""What a search depends on: held against problems whose answer is known, and drawn with all that is promised."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from tlkit import plots
from tlkit.errors import InvalidInput
from tlkit.tuning import importance
from tlkit.tuning.importance import Importance, Importances, _coded, importances


@pytest.fixture
def small_forests(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fifth of the trees, for what does not depend on how exact the shares are."""
    monkeypatch.setattr(importance, "TREES", 10)


def shares(found: Importances) -> dict[str, float]:
    return {setting.name: setting.mean for setting in found.settings}


def noise(trials: int, count: int = 4) -> dict[str, list[float]]:
    random = np.random.default_rng(1)
    return {f"noise.{number}": random.random(trials).tolist() for number in range(count)}


def test_importances_are_the_shares_of_the_variance():
    """Of 2 a + b, with a and b uniform and independent, 4 parts of 5 of the variance are a's and 1 is b's."""
    a, b = np.random.default_rng(0).random((2, 400))
    found = importances({"b": b.tolist(), "a": a.tolist(), **noise(400, 1)}, 2 * a + b)
    assert [setting.name for setting in found.settings] == ["a", "b", "noise.0"]
    assert shares(found) == pytest.approx({"a": 0.8, "b": 0.2, "noise.0": 0}, abs=0.06)
    assert 0.95 < found.explained <= 1


@pytest.mark.usefixtures("small_forests")
@pytest.mark.parametrize("trials", [20, 60])
def test_the_one_setting_that_matters_is_found(trials: int):
    rates = 10 ** np.random.default_rng(0).uniform(-5, -1, trials)
    found = importances({**noise(trials), "rate": rates.tolist()}, np.log10(rates) * 2)
    assert found.settings[0].name == "rate"
    assert found.settings[0].mean > 10 * max(setting.mean for setting in found.settings[1:])


@pytest.mark.usefixtures("small_forests")
def test_a_category_is_one_setting_whose_order_does_not_matter():
    names = np.random.default_rng(0).choice(["a", "b", "c", "d"], 60).tolist()
    worth = {"a": 0.0, "b": 1.0, "c": 0.0, "d": 1.0}
    found = importances({**noise(60), "kind": names}, [worth[name] for name in names])
    assert found.settings[0].name == "kind"
    assert found.settings[0].mean == pytest.approx(1, abs=0.15)
    assert found.explained > 0.9
    renamed = [{"a": "d", "b": "c", "c": "b", "d": "a"}[name] for name in names]
    again = importances({**noise(60), "kind": renamed}, [worth[name] for name in names])
    assert shares(again)["kind"] == pytest.approx(shares(found)["kind"], abs=0.1)


@pytest.mark.usefixtures("small_forests")
def test_flags_and_missing_values_count():
    random = np.random.default_rng(0)
    flags, rates = random.choice([True, False], 60).tolist(), random.random(60).tolist()
    assert importances({**noise(60), "flag": flags}, np.array(flags) * 1.0).settings[0].name == "flag"
    part = [rate if flag else None for rate, flag in zip(rates, flags, strict=True)]
    found = importances({**noise(60), "part": part}, [1 if value is None else value for value in part])
    assert found.settings[0].name == "part"
    assert found.explained > 0.7  # as categories, almost all would be seen for the first time


def test_missing_values_are_below_all_numbers():
    ranks, ordered = _coded([3e-4, None, None, -1])
    assert ordered
    assert ranks.tolist() == [2, 0, 0, 1]


@pytest.mark.usefixtures("small_forests")
def test_a_scale_makes_no_difference():
    rates = np.random.default_rng(0).uniform(-4, -1, 30)
    one = importances({"rate": rates.tolist(), **noise(30)}, rates)
    assert importances({"rate": (10**rates).tolist(), **noise(30)}, rates) == one


@pytest.mark.usefixtures("small_forests")
def test_what_is_constant_has_no_importance():
    found = importances({**noise(20), "same": ["adam"] * 20, "one": [1] * 20, "gone": [None] * 20}, range(20))
    constant = [setting for setting in found.settings if "noise" not in setting.name]
    assert {(setting.mean, setting.sd) for setting in constant} == {(0.0, 0.0)}
    flat = importances({**noise(20), "same": [1] * 20}, [0.5] * 20)
    assert {(setting.mean, setting.sd) for setting in flat.settings} == {(0.0, 0.0)}
    assert flat.explained == 0


@pytest.mark.slow
def test_chance_is_not_taken_for_importance():
    """A forest knows its own trials by heart; only on others can it be seen that it knows nothing."""
    draws = [np.random.default_rng(draw).random((5, 20)) for draw in range(4)]
    found = [importances(dict(zip("abcd", draw, strict=False)), draw[4]) for draw in draws]
    assert np.mean([one.explained for one in found]) < 0
    assert np.mean([setting.mean for one in found for setting in one.settings]) == pytest.approx(0, abs=0.05)


@pytest.mark.usefixtures("small_forests")
@pytest.mark.parametrize("trials", [0, 1, 2, 4, 5, 6, 8])
def test_few_trials_are_no_error(trials: int):
    found = importances({"flag": ([True, False] * 5)[:trials], **noise(trials)}, np.linspace(0, 1, trials))
    assert len(found.settings) == (5 if trials >= 5 else 0)
    assert np.isfinite(found.explained)


def test_no_settings_are_no_error():
    assert importances({}, range(10)) == Importances([], 0.0)


@pytest.mark.usefixtures("small_forests")
def test_importances_are_decided_by_the_seed():
    scores = np.random.default_rng(3).random(8)
    one, again, other = (importances(noise(8, 2), scores, seed=seed) for seed in (1, 1, 2))
    assert one == again
    assert one != other


def test_wrong_input_is_refused():
    with pytest.raises(InvalidInput, match="rate has 3 values and there are 2 scores"):
        importances({"rate": [1, 2, 3]}, [0.1, 0.2])
    with pytest.raises(InvalidInput, match="score 1 is not finite"):
        importances({"rate": [1, 2, 3]}, [0.1, np.nan, 0.2])


SCORES = [0.91, 0.97, 0.93, 0.95]
COLUMNS = {
    "full.learning_rate": [1e-4, 1e-3, 1e-2, 3e-3],
    "builder.dropout": [0.1, 0.2, 0.3, 0.4],
    "builder.filters.3": [None, 64, None, 32],
    "builder.pool": ["max", "max", None, "average"],
    "builder.norm": [True, False, True, True],
}


def trials(figure: Figure) -> np.ndarray:
    """Heights of the lines, shape (trials, axes), the worst trial first."""
    axes = figure.axes[0]
    others = axes.collections[0]
    best = next(line for line in axes.lines if line.get_label() == "best")
    return np.array([*(line[:, 1] for line in others.get_segments()), best.get_ydata()])


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in (*figure.axes[0].texts, *figure.texts)]


def test_parallel_coordinates_have_a_line_for_each_trial():
    figure = plots.parallel_coordinates(COLUMNS, SCORES, "val_accuracy")
    places = trials(figure)
    assert places.shape == (4, 6)
    assert places[:, -1] == pytest.approx([0, 1 / 3, 2 / 3, 1])  # the worst first, the best last
    assert places[:, 0] == pytest.approx([0, 1, np.log(30) / np.log(100), 0.5])  # logarithmic: a factor of 100
    assert places[:, 1] == pytest.approx([0, 2 / 3, 1, 1 / 3])  # linear: a factor of 4
    assert places[:, 2] == pytest.approx([0, 0, 0.14, 1], abs=0.03)  # None: at the foot
    assert places[:, 3] == pytest.approx([1, 0, 0.14, 1], abs=0.03)
    assert places[:, 4] == pytest.approx([1, 1, 1, 0], abs=0.03)
    assert {len(np.unique(places[:, axis])) for axis in range(6)} == {4}  # side by side
    assert "4 trials, best val_accuracy 0.97" in texts(figure)


def test_parallel_coordinates_name_settings_and_values():
    figure = plots.parallel_coordinates(COLUMNS, SCORES, "val_accuracy")
    said = texts(figure)
    assert {"full.\nlearning_rate", "builder.\ndropout", "builder.\nfilters.3", "builder.pool", "val_accuracy"} < {
        *said
    }
    assert {"1e−4", "0.01", "0.1", "0.4", "32", "64", "max", "average", "true", "false", "0.91", "0.97"} < {*said}
    assert said.count("–") == 2
    bold = {text.get_text() for text in figure.axes[0].texts if text.get_fontweight() == "bold"}
    assert bold == {"0.001", "0.2", "64", "max", "false", "0.97"}


@pytest.mark.parametrize(("maximize", "best"), [(True, 0.97), (False, 0.91)])
def test_the_best_trial_is_thick_on_top_and_darkest(maximize: bool, best: float):
    figure = plots.parallel_coordinates(COLUMNS, SCORES, "score", maximize)
    others, line = figure.axes[0].collections[0], figure.axes[0].lines[0]
    assert f"4 trials, best score {best}" in texts(figure)
    assert line.get_ydata()[-1] == (1 if maximize else 0)
    assert line.get_linewidth() > 2 * others.get_linewidths()[0]
    assert line.get_zorder() >= others.get_zorder()
    light = [np.dot(color[:3], (0.2126, 0.7152, 0.0722)) for color in (*others.get_colors(), line.get_color())]
    assert light == sorted(light, reverse=True)


def test_zero_is_a_number_like_others():
    places = trials(plots.parallel_coordinates({"dropout": [0, 0.25, 0.5]}, [1, 2, 3], "score"))
    assert places[:, 0] == pytest.approx([0, 0.5, 1])


@pytest.mark.parametrize("scores", [[0.5], [0.5, 0.5]])
@pytest.mark.parametrize("values", [[0, 0], ["none", "none"], [None, None], [3, 3], ["a", "a"], [True, True]])
def test_equal_values_and_scores_are_drawn(values: list, scores: list[float], tmp_path):
    figure = plots.parallel_coordinates({"same": values[: len(scores)]}, scores, "score")
    figure.savefig(tmp_path / "figure.png")
    assert np.isfinite([line.get_ydata() for line in figure.axes[0].lines]).all()


def test_names_and_values_are_readable_on_fourteen_axes():
    random = np.random.default_rng(0)
    columns: dict[str, list] = {
        f"builder.kernel_size.{number}": random.choice([3, 5], 30).tolist() for number in range(6)
    }
    columns |= {f"augmentation_strength_maximum_{number}": random.random(30).tolist() for number in range(6)}
    columns["backbone"] = random.choice(["{name: MobileNet, alpha: 0.75}", "{name: EfficientNetV2B0}"], 30).tolist()
    columns["$full$.learning_rate"] = (10 ** random.uniform(-6, -1, 30)).tolist()
    figure = plots.parallel_coordinates(columns, random.random(30), "val_accuracy")
    canvas = FigureCanvasAgg(figure)
    boxes = [text.get_window_extent(canvas.get_renderer()) for text in (*figure.axes[0].texts, *figure.texts)]
    assert len(boxes) > 40
    assert not [text for text in figure.axes[0].texts if "$" in text.get_text() and text.get_parse_math()]
    assert all(one.x0 >= 0 and one.y0 >= 0 for one in boxes)
    assert all(one.x1 <= figure.bbox.x1 and one.y1 <= figure.bbox.y1 for one in boxes)
    assert not [pair for pair in combinations(boxes, 2) if pair[0].overlaps(pair[1])]
    assert figure.get_figwidth() < 20


FOUND = Importances([Importance(f"setting.{number}", 0.5 / (number + 1), 0.02) for number in range(20)], 0.62)


def test_importances_are_bars_with_whiskers_the_first_on_top():
    figure = plots.importance(FOUND, "val_accuracy")
    axes = figure.axes[0]
    assert [bar.get_width() for bar in axes.patches] == [setting.mean for setting in FOUND.settings[:15]]
    assert [label.get_text() for label in axes.get_yticklabels()][:2] == ["setting.0", "setting.1"]
    top, bottom = axes.transData.transform([(0, 0), (0, 14)])[:, 1]
    assert top > bottom
    whiskers = next(one for one in axes.collections if isinstance(one, LineCollection)).get_segments()
    assert whiskers[0][:, 0] == pytest.approx([0.48, 0.52])
    assert "15 of 20 settings" in axes.get_xlabel()
    assert "val_accuracy" in axes.get_xlabel()
    assert figure.get_suptitle().endswith("0.62")


@pytest.mark.parametrize("explained", [0.19, -0.4])
def test_importances_of_a_forest_that_knows_nothing_are_said_to_be_none(explained: float):
    figure = plots.importance(FOUND._replace(explained=explained), "val_accuracy")
    assert f"{explained:.2f}".replace("-", "−") in figure.get_suptitle()
    assert "not to be trusted" in figure.get_suptitle()
    assert "trusted" not in plots.importance(FOUND._replace(explained=0.2), "val_accuracy").get_suptitle()


def test_without_importances_the_picture_says_why(tmp_path):
    figure = plots.importance(Importances([], 0.0), "val_accuracy")
    assert "too few trials" in figure.get_suptitle()
    assert not figure.axes[0].lines
    figure.savefig(tmp_path / "figure.png")
