import dataclasses
import hashlib
import re
import runpy
import sys
import unicodedata
from pathlib import Path

import keras
import mlflow
import numpy as np
import pytest

from tlkit import backbones
from tlkit.backbones import letternet as module
from tlkit.backbones.letternet import PARAMETERS, WEIGHTS, letternet
from tlkit.data import letters
from tlkit.errors import InvalidInput
from tlkit.recipes import pretrain

CARD = WEIGHTS.with_name("letternet.md")
TINY = pretrain.Pretrain(epochs=1, letters=64, batch_size=32, draws=1, alphabet="oxtЖ")


@pytest.fixture(scope="module")
def alphabet():
    return letters.glyphs([path for path in letters.fonts() if path.stem.startswith("DejaVuSans")], alphabet="OoAaZ")


@pytest.fixture(scope="module")
def photos():
    return pretrain.handwritten_digits()


def features(photos, **options):
    return pretrain.pooled(letternet(**options), photos)


def test_parameter_count_is_pinned():
    assert letternet(weights="none").count_params() == PARAMETERS


def test_the_packaged_file_is_small_and_the_one_on_its_card():
    content = WEIGHTS.read_bytes()
    assert len(content) <= 1_500_000
    assert hashlib.sha256(content).hexdigest() in CARD.read_text(encoding="utf-8")
    assert f"{PARAMETERS:,} parameters" in CARD.read_text(encoding="utf-8")


def test_stages_end_in_layers_of_their_names_and_halve_the_image():
    network = letternet((64, 48, 1), weights="none")
    sizes = [network.get_layer(name).output.shape[1:3] for name in ("stem", "stage1", "stage2", "stage3")]
    assert sizes == [(64, 48), (32, 24), (16, 12), (8, 6)]
    assert network.layers[-1].name == "stage3"
    for stage in ("stage1", "stage2", "stage3"):  # nothing of a stage comes after the layer that bears its name
        of_stage = [layer.name for layer in network.layers if layer.name.startswith(stage)]
        assert of_stage[-1] == stage


def test_raw_pixels_go_in():
    network = letternet()
    pixels = np.full((1, 32, 32, 1), 255, "float32")
    first = keras.Model(network.input, network.get_layer("scale").output)
    assert np.allclose(first.predict(pixels, verbose=0), 1)


def test_only_keras_is_needed_to_load_a_saved_network(tmp_path):
    network = letternet()
    network.save(tmp_path / "network.keras")
    assert {type(layer).__module__.split(".")[0] for layer in network.layers} == {"keras"}
    pixels = np.arange(1024, dtype="float32").reshape(1, 32, 32, 1) % 256
    loaded = keras.models.load_model(tmp_path / "network.keras")
    assert np.array_equal(loaded.predict(pixels, verbose=0), network.predict(pixels, verbose=0))


@pytest.mark.parametrize("shape", [(15, 32, 1), (32, 32), (None, 32, 1), (32, 32, 0)])
def test_a_wrong_shape_is_refused(shape):
    with pytest.raises(InvalidInput, match=re.escape(repr(shape)) + ".*16 pixels or more"):
        letternet(shape)


@pytest.mark.parametrize("weights", ["leters", None, WEIGHTS, str(WEIGHTS)])
def test_wrong_weights_are_refused(weights):
    with pytest.raises(InvalidInput, match=re.escape(f"weights is {weights!r}: letters or none; ")):
        letternet(weights=weights)


def test_the_pretrained_weights_know_one_channel():
    with pytest.raises(InvalidInput, match=r"input_shape is \(32, 32, 3\): .* one channel"):
        letternet((32, 32, 3))
    assert letternet((32, 32, 3), weights="none").input_shape == (None, 32, 32, 3)


def test_a_saved_file_is_read_by_backbones(tmp_path):
    network = letternet(weights="none")
    network.save_weights(tmp_path / "mine.weights.h5")
    loaded = backbones.build("LetterNet", weights=tmp_path / "mine.weights.h5")
    for saved, read in zip(network.get_weights(), loaded.get_weights(), strict=True):
        assert np.array_equal(saved, read)


@pytest.mark.slow
def test_the_probe_takes_a_file_and_gives_what_the_packaged_weights_give(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pretrain, "probe", lambda features, *_: [(float(features.astype("float64").mean()), 0.0)])
    path = Path(__file__).parents[1] / "benchmarks" / "letternet_probe.py"
    copied = tmp_path / "copy.weights.h5"
    copied.write_bytes(WEIGHTS.read_bytes())
    shown = []
    for arguments in ([], ["--weights", str(copied)]):
        monkeypatch.setattr(sys, "argv", [str(path), *arguments])
        runpy.run_path(str(path), run_name="__main__")
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]
    assert "| LetterNet |" in shown[0]


def test_no_digit_is_a_letter():
    characters = [chr(code) for code in range(0x110000)]
    found = {letters.letter(character) for character in characters} - {None}
    assert len(found) > 1000
    for character in found:
        assert unicodedata.category(character).startswith("L")
        assert unicodedata.numeric(character, None) is None
        assert not set(unicodedata.name(character, "").split()) & {"DIGIT", "NUMERAL", "TRESILLO", "CUATRILLO"}
    assert [letters.letter(character) for character in "0٣Ⅷ²½𝟙①五ƻƼↃ"] == [None] * 11


