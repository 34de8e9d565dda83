"""Features: what the network predicts, computed once whatever happens in between, and found by what they depend on."""

from __future__ import annotations

import dataclasses
import errno
import functools
import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import keras
import numpy as np
import pytest

from tlkit import backbones, features, training
from tlkit.data import Photos, View, Views
from tlkit.errors import InvalidInput, Unavailable
from tlkit.features import Extractor, blocks, engines, estimates, identity
from tlkit.features import examples as feature_sets
from tlkit.features import extractor as computing
from tlkit.features import space as spaces
from tlkit.features.store import Store


def build(seed: int = 0, classes: int = 4) -> keras.Model:
    keras.utils.set_random_seed(seed)
    return backbones.classifier(backbones.build("LetterNet", weights="none"), classes)


@pytest.fixture(scope="module")
def network() -> keras.Model:
    return features.pooled(build())


def photos(count: int, seed: int = 0, size: int = 32) -> Photos:
    """Random photos; fewer of one seed are the first of more."""
    rng = np.random.default_rng(seed)
    pixels = np.stack([rng.integers(0, 256, (size, size, 1), np.uint8) for _ in range(count)])
    return Photos.of(pixels, np.arange(count) % 4)


def some_of(given: Photos, places: list[int] | np.ndarray) -> Photos:
    return Photos.of(given.read(places), given.labels[places])


def predicted(network: keras.Model, given: Photos) -> np.ndarray:
    return network.predict(given.read(range(len(given))).astype(np.float32), verbose=0)


def close(found: np.ndarray, expected: np.ndarray, tolerance: float = 1e-5) -> None:
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Hashes of the photos that are read, in order."""
    found: list[str] = []
    real = Photos.read

    def read(self: Photos, indices: np.ndarray) -> np.ndarray:
        found.extend(self.hashes[index] for index in indices)
        return real(self, indices)

    monkeypatch.setattr(Photos, "read", read)
    return found


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """One segment for each batch."""
    monkeypatch.setattr(blocks, "FIRST", 1)
    monkeypatch.setattr(blocks, "SECONDS", 0.0)


def engine(network: keras.Model, store: Store | None, **arguments: object) -> Extractor:
    return Extractor(network, store, **{"engine": "keras"} | arguments)  # type: ignore[arg-type]


# What is computed -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["keras", "auto"])
@pytest.mark.parametrize("stored", [True, False])
def test_features_are_what_the_network_predicts(network: keras.Model, name: str, stored: bool):
    train = some_of(photos(70), [*range(60), 3, 3, 59])
    val = some_of(photos(70), [*range(60, 70), 5])  # one of the training photos too
    extractor = engine(network, Store() if stored else None, engine=name)
    given = extractor.extract(train, val)
    for split, found in zip((train, val), given, strict=True):
        close(found[:], predicted(network, split))
        assert (found.shape, found.dtype, found.kind) == ((128,), np.float32, "features")
        assert found.hashes == split.hashes
        np.testing.assert_array_equal(found.labels, split.labels)
    assert extractor.computed == 70
    assert extractor.seconds > 0
    assert extractor.engine in engines.ENGINES


def test_a_second_extractor_computes_and_opens_nothing(network: keras.Model, reads: list[str]):
    (first,) = engine(network, Store()).extract(photos(40))
    assert sorted(reads) == sorted(photos(40).hashes)
    reads.clear()
    again = engine(network, Store())
    (second,) = again.extract(photos(40))
    assert (again.computed, again.seconds, reads) == (0, 0.0, [])
    np.testing.assert_array_equal(second[:], first[:])


def test_photos_that_are_added_are_computed_alone(network: keras.Model, reads: list[str]):
    engine(network, Store()).extract(photos(50))
    reads.clear()
    more = engine(network, Store())
    (found,) = more.extract(photos(60))
    assert more.computed == 10
    assert sorted(reads) == sorted(photos(60).hashes[50:])
    close(found[:], predicted(network, photos(60)))
    assert Store().usage()[0].activations == 60


def test_the_order_of_the_photos_does_not_matter(network: keras.Model):
    (first,) = engine(network, Store()).extract(photos(40))
    order = np.random.default_rng(1).permutation(40)
    again = engine(network, Store())
    (second,) = again.extract(some_of(photos(40), order))
    assert again.computed == 0
    np.testing.assert_array_equal(second[:], first[:][order])


def test_one_extractor_can_be_asked_twice(network: keras.Model):
    extractor = engine(network, Store())
    extractor.extract(photos(20))
    (found,) = extractor.extract(photos(30))
    assert extractor.computed == 30
    close(found[:], predicted(network, photos(30)))


def stand_in(network: keras.Model, chosen: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let OpenVINO be there and give Keras' features plus one; returns which engines are made."""
    made: list[str] = []

    def make(name: str, *_: object) -> engines.Engine:
        made.append(name)
        inner = engines._keras(network, np.dtype(np.uint8))
        offset = float(name == "openvino")
        return engines.Engine(name, 32, lambda batches: (outputs + offset for outputs in inner.run(batches)))

    monkeypatch.setattr(engines, "unavailable", lambda precision: "")
    monkeypatch.setattr(engines, "version", lambda name: name)
    monkeypatch.setattr(engines, "make", make)
    monkeypatch.setattr(engines, "choose", lambda *_: (make(chosen), f"{chosen} it is"))
    return made


