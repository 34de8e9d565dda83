"""Configs: every recipe file loads, says what it is for, and wrong values are refused in one line."""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import re
import resource
import subprocess
import sys
import typing
from pathlib import Path

import pytest
import yaml

from tlkit import cli, config
from tlkit.errors import InvalidInput

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "recipes").rglob("*.yaml"))
CONFIGS = {
    "finetune": config.Finetune,
    "auto": config.Auto,
    "find_lr": config.FindLr,
    "inspect": config.Inspect,
    "preview": config.Preview,
    "feature_extraction": config.FeatureExtraction,
    "pretrain": config.Pretrain,
    "predict": config.Predict,
    "describe": config.Describe,
    "serve": config.Serve,
    "export": config.Export,
    "train": config.Train,
    "train_graph": config.TrainGraph,
    "select": config.Select,
    "cache": config.Cache,
    "compare": config.Compare,
    "evaluate": config.Evaluate,
    "explain": config.Explain,
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


def test_a_switch_needs_no_value():
    made = parse(config.Export, "--model", "m", "--int8", "--output", "out", "--data.strict")
    assert (made.int8, made.data.strict, made.accept) == (True, True, False)
    assert not parse(config.Export, "--model", "m", "--int8", "false", "--output", "out").int8


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
        (
            "finetune",
            ["--data.path", "x.tsv", "--data.columns", "{path: image, split: set}", "--data.group", "(p[0-9]+)_"],
        ),
        ("select", ["--backbones", "[VGG16, {name: MobileNet, alpha: 0.5}]", "--data.path", "photos"]),
        ("auto", ["--backbones", "[VGG16, {name: MobileNet, alpha: 0.5}]", "--minutes", "0.5", "--largest_mb", "9"]),
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
        (["--batch_size", "max"], "--batch_size: expected int or auto, got 'max'"),
        (["--augment.flip", "3"], "--augment.flip: expected true or false or a list such as [3, 5] or null, got '3'"),
        (
            ["--data.source", "web"],
            "--data.source: expected one of auto, embedded, folder, csv, npz, tfds, webdataset, got 'web'",
        ),
        (["--data.source", "folder"], "data.path is None; data.source folder needs --data.path"),
        (["--data.source", "tfds"], "data.name is None; data.source tfds needs --data.name"),
        (
            ["--data.source", "embedded", "--data.path", "x"],
            "'x'; it goes with --data.source folder, csv, npz or webdataset",
        ),
        (["--data.path", "x", "--data.name", "x"], "data.name is 'x'; it goes with --data.source tfds"),
        (["--data.columns", "{path: x}"], "data.columns is {'path': 'x'}; it goes with source csv"),
        (
            ["--data.path", "x.tsv", "--data.columns.file", "x"],
            "data.columns.file is 'x'; columns are path, label, split",
        ),
        (["--data.path", "x.pq", "--data.columns.label", " "], "data.columns.label is ' '; it must be the name of a"),
        (
            ["--data.path", "x.npz", "--data.group", "parent"],
            "data.group is 'parent'; it goes with source folder, csv or webdataset",
        ),
        (["--data.path", "x", "--data.group", "patient"], "data.group is 'patient', which has 0 groups in parentheses"),
        (["--data.path", "x", "--data.group", "(x"], "data.group is '(x'; it must be a regular expression, such as"),
        (["--data.image_size", "4"], "data.image_size is 4; it must be at least 8 pixels"),
        (["--data.source", "npz"], "data.path is None; data.source npz needs --data.path"),
        (["--data.seconds", "0"], "data.seconds is 0.0; it must be above 0"),
        (["--data.white", "0"], "data.white is 0.0; it must be above 0, and 4294967296 at the most"),
        (["--data.val_fraction", "1.5"], "data.val_fraction is 1.5; it must lie between 0 and 1"),
        (["--data.test_fraction", "0.9"], "data.val_fraction + data.test_fraction is 1.05; it must be below 1"),
        (["--data.val_fraction", "0.35", "--data.test_fraction", "0.7"], "data.test_fraction is 1.05; it must be"),
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
        (["--config", "no.yaml"], "--config: there is no file no.yaml"),
        (["--config", "."], "--config: . is a folder"),
        (["--config="], "--config needs a value: the path of a file"),
        (
            ["--epochs", "3"],
            "did you mean full.epochs (the second phase: the backbone is fine-tuned too) or head.epochs",
        ),
        (["--lr", "1e-3"], "did you mean full.learning_rate (the second phase"),
        (["--head.lr", "1e-3"], "unknown setting head.lr; did you mean head.learning_rate?"),
        (["--batch-size", "32"], "did you mean batch_size?"),
        (["--SEED", "3"], "did you mean seed?"),
        (["--full-epochs", "3"], "did you mean full.epochs?"),
        (["--freeze_epochs", "3"], "did you mean head.epochs?"),
        (["--unfreeze", "stage4"], "did you mean full.unfreeze_from?"),
        (["--weights", "imagenet"], "did you mean backbone.weights?"),
        (["--model", "MobileNet"], "did you mean backbone.name?"),
        (["--dataset", "photos"], "did you mean data.path?"),
        (["--img-size", "96"], "did you mean data.image_size?"),
        (["--crop-pct", "1"], "did you mean data.resize?"),
        (["--mixup", "0.2"], "did you mean augment.mixup?"),
        (["--processor", "cuda"], "unknown setting processor; --help all lists them"),
        (["--device", "cuda"], "unknown setting device; did you mean devices?"),
        (["-v"], "unknown setting -v; --help all lists them"),
        (["--print_config=all"], "--print_config is 'all'; it may be =skip_default or nothing"),
        (["--backbone", "MobileNetV2"], "--backbone is a group of settings; did you mean --backbone.name MobileNetV2?"),
        (["--data", "my photos"], "--data is a group of settings; did you mean --data.path 'my photos'?"),
        (["--data=photos.csv"], "did you mean --data.path photos.csv?"),
        (["--full", "1e-3"], "did you mean --full.learning_rate 1e-3?"),
        (["--augment", "none"], "did you mean --augment.policy none?"),
        (["--full", "{epochs: x}"], "--full.epochs: expected int or null, got 'x'"),
        (["--full.epochs.x", "1"], "unknown setting full.epochs.x; did you mean full.epochs?"),
        (["photos"], "'photos' has no name: settings are written --name value; did you mean --data.path photos?"),
        (["seed", "3"], "'seed' has no name: settings are written --name value; did you mean --seed VALUE?"),
        (["--seed"], "--seed needs a value: int"),
        (["--data.path", "--seed", "1"], "--data.path needs a value: text or null"),
        (["--seed", ""], "--seed: expected int, got ''"),
        (["--seed", "null"], "--seed: expected int, got 'null'"),
        (["--seed", "yes"], "--seed: expected int, got 'yes'"),
        (["--seed", "1e3"], "--seed: expected int, got '1e3'"),
        pytest.param(["--seed", "9" * 5000], "--seed: expected int, got '9", id="long"),
        (["--seed", "3\x1b[31m"], r"got '3\x1b[31m'"),
        (["--data.strict", "1"], "--data.strict: expected true or false, got '1'"),
        (["--head.learning_rate", ".inf"], "head.learning_rate is inf; it must be above 0, and finite"),
        (["--head.learning_rate", "nan"], "--head.learning_rate: expected float or auto, got 'nan'"),
        (["--full.unfreeze_from", "[stage4, 3]"], "--full.unfreeze_from: expected text, got 3; quote text that"),
        (["--full.learning_rates.stage4", "fast"], "--full.learning_rates.stage4: expected float, got 'fast'"),
        (["--full.learning_rates", "{a: 1, a: 2}"], "--full.learning_rates: a is given twice; give it once"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_is_one_line_and_status_2(argv: list[str], says: str, capsys: pytest.CaptureFixture):
    assert parse(config.Finetune, *argv) == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1


def test_a_model_without_a_name_is_taken_for_one(capsys: pytest.CaptureFixture):
    assert parse(config.Describe, "models:/trash@champion") == 2
    assert "did you mean --model models:/trash@champion?" in capsys.readouterr().err


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


BOMB = "a: &a [x, x]\n" + "".join(f"{name}: &{name} [*{of}, *{of}]\n" for of, name in itertools.pairwise("abcdefghi"))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("data:\n  sauce: folder\n", ", line 2: unknown setting data.sauce; did you mean data.source?"),
        ("data: [\n", ": it is not YAML"),
        ("!!python/object/apply:os.system ['echo hi']\n", ": !!python/object/apply:os.system is a tag of YAML"),
        (
            "full: &a {epochs: 3}\nhead: *a\n",
            ", line 1: &a is an anchor or alias of YAML; write out what it stands for",
        ),
        ("full: &a {epochs: *a}\n", ": &a is an anchor or alias of YAML"),
        (BOMB, ", line 1: &a is an anchor or alias of YAML"),
        ("full:\n  epochs: 3\n  epochs: 4\n", ", line 3: epochs is given twice; give it once"),
        ("full.epochs: 3\nfull: {epochs: 4}\n", ": full.epochs is given twice, nested and by its dotted name"),
        ("full:\n  <<: {epochs: 3}\n", ", line 2: unknown setting full.<<"),
        ("full: " + "[" * 100_000, ": it is nested more than 50 deep"),
        ("run_name: " + "a" * 2**20, " is larger than 1,048,576 bytes: it is not a file of settings"),
        ("seed: " + "9" * 5000, ": a number in it cannot be read"),
        ("data:\n\tpath: x\n", ", line 2: it begins with a tab; YAML is indented by blanks"),
        ("seed: 3\n---\nseed: 4\n", ", line 2: a second document begins; there may be one"),
        ("run_name: 'abc\n", ": it is not YAML: found unexpected end of stream"),
        ("", " is empty; it must have settings by their names, such as `seed: 1`"),
        ("# seed: 1\n", " is empty; it must have settings by their names"),
        ("- seed\n", " holds [seed]; it must have settings by their names"),
        ("[a]: 3\n", ": the name of a setting is a list or a mapping; it must be a word"),
        ("1: 3\n", ", line 1: unknown setting 1; --help all lists them"),
        ("seed: 1\nconfig: x\n", ", line 2: unknown setting config; --help all lists them"),
        ("seed: [1]\n", ", line 1: seed: expected int, got [1]"),
        ("seed: {a: 1}\n", ", line 1: seed: expected int, got {a: 1}"),
        ("full:\n  warmup:\n", ", line 2: full.warmup: expected float, got null"),
        ("head: 3\n", ", line 1: head: expected a group of settings, got 3; did you mean head.epochs?"),
        ("head:\n", ", line 1: head: expected a group of settings, got null; it has head.epochs, "),
        (
            "run_name: 12\n",
            ", line 1: run_name: expected text or null, got 12; quote text that reads like a number, yes or no",
        ),
        ("run_name: yes\n", ", line 1: run_name: expected text or null, got true; quote text that reads like"),
        ("data: {class_path: antigravity}\n", ", line 1: unknown setting data.class_path"),
        ('"\\e[31m": 3\n', r", line 1: unknown setting \x1b[31m"),
        (b"seed: 1\nrun_name: caf\xe9\n", ", line 2: byte 0xe9 is not UTF-8; save the file as UTF-8"),
        (bytes(range(128)), ": it is not YAML: "),
        ("seed: 3\n".encode("utf-16"), ", line 1: byte 0xff is not UTF-8"),
    ],
)
def test_a_wrong_file_is_one_line_and_status_2(
    content: str | bytes, says: str, tmp_path: Path, capsys: pytest.CaptureFixture
):
    path = tmp_path / "run.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert parse(config.Finetune, "--config", str(path)) == 2
    err = capsys.readouterr().err
    assert f"{path}{says}" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("verb", VERBS)
