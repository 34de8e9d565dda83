"""Batches repeat bit for bit, on every backend, whatever the threads do; augmentation moves what it should."""

import dataclasses
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from PIL import Image

from tlkit.data import Photos, augment, batches, pipeline, readable_errors
from tlkit.data.augmentation import mix
from tlkit.data.pipeline import py_dataset
from tlkit.data.plan import Plan
from tlkit.data.split import content_hash
from tlkit.errors import InvalidInput

AUGMENT = {"flip": True, "rotation": 20.0, "zoom": 0.2, "shift": 0.1, "brightness": 0.2, "contrast": 0.2}
# Keras 3.15 on JAX and PyTorch turns its own variables into arrays in a way that NumPy 2 calls outdated.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
ON_TENSORFLOW = keras.backend.backend() == "tensorflow"


@pytest.fixture
def photos():
    rng = np.random.default_rng(0)
    return Photos.of(rng.integers(0, 256, (37, 9, 12, 3), np.uint8), rng.integers(0, 4, 37))


def epochs(dataset, count=1):
    return [[tuple(np.asarray(part) for part in batch) for batch in dataset] for _ in range(count)]


def same(some, others):
    flat = [[part for epoch in run for batch in epoch for part in batch] for run in (some, others)]
    return len(flat[0]) == len(flat[1]) and all(np.array_equal(a, b) for a, b in zip(*flat, strict=True))


def as_py_dataset(photos, batch_size, shuffle=False, seed=0, augment=None, **more):
    return py_dataset(Plan(photos, batch_size, shuffle, seed, augment, photos.labels, **more))


RANDOM = {"shuffle": True, "seed": 3, "augment": AUGMENT}


@pytest.mark.parametrize("make", [batches, as_py_dataset])
def test_every_epoch_holds_every_photo_once_in_its_own_order(photos, make):
    first, second = epochs(make(photos, 8, shuffle=True), 2)
    for epoch in (first, second):
        images, labels = (np.concatenate(part) for part in zip(*epoch, strict=True))
        assert [len(batch[0]) for batch in epoch] == [8, 8, 8, 8, 5]
        assert (images.dtype, labels.dtype) == (np.uint8, np.int32)
        found = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
        assert found == {photos.read([i]).tobytes(): photos.labels[i] for i in range(37)}
    assert not same([first], [second])


@pytest.mark.parametrize("make", [batches, as_py_dataset])
def test_without_shuffling_the_order_is_that_of_the_photos(photos, make):
    images, labels = (np.concatenate(part) for part in zip(*epochs(make(photos, 10))[0], strict=True))
    assert np.array_equal(images, photos.read(range(37)))
    assert np.array_equal(labels, photos.labels)


@pytest.mark.parametrize("make", [batches, as_py_dataset])
def test_runs_repeat_bit_for_bit_whatever_the_threads_do(photos, make, monkeypatch):
    first = epochs(make(photos, 4, **RANDOM), 3)
    real, delays = Plan.images, np.random.default_rng()
    monkeypatch.setattr(Plan, "images", lambda *args: time.sleep(delays.uniform(0, 0.02)) or real(*args))
    assert same(first, epochs(make(photos, 4, **RANDOM), 3))
    for settings in ({"shuffle": True}, {"augment": AUGMENT}):
        assert not same(*(epochs(make(photos, 4, **settings, seed=seed)) for seed in (3, 4)))


@pytest.mark.skipif(not ON_TENSORFLOW, reason="elsewhere there is only one of them")
def test_tf_data_and_py_dataset_hold_the_same_batches(photos):
    assert same(epochs(batches(photos, 8, **RANDOM), 3), epochs(as_py_dataset(photos, 8, **RANDOM), 3))


@pytest.mark.skipif(not ON_TENSORFLOW, reason="a PyDataset is asked for one epoch after the other")
@pytest.mark.parametrize("first_step", [0, 2])
def test_endless_batches_are_those_of_one_epoch_after_the_other(photos, first_step):
    more = {**RANDOM, "first_epoch": 3, "first_step": first_step}
    apart = epochs(batches(photos, 8, **more), 3)
    through = batches(photos, 8, **more, endless=True).take(3 * (5 - first_step))
    assert same([[batch for epoch in apart for batch in epoch]], epochs(through))


