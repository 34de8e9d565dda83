"""Each change against another implementation of it: SciPy for what moves pixels, Pillow for tones, NumPy for mixing."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from scipy import ndimage, stats

from tlkit.data.augmentation import augment, mix, switched_on
from tlkit.data.operations import STRONGEST, draw_operations
from tlkit.errors import InvalidInput

OPERATIONS = list(STRONGEST)
ALL = {
    "flip": True, "rotation": 20.0, "zoom": 0.2, "shift": 0.1, "brightness": 0.2, "contrast": 0.2, "crop": 0.3,
    "policy": "randaugment", "magnitude": 12.0, "erasing": 0.5,
}  # fmt: skip


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def scene(height: int = 60, width: int = 80, channels: int = 3) -> np.ndarray:
    """Something smooth, as photos are, that is not the same anywhere."""
    noise = rng().normal(size=(height, width, channels))
    smooth = ndimage.gaussian_filter(noise, (3, 3, 0), mode="reflect")
    return np.clip(128 + smooth * 60 / smooth.std(), 0, 255).astype(np.uint8)


class Draws:
    """Draws that are given; all others are 0.5, and 0 where they go from -1 to 1."""

    def __init__(self, mirror: float = 0.9, amounts: Any = (0, 0, 0, 0, 0, 0), crop: Any = None, policy: Any = None):
        self.mirror, self.amounts, self.boxes, self.policy = mirror, amounts, crop, policy

    def random(self, size: Any = None) -> Any:
        if size is None:
            return self.mirror
        values = np.full(size, 0.5)
        if size == (2, 3) and self.policy:
            values[...] = self.policy
        elif size == (11, 2) and self.boxes is not None:
            values[...], self.boxes = self.boxes, None
        return values

    def uniform(self, low: float, high: float, size: int) -> np.ndarray:
        return np.array(self.amounts, float)


def operation(name: str, way: float = 0.9, strength: float = 0.5) -> Draws:
    """Draw one operation, and the identity after it."""
    return Draws(policy=[[(OPERATIONS.index(name) + 0.5) / 14, strength, way], [0, 0, 0]])


def pulled(image: np.ndarray, source: Any) -> np.ndarray:
    """The exact bilinear resample: `source` says where in the photo each place (y, x) from -half to half comes from."""
    height, width, channels = image.shape
    y, x = np.mgrid[:height, :width] + 0.5
    from_y, from_x = source(y - height / 2, x - width / 2)
    places = [from_y + height / 2 - 0.5, from_x + width / 2 - 0.5]
    planes = [ndimage.map_coordinates(image[..., c].astype(float), places, order=1, mode="reflect") for c in range(3)]
    return np.stack(planes[:channels], axis=-1)


def close(image: np.ndarray, expected: np.ndarray) -> bool:
    """Equal but for what OpenCV 4 rounds: it takes the nearest of 32 places between two pixels."""
    assert image.dtype == np.uint8
    assert image.shape == expected.shape
    difference = np.abs(image - expected)
    return difference.max() < 2 and difference.mean() < 0.4


@pytest.mark.parametrize("mirror", [0.1, 0.9])
@pytest.mark.parametrize(("amounts", "turn"), [((0.7, 0.5, 1, -0.5), 0.7), ((-1, -1, -1, 1), -1)])
def test_what_moves_is_one_exact_resample(mirror: float, amounts: tuple, turn: float):
    image = scene()
    moved = augment(image, Draws(mirror, (*amounts, 0, 0)), flip=True, rotation=30, zoom=0.4, shift=0.3)
    angle, scale = math.radians(turn * 30), 1 + amounts[1] * 0.4
    right, down = amounts[2] * 0.3 * 80, amounts[3] * 0.3 * 60

    def source(y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        y, x = (y - down) / scale, (x - right) / scale
        y, x = math.cos(angle) * y - math.sin(angle) * x, math.sin(angle) * y + math.cos(angle) * x
        return y, -x if mirror < 0.5 else x

    assert close(moved, pulled(image, source))


@pytest.mark.parametrize("way", [0.1, 0.9])
@pytest.mark.parametrize(("policy", "strength"), [("randaugment", 15), ("trivialaugment", 10)])
@pytest.mark.parametrize("name", ["shear_x", "shear_y", "translate_x", "translate_y", "rotate"])
def test_a_policys_geometric_operations(name: str, policy: str, strength: int, way: float):
    image = scene()
    strongest = {  # torchvision's, but shares of the side for its pixels of a photo of 331 and of 224
        "shear": (0.3, 0.99), "translate": (150 / 331, 32 / 224), "rotate": (math.radians(30), math.radians(135)),
    }[name.split("_")[0]]  # fmt: skip
    amount = strength / 30 * strongest[policy == "trivialaugment"] * (1 if way > 0.5 else -1)
    cos, sin = math.cos(amount), math.sin(amount)
    sources = {
        "shear_x": lambda y, x: (y, x + amount * y),
        "shear_y": lambda y, x: (y + amount * x, x),
        "translate_x": lambda y, x: (y, x - amount * 80),
        "translate_y": lambda y, x: (y - amount * 60, x),
        "rotate": lambda y, x: (cos * y - sin * x, cos * x + sin * y),
    }
    moved = augment(image, operation(name, way, (strength + 0.5) / 31), policy=policy, magnitude=strength)
    assert close(moved, pulled(image, sources[name]))


def test_all_that_moves_is_composed(monkeypatch: pytest.MonkeyPatch):
    """Mirrored, then turned, then sheared and moved by the policy; and there is one resample."""
    image, calls, real = scene(), [], cv2.warpAffine
    monkeypatch.setattr(cv2, "warpAffine", lambda *args, **given: calls.append(1) or real(*args, **given))
    policy = [[(OPERATIONS.index(name) + 0.5) / 14, 0.5, 0.9] for name in ("shear_x", "translate_y")]
    moved = augment(
        image,
        Draws(0.1, (1, 0, 0, 0, 0, 0), policy=policy),
        flip=True,
        rotation=20,
        policy="randaugment",
        magnitude=30.0,
    )
    cos, sin = math.cos(math.radians(20)), math.sin(math.radians(20))

    def source(y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        y = y - 60 * 150 / 331
        x = x + 0.3 * y
        return cos * y - sin * x, -(cos * x + sin * y)

    assert close(moved, pulled(image, source))
    assert len(calls) == 1
    for seed in range(30):
        augment(image, rng(seed), **ALL)
    assert len(calls) <= 31


def test_a_crop_is_enlarged_as_pillow_does():
    image = scene(64, 64)
    draws = np.full((11, 2), 0.5)
    draws[0, 0], draws[-1] = 0, (1, 0.5)  # the smallest area, square, at the right and in the middle
    cut = augment(image, Draws(crop=draws), crop=0.25)
    expected = Image.fromarray(image).resize((64, 64), Image.Resampling.BILINEAR, box=(32, 16, 64, 48))
    assert close(cut[2:-2, 2:-2], np.asarray(expected, float)[2:-2, 2:-2])


@pytest.mark.parametrize(("height", "width"), [(200, 240), (250, 60)])
def test_crops_have_the_areas_and_the_ratios_of_torchvision(height: int, width: int):
    y, x = np.mgrid[:height, :width]
    image = np.stack([y, x, x], axis=-1).astype(np.uint8)  # each pixel tells where it comes from
    found = []
    for seed in range(300):
        cut = augment(image, rng(seed), crop=0.3).astype(float)
        across = (np.ptp(cut[height // 2, :, 1]) + 1) / width
        found.append(((np.ptp(cut[:, width // 2, 0]) + 1) / height * across, across * width))
    shares = np.array(found)[:, 0]
    ratios = np.array(found)[:, 1] ** 2 / (shares * height * width)
    assert ratios.min() > 0.73
    assert ratios.max() < 1.37
    if width > 100:
        assert (shares > 0.28).all()
        assert stats.kstest(shares[shares < 0.7], stats.uniform(0.3, 0.4).cdf).pvalue > 1e-3
    else:  # no square has this share: as torchvision, the largest that fits
        assert 0.28 < np.median(shares) < 0.34


def enhanced(kind: Any) -> Any:
    return lambda picture, factor, _: kind(picture).enhance(factor)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("way", [0.1, 0.9])
@pytest.mark.parametrize("magnitude", [12, 30])
@pytest.mark.parametrize(
    ("name", "pillow", "most"),
    [
        ("identity", lambda picture, factor, share: picture, 0),
        ("brightness", enhanced(ImageEnhance.Brightness), 1),  # Pillow cuts off what we round
        ("color", enhanced(ImageEnhance.Color), 1),
        ("contrast", enhanced(ImageEnhance.Contrast), 1),
        ("sharpness", enhanced(ImageEnhance.Sharpness), 1),
        ("posterize", lambda picture, factor, share: ImageOps.posterize(picture, 8 - round(4 * share)), 0),
        ("solarize", lambda picture, factor, share: ImageOps.solarize(picture, 256 * (1 - share)), 0),
        ("autocontrast", lambda picture, factor, share: ImageOps.autocontrast(picture), 0),
        ("equalize", lambda picture, factor, share: ImageOps.equalize(picture), 0),
    ],
)
def test_a_policys_tones_are_pillows(name: str, pillow: Any, most: int, magnitude: int, way: float, channels: int):
    image = (scene(channels=channels) * 0.7 + 20).astype(np.uint8)
    picture = Image.fromarray(image[..., 0] if channels == 1 else image)
    share = magnitude / 30
    expected = np.asarray(pillow(picture, 1 + share * 0.9 * (1 if way > 0.5 else -1), share)).reshape(image.shape)
    toned = augment(image, operation(name, way), policy="randaugment", magnitude=float(magnitude))
    difference = np.abs(toned.astype(int) - expected)
    if name == "sharpness":
        difference = difference[1:-1, 1:-1]  # Pillow leaves the border as it is
    assert difference.max() <= most


@pytest.mark.parametrize("levels", [[7], [3, 250], [0, 255]])
def test_stretching_photos_of_few_levels(levels: list[int]):
    image = rng().choice(np.array(levels, np.uint8), (9, 7, 1))
    picture = Image.fromarray(image[..., 0])
    for name, pillow in (("autocontrast", ImageOps.autocontrast), ("equalize", ImageOps.equalize)):
        toned = augment(image, operation(name), policy="randaugment")
        assert np.array_equal(toned[..., 0], np.asarray(pillow(picture)))


def test_magnitude_0_changes_nothing_but_the_histogram():
    image = (scene() * 0.7 + 20).astype(np.uint8)
    for name in OPERATIONS:
        same = np.array_equal(augment(image, operation(name), policy="randaugment", magnitude=0.0), image)
        assert same == (name not in ("autocontrast", "equalize"))


def test_a_policy_draws_every_operation_alike_often():
    wide, narrow = [], []
    for seed in range(1400):
        draws = rng(seed).random((2, 3))
        wide += draw_operations("trivialaugment", 9.0, draws)
        narrow += draw_operations("randaugment", 15.0, draws)
    assert (len(wide), len(narrow)) == (1400, 2800)
    for chosen in (wide, narrow):
        counts = Counter(name for name, _ in chosen)
        assert set(counts) == set(OPERATIONS)
        assert stats.chisquare(list(counts.values())).pvalue > 1e-3
    turns = np.array([amount for name, amount in wide if name == "rotate"])
    assert np.abs(turns).max() == pytest.approx(135)
    assert len({round(abs(turn), 6) for turn in turns}) > 20  # of the 31 strengths
    assert 0.3 < (turns > 0).mean() < 0.7
    assert {round(abs(amount), 6) for name, amount in narrow if name == "rotate"} == {15}


def test_a_policy_that_there_is_not():
    with pytest.raises(InvalidInput, match="policy is 'auto': none, randaugment or trivialaugment"):
        augment(scene(), rng(), policy="auto")


def test_a_rectangle_of_noise_takes_the_place_of_a_part():
    image = scene(100, 120)
    before, areas, ratios, untouched = image.copy(), [], [], 0
    for seed in range(400):
        erased = augment(image, rng(seed), erasing=0.75)
        changed = (erased != image).any(axis=-1)
        if not changed.any():
            untouched += 1
            continue
        rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
        box = changed[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert box.mean() > 0.95  # noise is what was there once in 256 times
        assert np.std(erased[changed]) == pytest.approx(256 / math.sqrt(12), rel=0.1)
        areas.append(box.size / 12000)
        ratios.append(box.shape[1] / box.shape[0])
    assert np.array_equal(image, before)
    assert 70 < untouched < 130
    assert min(areas) > 0.015
    assert max(areas) < 0.345
    assert stats.kstest(areas, stats.uniform(0.02, 0.31).cdf).pvalue > 1e-3
    assert 0.27 < min(ratios) < 0.5
    assert 2 < max(ratios) < 3.6


def test_switching_one_change_on_leaves_the_others_alike():
    image, geometry = scene(), {"flip": True, "rotation": 30.0, "crop": 0.5}
    for seed in range(20):
        moved = augment(image, rng(seed), **geometry)
        erased = augment(image, rng(seed), **geometry, erasing=1.0)
        assert 0.01 < (moved != erased).any(axis=-1).mean() < 0.36
        toned = augment(image, rng(seed), **geometry, brightness=0.1)
        difference = toned.astype(int) - moved
        assert len(np.unique(difference[(toned > 0) & (toned < 255)])) == 1
        named = {"crop": 1.0, "policy": "none", "erasing": 0.0}
        assert np.array_equal(augment(image, rng(seed), rotation=9.0, **named), augment(image, rng(seed), rotation=9.0))


@pytest.mark.parametrize("policy", ["randaugment", "trivialaugment"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 7, 3), (40, 3, 1), (17, 12, 3), (5, 200, 3)])
def test_photos_of_any_shape(shape: tuple[int, ...], policy: str):
    image = rng().integers(0, 256, shape, np.uint8)
    image.setflags(write=False)
    for seed in range(60):
        changed = augment(image, rng(seed), **{**ALL, "policy": policy})
        assert (changed.shape, changed.dtype) == (shape, np.uint8)
        assert np.array_equal(changed, augment(image[::-1][::-1], rng(seed), **{**ALL, "policy": policy}))


def test_what_is_switched_on():
    off = {"flip": False, "zoom": 0.0, "crop": 1.0, "policy": "none", "magnitude": 9.0, "erasing": 0.0, "mixup": 0.0}
    assert switched_on(off) == {}
    assert switched_on({**off, "flip": None, "policy": "trivialaugment"}) == {"policy": "trivialaugment"}
    on = {"policy": "randaugment", "magnitude": 9.0, "crop": 0.5, "flip": [0, 2], "mixup": 0.2}
    assert switched_on(on) == on


def pairs(count: int, shape: tuple[int, ...], dtype: Any = np.uint8) -> tuple[np.ndarray, np.ndarray]:
    """Examples that are all different, each of a class of its own."""
    examples = rng(1).integers(0, 256, (count, *shape)).astype(dtype)
    return examples, np.eye(count, dtype=np.float32)


def undone(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The share of each example, and its partner, from labels that were one class each."""
    shares, rest = np.diag(labels), labels - np.diag(np.diag(labels))
    np.testing.assert_allclose(labels.sum(axis=1), 1, rtol=1e-6)
    assert ((rest > 0).sum(axis=1) <= 1).all()
    return shares.astype(float), rest.argmax(axis=1)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((8, 9, 3), np.uint8), ((50, 1), np.float32), ((4, 5, 6, 1), np.float32), ((6, 6, 1), np.uint8)],
)
def test_mixup_is_the_papers_formula(shape: tuple[int, ...], dtype: Any):
    examples, labels = pairs(20, shape, dtype)
    before = examples.copy()
    mixed, mixed_labels = mix(examples, labels, rng(), mixup=1.0)
    shares, partners = undone(mixed_labels)
    assert (mixed.dtype, mixed_labels.dtype) == (dtype, np.float32)
    assert sorted(partners) == list(range(20))
    assert (partners != np.arange(20)).all()
    weights = shares.reshape(-1, *(1 for _ in shape))
    expected = weights * examples + (1 - weights) * examples[partners]
    assert np.abs(mixed - expected).max() <= (0.501 if dtype == np.uint8 else 1e-3)
    assert np.array_equal(examples, before)


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_shares_follow_the_beta_distribution(name: str, alpha: float):
    examples, labels = pairs(600, (1, 1))
    if name == "cutmix":  # a box in a line of many pixels; where it ends within them, its share is the one drawn
        examples = np.zeros((600, 4000, 1), np.uint8)
    shares, _ = undone(mix(examples, labels, rng(), **{name: alpha})[1])
    drawn = stats.beta(alpha, alpha).cdf
    if name == "mixup":
        assert stats.kstest(shares, drawn).pvalue > 1e-3
    else:  # the border cuts boxes off: none is larger than was drawn
        assert stats.kstest(shares, drawn, alternative="greater").pvalue > 1e-3


