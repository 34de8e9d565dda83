"""`describe`: its numbers are the published ones, its pictures show something, and it refuses in one line."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from tlkit import anatomy, arithmetic, backbones, builders, cli, config, plots
from tlkit.backbones import weightfiles
from tlkit.errors import InvalidInput
from tlkit.plots import networks
from tlkit.recipes import _layer_table, describe

PICTURES = {"filters.png", "feature_maps.png", "receptive_field.png"}


def run(*argv: str) -> int:
    return cli.call(config.Describe, describe.run, argv)


def number(text: str, what: str) -> int:
    return int(re.search(rf"^ *{what} +([\d,]+)", text, re.MULTILINE)[1].replace(",", ""))


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize(
    ("name", "parameters", "multiply_adds"),
    [
        ("vgg16", 138_357_544, 15.47e9),  # Simonyan and Zisserman 2014, table 2; 15.47 G as torchvision counts
        ("resnet50", 25_557_032, 4.09e9),  # torchvision: 4.09 G with the stride in the 3 x 3 convolution
        ("efficientnet_b0", 5_288_548, 0.39e9),  # Tan and Le 2019, table 2
        ("vit_b_16", 86_567_656, 17.6e9),  # Dosovitskiy et al. 2020; torchvision: 17.56 G
    ],
)
def test_known_networks_at_80_columns(name: str, parameters: int, multiply_adds: float, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert run("--builder.name", name) == 0
    out = capsys.readouterr().out
    assert number(out, "trainable") == parameters
    assert number(out, "multiply-adds") == pytest.approx(multiply_adds, rel=0.015)
    assert number(out, "parameters") == number(out, "trainable") + number(out, "not trainable")
    assert "150,528,000  weights as first layer, 224 × 224 × 3 → 1000" in out
    table, _, _ = out.partition("\nNext:")
    assert max(map(len, table.splitlines())) <= 80
    assert {"stem", "stage1", "stage2", "top"} <= {line.split(" ")[0] for line in table.splitlines()}


def parameters(lines: list[str], header: str) -> list[int]:
    """What stands in the column of the parameters."""
    end = header.index("parameters") + len("parameters")
    cells = [line[end - 10 : end].strip(" ─").replace(",", "") for line in lines]
    return [int(cell) for cell in cells if cell]


def test_headings_and_layers_both_sum_up_to_the_whole():
    model = builders.build("resnet_mini")
    ends = {stage.layer: stage.name for stage in anatomy.stages(model)}
    header, *lines = _layer_table.table(arithmetic.describe(model), ends, 120)
    headings, layers = ([line for line in lines if line.startswith("  ") == inside] for inside in (False, True))
    assert [line.split()[0] for line in headings] == ["stem", "stage1", "stage2", "stage3", "top"]
    assert sum(parameters(headings, header)) == sum(parameters(layers, header)) == model.count_params()


def test_long_names_keep_their_ends():
    row = arithmetic.Row(f"{'a' * 90}_end", "Conv2D", (8, 8, 3), 1234, 5678, (3, 3), (1, 1))
    _, line = _layer_table.table([row], {}, 80)
    assert re.fullmatch(r"  …a+_end +Conv +8×8×3 +1,234 +5\.68 K +3 +1", line)
    assert len(line) == 80


def test_a_field_is_all_only_where_something_looks_at_all_of_it():
    model = builders.build("vit_mini")
    _, *lines = _layer_table.table(arithmetic.describe(model), {}, 120)
    by_name = {line.split()[0]: line for line in lines}
    assert not by_name["stem_positions"].endswith("all")  # what is seen there is not known, and it is not all
    assert by_name["stage1_block1_attention"].endswith("all")


@pytest.mark.parametrize("name", [pytest.param("", marks=pytest.mark.slow), "MobileNet", "cnn", "lenet5"])
def test_nothing_is_downloaded_unless_asked_for(name: str, capsys, monkeypatch):
    monkeypatch.setattr(weightfiles, "fetch", lambda *_: pytest.fail("a download"))
    assert run(*(["--builder.name", name] if name else [])) == 0
    out = capsys.readouterr().out
    assert ("pretrained weights" if name == "" else "random weights") in out.splitlines()[0]
    assert f"{'finetune --backbone' if name in ('', 'MobileNet') else 'train --builder'}.name {name}" in out


def test_pretrained_weights_are_fetched_when_asked_for(monkeypatch):
    asked = []
    monkeypatch.setattr(weightfiles, "fetch", lambda name, _: asked.append(name) or "a file")
    monkeypatch.setattr(weightfiles, "load_published", lambda *_: None)
    assert run("--builder.name", "MobileNet", "--builder.weights", "pretrained") == 0
    assert asked == ["MobileNet"]


@pytest.mark.slow
def test_cnn_is_what_train_builds(capsys):
    assert run("--builder.name", "cnn", "--builder.input_shape", "[32,32,3]", "--builder.classes", "7") == 0
    expected = builders.cnn((32, 32, 3), classes=7, padding="same", **config.CNN).count_params()
    assert number(capsys.readouterr().out, "parameters") == expected


@pytest.mark.thorough
@pytest.mark.parametrize(
    "argv",
    [
        [],
        pytest.param(["--builder.name", "vit_mini"], marks=pytest.mark.slow),
        ["--builder.name", "resnet_mini", "--builder.input_shape", "[64,2]"],
        pytest.param(
            ["--builder.name", "resnet_mini", "--builder.input_shape", "[16,16,16,1]"], marks=pytest.mark.slow
        ),
        pytest.param(["--builder.name", "LetterNet", "--builder.classes", "3"], marks=pytest.mark.slow),
    ],
    ids=lambda argv: " ".join(argv[1::2]) or "letternet",
)
def test_pictures_are_written_and_show_something(argv: list[str], tmp_path: Path, capsys):
    folder = tmp_path / "new" / "pictures"
    assert run(*argv, "--pictures", str(folder)) == 0
    assert {path.name for path in folder.iterdir()} == PICTURES
    for path in folder.iterdir():
        pixels = np.asarray(Image.open(path).convert("RGB"))
        assert pixels.std() > 10
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 30
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert run(*argv, "--pictures", str(folder)) == 2
    assert "filters.png exists, and nothing is overwritten; give another folder" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.thorough
def test_a_photo_changes_the_feature_maps_alone(tmp_path: Path):
    photo = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)).save(photo)
    assert run("--pictures", str(tmp_path / "a")) == run("--pictures", str(tmp_path / "b"), "--photo", str(photo)) == 0
    same = {name: (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in PICTURES}
    assert same == {"filters.png": True, "feature_maps.png": False, "receptive_field.png": True}


@pytest.mark.thorough
@pytest.mark.usefixtures("undrawn")
def test_a_model_file_is_described_with_its_own_stages(tmp_path: Path, capsys):
    path = tmp_path / "own.keras"
    backbones.classifier(backbones.build("LetterNet"), classes=3).save(path)
    assert run("--model", str(path), "--pictures", str(tmp_path / "pictures")) == 0
    out = capsys.readouterr().out
    assert out.startswith("own.keras: 32 × 32 × 1 → 3, ")
    assert re.search(r"^stage3 ─+ 4×4×128 ", out, re.MULTILINE)
    assert f"tlkit.recipes.predict {shlex.quote(str(path))} " in out


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--builder.name", "alexnett"], "builder.name is 'alexnett'; did you mean alexnet?"),
        (["--builder.input_shape", "[3]"], "builder.input_shape is [3]; it must be one to three lengths and the"),
        (["--builder.input_shape", "[0,1]"], "builder.input_shape is [0, 1]; it must be one to three lengths and the"),
        (["--builder.classes", "0"], "builder.classes is 0; it must be 1 or more"),
        (["--builder.name", "vgg16", "--builder.weights", "pretrained"], "--builder.name VGG16 has them"),
        (["--builder.name", "lenet5", "--builder.weights", "imagenet"], "lenet5 takes none or a file: train it"),
        (["--builder.name", "lenet5", "--builder.weights", "no.h5"], "weights is 'no.h5': no such file"),
        (["--builder.name", "lenet5", "--model", "x.keras"], "model is 'x.keras'; it takes the place of --builder"),
        (["--model", "x.keras"], "there is no model 'x.keras'; give a .keras file or an MLflow URI"),
        (["--photo", "x.png"], "photo is 'x.png'; it goes with --pictures"),
        (["--pictures", "new", "--photo", "x.png"], "there is no photo 'x.png'; give the path of an image file"),
        (["--pictures", "text.txt"], "pictures is 'text.txt', which is a file; give a folder"),
        (["--pictures", "new", "--photo", "text.txt"], "text.txt: not a JPEG, PNG, GIF, BMP, WebP or TIFF image"),
        (
            ["--builder.name", "vgg_mini", "--builder.input_shape", "[64,1]", "--pictures", "new", "--photo", "a.png"],
            "photo is 'a.png'; the network takes 64 × 1, which is no photo",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_errors_are_one_line_and_leave_no_folder(argv: list[str], says: str, tmp_path: Path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("no picture", encoding="utf-8")
    Image.new("L", (8, 8)).save("a.png")
    assert run(*argv) == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1
    assert not Path("new").exists()


def test_a_photo_that_cannot_be_read_gets_no_advice_that_describe_does_not_take(tmp_path: Path, capsys):
    Image.fromarray(np.full((40, 40), 0.5, np.float32)).save(tmp_path / "deep.tif")
    argv = ["--builder.name", "LetterNet", "--pictures", str(tmp_path / "p"), "--photo", str(tmp_path / "deep.tif")]
    assert cli.call(config.Describe, describe.run, argv) == 2
    said = capsys.readouterr().err
    assert "which value is white" in said
    assert "convert it to 8 or 16 bits" in said
    assert "data.white" not in said


def test_pictures_need_a_fixed_size(tmp_path: Path, capsys):
    x = keras.Input((None, None, 3))
    keras.Model(x, keras.layers.Conv2D(4, 3)(x)).save(tmp_path / "any.keras")
    assert run("--model", str(tmp_path / "any.keras")) == 0
    assert "? × ? × 3" in capsys.readouterr().out
    assert run("--model", str(tmp_path / "any.keras"), "--pictures", str(tmp_path / "new")) == 2
    assert "takes ? × ? × 3; pictures need one input of a fixed size" in capsys.readouterr().err


def test_a_model_of_several_inputs_has_a_table_alone(tmp_path: Path, capsys):
    builders.gcn((None, 4), classes=3).save(tmp_path / "graph.keras")
    assert run("--model", str(tmp_path / "graph.keras")) == 0
    assert capsys.readouterr().out.startswith("graph.keras: ? × 4 and ? × 2 → ? × 3, ")
    assert run("--model", str(tmp_path / "graph.keras"), "--pictures", str(tmp_path / "new")) == 2
    assert "pictures need one input of a fixed size" in capsys.readouterr().err


# Anatomy --------------------------------------------------------------------------------------------------------------


def test_the_gradient_of_one_convolution_is_its_kernel():
    x = keras.Input((9, 7, 2))
    layer = keras.layers.Conv2D(4, 3, padding="same", name="stem", kernel_initializer="random_normal")
    model = keras.Model(x, layer(x))
    noise = np.random.default_rng(0).normal(size=(2, 9, 7, 2)).astype(np.float32)
    field = anatomy.effective_fields(model, anatomy.stages(model), noise)["stem"]
    expected = np.zeros((9, 7))
    kernel = keras.ops.convert_to_numpy(layer.kernel)
    expected[3:6, 2:5] = np.abs(kernel.sum(axis=3)).sum(axis=2)  # the center is cell (4, 3)
    np.testing.assert_allclose(field, expected, rtol=1e-5)


@pytest.mark.parametrize(("name", "shape"), [("LetterNet", (64, 64, 1)), ("resnet_mini", (96, 96, 3))])
def test_no_gradient_lies_outside_the_theoretical_field(name: str, shape: tuple):
    model = backbones.build(name, shape) if name == "LetterNet" else builders.build(name, shape)
    stages = anatomy.stages(model)
    fields = anatomy.effective_fields(model, stages, np.random.default_rng(0).uniform(-1, 1, (2, *shape)))
    for stage in stages:
        for axis in (0, 1):
            seen = np.flatnonzero(fields[stage.name].any(axis=axis))
            assert seen[-1] + 1 - seen[0] <= stage.field[axis]
        assert anatomy.effective_size(fields[stage.name]) <= max(stage.field)


@pytest.mark.parametrize("shape", [(32, 3), (32, 32, 3), (16, 16, 16, 1)], ids=len)
def test_tokens_lie_where_their_patches_do(shape: tuple):
    model = builders.build("vit_mini", shape)
    stem = anatomy.stages(model)[0]
    assert stem.grid == tuple(size // 8 for size in shape[:-1])
    x = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    tokens = keras.ops.convert_to_numpy(keras.Model(model.input, model.get_layer("stem").output)(x[None]))[0]
    maps = anatomy.feature_maps(model, [stem], x)["stem"]
    np.testing.assert_allclose(maps.reshape(-1, 16), tokens[1:], rtol=1e-5)  # the class token comes first
    field = anatomy.effective_fields(model, [stem], x[None])["stem"]
    patch = tuple(slice(size // 2 * 8, size // 2 * 8 + 8) for size in stem.grid)
    assert field[patch].all()
    assert np.count_nonzero(field) == field[patch].size


def test_a_classifier_shows_what_its_backbone_does():
    backbone = backbones.build("LetterNet", (16, 16, 1))
    model = backbones.classifier(backbone, classes=2)
    x = np.random.default_rng(0).uniform(0, 255, (16, 16, 1)).astype(np.float32)
    inside, alone = (anatomy.feature_maps(each, anatomy.stages(each), x) for each in (model, backbone))
    assert list(inside) == ["stem", "stage1", "stage2", "stage3"]
    for stage, values in inside.items():
        np.testing.assert_array_equal(values, alone[stage])
    assert next(stage.layer for stage in anatomy.stages(model)) == "backbone/stem"


def test_without_named_stages_each_size_of_map_is_one():
    x = y = keras.Input((8, 8, 1))
    for number in range(4):
        y = keras.layers.Conv2D(4, 3, strides=1 + number % 2, padding="same", name=f"c{number}")(y)
    y = keras.layers.ZeroPadding2D(1)(y)
    found = anatomy.stages(keras.Model(x, y))
    assert [(stage.name, stage.layer) for stage in found] == [("8 × 8", "c0"), ("4 × 4", "c2"), ("2 × 2", "c3")]


@pytest.mark.parametrize("turned", [False, True])
def test_the_first_kernel_is_red_green_blue(turned: bool):
    x = keras.Input((8, 8, 3))
    layer = keras.layers.Conv2D(2, 3)
    model = keras.Model(x, layer(keras.ops.flip(x, axis=-1) if turned else x))
    kernel = keras.ops.convert_to_numpy(layer.kernel)
    np.testing.assert_array_equal(anatomy.first_kernel(model), kernel[:, :, ::-1] if turned else kernel)
    dense = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(2)])
    assert anatomy.first_kernel(dense) is None


def test_a_backend_without_gradients_is_refused(monkeypatch):
    model = builders.build("resnet_mini")
    monkeypatch.setattr(keras.backend, "backend", lambda: "openvino")
    with pytest.raises(InvalidInput, match="KERAS_BACKEND is openvino, which computes no gradients; use tensorflow"):
        anatomy.effective_fields(model, anatomy.stages(model)[:1], np.zeros((1, 32, 32, 3), np.float32))


# Figures --------------------------------------------------------------------------------------------------------------


def frame(seen: slice, field: int, size: int = 20) -> list[tuple[int, int]] | None:
    cells = np.zeros(size, bool)
    cells[seen] = True
    return networks._frame(cells, [field])


@pytest.mark.parametrize(
    ("seen", "field", "expected"),
    [
        (slice(5, 12), 7, [(5, 12)]),
        (slice(6, 11), 7, [(5, 12)]),  # the rim was too faint
        (slice(0, 4), 9, [(-5, 4)]),  # cut by the border
        (slice(15, 20), 9, [(15, 24)]),
        (slice(0, 20), 33, None),  # more than the input
    ],
)
def test_a_frame_lies_where_the_gradient_does(seen: slice, field: int, expected: list | None):
    assert frame(seen, field) == expected


def test_the_most_active_channels_come_first():
    values = np.zeros((4, 4, 12), np.float32)
    values[..., 7], values[..., 3] = 2, 1
    figure = plots.feature_maps(np.zeros((8, 8, 1)), {"stem": values}, "title", most=3)
    assert [axes.get_title() for axes in figure.axes[1:]] == ["channel 7", "channel 3", "channel 0"]
    assert figure.axes[1].get_ylabel() == "stem\n4 × 4 × 12"


def test_filters_are_scaled_around_gray():
    kernel = np.zeros((3, 3, 3, 2), np.float32)
    kernel[0, 0, 0, 0], kernel[1, 1, 2, 0] = 4, -4
    figure = plots.filters(kernel, "title")
    first, second = (image.get_array() for image in figure.axes[0].images)
    assert first[0, 0].tolist() == [1, 0.5, 0.5]
    assert first[1, 1].tolist() == [0.5, 0.5, 0]
    assert (second == 0.5).all()
    assert figure.axes[0].get_xlabel() == "2 filters of 3 × 3 × 3; mid-gray is 0"


def test_receptive_fields_say_what_they_show():
    weights = np.zeros((8, 8))
    weights[2:5, 2:5] = 1
    figure = plots.receptive_fields(
        {"stem": weights, "all": weights}, {"stem": (3, 3), "all": None}, {"stem": 3, "all": 3}
    )
    stem, whole = figure.axes[:2]
    assert (stem.get_title(), whole.get_title()) == ("stem\nfield 3, effective 3", "all\nfield all, effective 3")
    (square,) = stem.patches
    assert (*square.get_xy(), square.get_width(), square.get_height()) == (1.5, 1.5, 3, 3)
    assert not whole.patches