@pytest.mark.parametrize("chosen", ["keras", "openvino"])
def test_auto_keeps_to_one_engine_and_to_its_own_space(
    network: keras.Model, monkeypatch: pytest.MonkeyPatch, chosen: str
):
    made = stand_in(network, chosen, monkeypatch)
    expected = predicted(network, photos(60)) + (chosen == "openvino")
    extractor = Extractor(network, Store(), "auto")
    extractor.extract(photos(20))
    (found,) = extractor.extract(some_of(photos(60), range(20, 60)))  # none of them known in either space
    close(found[:], expected[20:])
    assert (made, extractor.engine, extractor.reason) == ([chosen], chosen, f"{chosen} it is")
    (usage,) = Store().usage()
    assert (usage.description["engine"], usage.activations) == (chosen, 60)
    again = Extractor(network, Store(), "auto")
    (found,) = again.extract(photos(60))
    assert (made, again.engine, again.reason, again.computed) == ([chosen], chosen, "", 0)
    close(found[:], expected)


def test_auto_goes_on_with_the_engine_that_has_most(network: keras.Model, monkeypatch: pytest.MonkeyPatch):
    made = stand_in(network, "openvino", monkeypatch)
    Extractor(network, Store(), "keras").extract(photos(40))
    more = Extractor(network, Store(), "auto")
    (found,) = more.extract(photos(50))
    assert (made, more.engine, more.computed) == (["keras", "keras"], "keras", 10)
    close(found[:], predicted(network, photos(50)))
    more = Extractor(network, Store(), "auto")  # most of these are in neither: the chosen one, and all of them
    (found,) = more.extract(photos(120))
    assert (more.engine, more.computed) == ("openvino", 120)
    close(found[:], predicted(network, photos(120)) + 1)


def test_an_engine_that_cannot_run_is_refused_at_once(network: keras.Model, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engines, "unavailable", lambda precision: "it is not installed")
    with pytest.raises(InvalidInput, match="it is not installed"):
        Extractor(network, None, "openvino")


# What names them ------------------------------------------------------------------------------------------------------


def test_identity_does_not_depend_on_names_or_on_what_was_built_before():
    first, second = build(), build()
    a, b = features.pooled(first), features.pooled(second)
    assert identity(a) == identity(b)
    second(np.zeros((1, 32, 32, 1), np.float32))
    backbones.split(second, "LetterNet", "stage3")  # calls the upper layers once more
    assert identity(features.pooled(second)) == identity(a)
    backbones.split(second, "LetterNet", "stage2")
    assert len({str(identity(backbones.split(model, "LetterNet", "stage3")[0])) for model in (first, second)}) == 1


def test_identity_does_not_depend_on_what_is_frozen(network: keras.Model):
    model = build()
    for change in (backbones.freeze, lambda model: backbones.unfreeze(model, "LetterNet", "stage3")):
        change(model)
        assert identity(features.pooled(model)) == identity(network)


def test_identity_survives_saving_and_loading(tmp_path: Path, network: keras.Model):
    build().save(tmp_path / "model.keras")
    assert identity(features.pooled(keras.models.load_model(tmp_path / "model.keras"))) == identity(network)


@pytest.mark.parametrize(
    "name", ["MobileNet", *(pytest.param(name, marks=pytest.mark.slow) for name in ("EfficientNetB0", "DenseNet121"))]
)
def test_identity_of_networks_of_keras(name: str):
    def made() -> keras.Model:
        keras.utils.set_random_seed(0)
        alpha = 0.25 if name == "MobileNet" else None
        return features.pooled(backbones.classifier(backbones.build(name, (32, 32, 3), "none", alpha), 2))

    assert identity(made()) == identity(made())


def rescaled(layers: list[keras.layers.Layer]) -> keras.Model:
    keras.utils.set_random_seed(0)
    return keras.Model(pixels := keras.Input((4, 4, 1)), functools.reduce(lambda x, layer: layer(x), layers, pixels))


def test_identity_changes_with_one_weight(network: keras.Model):
    model = build()
    weight = model.get_layer("backbone").weights[20]
    values = keras.ops.convert_to_numpy(weight).copy()
    values.flat[-1] = np.nextafter(values.flat[-1], 9, dtype=values.dtype)
    weight.assign(values)
    found = identity(features.pooled(model))
    assert found["graph"] == identity(network)["graph"]
    assert found["weights"] != identity(network)["weights"]


