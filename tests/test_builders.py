"""Builders: every variant has its published parameters, builds at any rank, trains, freezes, is saved and loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import draw_zeros

from tlkit import arithmetic, backbones, builders
from tlkit.backbones import weightfiles
from tlkit.builders import build, cnn, gcn, pretrained
from tlkit.builders.landmarks import FAMILIES, VARIANTS
from tlkit.errors import InvalidInput, Unavailable

MINI = sorted(name for name in VARIANTS if name.endswith("_mini"))
SAME = sorted(name for name, row in VARIANTS.items() if getattr(row, "application", None))
EAGER = keras.backend.backend() != "jax"  # one step: compiling takes longer than the step, but JAX compiles each part
SLOW, THOROUGH = pytest.mark.slow, pytest.mark.thorough
# Each kind of layer in one family, as the rank is that of the layers they share.
LEARN = {("alexnet_mini", 3), ("convnext_mini", 1), ("convnext_mini", 3), ("googlenet_mini", 1), ("googlenet_mini", 3)}
LEARN |= {("resnet_mini", 3), ("vit_mini", 1), ("vit_mini", 3)}
LEARN |= {(name, 2) for name in ("efficientnet_mini", "lenet_mini", "resnet_bottleneck_mini", "vgg_mini")}
QUICK = {("vgg16", True), ("resnet50_v1", True)}
SECONDS = {("efficientnet_b0", True), ("convnext_tiny", False)}


def trainable(model: keras.Model) -> int:
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def shape_of(name: str, rank: int) -> tuple[int, ...]:
    row = VARIANTS[name]
    return (*[row.size] * rank, row.channels)


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=THOROUGH if row.parameters > 3e7 else []) for name, row in VARIANTS.items()]
)
def test_parameters_are_the_published_ones(name: str):
    model = build(name)
    assert trainable(model) == VARIANTS[name].parameters
    assert model.output_shape == (None, VARIANTS[name].classes)
    assert model.name == name


def test_every_family_has_a_mini_variant():
    assert len(FAMILIES) == 8
    for family in FAMILIES:
        assert set(family.variants) & set(MINI)


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize(
    ("name", "rank"),
    [
        pytest.param(name, rank, marks=[] if (name, rank) in LEARN else THOROUGH if rank == 2 else SLOW)
        for name in MINI
        for rank in (1, 2, 3)
    ],
)
def test_a_step_forward_and_backward_is_finite_at_any_rank(name: str, rank: int):
    keras.utils.set_random_seed(0)
    without = {field: 0.0 for field in ("dropout", "drop_path") if field in VARIANTS[name]._fields}
    model = build(name, shape_of(name, rank), classes=3, **without)
    x = np.random.default_rng(0).normal(size=(2, *shape_of(name, rank))).astype("float32")
    before = [np.array(weight) for weight in model.trainable_weights]
    model.compile(keras.optimizers.Adam(1e-3, epsilon=1e-12), "sparse_categorical_crossentropy", run_eagerly=EAGER)
    assert np.isfinite(model.train_on_batch(x, np.array([0, 2])))
    after = [np.array(weight) for weight in model.trainable_weights]
    assert all(np.isfinite(weight).all() for weight in after)
    same = [
        weight.path
        for weight, old, new in zip(model.trainable_weights, before, after, strict=True)
        if np.array_equal(old, new) and "/bias" not in weight.path  # the attention's key bias has no gradient
    ]
    assert len(same) <= len(before) / 20  # all units of a narrow branch may be dead
    probabilities = keras.ops.convert_to_numpy(model(x))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("xla", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", MINI)
def test_mixed_bfloat16_is_finite_and_the_head_is_float32(name: str, xla: bool):
    if xla and keras.backend.backend() == "torch":
        pytest.skip("PyTorch compiles by other means than XLA")
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = build(name)
    finally:
        keras.config.set_dtype_policy("float32")
    x = np.random.default_rng(0).normal(size=(2, *model.input_shape[1:])).astype("float32")
    model.compile(
        keras.optimizers.SGD(0.01),
        "sparse_categorical_crossentropy",
        jit_compile=xla or not EAGER,
        run_eagerly=EAGER and not xla,
    )
    assert np.isfinite(model.train_on_batch(x, np.array([0, 2])))
    assert keras.backend.standardize_dtype(model(x).dtype) == "float32"
    assert {layer.compute_dtype for layer in model.layers} == {"bfloat16", "float32"}


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize("name", MINI)
def test_layer_names_are_the_same_everywhere(name: str):
    model = build(name)
    names = [layer.name for layer in model.layers]
    stages = [n for n in names if n in ("stem", "head", "probabilities") or n.removeprefix("stage").isdigit()]
    count = len(stages) - 3
    assert count >= 1
    assert stages == ["stem", *(f"stage{i}" for i in range(1, count + 1)), "head", "probabilities"]
    assert len(set(names)) == len(names)


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize("name", MINI)
def test_stages_freeze_by_name(name: str):
    model = build(name)
    everything = {weight.path for weight in model.trainable_weights}
    backbones.freeze(model)
    assert {weight.path for weight in model.trainable_weights} == {"head/kernel", "head/bias"}
    backbones.unfreeze(model, from_stage="stage1")
    left = {weight.path for weight in model.trainable_weights}
    assert any(path.startswith("stage1") for path in left)
    assert not any(path.startswith("stem") for path in left)
    assert left < everything
    with pytest.raises(InvalidInput, match=r"stage 'stage9' is unknown: .* has stem, stage1"):
        backbones.unfreeze(model, from_stage="stage9")


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("name", MINI)
def test_without_top_a_network_gives_a_map_and_takes_a_new_head(name: str, rank: int):
    shape = shape_of(name, rank)
    network = build(name, shape, include_top=False)
    assert len(network.output_shape) == rank + 2
    pooled = {kind: build(name, shape, include_top=False, pooling=kind) for kind in ("avg", "max")}
    assert pooled["avg"].output_shape == pooled["max"].output_shape == (None, network.output_shape[-1])
    model = backbones.classifier(network, 5)
    assert model.output_shape == (None, 5)
    backbones.unfreeze(model, from_stage="stage1")
    assert not any("stem" in weight.path for weight in model.trainable_weights)


@pytest.mark.parametrize("name", MINI)
def test_what_a_class_scores_depends_on_the_last_stage_by_name(name: str):
    """What Grad-CAM needs: from the end of the last stage, the rest of the network is a model of its own."""
    model = build(name)
    last = [layer.name for layer in model.layers if layer.name.removeprefix("stage").isdigit()][-1]
    x = np.random.default_rng(0).normal(size=(1, *model.input_shape[1:])).astype("float32")
    features = keras.ops.convert_to_numpy(keras.Model(model.input, model.get_layer(last).output)(x))
    rest = keras.Model(model.get_layer(last).output, model.get_layer("head").output)
    logits = keras.Model(model.input, model.get_layer("head").output)(x)
    np.testing.assert_allclose(*map(keras.ops.convert_to_numpy, (rest(features), logits)), atol=1e-5)
    changed = keras.ops.convert_to_numpy(
        rest(features + np.random.default_rng(1).normal(size=features.shape).astype("float32"))
    )
    assert np.abs(changed - keras.ops.convert_to_numpy(logits)).max() > 1e-6


@pytest.mark.thorough
@pytest.mark.parametrize("name", MINI)
def test_the_seed_decides_all_weights_and_no_two_layers_start_alike(name: str):
    keras.utils.set_random_seed(1)
    first = build(name)
    keras.utils.set_random_seed(1)
    again = build(name)
    other = build(name)
    drawn = [weight for weight in first.trainable_weights if len(weight.shape) > 1 and "bias" not in weight.path]
    kernels = {weight.path: np.array(weight) for weight in drawn}
    for weight in again.trainable_weights:
        if weight.path in kernels:
            np.testing.assert_array_equal(weight, kernels[weight.path])
    for weight in other.trainable_weights:
        if weight.path in kernels and weight.path != "stem_class_token/token":  # which starts at 0
            assert not np.array_equal(weight, kernels[weight.path]), weight.path
    numbers = [array.ravel()[:8].tobytes() for array in kernels.values() if array.any()]
    assert len(set(numbers)) == len(numbers)


@pytest.mark.slow
def test_saved_models_load_where_only_keras_and_tlkit_are_imported(tmp_path: Path):
    keras.utils.set_random_seed(0)
    models = [build(name) for name in MINI]
    models += [cnn((16, 1), norm=True, dense=(), classes=3), gcn((4, 3), classes=2)]
    for index, model in enumerate(models):
        inputs = [np.ones((1, *shape[1:]), "float32") for shape in _shapes(model)]
        inputs = inputs if len(inputs) > 1 else inputs[0]
        np.savez(tmp_path / f"{index}.npz", expected=keras.ops.convert_to_numpy(model(inputs)))
        model.save(tmp_path / f"{index}.keras")
    code = """