def test_no_recipe_answers_in_the_words_of_its_parser(verb: str, tmp_path: Path, capsys: pytest.CaptureFixture):
    given = tmp_path / "group.yaml"
    given.write_text(
        "".join(f"{field.name}: [{{}}]\n" for field in dataclasses.fields(CONFIGS[verb])), encoding="utf-8"
    )
    wrong = [
        ["--epoch", "x"], ["--data", "photos"], ["--lr"], ["--seed", "x"], ["--seed", "[1"], ["--config", "-"], ["a b"],
        ["--backbone", "x"], ["--builder", "x"], ["--experiment"], ["-x"], ["--limit", "x"], ["--top", "{a: &b 1}"],
        ["--config", str(given)], ["--port", "1.5"], ["--store"], ["--help.x"], ["--units", "3"], ["--précis", "1"],
    ]  # fmt: skip
    for argv in wrong:
        assert parse(CONFIGS[verb], *argv) == 2, argv
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert not re.search(r"Parser key|[Nn]ot of type|<class|typing\.|Traceback|NestedArg|Group '|argument -", err)


def test_numbers_dates_and_booleans_of_a_file_are_what_they_look_like(tmp_path: Path):
    (tmp_path / "run.yaml").write_text(
        "run_name: 2024-01-01\ndata: {strict: yes}\nhead: {learning_rate: 1e-4}\nfull.epochs: '3'\nfull.warmup: 0\n"
        "full: {learning_rates: {stage4: 1, 3: .5}}\n",
        encoding="utf-8-sig",
    )
    made = parse(config.Finetune, "--config", str(tmp_path / "run.yaml"))
    assert (made.run_name, made.data.strict, made.head.learning_rate) == ("2024-01-01", True, 1e-4)
    assert (made.full.epochs, made.full.warmup, made.full.learning_rates) == (3, 0.0, {"stage4": 1.0, "3": 0.5})