def test_identity_changes_with_the_graph(network: keras.Model):
    """The weights are those of the same seed, or none: the graph alone tells these apart."""
    model, wide = build(), backbones.build("LetterNet", (40, 32, 1), "none")
    lower = [backbones.split(model, "LetterNet", stage)[0] for stage in ("stage1", "stage2", "stage3")]
    pixels = keras.Input((4, 4, 1))
    one, other = keras.layers.Rescaling(2.0)(pixels), keras.layers.Rescaling(3.0)(pixels)
    graphs = [
        network,
        model.get_layer("backbone"),
        wide,
        *lower,
        rescaled([keras.layers.Rescaling(1 / 255)]),
        rescaled([keras.layers.Rescaling(1 / 127.5, -1.0)]),
        # Layers that are called what they do.
        rescaled([keras.layers.Activation("relu", name="relu")]),
        rescaled([keras.layers.Activation("tanh", name="tanh")]),
        rescaled([keras.layers.MaxPooling2D(2, padding="same", name="same")]),
        rescaled([keras.layers.MaxPooling2D(2, padding="valid", name="valid")]),
        # Precision of a layer.
        rescaled([keras.layers.ReLU(dtype="float32")]),
        rescaled([keras.layers.ReLU(dtype="mixed_bfloat16")]),
        # The same layers, connected otherwise.
        keras.Model(pixels, keras.ops.subtract(deep := keras.layers.ReLU()(one), one)),
        keras.Model(pixels, keras.ops.subtract(deep, pixels)),
        keras.Model(pixels, keras.ops.subtract(one, other)),
        keras.Model(pixels, keras.ops.subtract(other, one)),
        keras.Model(pixels, keras.ops.flip(one, axis=1)),
        keras.Model(pixels, keras.ops.flip(one, axis=2)),
    ]
    assert len({identity(graph)["graph"] for graph in graphs}) == len(graphs)


def test_a_space_is_of_all_that_its_numbers_depend_on(network: keras.Model, monkeypatch: pytest.MonkeyPatch):
    given, store = photos(1), Store()
    found = set()

    def add(network: keras.Model = network, name: str = "keras", given: Photos = given, **arguments: object) -> None:
        space = engine(network, store, **arguments).open(name, given)
        assert space.folder
        found.add(space.folder.name)

    add()
    add(label="the same, called otherwise")
    assert len(found) == 1
    add(features.pooled(build(seed=1)))
    monkeypatch.setattr(engines, "version", lambda name: f"another {name}")
    add()
    add(name="openvino")
    add(precision="mixed_bfloat16")
    add(dtype="float16")
    add(given=photos(1, size=40))  # of a network that takes any size
    add(given=dataclasses.replace(given, kind="arrays"))
    monkeypatch.setattr("tlkit.data.images.DECODER", -1)
    add()
    monkeypatch.setattr(computing, "FORMAT", -1)
    add()
    monkeypatch.setattr("importlib.metadata.version", lambda name: f"another {name}")
    add()
    assert len(found) == 11


def test_views_have_features_of_their_own(network: keras.Model):
    given = [View(photos(10), {"rotation": 30.0, "flip": True}, 0, number) for number in range(2)]
    extractor = engine(network, Store())
    found = extractor.extract(*given, photos(10))
    assert extractor.computed == 30
    for view, seen in zip(given, found, strict=False):
        close(seen[:], network.predict(view.read(np.arange(10)).astype(np.float32), verbose=0))
    again = engine(network, Store())
    again.extract(given[1])
    assert again.computed == 0


# Features -------------------------------------------------------------------------------------------------------------


def test_features_are_read_like_photos_and_sliced_like_an_array(
    network: keras.Model, monkeypatch: pytest.MonkeyPatch, small_blocks: None
):
    train, val = engine(network, Store()).extract(photos(70), photos(9, seed=1))
    assert len(train.segments) > 2
    whole = train.array()
    assert isinstance(whole, np.ndarray)
    for places in ([0, 69, 33, 33], np.array([5, 64, 2]), range(30, 40), []):
        np.testing.assert_array_equal(train.read(places), whole[np.asarray(places, int)])
    for some in (slice(3, 50), slice(None, None, 7), slice(60, 200), slice(5, 5)):
        np.testing.assert_array_equal(train[some], whole[some])
    both = features.Features.joined([train, val])
    np.testing.assert_array_equal(both[:], np.concatenate([whole, val[:]]))
    np.testing.assert_array_equal(both.labels, np.concatenate([train.labels, val.labels]))
    assert both.hashes == train.hashes + val.hashes
    assert len(both) == 79
    copy = train.read([0])
    copy[...] = 0  # the store is not written through what was read
    np.testing.assert_array_equal(train[:], whole)
    monkeypatch.setattr(feature_sets, "IN_MEMORY", whole.nbytes - 1)
    rows = train.array()
    assert isinstance(rows, features.Rows)
    assert (rows.shape, len(rows)) == (whole.shape, len(whole))
    np.testing.assert_array_equal(rows[3:9], whole[3:9])
    monkeypatch.setattr(feature_sets, "IN_MEMORY", whole.nbytes)
    assert isinstance(train.array(), np.ndarray)


