"""Networks that predict has converted: the second call needs no Keras and says the same; damage is not used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import write_photos

from tlkit import cli, config, inference, labels, startup
from tlkit.features import converted
from tlkit.features.store import Store
from tlkit.recipes import cache as cache_recipe

pytestmark = pytest.mark.skipif(not startup.is_installed("openvino"), reason="OpenVINO is not installed")
PREDICT = """
import sys
from tlkit import cli, config
from tlkit.recipes import predict
status = cli.call(config.Predict, predict.run, sys.argv[1:], ("model", "photos"))
sys.stderr.write(f"Keras was loaded: {'keras' in sys.modules}")
sys.exit(status)
"""


def predict(output: str, *words: str) -> tuple[list[dict], str]:
    """Run predict in a process of its own, on OpenVINO, and return its table and what it says."""
    command = [sys.executable, "-c", PREDICT, "model.keras", "photos", "--output", output, *words]
    ended = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "KERAS_BACKEND": "openvino"})
    assert ended.returncode == 0, ended.stderr
    return [json.loads(line) for line in Path(output).read_text(encoding="utf-8").splitlines()], ended.stderr


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Rescaling(1 / 25), keras.layers.Conv2D(4, 3, activation="relu")]
    layers += [keras.layers.Flatten(), keras.layers.Dense(2, activation="softmax")]
    keras.Sequential([keras.Input((8, 8, 3), name="pixels"), *layers], name="small").save("model.keras")
    labels.write("model.keras", ["green", "red"], {"resize": "crop"})
    write_photos(tmp_path / "photos", {"green": 3, "red": 3}, side=20)
    return tmp_path


def test_the_second_call_needs_no_keras(here: Path, cache: Path, capsys: pytest.CaptureFixture):
    first, said = predict("first.jsonl")
    assert "Keras was loaded: True" in said
    (segment,) = cache.glob("*/*.npy")
    second, said = predict("second.jsonl", "--threshold", "0.5")
    assert "damaged" not in said
    assert "Keras was loaded: False" in said
    assert [row["label"] for row in first] == [row["label"] for row in second]
    probabilities = [[row["probability"] for row in rows] for rows in (first, second)]
    assert len(set(probabilities[0])) == 6
    np.testing.assert_allclose(*probabilities, atol=1e-6)
    assert cli.call(config.Cache, cache_recipe.run, [], ("action",)) == 0
    listed = capsys.readouterr().out
    assert "small, converted for predict\n  float32, openvino" in listed
    assert " network " in listed
    assert "0 activations, " in listed
    content = bytearray(segment.read_bytes())
    content[-1] ^= 1
    segment.write_bytes(content)
    third, said = predict("third.jsonl")
    assert f"ignored because damaged: {segment}" in said
    assert third == first
    assert cli.call(config.Cache, cache_recipe.run, ["prune", "--limit", "0"], ("action",)) == 0
    assert not list(cache.glob("*/*.npy"))


def doubled(path: Path, network: object, agrees: bool = True) -> converted.Converted | None:
    converted.keep(path, network, {"classes": ["é"]}, "doubles", lambda engine: agrees)
    return converted.find(path)


@pytest.fixture
def network() -> object:
    """OpenVINO's graph of a layer that doubles."""
    opset = pytest.importorskip("openvino.opset13")
    given = opset.parameter([-1, 3], np.float32)
    return startup.openvino().Model([opset.multiply(given, np.float32(2))], [given])


def test_a_network_is_that_of_its_file(tmp_path: Path, network: object):
    path = tmp_path / "model.keras"
    path.write_bytes(b"one")
    assert converted.find(path) is None
    found = doubled(path, network)
    assert found.known == {"classes": ["é"]}
    engine = inference.engine(found.network)
    assert next(engine.run([np.array([[1, 2, 3]], np.float32)])).tolist() == [[2, 4, 6]]
    path.write_bytes(b"two")
    assert converted.find(path) is None


def test_a_network_is_kept_where_it_agrees_fits_and_is_ours(
    tmp_path: Path, network: object, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "model.keras"
    path.write_bytes(b"one")
    assert doubled(path, network, agrees=False) is None
    with monkeypatch.context() as patch:
        patch.setattr(converted, "Store", lambda: Store(limit=1000))
        assert doubled(path, network) is None
    assert doubled(path, network) is not None
    if hasattr(os, "geteuid"):
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
        assert converted.find(path) is None


def test_what_openvino_cannot_read_is_not_used(tmp_path: Path, network: object, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "model.keras"
    path.write_bytes(b"one")
    content = converted._content
    with monkeypatch.context() as patch:
        patch.setattr(converted, "_read", lambda _: converted.Converted(network, {}))
        patch.setattr(converted, "_content", lambda *given: content(*given).replace(b"<net", b"<not"))
        doubled(path, network)
    assert converted._space(path).refresh().places
    assert converted.find(path) is None