@pytest.fixture
def uneven():
    """37 photos of three classes: 30, 6 and 1."""
    labels = np.repeat([0, 1, 2], [30, 6, 1])
    return Photos.of(np.random.default_rng(0).integers(0, 256, (37, 9, 12, 3), np.uint8), labels)


MIXED = {**RANDOM, "augment": {**AUGMENT, "policy": "randaugment", "erasing": 0.5, "mixup": 0.4, "cutmix": 1.0}}
SETTINGS = [RANDOM, {**MIXED, "classes": 4}, {**RANDOM, "balanced": True}, {**MIXED, "classes": 4, "balanced": True}]


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("make", [batches, as_py_dataset])
def test_first_step_leaves_out_the_first_batches_and_nothing_else(photos, make, settings):
    whole = epochs(make(photos, 8, **settings), 2)
    later = epochs(make(photos, 8, **settings, first_step=3), 2)
    assert len(make(photos, 8, **settings, first_step=3)) == 2
    assert same([epoch[3:] for epoch in whole], later)
    assert same(whole[1:], epochs(make(photos, 8, **settings, first_epoch=1)))


@pytest.mark.skipif(not ON_TENSORFLOW, reason="elsewhere there is only one of them")
@pytest.mark.parametrize("settings", SETTINGS[1:])
def test_tf_data_and_py_dataset_mix_and_balance_alike(photos, settings):
    assert same(epochs(batches(photos, 8, **settings), 2), epochs(as_py_dataset(photos, 8, **settings), 2))


@pytest.mark.parametrize("make", [batches, as_py_dataset])
def test_mixing_follows_the_changes_of_each_photo(photos, make):
    dataset = make(photos, 10, **MIXED, classes=4)
    plan = Plan(photos, 10, True, 3, {**MIXED["augment"], "mixup": 0, "cutmix": 0}, photos.labels)
    for epoch, found in enumerate(epochs(dataset, 2)):
        for step, ((images, labels), indices) in enumerate(zip(found, plan.order(epoch), strict=True)):
            draws = np.random.default_rng((3, epoch, 0, 2, step + 1))
            hot = np.eye(4, dtype=np.float32)[photos.labels[indices]]
            expected = mix(plan.images(epoch, indices), hot, draws, mixup=0.4, cutmix=1.0)
            assert (images.dtype, labels.dtype, labels.shape) == (np.uint8, np.float32, (len(indices), 4))
            assert np.array_equal(images, expected[0])
            assert np.array_equal(labels, expected[1])
            assert (np.abs(images.astype(int) - plan.images(epoch, indices)).max(axis=(1, 2, 3)) > 0).any()
    if ON_TENSORFLOW and make is batches:
        assert [spec.shape.as_list() for spec in dataset.element_spec] == [[None, 9, 12, 3], [None, 4]]


@pytest.mark.parametrize("augment_", [None, {"mixup": 0.5}])
@pytest.mark.parametrize("make", [batches, as_py_dataset])
def test_labels_of_several_classes_pass_through(photos, make, augment_):
    several = (np.random.default_rng(1).random((37, 5)) < 0.4).astype(np.float32)
    dataset = make(dataclasses.replace(photos, labels=several), 10, augment=augment_)
    labels = np.concatenate([batch[1] for batch in epochs(dataset)[0]])
    assert (labels.dtype, labels.shape) == (np.float32, (37, 5))
    assert np.array_equal(labels, several) == (augment_ is None)
    assert np.isclose(labels.sum(axis=0), several.sum(axis=0), atol=6).all()
    if ON_TENSORFLOW and make is batches:
        assert dataset.element_spec[1].shape.as_list() == [None, 5]


def test_images_alone_are_mixed_too(photos):
    plain, alone = (
        [np.asarray(batch[0] if labels else batch) for batch in batches(photos, 20, **MIXED, classes=4, labels=labels)]
        for labels in (True, False)
    )
    assert all(np.array_equal(*pair) for pair in zip(plain, alone, strict=True))