def test_no_photos_have_no_features(network: keras.Model):
    given = photos(5)
    empty = dataclasses.replace(given, names=[], hashes=[], labels=given.labels[:0], rows=given.rows[:0])
    some, none = engine(network, None).extract(given, empty)
    assert (len(some), none.array().shape) == (5, (0, 128))


def test_float16_takes_half_of_the_disk(network: keras.Model):
    sizes = []
    for dtype in ("float32", "float16"):
        (found,) = engine(network, Store(), dtype=dtype).extract(photos(60))
        assert found.dtype == dtype
        assert found[:].dtype == dtype
        sizes.append(next(usage.size for usage in Store().usage() if usage.description["dtype"] == dtype))
        close(found[:].astype(np.float32), predicted(network, photos(60)), 1e-3)
    assert sizes[0] - sizes[1] == 60 * 128 * 2


def bright() -> tuple[keras.Model, Photos]:
    """A network whose values do not fit into float16 from the 65th photo on."""
    pixels = np.full((80, 4, 4, 1), 60, np.uint8) + np.arange(80, dtype=np.uint8)[:, None, None, None] % 5
    pixels[64:, 0] = 200
    pixels[:, 3, 3, 0] = np.arange(80)
    return rescaled([keras.layers.Rescaling(1000.0), keras.layers.Flatten()]), Photos.of(pixels, [0] * 80)


def test_what_does_not_fit_float16_is_kept_in_float32():
    network, given = bright()
    for computed in (80, 0):
        extractor = engine(network, Store(), dtype="float16")
        (found,) = extractor.extract(given)
        assert (extractor.dtype, found.dtype, extractor.computed) == (np.float32, np.float32, computed)
        np.testing.assert_array_equal(found[:], given.read(range(80)).reshape(80, -1) * np.float32(1000))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("stored", [True, False])
def test_features_that_are_not_finite_are_refused_and_the_photo_is_named(value: float, dtype: str, stored: bool):
    network, given = bright()
    pixels = keras.Input((4, 4, 1))
    x = network(pixels)
    number = keras.ops.equal(x, 61_000.0)  # of the photos whose pixels are 61, and of photo 61
    broken = keras.Model(pixels, keras.ops.where(number, np.float32(value), x), name="broken")
    given = dataclasses.replace(given, names=[f"rose/{place}.jpg" for place in range(80)])
    extractor = engine(broken, Store() if stored else None, dtype=dtype)
    extractor.extract(some_of(given, [0]))
    with pytest.raises(InvalidInput, match=r"^rose/1\.jpg: the output of the network \(broken\) is not finite: "):
        extractor.extract(given)
    view = View(given, {"flip": True}, 0, 0)
    with pytest.raises(InvalidInput, match=r"^rose/1\.jpg: the output"):
        extractor.extract(view)


# What goes wrong ------------------------------------------------------------------------------------------------------


def test_without_a_store_nothing_is_written(network: keras.Model, cache: Path):
    extractor = engine(network, None)
    (found,) = extractor.extract(photos(40))
    close(found[:], predicted(network, photos(40)))
    assert not list(cache.iterdir())