def test_letters_of_one_form_are_one_class(alphabet):
    assert alphabet.classes == ("A", "Oo", "Z", "a")
    assert len(alphabet.labels) == len(alphabet.fields) == len(alphabet.fonts)


def test_a_font_without_the_letter_draws_nothing():
    greek = letters.glyphs([path for path in letters.fonts() if path.stem in ("DejaVuSans", "cmss10")], alphabet="λa")
    assert set(greek.fonts[greek.labels == greek.classes.index("λ")]) == {"DejaVuSans"}
    assert set(greek.fonts[greek.labels == greek.classes.index("a")]) == {"DejaVuSans", "cmss10"}


def test_drawing_follows_from_the_seed(alphabet):
    first, again, other = (letters.draw(alphabet, 64, np.random.default_rng(seed)) for seed in (7, 7, 8))
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])
    assert first[0].shape == (64, 32, 32, 1)
    assert first[0].dtype == np.uint8
    assert (first[0].max((1, 2, 3)) > 100).all()  # white ink is in every image
    assert np.median(first[0]) < 50  # and the ground is black


def test_enlarging_is_what_pillow_does():
    from PIL import Image

    small = np.random.default_rng(0).random((8, 8)).astype("float32")
    enlarge = letters._enlarge(8)
    shown = Image.fromarray(small).resize((32, 32), Image.Resampling.BILINEAR)
    assert np.allclose(enlarge @ small @ enlarge.T, np.asarray(shown), atol=1e-6)


@pytest.mark.thorough
def test_the_shipped_weights_know_more_than_random_ones(photos):
    images, labels = photos
    pretrained, random = features(images), features(images, weights="none")
    assert not np.allclose(pretrained, random)
    ((known, _),) = pretrain.probe(pretrained, labels, draws=3, shots=[5])
    ((chance, _),) = pretrain.probe(random, labels, draws=3, shots=[5])
    assert known > 0.92
    assert chance < 0.85


@pytest.mark.slow
def test_pretraining_is_repeatable_bit_by_bit_and_tracked(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrain, "HELD_OUT", 64)
    one, two = tmp_path / "one", tmp_path / "two"
    first, second = (pretrain.run(dataclasses.replace(TINY, output=str(path))).get_weights() for path in (one, two))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert sorted(path.name for path in one.iterdir()) == ["letternet.md", "letternet.weights.h5"]
    content = (one / "letternet.weights.h5").read_bytes()
    assert content == (two / "letternet.weights.h5").read_bytes()
    card = (one / "letternet.md").read_text(encoding="utf-8")
    assert hashlib.sha256(content).hexdigest() in card
    assert "--alphabet oxtЖ" in card
    run = mlflow.search_runs(search_all_experiments=True, output_format="list")[0]
    assert run.info.status == "FINISHED"
    assert run.data.tags["recipe"] == "pretrain"
    assert {"loss", "accuracy", "val_accuracy", "probe_accuracy_1", "probe_accuracy_50"} <= set(run.data.metrics)
    loaded = backbones.build("LetterNet", weights=one / "letternet.weights.h5").get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(first, loaded, strict=True))


@pytest.mark.parametrize("name", ["letternet.weights.h5", "letternet.md"])
def test_nothing_is_overwritten(tmp_path, name):
    (tmp_path / name).write_text("mine", encoding="utf-8")
    with pytest.raises(InvalidInput, match=f"{name} exists.*--output"):
        pretrain.run(dataclasses.replace(TINY, output=str(tmp_path)))
    assert [path.read_text(encoding="utf-8") for path in tmp_path.iterdir()] == ["mine"]


def test_an_output_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    with pytest.raises(InvalidInput, match="cannot be made a folder"):
        pretrain.run(dataclasses.replace(TINY, output=str(tmp_path / "file")))


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="elsewhere no folder refuses root")
def test_an_output_that_cannot_be_written_to_is_refused_before_training(monkeypatch):
    monkeypatch.setattr(pretrain, "_fit", lambda *_: pytest.fail("it trains"))
    with pytest.raises(InvalidInput, match=r"output is '/proc': no file can be written there.*; give another folder"):
        pretrain.run(dataclasses.replace(TINY, output="/proc"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", -1), ("epochs", 0), ("letters", 0), ("batch_size", 0), ("draws", 0), ("learning_rate", 0.0),
        ("weight_decay", -1.0), ("label_smoothing", 1.0), ("alphabet", "o"), ("output", ""),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_refused(name, value):
    with pytest.raises(InvalidInput, match=f"{name} is {re.escape(repr(value))}; it must "):
        pretrain.Pretrain(**{name: value})


def test_an_alphabet_without_two_forms_is_refused(folder, tmp_path):
    with pytest.raises(InvalidInput, match="alphabet is 'oO'"):
        pretrain.run(dataclasses.replace(TINY, alphabet="oO", output=str(tmp_path)))


def test_the_constants_name_a_file_in_the_package():
    assert WEIGHTS.is_relative_to(Path(module.__file__).parent)