@pytest.mark.parametrize("make", [batches, as_py_dataset])
def test_balanced_epochs_draw_the_classes_alike_often(uneven, make):
    plan = Plan(uneven, 8, False, 3, None, uneven.labels, balanced=True)
    seen, larger = set(), set()
    for epoch, found in enumerate(epochs(make(uneven, 8, seed=3, balanced=True), 20)):
        order = np.concatenate(plan.order(epoch))
        images, labels = (np.concatenate(part) for part in zip(*found, strict=True))
        assert np.array_equal(images, uneven.read(order))
        assert np.array_equal(labels, uneven.labels[order])
        times = np.bincount(order, minlength=37)
        counts = [int(times[uneven.labels == label].sum()) for label in range(3)]
        assert sorted(counts) == [12, 12, 13]
        larger.add(counts.index(13))
        assert times[:30].max() == 1  # of the large class none comes twice
        assert set(times[30:36]) <= {2, 3}
        seen |= set(order)
    assert seen == set(range(37))
    assert larger == {0, 1, 2}
    assert (np.diff(labels) < 0).any()
    assert (np.diff(labels) > 0).sum() > 2  # classes come mixed


def test_a_photo_drawn_twice_is_not_changed_alike_twice(uneven):
    images = np.concatenate([batch[0] for batch in epochs(batches(uneven, 8, **RANDOM, balanced=True))[0]])
    assert len({image.tobytes() for image in images}) == 37


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"augment": {"mixup": 0.2}}, "classes is None; for mixup of labels up to 3 give 4 or more"),
        (
            {"augment": {"mixup": 0.2, "cutmix": 1}, "classes": 3},
            "classes is 3; for mixup and cutmix of labels up to 3",
        ),
    ],
)
def test_mixing_that_cannot_be_done(photos, settings, words):
    with pytest.raises(InvalidInput, match=words):
        batches(photos, 8, **settings)


def test_what_cannot_be_mixed_or_balanced(photos):
    sounds = dataclasses.replace(photos, kind="sounds")
    with pytest.raises(InvalidInput, match="augment has cutmix; sounds can have mixup"):
        batches(sounds, 8, augment={"cutmix": 1.0}, classes=4)
    with pytest.raises(InvalidInput, match="augment has mixup; features can have neither"):
        batches(dataclasses.replace(photos, kind="features"), 8, augment={"mixup": 1.0}, classes=4)
    several = dataclasses.replace(photos, labels=np.ones((37, 5), np.float32))
    with pytest.raises(InvalidInput, match="balanced is true, but photos with several labels"):
        batches(several, 8, balanced=True)


def test_augmentation_does_not_depend_on_the_batch_size(photos):
    whole, single = (epochs(batches(photos, size, augment=AUGMENT))[0] for size in (37, 1))
    assert np.array_equal(whole[0][0], np.concatenate([batch[0] for batch in single]))


def test_static_shapes_and_length(photos):
    dataset = batches(photos, 8)
    assert len(dataset) == 5
    if ON_TENSORFLOW:
        assert [spec.shape.as_list() for spec in dataset.element_spec] == [[None, 9, 12, 3], [None]]


def test_images_alone(photos):
    shapes = [np.asarray(images).shape for images in batches(photos, 20, labels=False)]
    assert shapes == [(20, 9, 12, 3), (17, 9, 12, 3)]


@pytest.mark.parametrize(("count", "batch_size", "words"), [(0, 8, "no photos"), (3, 0, "batch_size is 0: 1 or more")])
def test_batches_that_cannot_be_made(count, batch_size, words):
    with pytest.raises(InvalidInput, match=words):
        batches(Photos.of(np.zeros((count, 8, 8, 3), np.uint8), [0] * count), batch_size)


def linear_model():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((9, 12, 3)), keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(4)]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.01), loss, metrics=["accuracy"])
    return model