def test_what_comes_later_counts_and_a_flag_that_comes_twice_is_named(tmp_path: Path, capsys: pytest.CaptureFixture):
    for name, epochs in (("one", 1), ("two", 2)):
        text = f"full: {{epochs: {epochs}, learning_rates: {{stage{epochs}: 1}}}}\n"
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
    one, two = ("--config", str(tmp_path / "one.yaml")), ("--config", str(tmp_path / "two.yaml"))
    assert parse(config.Finetune, *one, *two, "--full", "{patience: 3}").full == config.Full(
        epochs=2, patience=3, learning_rates={"stage1": 1.0, "stage2": 1.0}
    )
    assert parse(config.Finetune, "--full.epochs", "9", *one).full.epochs == 1
    assert parse(config.Finetune, *one, "--full.learning_rates", "null").full.learning_rates is None
    assert capsys.readouterr() == ("", "")
    assert parse(config.Finetune, "--data.path", "a", "--data.path", "b").data.path == "b"
    assert "--data.path is given twice; the last, 'b', counts\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("[MobileNet, {nam: VGG16}]", "unknown setting backbones.nam; did you mean name?"),
        ("[{name: VGG16, alpha: x}]", "--backbones.alpha: expected float or null, got 'x'"),
        ("[3]", "--backbones: expected text or a mapping, got 3"),
        ("MobileNet", "--backbones: expected a list such as [NAME, NAME], got 'MobileNet'"),
        ("[MobileNet", "--backbones: it is not YAML"),
    ],
)
def test_a_wrong_list_of_backbones_is_refused(given: str, says: str, capsys: pytest.CaptureFixture):
    assert parse(config.Select, "--backbones", given) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("verb", VERBS)
