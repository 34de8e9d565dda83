"""Configs: every recipe file loads, says what it is for, and wrong values are refused in one line."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tlkit import cli, config
from tlkit.errors import InvalidInput

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "recipes").rglob("*.yaml"))
CONFIGS = {
    "finetune": config.Finetune,
    "find_lr": config.FindLr,
    "preview": config.Preview,
    "feature_extraction": config.FeatureExtraction,
    "pretrain": config.Pretrain,
    "predict": config.Predict,
    "describe": config.Describe,
    "train": config.Train,
    "train_graph": config.TrainGraph,
    "select": config.Select,
    "cache": config.Cache,
    "compare": config.Compare,
    "sync": config.Sync,
    "tune": config.Tune,
    "ui": config.Ui,
}
VERBS = sorted(path.stem for path in (ROOT / "tlkit" / "recipes").glob("[a-z]*.py"))


def parse(config_class: type, *argv: str):
    """The config that a command line makes."""
    seen = []

    def run(made):
        seen.append(made)

    status = cli.call(config_class, run, argv)
    return seen[0] if status == 0 else status


def leaves(tree: dict, prefix: str = ""):
    for name, value in tree.items():
        if isinstance(value, dict) and name != "space":  # which is a value itself
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def test_there_are_recipe_files_and_each_folder_is_a_command():
    assert FILES
    assert {path.parent.name for path in FILES} <= set(VERBS)
    assert set(CONFIGS) == set(VERBS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_recipe_file_loads_and_begins_with_its_command_and_result(path: Path):
    head = path.read_text(encoding="utf-8").splitlines()[:5]
    command = f"# python -m tlkit.recipes.{path.parent.name} --config {path.relative_to(ROOT)}"
    assert head[0].startswith(command)
    assert any(line.startswith("# Expected: ") and any(map(str.isdigit, line)) for line in head)
    made = parse(CONFIGS[path.parent.name], "--config", str(path))
    given = dict(leaves(yaml.safe_load(path.read_text(encoding="utf-8"))))
    assert {name: config.flatten(made)[name] for name in given} == given


@pytest.mark.parametrize(
    ("verb", "argv"),
    [
        ("finetune", ["--backbone.name", "VGG16", "--augment.zoom", "0.1", "--augment.views", "4"]),
        ("feature_extraction", ["--backbone.name", "VGG16", "--features.engine", "keras", "--features.limit", "0.5"]),
        ("select", ["--backbones", "[VGG16, {name: MobileNet, alpha: 0.5}]", "--data.path", "photos"]),
        ("tune", ["--space", "{full: {epochs: {int: [1, 3]}}, head: {dropout: 0.1}}", "--algorithm", "grid"]),
    ],
)
def test_a_stored_config_loads_again_to_an_equal_one(verb: str, argv: list[str], tmp_path: Path):
    made = parse(CONFIGS[verb], *argv, "--seed", "7")
    assert made.seed == 7
    stored = tmp_path / "config.yaml"
    stored.write_text(yaml.safe_dump(dataclasses.asdict(made)), encoding="utf-8")
    assert parse(CONFIGS[verb], "--config", str(stored)) == made


@pytest.mark.parametrize(
    ("verb", "argv"),
    [
        ("train", ["--builder.filters", "[8, 16]", "--builder.dense", "[]", "--full.epochs", "3"]),
        ("train", ["--builder.filters", "[8, 16]", "--builder.kernel_size", "[5, 3]", "--builder.pool", "average"]),
        ("train_graph", ["--data.path", "graph.npz", "--units", "[32, 8]", "--full.learning_rate", "1e-3"]),
    ],
)
def test_a_stored_config_of_train_loads_again_to_an_equal_one(verb: str, argv: list[str], tmp_path: Path):
    made = parse(CONFIGS[verb], *argv)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(dataclasses.asdict(made)), encoding="utf-8")
    assert parse(CONFIGS[verb], "--config", str(tmp_path / "config.yaml")) == made


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--hed.epochs", "1"], "unknown setting hed.epochs; did you mean head.epochs?"),
        (["--head.epoch", "1"], "unknown setting head.epoch; did you mean head.epochs?"),
        (["--head.epochs", "many"], "--head.epochs: expected int or null, got 'many'"),
        (["--batch_size", "max"], "--batch_size: expected int or one of auto, got 'max'"),
        (["--augment.flip", "3"], "--augment.flip: expected bool or list or null, got '3'"),
        (["--data.source", "web"], "--data.source: expected one of auto, embedded, folder, csv, npz, tfds, got 'web'"),
        (["--data.source", "folder"], "data.path is None; data.source folder needs --data.path"),
        (["--data.source", "tfds"], "data.name is None; data.source tfds needs --data.name"),
        (["--data.source", "embedded", "--data.path", "x"], "'x'; it goes with --data.source folder, csv or npz"),
        (["--data.path", "x", "--data.name", "x"], "data.name is 'x'; it goes with --data.source tfds"),
        (["--data.image_size", "4"], "data.image_size is 4; it must be at least 8 pixels"),
        (["--data.source", "npz"], "data.path is None; data.source npz needs --data.path"),
        (["--data.seconds", "0"], "data.seconds is 0.0; it must be above 0"),
        (["--data.val_fraction", "1.5"], "data.val_fraction is 1.5; it must lie between 0 and 1"),
        (["--data.test_fraction", "0.9"], "data.val_fraction + data.test_fraction is 1.05; it must be below 1"),
        (["--backbone.alpha", "0"], "backbone.alpha is 0.0; it must be above 0"),
        (["--head.dropout", "1"], "head.dropout is 1.0; it must be from 0 to below 1"),
        (["--augment.rotation", "200"], "augment.rotation is 200.0; it must be from 0 to 180 degrees"),
        (["--augment.zoom", "-1"], "augment.zoom is -1.0; it must be from 0 to below 1"),
        (["--head.epochs", "-1"], "head.epochs is -1; it must be 0 or more"),
        (["--full.learning_rate", "0"], "full.learning_rate is 0.0; it must be above 0"),
        (["--full.warmup", "1"], "full.warmup is 1.0; it must be from 0 to below 1"),
        (["--full.layer_decay", "0"], "full.layer_decay is 0.0; it must be above 0, and 1 at the most"),
        (["--full.layer_decay", "1.1"], "full.layer_decay is 1.1; it must be above 0, and 1 at the most"),
        (["--head.patience", "0"], "head.patience is 0; it must be 1 or more"),
        (
            ["--head.solved", "false", "--head.epochs", "0", "--full.epochs", "0"],
            "the number of epochs is 0; it must be 1 or more",
        ),
        (["--augment.views", "4"], "augment.views is 4; photos are mirrored at most"),
        (["--batch_size", "0"], "batch_size is 0; it must be 1 or more"),
        (["--label_smoothing", "1"], "label_smoothing is 1.0; it must be from 0 to below 1"),
        (["--weight_decay", "-1"], "weight_decay is -1.0; it must be 0 or more"),
        (["--seed", "-1"], "seed is -1; it must be from 0 to 2**32 - 1"),
        (["--precision", "float64"], "--precision: expected one of auto, float32, mixed_bfloat16, mixed_float16"),
        (["--config", "no.yaml"], "File does not exist"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_is_one_line_and_status_2(argv: list[str], says: str, capsys: pytest.CaptureFixture):
    assert parse(config.Finetune, *argv) == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--builder.dropout", "1"], "builder.dropout is 1.0; it must be from 0 to below 1"),
        (["--builder.convolutions", "0"], "builder.convolutions is 0; it must be 1 or more"),
        (["--builder.kernel_size", "0"], "builder.kernel_size is 0; it must be 1 or more"),
        (["--builder.kernel_size", "[3, 0, 3]"], "builder.kernel_size is [3, 0, 3]; it must be 1 or more"),
        (
            ["--builder.kernel_size", "[5, 3]"],
            "builder.kernel_size is [5, 3]; it must be a number, or one for each of the 3 parts that builder.filters",
        ),
        (["--builder.filters", "[8]", "--builder.kernel_size", "[5, 3]"], "for each of the 1 parts"),
        (["--builder.pool", "sum"], "--builder.pool: expected "),
        (["--builder.name", "lenet5", "--builder.pool", "max"], "builder.pool is 'max'; it goes with"),
        (["--full.layer_decay", "0.5"], "unknown setting full.layer_decay"),
        (["--builder.dense", "[8, -1]"], "builder.dense is [8, -1]; it must be 1 or more"),
        (
            ["--builder.name", "lenet5", "--builder.norm", "false"],
            "builder.norm is False; it goes with --builder.name cnn",
        ),
        (["--full.warmup", "1"], "full.warmup is 1.0; it must be from 0 to below 1"),
        (["--full.patience", "0"], "full.patience is 0; it must be 1 or more"),
        (["--full.epochs", "0"], "the number of epochs is 0; it must be 1 or more"),
        (["--full.unfreeze_from", "stage1"], "unknown setting full.unfreeze_from"),
        (["--batch_size", "0"], "batch_size is 0; it must be 1 or more"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_settings_of_train_are_one_line_and_status_2(argv: list[str], says: str, capsys: pytest.CaptureFixture):
    assert parse(config.Train, *argv) == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("data:\n  sauce: folder\n", "unknown setting data.sauce; did you mean data.source?"),
        ("data: [\n", "Problems parsing config"),
        ("!!python/object/apply:os.system ['echo hi']\n", "could not determine a constructor"),
    ],
)
def test_a_wrong_file_is_one_line_and_status_2(text: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture):
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    assert parse(config.Finetune, "--config", str(path)) == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1


def test_a_wrong_value_is_refused_in_python_too():
    with pytest.raises(InvalidInput, match="top is 0; it must be 1 or more"):
        config.Predict("model.keras", ["a.png"], top=0)


@pytest.mark.parametrize("name", ["run_name", "experiment"])
@pytest.mark.parametrize("made", [config.Finetune, config.Train, config.Compare])
def test_names_that_a_store_or_a_terminal_cannot_hold_are_refused(made: type, name: str):
    for value in ("caf\udce9", "a\nb", "\x1b[31m"):
        with pytest.raises(InvalidInput, match=rf"{name} is '.*'; it must be UTF-8 in one line"):
            made(**{name: value})
    made(**{name: "猫 \u00a0 <b> 👩\u200d🔬"})


@pytest.mark.parametrize("verb", VERBS)
def test_help_answers_at_once(verb: str):
    command = [sys.executable, "-m", f"tlkit.recipes.{verb}", "--help"]
    seconds = []
    for _ in range(3):  # the fastest of three: the machine may be busy
        begun = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds.append(time.perf_counter() - begun)
    assert f"usage: python -m tlkit.recipes.{verb}" in done.stdout
    assert min(seconds) < 0.6


@pytest.mark.parametrize("module", ["tlkit", "tlkit.config", *(f"tlkit.recipes.{verb}" for verb in VERBS)])
def test_importing_loads_no_framework(module: str):
    heavy = "{'keras', 'tensorflow', 'jax', 'torch', 'mlflow', 'sklearn', 'matplotlib', 'numpy'}"
    code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
