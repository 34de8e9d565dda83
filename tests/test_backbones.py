"""Every row of the table, and what the rows share: `-m slow` all of them, the default one of each kind of network."""

import json
import os
import shutil
import socket
import sys
import time
import warnings
import zipfile
from copy import deepcopy
from itertools import pairwise
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from conftest import draw_zeros
from keras.src.utils import file_utils
from PIL import Image

from tlkit import backbones, builders, features
from tlkit.backbones import (
    BACKBONES,
    build,
    building,
    classifier,
    freeze,
    pooled_widths,
    split,
    stages,
    unfreeze,
    weightfiles,
)
from tlkit.backbones.cached import published_file
from tlkit.errors import InvalidInput, Unavailable

FAMILIES = (
    "ConvNeXtTiny",
    "DenseNet121",
    "EfficientNetB0",
    "LetterNet",
    "MobileNet",
    "MobileNetV3Small",
    "ResNet50",
    "VGG16",
)
STRIDES = {f"ResNet{depth}V2": [4, 8, 16, 32, 32] for depth in (50, 101, 152)} | {"LetterNet": [1, 2, 4, 8]}
STEM_AT_4 = ("ConvNeXt", "DenseNet", "ResNet")


def pixels(*shape):
    return np.random.default_rng(0).integers(0, 256, shape).astype("float32")


def outputs(model, x):
    return keras.ops.convert_to_numpy(model(x, training=False)).astype("float32")


def assert_close(actual, expected, tolerance=1e-5):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def tiny(shape=(64, 64, 3), **arguments):
    return build("MobileNet", shape, **{"weights": "none", "alpha": 0.25} | arguments)