def test_what_print_config_shows_makes_an_equal_config(verb: str, tmp_path: Path, capsys: pytest.CaptureFixture):
    needed = {
        "predict": ["--model", "m", "--photos", "[a]"],
        "serve": ["--model", "m"],
        "train_graph": ["--data.path", "a"],
        "tune": ["--space.seed", "{choice: ['1', 1e-3]}"],
        "select": ["--backbones", "[VGG16, {name: MobileNet, alpha: 0.5}]"],
    }.get(verb, [])
    named = [field.name for field in dataclasses.fields(CONFIGS[verb]) if field.name == "run_name"]
    for name in ["12e3", "1e3", "yes", "~", "2024-01-01", "a: b", "&a", "é", "12"] if named else [None]:
        argv = [*needed, "--run_name", name] if name else needed
        for option in ("--print_config", "--print_config=skip_default"):
            assert cli.call(CONFIGS[verb], lambda made: None, [*argv, option]) == 0
            (tmp_path / "run.yaml").write_text(capsys.readouterr().out, encoding="utf-8")
            written = (tmp_path / "run.yaml").read_text(encoding="utf-8")
            given = ["--config", str(tmp_path / "run.yaml")] if written != "{}\n" else []
            assert parse(CONFIGS[verb], *given) == parse(CONFIGS[verb], *argv)


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
@pytest.mark.parametrize("width", [80, 100])
def test_help_shows_what_people_use_first_and_all_that_there_is(
    verb: str, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    module = importlib.import_module(f"tlkit.recipes.{verb}")
    places = {
        "cache": ("action",),
        "compare": ("runs",),
        "evaluate": ("models",),
        "predict": ("model", "photos"),
        "serve": ("model",),
    }
    places["sync"] = ("folder",)
    positional = places.get(verb, ())
    monkeypatch.setenv("COLUMNS", str(width))

    def shown(*argv: str) -> tuple[str, list[str]]:
        with pytest.raises(SystemExit) as ended:
            cli.call(CONFIGS[verb], module.run, argv, positional)
        assert ended.value.code == 0
        text = capsys.readouterr().out
        lines = [line for line in text.splitlines() if not line.startswith(("usage: ", "example: "))]
        assert max(map(len, lines)) <= width
        names = re.findall(r"^  (?:--([\w.]+)|([A-Z]+))(?:  |$)", text, re.MULTILINE)
        return text, [name or place.lower() for name, place in names]

    short, first = shown("--help")
    assert short.splitlines()[0] in " ".join(module.__doc__.split())
    assert f"\nusage: python -m tlkit.recipes.{verb} " in short
    assert f"\nexample: python -m tlkit.recipes.{verb}" in short
    assert len(first) <= 14
    every = config_leaves(CONFIGS[verb])
    for argv in (["--help", "all"], ["--seed", "1", "--help=all"]):
        _, names = shown(*argv)
        assert sorted(names) == sorted([*every, "config", "print_config"])
    if len(first) < len(names):
        assert short.endswith(f"\nAll {len(every)} settings: python -m tlkit.recipes.{verb} --help all\n")
        assert "data.path" in first


def config_leaves(config_class: type, prefix: str = "") -> list[str]:
    """Dotted names of all settings that a config has."""
    kinds, names = typing.get_type_hints(config_class), []
    for field in dataclasses.fields(config_class):
        group = dataclasses.is_dataclass(kinds[field.name])
        name = f"{prefix}{field.name}"
        names += config_leaves(kinds[field.name], f"{name}.") if group else [name]
    return names


def test_the_settings_that_people_use_first_exist():
    every = {name for made in CONFIGS.values() for name in config_leaves(made)}
    assert set(cli.FIRST) <= every


COMMANDS = [["tlkit"], ["tlkit", "finetune", "--help"], *([f"tlkit.recipes.{verb}", "--help"] for verb in VERBS)]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_answers_at_once(words: list[str]):
    command = [sys.executable, "-m", *words]
    seconds = []
    for _ in range(2):  # the processor's time, not the clock's: the machine may be busy
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        if seconds[-1] < 0.6:
            break
    assert f"usage: python -m {' '.join(words).removesuffix(' --help')}" in done.stdout
    assert min(seconds) < 0.6


@pytest.mark.parametrize(
    "module", ["tlkit", "tlkit.__main__", "tlkit.config", *(f"tlkit.recipes.{verb}" for verb in VERBS)]
)
def test_importing_loads_no_framework(module: str):
    heavy = "{'keras', 'tensorflow', 'jax', 'torch', 'mlflow', 'sklearn', 'matplotlib', 'numpy'}"
    code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_long_message_keeps_its_beginning_and_its_advice(capsys: pytest.CaptureFixture):
    def run(made):
        raise InvalidInput(f"the name is {'x' * 10_000}: give a shorter one")

    assert cli.call(config.Finetune, run, []) == 2
    err = capsys.readouterr().err
    assert len(err) < 1100
    assert "error: the name is xxx" in err
    assert err.endswith("xxx: give a shorter one\n")