@pytest.mark.parametrize("make", [batches, as_py_dataset])
def test_fit_sees_the_epochs_in_order(photos, make, monkeypatch):
    """Keras looks at the data before the first epoch and makes iterators that it does not use; neither may count."""
    asked = []
    real = Plan.images
    monkeypatch.setattr(Plan, "images", lambda *args: asked.append(int(args[1])) or real(*args))
    fitted, by_hand = linear_model(), linear_model()
    fitted.fit(make(photos, 8, **RANDOM), epochs=3, shuffle=False, verbose=0, validation_data=make(photos, 8))
    assert max(asked) == 2
    plan = Plan(photos, 8, True, 3, AUGMENT, photos.labels)
    for epoch in range(3):
        for indices in plan.order(epoch):
            by_hand.train_on_batch(real(plan, epoch, indices), photos.labels[indices])
    for some, others in zip(fitted.get_weights(), by_hand.get_weights(), strict=True):
        np.testing.assert_allclose(some, others, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [batches, as_py_dataset])
def test_evaluate_and_predict_take_uint8(photos, make):
    model = linear_model()
    images = photos.read(range(37)).astype(np.float32)
    np.testing.assert_allclose(model.predict(make(photos, 8), verbose=0), model.predict(images, verbose=0), rtol=1e-5)
    expected = model.evaluate(images, photos.labels, batch_size=8, verbose=0)
    np.testing.assert_allclose(model.evaluate(make(photos, 8), verbose=0), expected, rtol=1e-5)


@pytest.fixture
def files(tmp_path):
    """Photos that stay in their files, as those of `load(memory=0)` do."""
    paths = [tmp_path / f"{i}.png" for i in range(6)]
    for i, path in enumerate(paths):
        Image.new("RGB", (12, 9), (40 * i, 0, 0)).save(path)
    names = [path.name for path in paths]
    hashes = [content_hash(path.read_bytes()) for path in paths]
    return Photos(names, hashes, np.arange(6, dtype=np.int32) % 4, (9, 12, 3), paths, np.arange(6))


@pytest.mark.parametrize("make", [batches, as_py_dataset])
@pytest.mark.parametrize("use", ["iteration", "fit", "validation", "predict"])
def test_a_photo_that_goes_away_in_mid_training_is_named(photos, files, make, use):
    def go_away(*_):
        files.stored[4].unlink(missing_ok=True)

    dataset, model = make(files, 1), linear_model()
    epochs(dataset)
    settings = {"epochs": 3, "shuffle": False, "verbose": 0}
    settings["callbacks"] = [keras.callbacks.LambdaCallback(on_epoch_end=go_away)]
    uses = {
        "iteration": lambda: go_away() or epochs(dataset),
        "fit": lambda: model.fit(dataset, **settings),
        "validation": lambda: model.fit(make(photos, 8), validation_data=dataset, **settings),
        "predict": lambda: go_away() or model.predict(dataset, verbose=0),
    }
    with pytest.raises(InvalidInput, match=r"^4\.png: No such file or directory$"), readable_errors():
        uses[use]()


def test_other_errors_pass_as_they_are(files):
    with pytest.raises(ZeroDivisionError), readable_errors():
        1 / 0  # noqa: B018
    files.stored[4].unlink()
    with pytest.raises(InvalidInput), readable_errors():
        files.read([4])
    with pytest.raises(Exception, match=r"4\.png"):
        epochs(batches(files, 1))
    with pytest.raises(ZeroDivisionError), readable_errors():  # what was before it is none of its concern
        1 / 0  # noqa: B018


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("channels", [1, 3])
def test_augmentation_off_changes_nothing(channels):
    image = rng().integers(0, 256, (9, 12, channels), np.uint8)
    assert np.array_equal(augment(image, rng()), image)


def test_half_of_the_photos_are_mirrored_exactly():
    image = rng().integers(0, 256, (9, 12, 3), np.uint8)
    mirrored = [np.array_equal(augment(image, rng(i), flip=True), image[:, ::-1]) for i in range(200)]
    unchanged = [np.array_equal(augment(image, rng(i), flip=True), image) for i in range(200)]
    assert all(m != u for m, u in zip(mirrored, unchanged, strict=True))
    assert 70 < sum(mirrored) < 130


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("change", [{"rotation": 180.0}, {"zoom": 0.5}, {"shift": 0.9}, AUGMENT])
def test_no_corner_turns_black(change, channels):
    white = np.full((20, 31, channels), 255, np.uint8)
    geometry = {name: value for name, value in change.items() if name not in ("brightness", "contrast")}
    for i in range(50):
        image = augment(white, rng(i), **geometry)
        assert image.shape == white.shape
        assert image.min() == 255