def test_a_network_that_keras_lacks_on_a_backend_is_refused(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    with pytest.raises(InvalidInput, match="NASNetMobile does not work on Keras' torch backend; choose another"):
        build("NASNetMobile", weights="none")


# Every row ------------------------------------------------------------------------------------------------------------


def rows(fast):
    """All rows, always in the same order, so that pytest can run the tests of one row together."""
    return [pytest.param(name, marks=() if name in fast else pytest.mark.slow) for name in BACKBONES if works(name)]


def works(name):
    return keras.backend.backend() not in BACKBONES[name].backends_without


@pytest.fixture(scope="module", params=rows(FAMILIES))
def name(request):
    return request.param


@pytest.fixture(scope="module")
def network(name):
    """Odd and not square, which is where padding goes wrong."""
    size = (129, 97) if name in FAMILIES else (257, 129)  # Inception's borders are too wide for the strides of less
    return build(name, (*size, BACKBONES[name].channels), weights="none")


def test_table_is_complete():
    networks = {name for name in dir(keras.applications) if name[0].isupper()}
    assert networks | {"LetterNet"} == set(BACKBONES)
    assert set(FAMILIES) <= set(BACKBONES)


def test_stages(name, network):
    ends = [network.get_layer(end) for end in BACKBONES[name].stages.values()]
    assert list(BACKBONES[name].stages) == ["stem", "stage1", "stage2", "stage3", "stage4"][: len(ends)]
    assert len(ends) == (4 if name == "LetterNet" else 5)
    assert ends[-1].output is network.output
    nested = [ancestors(end) for end in ends]
    assert all(earlier < later for earlier, later in pairwise(nested))
    strides = [2 ** round(np.log2(network.input.shape[1] / end.output.shape[1])) for end in ends]
    assert strides == STRIDES.get(name, [4 if name.startswith(STEM_AT_4) else 2, 4, 8, 16, 32])


def ancestors(layer):
    """Names of all layers that the layer depends on, and its own, by following the graph's edges."""
    found, waiting = set(), [layer]
    while waiting:
        layer = waiting.pop()
        if layer.name not in found:
            found.add(layer.name)
            waiting += [tensor._keras_history.operation for tensor in layer._inbound_nodes[0].arguments.keras_tensors]
    return found


def test_unfreeze_freezes_what_comes_before(name, network):
    stages = BACKBONES[name].stages
    pairs = [(None, None), *zip([None, *stages], stages, strict=False)]
    for before, stage in [*pairs, *reversed(pairs)]:  # each with more and with less frozen before
        unfreeze(network, name, stage)
        expected = ancestors(network.get_layer(stages[before])) if before else set()
        expected |= {x.name for x in network.layers if isinstance(x, keras.layers.BatchNormalization)}
        assert {x.name for x in network.layers if not x.trainable} == expected & {x.name for x in network.layers}
        assert network.trainable_weights
    freeze(network)
    assert not network.trainable_weights


@pytest.mark.thorough
def test_same_as_keras_with_the_same_weights(name, network, tmp_path, monkeypatch):
    """Preprocessing, graph and order of weights: Keras' own network, given our file as its imagenet weights."""
    if name == "LetterNet":
        pytest.skip("is not in keras.applications")
    path = str(tmp_path / "ours.weights.h5")
    network.save_weights(path)
    monkeypatch.setattr(file_utils, "get_file", lambda *_, **__: path)
    constructor = getattr(keras.applications, name)
    draw_zeros(monkeypatch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that weights for 224 x 224 pixels are loaded
        theirs = constructor(include_top=False, weights="imagenet", input_shape=network.input.shape[1:])
    os.remove(path)  # pytest keeps its folders, and this can be a gigabyte
    x = pixels(1, *network.input.shape[1:])
    preprocessed = sys.modules[constructor.__module__].preprocess_input(x.copy())
    assert_close(outputs(network, x), outputs(theirs, preprocessed))
    if BACKBONES[name].preprocessing == "built in":
        np.testing.assert_array_equal(preprocessed, x)
    else:
        first = keras.Model(network.input, network.get_layer("preprocessing").output)
        np.testing.assert_allclose(outputs(first, x), preprocessed, rtol=1e-5, atol=1e-4)


@pytest.mark.filterwarnings("ignore")  # that the format is an old one
@pytest.mark.parametrize("name", ["VGG16", "LetterNet"])
def test_the_older_format_holds_the_preprocessing(name, tmp_path):
    model = classifier(build(name, (40, 32, 3), weights="none"), 3)
    model.save(tmp_path / "model.h5")
    loaded = keras.saving.load_model(tmp_path / "model.h5")
    x = pixels(1, 40, 32, 3)
    assert_close(outputs(loaded, x), outputs(model, x))


# One for each preprocessing and each kind of layer that is special to one family.
@pytest.mark.thorough
@pytest.mark.parametrize(
    "name", rows(["ConvNeXtTiny", "EfficientNetB0", "LetterNet", "MobileNetV3Small", "VGG16"]), indirect=True
)
def test_saved_model_needs_only_keras(name, network, tmp_path):
    path = tmp_path / "model.keras"
    model = classifier(network, 3)
    model.save(path)
    with zipfile.ZipFile(path) as archive:
        assert "tlkit" not in json.dumps(json.loads(archive.read("config.json")))
    loaded = keras.models.load_model(path)  # in safe mode
    path.unlink()
    x = pixels(1, *network.input.shape[1:])
    assert_close(outputs(loaded, x), outputs(model, x))
    unfreeze(loaded, name, "stage2")
    unfreeze(model, name, "stage2")
    kept, made = ([layer.name for layer in m.layers[1].layers if layer.trainable] for m in (loaded, model))
    assert kept == made


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize("name", rows(["LetterNet", "MobileNet"]), indirect=True)
def test_smallest_size(name):
    row = BACKBONES[name]
    build(name, (row.smallest, row.smallest, row.channels), weights="none")
    with pytest.raises(InvalidInput, match=rf"at least {row.smallest} x {row.smallest} pixels"):
        build(name, (row.smallest + 50, row.smallest - 1, row.channels), weights="none")


# Pixels ---------------------------------------------------------------------------------------------------------------


def test_gray_is_repeated_to_rgb(tmp_path):
    rgb, path = tiny(), tmp_path / "rgb.weights.h5"
    rgb.save_weights(path)
    gray = tiny((64, 64, 1), weights=path)
    x = pixels(2, 64, 64, 1)
    assert_close(outputs(gray, x), outputs(rgb, np.repeat(x, 3, axis=-1)))


def test_rgb_is_reduced_to_luminance_as_pillow_does():
    model = build("LetterNet", (32, 32, 3), weights="none")
    first = next(layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D))
    rescaled = keras.Model(model.input, first.input)
    x = pixels(1, 32, 32, 3)
    expected = np.asarray(Image.fromarray(x[0].astype("uint8")).convert("L"), "float32")
    assert np.abs(outputs(rescaled, x)[0, ..., 0] * 255 - expected).max() < 0.51  # Pillow rounds


def test_integer_pixels():
    model, x = tiny(), pixels(2, 64, 64, 3)
    assert_close(outputs(model, x.astype("uint8")), outputs(model, x))


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "alpha", "last"),
    [
        pytest.param("EfficientNetB0", None, "rescaling_1", marks=pytest.mark.slow),
        pytest.param("EfficientNetV2B0", None, "normalization", marks=pytest.mark.slow),
        ("MobileNet", 0.25, "preprocessing"),
        ("MobileNetV3Small", 0.75, "rescaling"),
    ],
)
def test_mixed_precision_keeps_pixels_and_probabilities_in_float32(name, alpha, last, tmp_path, monkeypatch):
    draw_zeros(monkeypatch)
    x = pixels(1, 64, 64, 3)
    exact = build(name, (64, 64, 3), weights="none", alpha=alpha)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        mixed = build(name, (64, 64, 3), weights="none", alpha=alpha)
        model = classifier(mixed, 3)
        model.save(tmp_path / "model.keras")
    finally:
        keras.config.set_dtype_policy("float32")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for network in (mixed, loaded.get_layer("backbone")):
        first, reference = (keras.Model(m.input, m.get_layer(last).output) for m in (network, exact))
        assert keras.backend.standardize_dtype(first(x).dtype) == "float32"
        np.testing.assert_allclose(outputs(first, x), outputs(reference, x), rtol=1e-6, atol=1e-6)
        assert network.output.dtype == "bfloat16"
    for m in (model, loaded):
        assert [m.get_layer(end).output.dtype for end in ("pool", "head", "probabilities")] == ["float32"] * 3