import tlkit  # before Keras, which it does not load
import keras
import sys, numpy as np
for index in range(COUNT):
    model = keras.saving.load_model(f"{index}.keras")
    inputs = [np.ones((1, *(5 if n is None else n for n in x.shape[1:])), "float32") for x in model.inputs]
    found = keras.ops.convert_to_numpy(model(inputs if len(inputs) > 1 else inputs[0]))
    np.testing.assert_allclose(found, np.load(f"{index}.npz")["expected"], atol=1e-5)
print("equal", "tlkit.builders" in sys.modules)
"""
    program = code.replace("COUNT", str(len(models)))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip().endswith("equal False")  # the builders are not needed, the layers are


def _shapes(model: keras.Model) -> list[tuple[int, ...]]:
    given = model.input_shape if isinstance(model.input_shape, list) else [model.input_shape]
    return [tuple(5 if n is None else n for n in shape) for shape in given]


def _randomized(model: keras.Model) -> keras.Model:
    """Biases, normalization and scales away from 0 and 1, so that none is forgotten unnoticed."""
    rng = np.random.default_rng(0)
    for weight in model.weights:
        name = weight.path.rsplit("/", 1)[-1]
        if name in ("bias", "beta", "moving_mean"):
            weight.assign(rng.normal(0, 0.1, weight.shape))
        elif name in ("gamma", "moving_variance") or "layer_scale" in weight.path:
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
    return model


@pytest.mark.parametrize(
    ("name", "include_top"),
    [
        pytest.param(name, top, marks=[] if (name, top) in QUICK else THOROUGH if (name, top) in SECONDS else SLOW)
        for name in SAME
        for top in (True, False)
    ],
)
def test_weights_of_keras_applications_give_its_outputs(name: str, include_top: bool, monkeypatch: pytest.MonkeyPatch):
    keras.utils.set_random_seed(0)
    shape = (64, 64, 3)
    top = {"include_top": True, "classes": 7, "classifier_activation": None}
    arguments = top if include_top else {"include_top": False, "pooling": "avg"}
    constructor = getattr(keras.applications, VARIANTS[name].application)
    without = {"include_preprocessing": False} if "convnext" in name else {}
    theirs = _randomized(constructor(weights=None, input_shape=shape, **arguments, **without))
    draw_zeros(monkeypatch)  # what is not copied stays 0, and is seen
    ours = build(name, shape, **arguments)
    pretrained.copy(theirs, ours)
    x = np.random.default_rng(1).normal(size=(2, *shape)).astype("float32")
    # EfficientNet's rescaling by 1 / 255 cannot be left out
    expected = keras.ops.convert_to_numpy(theirs(x * 255 if "efficientnet" in name else x))
    found = keras.ops.convert_to_numpy(ours(x))
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-4 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize(
    ("name", "mode"), [("vgg16", "caffe"), pytest.param("efficientnet_b0", "torch", marks=pytest.mark.slow)]
)
def test_published_weights_want_the_preprocessing_that_build_names(name: str, mode: str, tmp_path, monkeypatch):
    keras.utils.set_random_seed(0)
    application = VARIANTS[name].application
    path = tmp_path / "theirs.weights.h5"
    published = getattr(keras.applications, application)(weights=None, include_top=False)
    for layer in published.layers:
        if isinstance(layer, keras.layers.Normalization):  # what EfficientNet's file holds: tensorflow/tensorflow#49930
            layer.set_weights([np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225]), np.array(0)])
    published.save_weights(path)
    draw_zeros(monkeypatch)
    monkeypatch.setattr(weightfiles, "fetch", lambda *_: str(path))
    theirs = backbones.build(application, (64, 64, 3), weights=path)
    ours = build(name, (64, 64, 3), include_top=False, weights="imagenet")
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 64, 64, 3)).astype("float32")
    prepared = keras.applications.imagenet_utils.preprocess_input(pixels.copy(), mode=mode)
    expected, found = (keras.ops.convert_to_numpy(y) for y in (theirs(pixels), ours(prepared)))
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_published_weights_are_loaded_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    keras.utils.set_random_seed(0)
    theirs = keras.applications.VGG16(weights=None, include_top=False)
    theirs.save_weights(tmp_path / "theirs.weights.h5")
    asked = []

    def fetch(name, request):
        asked.append((name, request["fname"]))
        return str(tmp_path / "theirs.weights.h5")

    monkeypatch.setattr(weightfiles, "fetch", fetch)
    draw_zeros(monkeypatch)
    ours = build("vgg16", (64, 64, 3), include_top=False, weights="imagenet")
    assert asked == [("vgg16", "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5")]
    np.testing.assert_array_equal(ours.weights[-4], theirs.weights[-4])


@pytest.mark.usefixtures("no_weights")
def test_without_a_network_the_missing_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(weightfiles, "reachable", lambda _: False)
    with pytest.raises(Unavailable, match=r"vgg16 needs .*vgg16_weights_tf_dim_ordering_tf_kernels_notop\.h5"):
        build("vgg16", (32, 32, 3), include_top=False, weights="imagenet")


@pytest.mark.usefixtures("no_weights")
def test_other_networks_weights_are_refused():
    theirs = keras.applications.VGG16(weights=None, include_top=False)
    with pytest.raises(InvalidInput, match="vgg16 has 13 layers with weights, vgg13 has 10"):
        pretrained.copy(theirs, build("vgg13", (32, 32, 3), include_top=False))
    narrow = build("vgg16", (32, 32, 3), include_top=False, filters=(64, 128, 256, 512, 256))
    with pytest.raises(InvalidInput, match=r"block5_conv1 of vgg16 .* not the same network"):
        pretrained.copy(theirs, narrow)


def test_a_weights_file_brings_a_network_back(tmp_path: Path):
    keras.utils.set_random_seed(0)
    first = build("resnet_mini")
    first.save_weights(tmp_path / "own.weights.h5")
    second = build("resnet_mini", weights=tmp_path / "own.weights.h5")
    x = np.ones((1, 32, 32, 3), "float32")
    np.testing.assert_array_equal(first.predict(x, verbose=0), second.predict(x, verbose=0))
    with pytest.raises(InvalidInput, match="does not fit vgg_mini"):
        build("vgg_mini", weights=tmp_path / "own.weights.h5")
    with pytest.raises(InvalidInput, match="no such file"):
        build("vgg_mini", weights=tmp_path / "other.weights.h5")


def test_preprocessing_in_front_becomes_part_of_the_model():
    pixels = keras.Input((32, 32, 3), name="pixels")
    model = build("resnet_mini", input_tensor=keras.layers.Rescaling(1 / 255)(pixels))
    assert model.inputs[0] is pixels
    bare = build("resnet_mini")
    bare.set_weights(model.get_weights())
    x = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    np.testing.assert_allclose(*map(keras.ops.convert_to_numpy, (model(x), bare(x / 255))), atol=1e-5)


def test_preprocessing_that_is_a_model_is_not_taken_for_the_network():
    pixels = keras.Input((32, 32, 3))
    before = keras.Sequential([keras.layers.RandomFlip(), keras.layers.Rescaling(1 / 255)], name="before")
    model = build("resnet_mini", input_tensor=before(pixels))
    backbones.freeze(model)
    assert {weight.path for weight in model.trainable_weights} == {"head/kernel", "head/bias"}
    backbones.unfreeze(model, from_stage="stage2")
    assert not any(weight.path.startswith(("stem", "stage1")) for weight in model.trainable_weights)


@pytest.mark.parametrize("name", ["cnn", "gcn", "googlenet_mini"])
def test_other_networks_freeze_by_name_too(name: str):
    makers = {
        "cnn": lambda: cnn((16, 1), filters=(4,)),
        "gcn": lambda: gcn((None, 3), classes=2, units=(4, 4)),
        "googlenet_mini": lambda: build("googlenet_mini", auxiliary_heads=True),
    }
    model = makers[name]()
    backbones.freeze(model)
    assert {weight.path for weight in model.trainable_weights} == {"head/kernel", "head/bias"}


def test_googlenets_auxiliary_heads(no_weights):
    model = build("googlenet", auxiliary_heads=True)
    heads = [3_188_840, 3_190_888]  # 1 x 1 convolution, dense layer and head on 512 and 528 channels, counted by hand
    assert trainable(model) == 6_998_552 + sum(heads)
    assert [tuple(output.shape) for output in model.outputs] == [(None, 1000)] * 3


@pytest.mark.usefixtures("uncompiled")
def test_a_network_with_auxiliary_heads_learns():
    model = build("googlenet_mini", auxiliary_heads=True)
    losses = ["sparse_categorical_crossentropy"] * 3
    model.compile("sgd", losses, loss_weights=[1, 0.3, 0.3])
    y = np.array([0, 1])
    assert np.isfinite(model.train_on_batch(np.ones((2, 32, 32, 3), "float32"), [y, y, y])).all()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("resnet19",), "builder 'resnet19' is unknown: did you mean resnet"),
        (("vgg_mini", (32,)), r"input_shape is \(32,\): \(length, channels\)"),
        (("vgg_mini", 32), r"input_shape is 32: \(length, channels\)"),
        ((["vgg_mini"],), r"builder \['vgg_mini'\] is unknown"),
        (("vgg_mini", (2, 32, 32, 32, 3)), "input_shape is .*: .*channels"),
        (("vgg_mini", (32, 0, 3)), "input_shape is"),
        (
            ("alexnet_mini", (32, 32, 3)),
            r"alexnet_mini on \(32, 32, 3\) \(its own is 64 along every axis\) cannot be built: ",
        ),
        (("vgg_mini", (None, 32, 3)), r"vgg_mini on \(None, 32, 3\) .* cannot be built: "),
        (("vit_mini", (None, 32, 3)), "needs the length of every axis, a multiple of its patches' 8"),
        (("vit_mini", (4, 4, 3)), "a multiple of its patches' 8"),
    ],
    ids=str,
)
def test_what_cannot_be_built_is_one_line(arguments: tuple, says: str):
    with pytest.raises(InvalidInput, match=says) as raised:
        build(*arguments)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("keywords", "says"),
    [
        ({"classes": 0}, "classes is 0: a whole number from 1 on"),
        ({"classes": 2.5}, "classes is 2.5: a whole number from 1 on"),
        ({"dropout": 2}, r"vgg_mini on \(32, 32, 3\), dropout=2 .* cannot be built: .*rate"),
        ({"classifier_activation": "softmx"}, "cannot be built: .*softmx"),
        ({"filters": (4,)}, r"filters=\(4,\) .* cannot be built: "),
        ({"depths": 3}, "depths=3 .* cannot be built: "),
        ({"weights": 7}, "weights is '7': no such file"),
        ({"parameters": 3}, "parameters is no argument of vgg_mini"),
        ({"input_tensor": np.ones((1, 32, 32, 3))}, "input_tensor is a ndarray: keras.Input"),
        ({"classes": 1}, "classes is 1 with a softmax"),
        ({"pooling": "avg"}, "pooling is 'avg' with include_top=True"),
        ({"pooling": "mean", "include_top": False}, "pooling is 'mean': avg, max or None"),
        ({"weights": "imagenet"}, "keras.applications has no weights for vgg_mini"),
        ({"drop_path": 0.1}, "drop_path is no argument of vgg_mini: its row has depths"),
        ({"input_shape": (32, 32, 1), "input_tensor": keras.Input((32, 32, 3))}, "give one of the two"),
    ],
    ids=str,
)
def test_wrong_arguments_are_one_line(keywords: dict, says: str):
    with pytest.raises(InvalidInput, match=says):
        build("vgg_mini", **keywords)


@pytest.mark.parametrize(
    ("name", "keywords", "says"),
    [
        ("vit_mini", {"heads": 5}, "width 16 and heads 5: a depth of 4 or more"),
        ("vit_mini", {"depth": 3}, "depth is 3"),
        ("googlenet_mini", {"auxiliary_heads": True, "include_top": False}, "heads need a top"),
        ("resnet_mini", {"branch": "basic"}, "cannot be built"),
        ("convnext_mini", {"filters": (4,)}, "cannot be built"),
    ],
)
def test_wrong_values_of_a_row_are_one_line(name: str, keywords: dict, says: str):
    with pytest.raises(InvalidInput, match=says):
        build(name, **keywords)


@pytest.mark.parametrize(
    ("keywords", "says"),
    [
        ({"num_classes": 5}, "num_classes is no argument of resnet18: did you mean classes?"),
        ({"dropoutt": 5}, "dropoutt is no argument of resnet18: its row has"),
        ({"weights": "imagenet"}, "has no weights for resnet18, but for .*resnet50_v1.*; give one of them, none, or"),
    ],
)
def test_what_was_meant_is_named(keywords: dict, says: str):
    with pytest.raises(InvalidInput, match=says.replace("?", r"\?")):
        build("resnet18", **keywords)
    with pytest.raises(InvalidInput, match="no weights for resnet50, but for resnet50_v1; give one of them"):
        build("resnet50", weights="imagenet")


def test_none_may_be_a_word():
    assert (
        build("vgg_mini", (32, 32, 3), weights="none").count_params() == build("vgg_mini", (32, 32, 3)).count_params()
    )
    assert cnn((32, 32, 3), classes=2, weights="none").name == "cnn"


def test_numbers_of_numpy_are_numbers():
    shape = np.zeros((2, 32, 32, 3)).shape[1:]
    assert build("vgg_mini", np.array(shape), classes=np.int64(5)).output_shape == (None, 5)
    assert cnn((16, 1), filters=np.array([4, 8]), kernel_size=np.int64(3)).get_layer("stage1_conv1").filters == 8


@pytest.mark.parametrize(
    ("name", "multiply_adds"),  # millions; what the reference implementations need at 224 pixels
    [
        ("alexnet", 714),
        ("alexnet_grouped", 724),
        ("googlenet", 1583),
        ("resnet18", 1814),
        ("resnet50", 4089),
        ("vit_s_16", 4598),
    ],
)
def test_strides_and_windows_are_the_published_ones(name: str, multiply_adds: int, no_weights):
    """A wrong stride or window has the right parameters, but not the right arithmetic."""
    count = arithmetic.totals(arithmetic.describe(build(name))).multiply_adds
    assert count / 1e6 == pytest.approx(multiply_adds, rel=2e-3)


def test_a_row_can_be_changed():
    assert build("resnet_mini", filters=8).get_layer("stem_conv").filters == 8
    assert builders.VARIANTS["resnet_mini"].filters == 4


# The pattern and the graph network ------------------------------------------------------------------------------------


def test_the_pattern_has_exactly_the_known_parameters():
    model = cnn((28, 28, 1), filters=(32, 64), kernel_size=3, padding="valid", pool_size=2, dense=(128,), classes=10)
    assert model.count_params() == 225_034


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("dense", [(), (9, 5)])
def test_the_pattern_is_the_layer_list_it_says(rank: int, norm: bool, dense: tuple[int, ...]):
    shape = (*[30] * rank, 2)
    model = cnn(
        shape,
        classes=4,
        filters=(3, 5),
        kernel_size=(5, 3),
        convolutions=(1, 2),
        strides=2,
        padding="same",
        norm=norm,
        pool="average",
        pool_size=2,
        dense=dense,
        dropout=0.1,
    )
    block = [arithmetic.Norm()] if norm else []
    listed = [arithmetic.Conv(3, 5, 2, "same", use_bias=not norm), *block, arithmetic.Pool(2)]
    listed += [arithmetic.Conv(5, 3, 2, "same", use_bias=not norm), *block]
    listed += [arithmetic.Conv(5, 3, 1, "same", use_bias=not norm), *block, arithmetic.Pool(2)]
    listed += (
        [arithmetic.Flatten(), *(arithmetic.Dense(units) for units in dense)] if dense else [arithmetic.GlobalPool()]
    )
    rows = arithmetic.trace(shape, [*listed, arithmetic.Dense(4)])
    assert model.count_params() == arithmetic.totals(rows).parameters
    assert model.output_shape == (None, 4)
    pooled = [layer for layer in model.layers if layer.name.endswith("_pool")]
    assert all("Average" in type(layer).__name__ for layer in pooled)
    assert sum("Dropout" in type(layer).__name__ for layer in model.layers) == max(1, len(dense))


@pytest.mark.parametrize(
    ("keywords", "says"),
    [
        ({"filters": ()}, r"filters is \(\): a list of 1 or more"),
        ({"kernel_size": (3,)}, r"kernel_size is \(3,\): a number, or one for each of the 2 parts"),
        ({"convolutions": 0}, "convolutions is 0: a whole number from 1 on"),
        ({"strides": 0}, "strides is 0: a whole number from 1 on"),
        ({"pool": "min"}, "pool is 'min': max, average or None"),
        ({"padding": "full"}, "padding is 'full': valid or same"),
        ({"dropout": 2}, "cannot be built: .*rate"),
        ({"filters": 32}, "filters is 32: a list of 1 or more"),
        ({"dense": None}, "dense is None: a list"),
        ({"activation": "rellu"}, "cannot be built: .*rellu"),
        ({"dense": (0,)}, r"dense is \(0,\)"),
        ({"input_shape": (4, 4, 1)}, r"cnn on \(4, 4, 1\) with 2 parts cannot be built: "),
        ({"weights": "imagenet"}, "no such file"),
    ],
    ids=str,
)
def test_wrong_arguments_of_the_pattern_are_one_line(keywords: dict, says: str):
    with pytest.raises(InvalidInput, match=says):
        cnn(**keywords)


@pytest.mark.usefixtures("uncompiled")
def test_a_graph_network_learns_from_edges_alone():
    """Two cliques, one labeled node each: the features say nothing, the edges all."""
    keras.utils.set_random_seed(0)
    nodes = 12
    edges = [(i, j) for i in range(nodes) for j in range(i) if (i < 6) == (j < 6)]
    features, labels = np.eye(nodes, dtype="float32"), np.arange(nodes) // 6
    model = gcn((nodes, nodes), classes=2, dropout=0.0)
    inputs = [features[None], np.array(edges, "int32")[None]]
    model.compile(keras.optimizers.Adam(0.05), "sparse_categorical_crossentropy")
    known = np.isin(np.arange(nodes), [0, 6]).astype("float32")[None]
    model.fit(inputs, labels[None], sample_weight=known, epochs=10, verbose=0)
    assert (model.predict(inputs, verbose=0)[0].argmax(axis=1) == labels).all()


@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_a_graph_network_can_answer_for_the_whole_graph(pooling: str):
    model = gcn((6, 4), classes=3, units=(8, 8), pooling=pooling)
    answer = model.predict([np.ones((2, 6, 4), "float32"), np.zeros((2, 5, 2), "int32")], verbose=0)
    assert answer.shape == (2, 3)
    assert [layer.name for layer in model.layers if layer.name in ("stage1", "stage2", "head")] == [
        "stage1",
        "stage2",
        "head",
    ]


@pytest.mark.parametrize(
    ("keywords", "says"),
    [
        ({"input_shape": (4,)}, r"input_shape is \(4,\): \(nodes, features\)"),
        ({"classes": 1}, "classes is 1 with a softmax"),
        ({"units": ()}, r"units is \(\): a list of 1 or more"),
        ({"dropout": -0.1}, "cannot be built: .*rate"),
        ({"units": 16}, "units is 16: a list"),
        ({"input_shape": (None, 0)}, "features is 0: a whole number from 1 on"),
        ({"activation": "rellu"}, "cannot be built: .*rellu"),
        ({"pooling": "sum"}, "pooling is 'sum'"),
    ],
    ids=str,
)
def test_wrong_arguments_of_the_graph_network_are_one_line(keywords: dict, says: str):
    with pytest.raises(InvalidInput, match=says):
        gcn(**{"input_shape": (None, 3), "classes": 2, **keywords})