class Draws:
    """Draws that are given: mirror or not, then turn, scale, right, down, light and stretch from -1 to 1."""

    def __init__(self, turn=0, scale=0, right=0, down=0, light=0, stretch=0):
        self.draws = [turn, scale, right, down, light, stretch]

    def random(self, size=None):
        return 0.9 if size is None else np.full(size, 0.9)

    def uniform(self, low, high, size):
        return np.array(self.draws, float)


def test_shift_moves_right_and_down_by_a_share_of_each_side():
    image = np.zeros((10, 20, 1), np.uint8)
    image[5, 5] = 255
    moved = augment(image, Draws(right=1, down=-1), shift=0.2)
    assert np.argwhere(moved[..., 0] == 255).tolist() == [[3, 9]]


def test_rotation_is_in_degrees_around_the_centre():
    image = rng().integers(0, 256, (11, 11, 3), np.uint8)
    for turn in (-1, 1):
        turned = augment(image, Draws(turn=turn), rotation=90)
        assert np.abs(turned.astype(int) - np.rot90(image, -turn)).max() <= 1


def test_zoom_enlarges_by_its_share_around_the_centre():
    image = np.zeros((40, 40, 1), np.uint8)
    image[10:30, 10:30] = 255
    for scale, side in ((1, 25), (-1, 15)):
        moved = augment(image, Draws(scale=scale), zoom=0.25)[..., 0]
        assert abs(np.sqrt((moved > 127).sum()) - side) <= 1
        assert (moved > 127)[20 - side // 2 + 1 : 20 + side // 2 - 1].any()
        assert np.abs(moved.astype(int) - moved[::-1]).max() <= 1


def test_brightness_and_contrast_follow_their_share():
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    lighter = augment(ramp, Draws(light=1), brightness=0.2)
    assert np.array_equal(lighter, np.minimum(ramp.astype(int) + 51, 255))
    flatter = augment(ramp, Draws(stretch=-1), contrast=0.5)
    assert (flatter.min(), flatter.max()) == (64, 191)


def test_switching_tone_on_leaves_the_geometry_alike():
    image = np.zeros((15, 15, 1), np.uint8)
    image[:, 7:] = 200
    moved = augment(image, rng(5), flip=True, rotation=30)
    toned = augment(image, rng(5), flip=True, rotation=30, brightness=0.1)
    assert np.array_equal(moved > 150, toned > toned.min() + 150)


def test_the_pipeline_gives_batches_of_augmented_photos(photos):
    index = 5
    expected = augment(photos.read([index])[0], np.random.default_rng((7, 0, index + 1)), **AUGMENT)
    images = epochs(batches(photos, 37, seed=7, augment=AUGMENT))[0][0][0]
    assert np.array_equal(images[index], expected)
    assert pipeline.AHEAD > 0


READ_AHEAD = """
import time
import numpy as np
from tlkit import runtime
from tlkit.data import Photos, batches
from tlkit.data.plan import Plan

runtime.prepare(0)  # operations are deterministic
read, images = [], Plan.images

def noted(plan, epoch, indices, step=0):
    read.append(step)
    return images(plan, epoch, indices, step)

Plan.images = noted
given = iter(batches(Photos.of(np.zeros((64, 4, 4, 1), np.uint8), [0] * 64), 4))
next(given)
until = time.monotonic() + 20
while len(read) < 4 and time.monotonic() < until:
    time.sleep(0.01)
print(len(read))
"""


@pytest.mark.thorough
@pytest.mark.skipif(not ON_TENSORFLOW, reason="elsewhere a PyDataset gives the batches")
def test_batches_are_read_ahead_where_operations_are_deterministic():
    done = subprocess.run([sys.executable, "-c", READ_AHEAD], capture_output=True, text=True, timeout=120)
    assert int(done.stdout or 0) >= 4, done.stderr[-500:]