@pytest.mark.usefixtures("no_weights")
def test_names_do_not_depend_on_what_was_built_before():
    first, second = (build("MobileNetV3Small", (64, 64, 3), weights="none") for _ in range(2))
    names = [layer.name for layer in first.layers]
    assert names == [layer.name for layer in second.layers]
    assert len(set(names)) == len(names)
    assert {"activation", "re_lu", "add", "multiply"} & set(names) == {"activation", "re_lu"}


# The head -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [1, 2, 5])
def test_classifier(classes):
    model = classifier(tiny(), classes)
    y, logits = (outputs(m, pixels(4, 64, 64, 3)) for m in (model, keras.Model(model.input, model.layers[-2].output)))
    assert y.shape == (4, classes)
    expected = 1 / (1 + np.exp(-logits)) if classes == 1 else np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(y, expected, rtol=1e-5)
    assert [layer.name for layer in model.layers[-2:]] == ["head", "probabilities"]


@pytest.mark.thorough
@pytest.mark.parametrize("make", [tiny, lambda: builders.build("vgg_mini", (64, 64, 3), include_top=False)])
@pytest.mark.parametrize("count", [2, 3, 99])
def test_several_stages_are_averaged_side_by_side(make, count, tmp_path):
    backbone, x = make(), pixels(2, 64, 64, 3)
    model = classifier(backbone, 3, pooled_stages=count)
    ends = list(stages(backbone).values())[-count:]
    maps = [outputs(keras.Model(backbone.input, backbone.get_layer(end).output), x) for end in ends]
    averages = np.concatenate([each.mean((1, 2)) for each in maps], axis=1)
    assert_close(outputs(features.pooled(model), x), averages)
    assert pooled_widths(model) == [each.shape[-1] for each in maps]
    assert [layer.name for layer in model.layers] == [
        "pixels",
        backbone.name,
        "pool",
        "dropout",
        "head",
        "probabilities",
    ]
    assert stages(model) == stages(backbone)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")  # of Keras' own layers
    assert_close(outputs(loaded, x), outputs(model, x))


def test_several_pooled_stages_can_be_cut_where_all_of_them_are_above():
    model, x = classifier(tiny(), 3, pooled_stages=2), pixels(2, 64, 64, 3)
    logits = outputs(keras.Model(model.input, model.get_layer("head").output), x)
    for stage in ("stage4", "stage2"):
        lower, upper = split(model, from_stage=stage)
        assert_close(outputs(upper, outputs(lower, x)), logits)
    with pytest.raises(InvalidInput, match="MobileNet cannot be cut in front of stage4: later layers need what is"):
        split(classifier(tiny(), 3, pooled_stages=3), from_stage="stage4")


def test_training_leaves_batch_normalization_statistics_alone():
    model = classifier(build("LetterNet", (32, 32, 3), weights="none"), 3)
    unfreeze(model, "LetterNet", "stage3")
    model.compile("adam", "sparse_categorical_crossentropy")
    backbone = model.get_layer("backbone")
    before = {w.path: keras.ops.convert_to_numpy(w) for w in backbone.weights}
    model.fit(pixels(4, 32, 32, 3), np.array([0, 1, 2, 0]), epochs=1, verbose=0)
    changed = {w.path for w in backbone.weights if not np.array_equal(before[w.path], keras.ops.convert_to_numpy(w))}
    assert changed <= {w.path for w in backbone.trainable_weights}
    assert not any("moving" in path for path in changed)
    assert "stage3_1_conv/kernel" in changed
    assert "stage2_1_conv/kernel" not in changed