def test_features_that_do_not_fit_into_memory_are_one_line(network: keras.Model, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(computing, "available_memory", lambda: 1000)
    with pytest.raises(Unavailable, match=r"^0\.0 GB of features do not fit into memory without a store$"):
        engine(network, None).extract(photos(40))
    engine(network, Store()).extract(photos(40))


def full_after(segments: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real, written = spaces.write_file, []

    def write(path: Path, *arguments: object) -> object:
        if path.suffix == ".npy":
            if len(written) >= segments:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            written.append(path)
        return real(path, *arguments)

    monkeypatch.setattr(spaces, "write_file", write)


@pytest.mark.parametrize("segments", [0, 1, 3])
def test_a_full_disk_costs_one_line_and_no_work(
    network: keras.Model,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    reads: list[str],
    small_blocks: None,
    segments: int,
):
    with monkeypatch.context() as patch:
        full_after(segments, patch)
        extractor = engine(network, Store())
        (found,) = extractor.extract(photos(200))
    line = f"the activation store {Store().folder} cannot be written: No space left on device; continuing without it\n"
    assert capsys.readouterr().err == line
    assert extractor.computed == 200
    close(found[:], predicted(network, photos(200)))
    kept = sum(usage.activations for usage in Store().usage(verify=True))
    assert kept == 32 * segments
    again = engine(network, Store())
    (found,) = again.extract(photos(200))
    assert again.computed == 200 - kept
    close(found[:], predicted(network, photos(200)))


def test_nothing_is_lost_when_the_disk_fills_up_while_others_are_found(
    network: keras.Model, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    engine(network, Store()).extract(photos(40))
    full_after(0, monkeypatch)
    extractor = engine(network, Store())
    (found,) = extractor.extract(photos(60))
    assert extractor.computed == 20
    close(found[:], predicted(network, photos(60)))


def test_the_limit_costs_one_line_and_no_work(network: keras.Model, capsys: pytest.CaptureFixture, small_blocks: None):
    limit = 2.5 * 32 * (128 * 4 + 32)  # two segments and a half
    extractor = engine(network, Store(limit=limit))
    (found,) = extractor.extract(photos(200))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"the activation store {Store().folder} cannot be written: the limit of ")
    assert extractor.computed == 200
    close(found[:], predicted(network, photos(200)))
    assert sum(usage.size for usage in Store().usage()) <= limit


def test_what_is_found_does_not_make_room_for_what_is_computed(
    network: keras.Model, capsys: pytest.CaptureFixture, small_blocks: None
):
    engine(network, Store()).extract(photos(64))
    size = Store().usage()[0].size
    extractor = engine(network, Store(limit=size + 100))
    (found,) = extractor.extract(photos(96))
    assert "the limit of" in capsys.readouterr().err
    assert Store().usage()[0].activations == 64
    close(found[:], predicted(network, photos(96)))
    # What nobody uses now does.
    other = engine(features.pooled(build(seed=1)), Store(limit=size + 100))
    other.extract(photos(64))
    assert capsys.readouterr().err == ""


def test_a_folder_that_cannot_be_written_costs_one_line(
    network: keras.Model, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    engine(network, Store()).extract(photos(40))
    monkeypatch.setattr(Path, "mkdir", refuse)
    monkeypatch.setattr(os, "utime", refuse)
    again = engine(network, Store())
    again.extract(photos(40))
    assert (again.computed, capsys.readouterr().err) == (0, "")  # it can still be read
    extractor = engine(network, Store())
    (found,) = extractor.extract(photos(60))
    line = f"the activation store {Store().folder} cannot be written: Permission denied; continuing without it\n"
    assert (extractor.computed, capsys.readouterr().err) == (20, line)
    close(found[:], predicted(network, photos(60)))


def test_a_folder_that_is_not_there_is_made_when_something_is_written(network: keras.Model, tmp_path: Path):
    store = Store(tmp_path / "a" / "b")
    extractor = engine(network, store)
    assert not (tmp_path / "a").exists()
    extractor.extract(photos(5))
    assert store.usage(verify=True)[0].activations == 5
    shutil.rmtree(tmp_path / "a")
    (found,) = extractor.extract(photos(6))
    assert extractor.computed == 11
    close(found[:], predicted(network, photos(6)))


@pytest.mark.parametrize("damage", ["cut", "flipped", "permuted"])
def test_a_damaged_segment_is_computed_again_and_named(network: keras.Model, cache: Path, capsys, damage: str):
    engine(network, Store()).extract(photos(10))
    (segment,) = cache.glob("*/*.npy")
    content = segment.read_bytes()
    before, last = content[-1024:-512], content[-512:]  # the features of the last two photos
    segment.write_bytes(
        content[:-1024]
        + {
            "cut": before + last[:-100],
            "flipped": before + last[:-1] + bytes([last[-1] ^ 64]),
            "permuted": last + before,
        }[damage]
    )
    again = engine(network, Store())
    assert again.missing(photos(10)) == 10
    (found,) = again.extract(photos(10))
    assert again.computed == 10
    assert capsys.readouterr().err.startswith(f"ignored because damaged: {segment} (")
    close(found[:], predicted(network, photos(10)))
    (found,) = engine(network, Store()).extract(photos(10))
    close(found[:], predicted(network, photos(10)))
    assert Store().usage(verify=True)[0].damaged == []  # it was written anew under its name


def test_what_another_process_writes_meanwhile_is_verified_too(network: keras.Model, monkeypatch: pytest.MonkeyPatch):
    """Another one writes all between this one's look at the store and its turn, and that is damaged."""
    real = Extractor._turn

    def turn(self: Extractor, *arguments: object) -> bool:
        monkeypatch.setattr(Extractor, "_turn", real)
        engine(network, Store()).extract(photos(20))
        (segment,) = Store().folder.glob("*/*.npy")
        segment.write_bytes(segment.read_bytes()[:-4] + bytes(4))
        return real(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Extractor, "_turn", turn)
    extractor = engine(network, Store())
    (found,) = extractor.extract(photos(20))
    assert extractor.computed == 20
    close(found[:], predicted(network, photos(20)))


def test_an_error_of_reading_is_not_taken_for_the_stores(network: keras.Model, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "the camera is gone")

    monkeypatch.setattr(Photos, "read", fail)
    for store in (None, Store()):
        with pytest.raises(OSError, match="the camera is gone"):
            engine(network, store).extract(photos(3))


def test_a_photo_that_cannot_be_decoded_leaves_what_was_computed(
    network: keras.Model, monkeypatch: pytest.MonkeyPatch, small_blocks: None
):
    real, broken = Photos.read, photos(100).hashes[80]

    def read(self: Photos, indices: np.ndarray) -> np.ndarray:
        for index in indices:
            if self.hashes[index] == broken:
                raise InvalidInput("80.png: not an image")
        return real(self, indices)

    monkeypatch.setattr(Photos, "read", read)
    with pytest.raises(InvalidInput, match=r"80\.png"):
        engine(network, Store()).extract(photos(100))
    assert Store().usage(verify=True)[0].activations == 64
    good = engine(network, Store())
    (found,) = good.extract(photos(80))
    assert good.computed == 16
    close(found[:], predicted(network, photos(80)))


# Segments and turns ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "largest", "seconds", "turn"), [(1, 2**30, 0.0, 10.0), (64, 1, 5.0, 0.0)])
def test_many_segments_and_turns(
    network: keras.Model,
    monkeypatch: pytest.MonkeyPatch,
    reads: list[str],
    first: int,
    largest: int,
    seconds: float,
    turn: float,
):
    for name, value in (("FIRST", first), ("LARGEST", largest), ("SECONDS", seconds), ("TURN", turn)):
        monkeypatch.setattr(computing if name == "TURN" else blocks, name, value)
    extractor = engine(network, Store())
    (found,) = extractor.extract(photos(150))
    close(found[:], predicted(network, photos(150)))
    assert extractor.computed == 150
    assert len(found.segments) == 5
    (usage,) = Store().usage(verify=True)
    assert (usage.activations, usage.duplicates, usage.damaged) == (150, 0, [])


def test_a_segment_is_worth_some_seconds_of_work(network: keras.Model, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(blocks, "SECONDS", 1e6)  # whatever the machine does beside
    (found,) = engine(network, Store()).extract(photos(400))
    assert [len(segment.keys) for segment in found.segments if segment.keys[0].tobytes().hex() == photos(1).hashes[0]]
    assert sorted(len(segment.keys) for segment in found.segments) == [64, 336]


def test_what_another_process_writes_meanwhile_is_taken_over(network: keras.Model, monkeypatch: pytest.MonkeyPatch):
    """Another one does half of the work between this one's look at the store and its turn."""
    real = Extractor._turn

    def turn(self: Extractor, *arguments: object) -> None:
        monkeypatch.setattr(Extractor, "_turn", real)
        engine(network, Store()).extract(photos(40))
        real(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Extractor, "_turn", turn)
    extractor = engine(network, Store())
    (found,) = extractor.extract(photos(60))
    assert extractor.computed == 20
    close(found[:], predicted(network, photos(60)))
    assert Store().usage()[0].duplicates == 0


EXTRACT = """
import sys, time
from pathlib import Path
import keras, numpy as np
from tlkit import backbones, features
from tlkit.features import blocks, extractor as computing, store
from tlkit.data import Photos

folder = Path(sys.argv[1])
keras.utils.set_random_seed(0)
network = features.pooled(backbones.classifier(backbones.build("LetterNet", weights="none"), 4))
photos = Photos.of(np.random.default_rng(0).integers(0, 256, (400, 32, 32, 1), np.uint8), [0] * 400)
read, write = Photos.read, store.Space.write

def logged(self, places):
    while (folder / "wrote").exists():
        time.sleep(0.005)  # in the middle of its work, to be killed
    with open(folder / "read", "a") as log:
        log.writelines(f"{self.hashes[place]}\\n" for place in places)
    while not (folder / "other").exists():
        time.sleep(0.005)
    return read(self, places)

def noted(self, keys, values):
    write(self, keys, values)
    with open(folder / "wrote", "a") as log:
        log.writelines(f"{key.hex()}\\n" for key in keys)

Photos.read, store.Space.write = logged, noted
blocks.SECONDS = 0.02  # segments of one or two batches
features.Extractor(network, store.Store(), engine="keras").extract(photos)
"""


@pytest.mark.thorough
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is none on Windows")
def test_two_processes_at_once_one_of_them_killed_compute_nothing_twice(
    network: keras.Model, tmp_path: Path, cache: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
):
    """The store verifies clean, and only what was in flight is computed again; the other process is this one."""

    def lines(name: str) -> list[str]:
        path = tmp_path / name
        return path.read_text(encoding="utf-8").split() if path.exists() else []

    def wait_for(name: str) -> None:
        end = time.monotonic() + 120
        while not lines(name):
            assert child.poll() is None, "it ended before its time"
            assert time.monotonic() < end
            time.sleep(0.005)

    def kill() -> None:
        wait_for("wrote")
        child.kill()

    turn, write = Extractor._turn, spaces.Space.write
    wrote: list[str] = []

    def waiting(self: Extractor, *arguments: object) -> object:
        """It has looked at the store, and asks for its turn while the child works."""
        (tmp_path / "other").touch()
        return turn(self, *arguments)  # type: ignore[arg-type]

    def noted(self: spaces.Space, keys: list[bytes], values: np.ndarray) -> object:
        wrote.extend(key.hex() for key in keys)
        return write(self, keys, values)

    given = Photos.of(np.random.default_rng(0).integers(0, 256, (400, 32, 32, 1), np.uint8), [0] * 400)
    expected = predicted(network, given)
    reads.clear()
    monkeypatch.setattr(Extractor, "_turn", waiting)
    monkeypatch.setattr(spaces.Space, "write", noted)
    monkeypatch.setattr(blocks, "SECONDS", 0.02)
    child = subprocess.Popen([sys.executable, "-c", EXTRACT, str(tmp_path)], stderr=subprocess.PIPE)
    killer = threading.Thread(target=kill)
    try:
        wait_for("read")
        killer.start()
        extractor = engine(network, Store())
        (found,) = extractor.extract(given)
        killer.join()
    finally:
        child.kill()
        _, errors = child.communicate()
    assert child.returncode == -signal.SIGKILL, errors.decode()
    close(found[:], expected)
    (usage,) = Store(cache).usage(verify=True)
    assert (usage.activations, usage.duplicates, usage.damaged) == (400, 0, [])
    assert not list(cache.glob("*/.*.part"))
    stored = {key.tobytes().hex() for path in cache.glob("*/*.npy") for key in np.load(path)["keys"][0]}
    committed = stored - set(wrote)
    assert set(lines("wrote")) <= committed
    assert 64 <= len(committed) < 400
    assert extractor.computed == 400 - len(committed)
    assert len(reads) == len(set(reads)) == extractor.computed
    assert not committed & set(reads)
    assert len(set(lines("read"))) > len(committed)  # it was killed with batches in flight


# Whether activations are worth their disk -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("passes", "free", "worth"),
    [(200_000, 1e12, True), (200_000, 5e4, False), (10_000, 1e12, False), (50, 1e12, False)],
)
def test_activations_are_worth_their_disk_where_they_save_passes_and_fit(
    network: keras.Model, monkeypatch: pytest.MonkeyPatch, passes: int, free: float, worth: bool
):
    monkeypatch.setattr(estimates, "_free", lambda folder: free)
    monkeypatch.setattr("tlkit.runtime.device", lambda: ("cpu", (0, 0)))
    found = features.estimate(engine(network, Store(), dtype="float16"), [photos(60), photos(40, seed=1)], passes)
    assert found.worth == worth
    assert found.size == 100 * 128 * 2
    seconds = features.seconds_each(network)
    assert 1e-4 < seconds < 5e-4  # measured: 0.25 to 0.5 ms, most of it what each call costs
    assert found.saved == pytest.approx(passes * seconds - 100 * (seconds + 256 / 2e8) - passes * 256 / 1e9)
    assert ("but only" in found.reason) == (free < 1e6)
    assert ("save no forward pass" in found.reason) == (passes == 50)


def test_whether_activations_are_stored_is_decided_by_no_clock(network: keras.Model, monkeypatch: pytest.MonkeyPatch):
    """Stored ones are rounded, so the choice moves the weights."""
    extractor, given = engine(network, Store(), dtype="float16"), [photos(60)]
    expected = features.estimate(extractor, given, 30_000)
    for seconds in (1e-9, 1e9):
        clock = itertools.count(0.0, seconds)
        monkeypatch.setattr("time.perf_counter", lambda clock=clock: next(clock))
        assert features.estimate(extractor, given, 30_000) == expected


def test_splits_of_different_kinds_are_refused_and_another_type_gets_an_engine_of_its_own(network: keras.Model):
    small = Photos.of(np.full((4, 32, 32, 1), 0.5, np.float32), [0, 1, 2, 0])
    extractor = engine(network, None)
    extractor.extract(photos(4))
    (found,) = extractor.extract(small)
    close(found[:], network.predict(small.read(range(4)), verbose=0))
    with pytest.raises(ValueError, match="one shape, dtype and kind"):
        extractor.extract(photos(4), small)


def test_code_that_is_not_keras_own_is_part_of_the_identity(tmp_path):
    def made(factor: int) -> str:
        path = tmp_path / f"made{factor}.py"
        path.write_text(f"def same_name(x):\n    return x * {factor}\n", encoding="utf-8")
        space: dict = {}
        exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), space)  # noqa: S102
        inputs = keras.Input((3,))
        outputs = keras.layers.Lambda(space["same_name"], output_shape=(3,))(inputs)
        return features.identity(keras.Model(inputs, outputs))["graph"]

    assert made(2) != made(3)
    assert made(2) == made(2)


def test_activations_that_are_stored_already_cost_nothing(network: keras.Model):
    some, more = photos(40), photos(60, seed=1)
    engine(network, Store(), dtype="float16").extract(some)
    extractor = engine(network, Store(), dtype="float16")
    assert extractor.missing(some, more) == 60
    assert features.estimate(extractor, [some, more], 1000).size == 60 * 128 * 2
    assert features.estimate(extractor, [some], 0).worth


# Training on activations of frozen stages -----------------------------------------------------------------------------

CHANGES = {"flip": True, "rotation": 15.0, "brightness": 0.2}


SHAPES = {"LetterNet": (32, 32, 1), "MobileNet": (64, 64, 3)}


def patterns(count: int, shape: tuple[int, int, int], seed: int) -> Photos:
    """Noise, with a bright stripe where the class says."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    pixels = rng.integers(0, 120, (count, *shape))
    for image, label in zip(pixels, labels, strict=True):
        image[shape[0] * label // 3 : shape[0] * (label + 1) // 3] += 100
    return Photos.of(pixels.astype(np.uint8), labels)


def normalized(name: str, dropout: float, stage: str) -> keras.Model:
    """A network of random weights whose moving statistics are those of photos, so that no activation vanishes."""
    keras.utils.set_random_seed(0)
    backbone = backbones.build(name, SHAPES[name], "none", alpha=0.25 if name == "MobileNet" else None)
    norms = [layer for layer in backbone.layers if isinstance(layer, keras.layers.BatchNormalization)]
    momentum = norms[0].momentum
    for layer in norms:
        layer.momentum = 0.0
    backbone(patterns(64, SHAPES[name], 9).read(range(64)).astype(np.float32), training=True)
    for layer in norms:
        layer.momentum = momentum
    model = backbones.classifier(backbone, 3, dropout)
    backbones.unfreeze(model, name, stage)
    return model


class Losses(keras.callbacks.Callback):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[float] = []

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self.seen.append(float((logs or {})["loss"]))


def weights(model: keras.Model) -> dict[str, np.ndarray]:
    return {weight.path: np.array(keras.ops.convert_to_numpy(weight)) for weight in model.weights}


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "stage", "dropout", "views", "dtype", "tolerance"),
    [
        ("LetterNet", "stage3", 0.2, 3, "float32", 1e-4),
        *(
            pytest.param(*values, marks=pytest.mark.slow)
            for values in (
                ("LetterNet", "stage2", 0.0, 0, "float16", 2e-2),
                ("MobileNet", "stage4", 0.0, 0, "float32", 1e-4),
                ("MobileNet", "stage3", 0.2, 3, "float32", 1e-4),
            )
        ),
    ],
)
def test_training_above_a_boundary_equals_training_through_what_lies_below(
    name: str, stage: str, dropout: float, views: int, dtype: str, tolerance: float
):
    """Step by step: one side sees photos, the other what the frozen stages gave for them once."""
    if keras.backend.backend() == "torch":
        dropout = 0.0  # there, to build `upper` draws from the seeds of the layer that both share
    settings = training.Settings(epochs=3, learning_rate=1e-3, batch_size=16, label_smoothing=0.1, weight_decay=0.01)
    train, val = patterns(40, SHAPES[name], 0), patterns(12, SHAPES[name], 1)
    seen = [View(train, CHANGES, 0, number) for number in range(views)] or [train]

    through, ours = Losses(), Losses()
    model = normalized(name, dropout, stage)
    together = Views(seen) if views else train
    expected = training.fit_full(model, together, val, settings, seed=5, callbacks=[through])

    other = normalized(name, dropout, stage)
    before = weights(other)
    lower, upper = backbones.split(other, name, stage)
    *given, given_val = Extractor(lower, Store(), "keras", dtype=dtype).extract(*seen, val)
    given_train = Views(given) if views else given[0]
    keras.utils.set_random_seed(1)
    found = training.fit_full(upper, given_train, given_val, settings, seed=5, callbacks=[ours])

    assert len(ours.seen) == 9
    np.testing.assert_allclose(ours.seen, through.seen, rtol=tolerance)
    for score in ("val_loss", "val_accuracy"):
        values = [[epoch[score] for epoch in history.epochs] for history in (found, expected)]
        np.testing.assert_allclose(*values, rtol=tolerance, atol=1e-6)
    trained = {weight.path for weight in other.trainable_weights}
    after, reference = weights(other), weights(model)
    for path, values in after.items():
        if path in trained:
            np.testing.assert_allclose(values, reference[path], atol=tolerance, err_msg=path)
        else:
            np.testing.assert_array_equal(values, before[path], err_msg=path)
    moved = [path for path in trained if np.abs(after[path] - before[path]).max() > 1e-4]
    assert len(moved) > len(trained) / 2
    assert ours.seen[-1] < 0.97 * ours.seen[0]
    pixels = val.read(range(12)).astype(np.float32)
    logits = upper.predict(lower.predict(pixels, verbose=0), verbose=0)
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(other.predict(pixels, verbose=0), softmax, atol=1e-5)


def test_a_network_is_not_cut_where_nothing_lies_below():
    model = build()
    for stage in ("stem", "stage9", "", "stage3_add"):
        with pytest.raises(InvalidInput, match=f"stage '{stage}' is not a stage with another below it: LetterNet has"):
            backbones.split(model, "LetterNet", stage)


@pytest.mark.slow
def test_nasnet_cannot_be_cut():
    model = backbones.classifier(backbones.build("NASNetMobile", (32, 32, 3), "none"), 2)
    with pytest.raises(InvalidInput, match="NASNetMobile cannot be cut in front of stage3: later layers need what is"):
        backbones.split(model, "NASNetMobile", "stage3")