@pytest.mark.parametrize("shape", [(24, 30, 3), (10, 12, 9, 1)])
def test_cutmix_pastes_a_box_and_labels_follow_its_share(shape: tuple[int, ...]):
    examples, labels = pairs(30, shape)
    examples = (examples // 32 * 32 + np.arange(30).reshape(-1, *(1 for _ in shape))).astype(np.uint8)  # % 32: whose
    before = examples.copy()
    mixed, mixed_labels = mix(examples, labels, rng(), cutmix=1.0)
    shares, partners = undone(mixed_labels)
    for number in range(30):
        whose = mixed[number, ..., 0] % 32
        pasted = whose != number
        assert shares[number] == pytest.approx(1 - pasted.mean(), abs=1e-6)
        if pasted.any():
            assert set(whose[pasted]) == {partners[number]}
            assert np.array_equal(mixed[number][pasted], examples[partners[number]][pasted])
            ends = [np.flatnonzero(pasted.any(axis=tuple(set(range(pasted.ndim)) - {axis}))) for axis in range(2)]
            assert pasted.sum() == np.prod([np.ptp(places) + 1 for places in np.nonzero(pasted)])
            assert all(len(end) == np.ptp(end) + 1 for end in ends)
    assert np.array_equal(examples, before)
    whole = shares[(shares > 0.2) & (shares < 0.9)]
    assert len(whole) > 5


def test_with_both_half_of_the_batches_have_each():
    examples, labels = np.repeat(np.array([0, 200], np.uint8), 10).reshape(20, 1, 1, 1), None
    examples = np.broadcast_to(examples, (20, 8, 8, 1))
    blended = 0
    for seed in range(200):
        mixed, none = mix(examples, labels, rng(seed), mixup=1.0, cutmix=1.0)
        assert none is None
        blended += not set(np.unique(mixed)) <= {0, 200}
    assert 70 < blended < 130


def test_labels_of_several_classes_are_mixed_as_they_are():
    examples, _ = pairs(6, (4, 4, 1))
    labels = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 0], [1, 0, 1], [0, 1, 1], [1, 1, 1]], np.float32)
    shares, partners = undone(mix(examples, np.eye(6, dtype=np.float32), rng(3), mixup=1.0)[1])
    mixed = mix(examples, labels, rng(3), mixup=1.0)[1]
    expected = shares[:, None] * labels + (1 - shares[:, None]) * labels[partners]
    np.testing.assert_allclose(mixed, expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_one_example_alone_stays(name: str):
    examples, labels = pairs(1, (8, 8, 3))
    mixed, mixed_labels = mix(examples, labels, rng(), **{name: 1.0})
    assert np.array_equal(mixed, examples)
    np.testing.assert_allclose(mixed_labels, labels)