# Weights --------------------------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_published_weights_and_the_same_file_give_equal_outputs(tmp_path, monkeypatch):
    """EfficientNetB* of Keras do not: they add a layer for the word `imagenet` only."""
    path = str(tmp_path / "random.weights.h5")
    keras.applications.EfficientNetB0(include_top=False, weights=None).save_weights(path)
    draw_zeros(monkeypatch)
    by_path = build("EfficientNetB0", (224, 224, 3), weights=path)
    monkeypatch.setattr(weightfiles, "fetch", lambda *_: path)
    by_word = build("EfficientNetB0", (224, 224, 3), weights="imagenet")
    x = pixels(1, 224, 224, 3)
    assert_close(outputs(by_path, x), outputs(by_word, x), 1e-6)
    monkeypatch.setattr(file_utils, "get_file", lambda *_, **__: path)
    theirs = keras.applications.EfficientNetB0(include_top=False, weights="imagenet", input_shape=(224, 224, 3))
    assert_close(outputs(by_word, x), outputs(theirs, x), 1e-6)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of Keras on a machine without a network."""

    def refuse(*_, **__):
        raise OSError("no network")

    (tmp_path / "models").mkdir()
    monkeypatch.setattr(file_utils.config, "keras_home", lambda: str(tmp_path))
    monkeypatch.setattr(socket, "create_connection", refuse)
    return tmp_path / "models"


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("MobileNet", "mobilenet_1_0_224_tf_no_top.h5"),
        ("EfficientNetB0", "efficientnetb0_notop.h5"),
        pytest.param("NASNetMobile", "nasnet_mobile_no_top.h5", marks=pytest.mark.slow),
    ],
)
def test_no_network(name, file, cache):
    start = time.perf_counter()
    with pytest.raises(Unavailable, match=rf"{cache / file}, which is not there.*https://.*--backbone.name LetterNet"):
        build(name, (160, 160, 3))
    assert time.perf_counter() - start < 20
    assert not list(cache.iterdir())


def test_half_downloaded_file_with_a_hash(cache):
    (cache / "efficientnetb0_notop.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(Unavailable, match=r"efficientnetb0_notop.h5, which is incomplete .* cannot be reached"):
        build("EfficientNetB0", (64, 64, 3))
    assert (cache / "efficientnetb0_notop.h5").exists()  # Keras would delete it when its download fails


def test_networks_on_this_machine_are_those_whose_files_keras_would_load(cache):
    assert not backbones.on_this_machine()
    for name, content in (("vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5", b"1"), ("other.h5", b"")):
        (cache / name).write_bytes(content)
    for alpha in (0.25, 1.0):
        (cache / building._published("MobileNet", alpha)["fname"]).write_bytes(b"123")
    (cache / "mobilenet_2_5_128_tf_no_top.h5").write_bytes(b"")  # of another size
    here = backbones.on_this_machine()
    assert [(each.name, each.alpha, each.size) for each in here] == [
        ("VGG16", None, 1), ("MobileNet", 0.25, 3), ("MobileNet", 1.0, 3)
    ]  # fmt: skip


@pytest.mark.parametrize("name", rows(("MobileNet", "MobileNetV3Small", "VGG16")))
def test_the_table_names_the_files_of_keras(name, monkeypatch):
    draw_zeros(monkeypatch)
    row = BACKBONES[name]
    if row.constructor is None:
        assert not row.file
        return
    for alpha in row.alphas or (None,):
        request = building._published(name, alpha)
        assert (request["cache_subdir"], request["fname"]) == ("models", published_file(name, alpha))


def test_half_downloaded_file_without_a_hash(cache):
    (cache / "mobilenet_2_5_224_tf_no_top.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(Unavailable, match=r"mobilenet_2_5_224_tf_no_top.h5 in Keras' cache is .* damaged: delete it"):
        tiny(weights="imagenet")


def test_a_cache_that_may_only_be_read_is_read(cache, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    request = {"cache_subdir": "models", "fname": "mobilenet_2_5_224_tf_no_top.h5"}
    assert not weightfiles.in_cache(request).startswith(str(cache))  # where Keras would download it to
    (cache / request["fname"]).write_bytes(b"")
    assert weightfiles.in_cache(request) == str(cache / request["fname"])


def test_download(cache, monkeypatch):
    model = tiny()
    model.save_weights(cache / "source.weights.h5")
    name, asked = "mobilenet_2_5_224_tf_no_top.h5", []

    def get_file(fname, origin, cache_subdir):
        asked.append(origin)
        shutil.copy(cache / "source.weights.h5", cache / "fetched.weights.h5")
        return str(cache / "fetched.weights.h5")

    assert building._published("MobileNet", 0.25)["fname"] == name
    monkeypatch.setattr(weightfiles, "reachable", lambda _: True)
    monkeypatch.setattr(file_utils, "get_file", get_file)
    x = pixels(1, 64, 64, 3)
    assert_close(outputs(tiny(weights="imagenet"), x), outputs(model, x))
    assert asked == [f"https://storage.googleapis.com/tensorflow/keras-applications/mobilenet/{name}"]


@pytest.mark.parametrize(("size", "built"), [(224, 1), (64, 2)])
def test_a_pretrained_network_is_built_once_at_its_own_size(tmp_path, monkeypatch, size, built):
    model = backbones.build("MobileNet", (size, size, 3), weights="none", alpha=0.25)
    model.save_weights(tmp_path / "published.weights.h5")
    made, asked, constructor = [], [], keras.applications.MobileNet

    def fetch(name, file):
        asked.append(file["fname"])
        return str(tmp_path / "published.weights.h5")

    building._published.cache_clear()
    monkeypatch.setattr(keras.applications, "MobileNet", lambda **given: made.append(given) or constructor(**given))
    monkeypatch.setattr(weightfiles, "fetch", fetch)
    again = backbones.build("MobileNet", (size, size, 3), weights="imagenet", alpha=0.25)
    assert (len(made), asked) == (built, ["mobilenet_2_5_224_tf_no_top.h5"])
    for ours, theirs in zip(again.weights, model.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    model.save_weights(tmp_path / "again.weights.h5")
    again.load_weights(tmp_path / "again.weights.h5")  # Keras' own function is back


def test_failed_download(cache, monkeypatch):
    def get_file(**_):
        raise Exception("URL fetch failure: 404\nNot found")

    building._published("MobileNet", 0.25)
    monkeypatch.setattr(weightfiles, "reachable", lambda _: True)
    monkeypatch.setattr(file_utils, "get_file", get_file)
    with pytest.raises(Unavailable, match=r"cannot be downloaded \(URL fetch failure: 404 Not found\)"):
        tiny(weights="imagenet")


def test_name_server_that_does_not_answer(monkeypatch):
    def hang(*_):
        time.sleep(3)
        raise OSError

    monkeypatch.setattr(socket, "create_connection", hang)
    start = time.perf_counter()
    assert not weightfiles.reachable("https://storage.googleapis.com/x", seconds=0.1)
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize(
    ("proxy", "address"),
    [
        (None, ("storage.googleapis.com", 443)),
        ("http://proxy.example:3128", ("proxy.example", 3128)),
        ("proxy.example:3128", ("proxy.example", 3128)),
    ],
)
def test_a_proxy_is_asked_instead_of_the_host(proxy, address, monkeypatch):
    class Connection:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

    asked = []
    monkeypatch.setattr("urllib.request.getproxies", lambda: {"https": proxy} if proxy else {})
    monkeypatch.setattr("urllib.request.proxy_bypass", lambda _: False)
    monkeypatch.setattr(socket, "create_connection", lambda address, _: asked.append(address) or Connection())
    assert weightfiles.reachable("https://storage.googleapis.com/x")
    assert asked == [address]


def test_a_file_of_the_older_format(tmp_path):
    model, path = tiny(), tmp_path / "model.h5"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(path)
    x = pixels(1, 64, 64, 3)
    assert_close(outputs(tiny(weights=str(path)), x), outputs(model, x))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path.write_text("no weights", encoding="utf-8"), r"bad.weights.h5 is not a complete HDF5 file"),
        (lambda path: tiny(alpha=0.5).save_weights(path), r"holds 135 arrays of 829,536 numbers, the network has 135"),
        (
            lambda path: keras.applications.MobileNet(alpha=0.25, weights=None, classes=7).save_weights(path),
            r"137 arrays of 220,343 numbers, .* has 135 arrays of 218,544 numbers: it seems to have a top",
        ),
        (lambda path: keras.applications.VGG16(weights=None, include_top=False).save_weights(path), "holds 26 arrays"),
        (lambda path: path.write_bytes(saved(path)[:200_000]), r"is cut short or damaged: copy or download it again"),
        (lambda path: path.mkdir(), "a folder: give the path of a file that exists"),
        (
            lambda path: saved_model(path),
            "a folder with a SavedModel, which Keras cannot take weights",
        ),
        (lambda path: path.write_bytes(b"PK\5\6" + bytes(18)), "is a zip file, as of NumPy or PyTorch"),
        (
            lambda path: nested().save_weights(path),
            "135 .*: it is of a model that holds the network as one of its layers",
        ),
        (lambda path: not_finite(path), "has 3 numbers in conv1.* are not finite"),
        (lambda path: None, "the path of a file that exists"),
    ],
    ids=[
        "text",
        "other alpha",
        "with top",
        "other network",
        "cut",
        "folder",
        "SavedModel",
        "zip",
        "nested",
        "nan",
        "missing",
    ],
)
def test_a_file_that_does_not_fit(write, message, tmp_path):
    path = tmp_path / "bad.weights.h5"
    write(path)
    with pytest.raises(InvalidInput, match=message) as raised:
        tiny(weights=path)
    assert "\n" not in str(raised.value)
    assert str(path) in str(raised.value)


def saved_model(path):
    path.mkdir()
    (path / "saved_model.pb").touch()


def nested():
    return keras.Sequential([keras.Input((64, 64, 3)), tiny()])


def not_finite(path):
    tiny().save_weights(path)
    with h5py.File(path, "r+") as file:
        file["layers/conv2d/vars/0"][0, 0, :, 0] = np.nan


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore")  # that the format is an old one
def test_what_is_no_file_of_weights_says_what_it_is(tmp_path):
    model = classifier(tiny(), 2)
    model.save(tmp_path / "model.keras")
    with pytest.raises(
        InvalidInput, match=r"is a whole model: .*load_model\(.*model\.keras'\)\.get_layer\('backbone'\)"
    ):
        tiny(weights=tmp_path / "model.keras")
    whole = keras.saving.load_model(tmp_path / "model.keras")  # as the message says
    whole.get_layer("backbone").save_weights(tmp_path / "backbone.weights.h5")
    x = pixels(1, 64, 64, 3)
    assert_close(outputs(tiny(weights=tmp_path / "backbone.weights.h5"), x), outputs(model.get_layer("backbone"), x))
    nested().save_weights(tmp_path / "nested.weights.h5")
    nested().save(tmp_path / "nested.h5")
    (tmp_path / "net.pth").write_bytes(b"x")
    for name, says in (("nested.h5", "holds the network as one of its layers"), ("net.pth", "is a .pth file")):
        with pytest.raises(InvalidInput, match=says):
            tiny(weights=tmp_path / name)


def saved(path):
    tiny().save_weights(path)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "mobilnet_v2"}, r"'mobilnet_v2' is unknown: did you mean MobileNetV2\?.*BACKBONES lists all 41"),
        ({"name": "resnet_50"}, r"did you mean ResNet50\?"),
        ({"name": None}, r"None is unknown"),
        ({"name": "VGG16", "alpha": 0.5}, r"alpha is 0.5: VGG16 takes none; MobileNet, MobileNetV2, MobileNetV3"),
        ({"name": "MobileNet", "alpha": 0.6}, r"alpha is 0.6: .*published for 0.25, 0.5, 0.75, 1.0"),
        ({"name": "MobileNetV2", "alpha": 2}, r"published for 0.35, 0.5, 0.75, 1.0, 1.3, 1.4"),
        ({"name": "MobileNetV3Large", "alpha": 0.5}, r"published for 0.75, 1.0"),
        ({"name": "MobileNet", "alpha": 0, "weights": "none"}, r"alpha is 0: above 0"),
        ({"name": "VGG16", "weights": "letters"}, r"weights is 'letters': VGG16 takes imagenet, none, or the path"),
        ({"name": "LetterNet", "weights": "imagenet"}, r"LetterNet takes letters, none, or the path"),
        ({"name": "VGG16", "input_shape": (64, 64)}, r"input_shape is \(64, 64\): \(height, width, channels\)"),
        ({"name": "VGG16", "input_shape": (64, 64, 4)}, r"1 or 3 channels"),
        ({"name": "VGG16", "input_shape": (None, None, 3)}, r"\(height, width, channels\)"),
        ({"name": "Xception", "input_shape": (64, 64, 3)}, r"Xception takes at least 71 x 71 pixels"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(InvalidInput, match=message):
        build(**arguments)


@pytest.mark.parametrize(
    "name", [name for name in builders.VARIANTS if name.replace("_", "") not in map(str.lower, BACKBONES)]
)
def test_a_network_of_the_builders_is_named_as_such(name):
    with pytest.raises(InvalidInput, match=r"tlkit\.builders\.build has such networks"):
        build(name)


def test_none_is_no_weights():
    assert backbones.check("VGG16", weights=None) == backbones.check("VGG16", weights="none")


def test_channels_first_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(keras.config, "image_data_format", lambda: "channels_first")
    monkeypatch.setattr(
        "keras.src.backend.config._config_path", str(tmp_path / "keras.json")
    )  # where KERAS_HOME is set
    for make in (tiny, lambda: builders.build("vgg_mini")):
        with pytest.raises(
            InvalidInput, match=f"channels_first: set it to channels_last in {tmp_path / 'keras.json'}$"
        ):
            make()


def augmented(*models):
    x = inputs = keras.Input((64, 64, 3))
    x = keras.layers.RandomFlip("horizontal")(x)
    return keras.Model(inputs, [model(x) for model in models] if len(models) > 1 else models[0](x))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda model: keras.Sequential([keras.Input((64, 64, 3)), keras.layers.RandomFlip("horizontal"), model]),
        augmented,
        lambda model: augmented(keras.Sequential([keras.Input((64, 64, 3)), augmented(model)])),
        lambda model: keras.Sequential(
            [keras.Input((64, 64, 3)), keras.Sequential([keras.layers.RandomFlip("horizontal")]), model]
        ),
    ],
    ids=["sequential", "functional", "three deep", "augmentation is a model"],
)
def test_freeze_leaves_the_head_of_a_classifier_inside(wrap):
    model = classifier(tiny(), 2)
    wrapper = wrap(model)
    freeze(wrapper)
    assert [weight.path for weight in wrapper.trainable_weights] == ["head/kernel", "head/bias"]
    unfreeze(wrapper, "MobileNet", "stage4")
    assert wrapper.trainable_weights[0].path == "conv_dw_12/kernel"
    assert [weight.path for weight in wrapper.trainable_weights[-2:]] == ["head/kernel", "head/bias"]
    with pytest.raises(InvalidInput, match="cannot be cut: split takes one of"):
        backbones.split(wrapper, "MobileNet", "stage4")
    with pytest.raises(InvalidInput, match="has no layer called head"):
        backbones.set_head(wrapper, np.zeros((256, 2)), np.zeros(2))


def test_freeze_leaves_the_head_of_other_networks_inside():
    network = builders.build("vgg_mini", (64, 64, 3), classes=2)
    wrapper = augmented(network)
    freeze(wrapper)
    assert [weight.path for weight in wrapper.trainable_weights] == ["head/kernel", "head/bias"]
    outer = keras.Sequential([keras.Input((64, 64, 3)), network, keras.layers.Dense(3, name="second")])
    freeze(outer)  # the first head is a part of the backbone then
    assert [weight.path for weight in outer.trainable_weights] == [
        f"{outer.name}/second/kernel",
        f"{outer.name}/second/bias",
    ]
    theirs = keras.applications.MobileNet(weights=None, include_top=False, input_shape=(64, 64, 3), alpha=0.25)
    pool = keras.layers.GlobalAveragePooling2D()
    inside = keras.Sequential([keras.Input((64, 64, 3)), theirs, pool, keras.layers.Dense(2, name="third")])
    wrapper = augmented(inside)
    freeze(wrapper)
    assert [weight.path for weight in wrapper.trainable_weights] == [
        f"{inside.name}/third/kernel",
        f"{inside.name}/third/bias",
    ]


def test_freeze_refuses_what_it_would_freeze_as_a_whole_or_must_guess():
    theirs = keras.applications.MobileNet(weights=None, input_shape=(64, 64, 3), alpha=0.25, classes=2)
    with pytest.raises(InvalidInput, match="no layer called backbone in front of a head"):
        freeze(augmented(theirs))
    two = [classifier(tiny(), 2) for _ in range(2)]
    two[1].name = "other"
    with pytest.raises(InvalidInput, match=r"holds 2 that may be its backbone \(classifier/backbone, other/backbone\)"):
        freeze(augmented(*two))


# Stages ---------------------------------------------------------------------------------------------------------------


def trainable(model):
    return [weight.path for weight in model.trainable_weights]


@pytest.mark.parametrize("wrap", [lambda model: model, augmented], ids=["classifier", "behind augmentation"])
def test_a_model_built_here_knows_its_stages(wrap):
    inner = classifier(tiny(), 2)
    model = wrap(inner)
    assert stages(model) == BACKBONES["MobileNet"].stages
    unfreeze(model, "MobileNet", "stage4")
    expected = trainable(model)
    unfreeze(model)
    assert len(trainable(model)) > len(expected)
    unfreeze(model, from_stage="stage4")
    assert trainable(model) == expected
    named, unnamed = split(inner, "MobileNet", "stage4"), split(inner, from_stage="stage4")
    assert named[0].output is unnamed[0].output
    assert trainable(named[1]) == trainable(unnamed[1])


@pytest.mark.parametrize("name", rows(["EfficientNetB0", "LetterNet"]), indirect=True)
def test_every_way_of_building_notes_the_name(name, network):
    assert network.backbone_name == name
    assert stages(network) == stages(network, name) == BACKBONES[name].stages


@pytest.mark.parametrize("copied", ["saved", "cloned", "deep"])
def test_a_copy_needs_the_name(copied, tmp_path):
    model = classifier(tiny(), 2)
    if copied == "saved":
        model.save(tmp_path / "model.keras")
        copy = keras.saving.load_model(tmp_path / "model.keras")
    elif copied == "cloned":
        copy = keras.models.clone_model(model, clone_function=lambda layer: type(layer).from_config(layer.get_config()))
    else:
        copy = deepcopy(model)
    for use in (stages, lambda model: unfreeze(model, from_stage="stage4"), lambda m: split(m, from_stage="stage4")):
        with pytest.raises(InvalidInput, match=r"model 'classifier' does not tell its stages: .* give the name"):
            use(copy)
    assert stages(copy, "MobileNet") == stages(model)
    unfreeze(copy, "MobileNet", "stage4")
    assert trainable(copy) == [*trainable(model)][-len(trainable(copy)) :]
    unfreeze(copy)  # everything, which takes no name
    assert len(trainable(copy)) == len(trainable(model))


def test_the_layers_of_our_own_networks_tell_their_stages(tmp_path):
    model = classifier(builders.build("vgg_mini", (64, 64, 3), include_top=False), 2)
    model.save(tmp_path / "model.keras")
    for either in (model, keras.saving.load_model(tmp_path / "model.keras")):
        assert list(stages(either)) == list(stages(either).values()) == ["stem", "stage1", "stage2"]
        lower, upper = split(either, from_stage="stage2")
        x = pixels(2, 64, 64, 3)
        logits = keras.Model(either.input, either.get_layer("head").output)
        assert_close(outputs(upper, outputs(lower, x)), outputs(logits, x))


def test_bad_stages():
    model = classifier(tiny(), 2)
    with pytest.raises(InvalidInput, match="the backbone of this model is not VGG16"):
        stages(model, "VGG16")
    with pytest.raises(InvalidInput, match="backbone 'VGG61' is unknown: did you mean VGG1"):
        stages(model, "VGG61")
    with pytest.raises(InvalidInput, match="stage 'stage5' is unknown: MobileNet has stem, stage1"):
        unfreeze(model, from_stage="stage5")
    for stage in (None, "stem", "stage5"):
        with pytest.raises(InvalidInput, match=f"stage {stage!r} is not a stage with another below it: MobileNet has"):
            split(model, from_stage=stage)


def test_bad_arguments_of_the_head():
    backbone = tiny()
    with pytest.raises(InvalidInput, match="classes is 0: at least 1"):
        classifier(backbone, 0)
    with pytest.raises(InvalidInput, match=r"dropout is 1.0: from 0 to below 1"):
        classifier(backbone, 2, dropout=1.0)
    with pytest.raises(InvalidInput, match=r"pooled_stages is 0: 1 or more"):
        classifier(backbone, 2, pooled_stages=0)
    x = keras.Input((64, 64, 3))
    theirs = keras.Model(x, keras.layers.Conv2D(2, 3)(x), name="theirs")
    with pytest.raises(InvalidInput, match="model 'theirs' does not tell its stages"):
        classifier(theirs, 2, pooled_stages=2)
    model = classifier(backbone, 2)
    with pytest.raises(InvalidInput, match="stage 'stage5' is unknown: MobileNet has stem, stage1, stage2, stage3"):
        unfreeze(model, "MobileNet", "stage5")
    with pytest.raises(InvalidInput, match="the backbone of this model is not VGG16"):
        unfreeze(model, "VGG16", "stage4")
    with pytest.raises(InvalidInput, match="no layer called backbone"):
        freeze(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]))


# Real weights ---------------------------------------------------------------------------------------------------------


@pytest.mark.real  # TLKIT_DATA names a folder with keras_home/models/mobilenet_7_5_224_tf_no_top.h5
@pytest.mark.parametrize("shape", [(224, 224, 3), (160, 160, 3), (101, 67, 3)])
def test_real_mobilenet(shape, monkeypatch):
    home = Path(os.environ["TLKIT_DATA"]) / "keras_home"
    monkeypatch.setattr(file_utils.config, "keras_home", lambda: str(home))
    path = home / "models" / "mobilenet_7_5_224_tf_no_top.h5"
    x = pixels(2, *shape)
    by_word = outputs(build("MobileNet", shape, weights="imagenet", alpha=0.75), x)
    by_path = outputs(build("MobileNet", shape, weights=path, alpha=0.75), x)
    theirs = keras.applications.MobileNet(shape, alpha=0.75, include_top=False, weights=path)
    np.testing.assert_array_equal(by_word, by_path)
    assert_close(by_word, outputs(theirs, keras.applications.mobilenet.preprocess_input(x)))
    assert by_word.std() > 0.1


# Several heads as one model -------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_a_joined_model_is_the_mean_of_its_heads_and_loads_in_plain_keras(tmp_path):
    one = classifier(tiny((32, 48, 3)), 4, pooled_stages=2).get_layer("backbone")  # two outputs
    two = build("MobileNetV3Small", (32, 48, 3), weights="none")
    rng, x = np.random.default_rng(1), pixels(3, 32, 48, 3)

    def pooled(network, images):
        maps = keras.tree.flatten(network(images, training=False))
        return np.hstack([keras.ops.convert_to_numpy(each).mean((1, 2)) for each in maps])

    def head(networks, mirrored=False):
        features = sum(each.shape[-1] for network in networks for each in network.outputs)
        return backbones.JoinedHead(networks, rng.normal(0, 0.1, (features, 4)), rng.normal(size=4), mirrored)

    heads = [head([one]), head([two, one], mirrored=True)]
    model = backbones.joined(heads, ["Mobile Net 0.25", "Mobile Net 0.25"])
    expected = 0
    for each in heads:
        views = [x, x[:, :, ::-1]][: 1 + each.mirrored]
        features = np.mean([np.hstack([pooled(b, view) for b in each.backbones]) for view in views], axis=0)
        logits = features @ each.kernel + each.bias
        odds = np.exp(logits - logits.max(1, keepdims=True))
        expected = expected + odds / odds.sum(1, keepdims=True) / 2
    assert_close(outputs(model, x), expected)
    assert {"Mobile_Net_0.25", "Mobile_Net_0.25_2"} < {layer.name for layer in model.layers}
    model.save(tmp_path / "joined.keras")
    with zipfile.ZipFile(tmp_path / "joined.keras") as file:
        assert b"tlkit" not in file.read("config.json")  # plain Keras has all of its layers
    assert_close(outputs(keras.saving.load_model(tmp_path / "joined.keras", safe_mode=True), x), expected)


def test_one_head_on_one_network_gives_a_classifier():
    network = tiny()
    model = backbones.joined([backbones.JoinedHead([network], np.zeros((256, 3)), np.array([0, 1, 2.0]))])
    assert [layer.name for layer in model.layers] == ["pixels", "backbone", "pool", "dropout", "head", "probabilities"]
    assert model.get_layer("backbone") is network
    of_two = classifier(tiny(), 3, pooled_stages=2)
    again = backbones.joined(
        [backbones.JoinedHead([of_two.get_layer("backbone")], *of_two.get_layer("head").get_weights())]
    )
    assert [layer.name for layer in again.layers] == [layer.name for layer in of_two.layers]
    x = pixels(2, 64, 64, 3)
    assert_close(outputs(again, x), outputs(of_two, x))


def test_networks_of_other_pixels_are_not_joined():
    heads = [backbones.JoinedHead([tiny(), tiny((32, 32, 3))], np.zeros((512, 3)), np.zeros(3))]
    with pytest.raises(InvalidInput, match="take pixels of shapes"):
        backbones.joined(heads)
    with pytest.raises(InvalidInput, match="at least one head"):
        backbones.joined([])
