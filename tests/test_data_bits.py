"""Photos give the same pixels however many bits their values have, and what is taken for white is said."""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import write_arrays
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tlkit import config
from tlkit.data import Examples, bits, decode, headers, images, load
from tlkit.data.modalities import PHOTOS, Reading
from tlkit.data.sources import pixels
from tlkit.data.white import choose, white_of
from tlkit.errors import InvalidInput
from tlkit.recipes import _inputs

SIDE = 12
GRAY = np.linspace(0, 255, SIDE * SIDE).reshape(SIDE, SIDE).astype(np.uint8)
COLORS = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 4), np.uint8)
COLORS[0, 0] = 255


def png(values: np.ndarray) -> bytes:
    """A PNG of 16 bits: gray, gray and alpha, RGB or RGBA by the number of channels; Pillow writes gray alone."""
    height, width, channels = values.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = chunk(b"IHDR", struct.pack(">2I5B", width, height, 16, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(values: np.ndarray, white_is_zero: bool = False, order: str = "<", bits: int | None = None) -> bytes:
    """A gray TIFF of any numbers; with `bits` below 8 each byte of `values` is packed into as many."""
    height, width = values.shape
    bits = bits or values.dtype.itemsize * 8
    if bits < 8:
        data = np.packbits(np.unpackbits(values[..., None], axis=-1)[..., 8 - bits :].reshape(height, -1), axis=-1)
    else:
        data = values.astype(values.dtype.newbyteorder(order))
    content, sample = data.tobytes(), {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: int(not white_is_zero), 273: 8, 277: 1, 278: height,
            279: len(content), 339: sample}  # fmt: skip
    entries = b"".join(
        struct.pack(f"{order}HHIHxx", tag, 3, 1, value)
        if tag not in (273, 279)
        else struct.pack(f"{order}HHII", tag, 4, 1, value)
        for tag, value in tags.items()
    )
    head = b"II*\0" if order == "<" else b"MM\0*"
    start = struct.pack(f"{order}I", 8 + len(content))
    return head + start + content + struct.pack(f"{order}H", len(tags)) + entries + bytes(4)


def in_bits(values: np.ndarray, used: int) -> np.ndarray:
    """8-bit values as those of another number of bits in 16."""
    return (values.astype(np.uint32) * (2**used - 1) // 255).astype(np.uint16)


def of_pillow(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


def write_set(folder: Path, encode: Callable[[np.ndarray], bytes]) -> Path:
    """Four random gray photos with a white pixel, of two classes, in each of three splits."""
    rng = np.random.default_rng(1)
    for split in ("train", "val", "test"):
        for name in ("a", "b"):
            (folder / split / name).mkdir(parents=True)
            for n in range(2):
                photo = rng.integers(0, 256, (SIDE, SIDE), np.uint8)
                photo[0, 0] = 255
                (folder / split / name / f"{n}.png").write_bytes(encode(photo))
    return folder


def read_all(path: Path, **options) -> tuple[dict[str, np.ndarray], Reading, list[str]]:
    splits = load("folder", path=path, size=(SIDE, SIDE), channels=1, **options)
    pixels = {}
    for part in (splits.train, splits.val, splits.test):
        pixels |= dict(zip(part.names, part.read(range(len(part))), strict=True))
    return dict(sorted(pixels.items())), splits.reading, splits.warnings


def equal(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one.values(), other.values(), strict=True))


@pytest.mark.parametrize(
    ("high", "white"),
    [
        (0, 1), (1, 1), (2, None), (31, None), (32, 255), (255, 255), (256, None), (300, None), (320, None),
        (321, 1023), (1023, 1023), (1024, None), (1280, None), (1281, 4095), (4095, 4095), (4096, None), (5120, None),
        (5121, 16383), (16383, 16383), (16384, None), (20480, None), (20481, 65535), (65535, 65535), (65536, None),
    ],
)  # fmt: skip
def test_the_largest_value_shows_what_is_white_or_is_unclear(high: int, white: int | None):
    assert white_of(high) == white


@pytest.mark.parametrize(
    ("high", "white"),
    [(0.0, None), (0.1, None), (0.2, 1), (1.0, 1), (1.01, None), (200.5, 255), (255.0, 255), (256.0, None)],
)
def test_floating_point_photos_end_at_1_or_at_255(high: float, white: int | None):
    assert white_of(high, floating=True) == white


FORMS = {
    "8 in 16": (lambda photo: of_pillow(in_bits(photo, 8)), 255.0),
    "10 in 16": (lambda photo: of_pillow(in_bits(photo, 10)), 1023.0),
    "12 in 16": (lambda photo: of_pillow(in_bits(photo, 12)), 4095.0),
    "14 in 16": (lambda photo: of_pillow(in_bits(photo, 14)), 16383.0),
    "16": (lambda photo: of_pillow(photo.astype(np.uint16) * 257), None),
    "12, TIFF": (lambda photo: tiff(in_bits(photo, 12)), 4095.0),
    "12, TIFF, big end first": (lambda photo: tiff(in_bits(photo, 12), order=">"), 4095.0),
    "12, negative": (lambda photo: tiff(in_bits(255 - photo, 12), white_is_zero=True), 4095.0),
    "16, negative": (lambda photo: tiff((255 - photo).astype(np.uint16) * 257, white_is_zero=True), 65535.0),
    "32 bits": (lambda photo: tiff(in_bits(photo, 12).astype(np.int32)), 4095.0),
    "0 to 1": (lambda photo: tiff((photo / 255).astype(np.float32)), 1.0),
    "0 to 1, negative": (lambda photo: tiff((1 - photo / 255).astype(np.float32), white_is_zero=True), 1.0),
    "0 to 255": (lambda photo: tiff(photo.astype(np.float32)), 255.0),
    "12, RGB": (lambda photo: png(in_bits(np.stack([photo] * 3, -1), 12)), 4095.0),
    "12, gray and alpha": (lambda photo: png(in_bits(np.stack([photo, np.full_like(photo, 255)], -1), 12)), 4095.0),
}


@pytest.mark.parametrize(("encode", "white"), FORMS.values(), ids=FORMS)
def test_a_set_gives_the_pixels_of_its_8_bit_version(tmp_path: Path, encode: Callable, white: float | None, capsys):
    wanted, *_ = read_all(write_set(tmp_path / "8", of_pillow))
    pixels, reading, warnings = read_all(write_set(tmp_path / "deep", encode))
    assert equal(pixels, wanted)
    assert reading.white == white
    assert len(warnings) == 1
    assert f"(12 files): {white or 65535:,.0f} is taken as white; data.white says otherwise" in warnings[0]
    assert warnings[0] in capsys.readouterr().err


@pytest.mark.parametrize("options", [{"memory": 0}, {"check": False}])
def test_photos_that_are_decoded_later_have_the_white_of_the_set(tmp_path: Path, options: dict):
    path = write_set(tmp_path / "12", FORMS["12 in 16"][0])
    pixels, reading, warnings = read_all(path)
    again, same, said = read_all(path, **options)
    assert equal(pixels, again)
    assert (same, said) == (reading, warnings)


def test_a_dark_photo_of_a_set_stays_dark(tmp_path: Path):
    path = write_set(tmp_path / "12", FORMS["12 in 16"][0])
    (path / "train" / "a" / "dark.png").write_bytes(of_pillow(in_bits(GRAY // 16, 12)))
    assert np.abs(read_all(path)[0]["train/a/dark.png"][..., 0].astype(int) - GRAY // 16).max() <= 1


def test_8_bit_photos_beside_deeper_ones_stay_as_they_are(tmp_path: Path):
    path = write_set(tmp_path / "set", FORMS["10 in 16"][0])
    (path / "train" / "a" / "8.png").write_bytes(of_pillow(GRAY))
    pixels, reading, warnings = read_all(path)
    assert np.array_equal(pixels["train/a/8.png"][..., 0], GRAY)
    assert reading.white == 1023
    assert warnings[0].endswith("says otherwise. Mixed with 1 of 8 bits, where 255 is white")


@pytest.mark.parametrize(
    ("encode", "words"),
    [
        (lambda photo: of_pillow(photo.astype(np.uint16) + 45), r"16-bit photos with values up to 300 \(12 files\), "
         "which do not show which value is white: say it by data.white, such as 1023"),
        (lambda photo: of_pillow(photo.astype(np.uint16) // 25), r"up to 10 \(12 files\).*data.white, such as 15"),
        (lambda photo: tiff(photo.astype(np.float32) / 50), "floating-point photos with values up to 5.1 "),
        (lambda photo: tiff(photo.astype(np.int32) * 1000), "32-bit photos with values up to 255,000 .*16777215"),
        (lambda photo: of_pillow(photo // 25), r"no value of the photos \(12 files\) is above 10 of 255, so that all "
         "would be nearly black: say by data.white which value is white, such as 15; 255 if they are meant to be dark"),
        (lambda photo: of_pillow(photo // 13), "is above 19 of 255, .* which value is white, such as 19;"),
    ],
)  # fmt: skip
def test_what_is_unclear_is_an_error_that_names_the_setting(tmp_path: Path, encode: Callable, words: str):
    path = write_set(tmp_path / "set", encode)
    with pytest.raises(InvalidInput, match=words) as error:
        read_all(path)
    assert "\n" not in str(error.value)


def test_whole_and_floating_point_numbers_need_one_white(tmp_path: Path):
    path = write_set(tmp_path / "set", FORMS["12 in 16"][0])
    (path / "train" / "a" / "float.tif").write_bytes(tiff((GRAY / 255).astype(np.float32)))
    with pytest.raises(InvalidInput, match=r"floating-point numbers, others whole ones .* by data.white"):
        read_all(path)


def test_the_setting_decides(tmp_path: Path):
    path = write_set(tmp_path / "set", lambda photo: of_pillow(photo.astype(np.uint16) + 45))
    pixels, reading, warnings = read_all(path, white=510)
    assert max(each.max() for each in pixels.values()) == 150  # 300 of 510
    assert reading.white == 510
    assert warnings == ["16-bit photos with values up to 300 (12 files): 510 is white, as data.white says"]
    with pytest.raises(InvalidInput, match=r"data.white is 255, but \w+/[ab]/\d.png has values up to 300"):
        read_all(path, white=255)


def test_values_below_0_are_named(tmp_path: Path):
    path = write_set(tmp_path / "set", FORMS["12, TIFF"][0])
    (path / "train" / "a" / "low.tif").write_bytes(tiff(np.full((SIDE, SIDE), -5, np.int32)))
    (path / "train" / "a" / "nan.tif").write_bytes(tiff(np.full((SIDE, SIDE), np.nan, np.float32)))
    splits = load("folder", path=path, size=(SIDE, SIDE))
    assert splits.set_aside[0].startswith("train/a/low.tif: it holds values below 0, down to -5")
    assert splits.set_aside[1].startswith("train/a/nan.tif: it holds values that are not finite")


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_a_tiff_in_which_0_is_white_is_no_negative(depth: int):
    dtype = np.uint16 if depth == 16 else np.uint8
    values = np.linspace(0, 2**depth - 1, SIDE * 16).reshape(SIDE, 16).astype(dtype)
    wanted = np.rint((2**depth - 1 - values) * (255 / (2**depth - 1)))
    assert np.array_equal(decode(tiff(values, white_is_zero=True, bits=depth), channels=1)[..., 0], wanted)
    assert np.array_equal(decode(tiff(values, bits=depth), channels=1)[..., 0], 255 - wanted)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("compression", [None, 1, 5, 8])  # PNG; TIFF without compression, LZW, deflate
def test_deep_colors_are_read_as_opencv_reads_them(compression: int | None, channels: int, monkeypatch):
    values = in_bits(COLORS[..., :channels], 12)
    values[..., 3:] = in_bits(COLORS[..., 3:], 16)[..., : channels - 3]  # transparency has all 16 bits
    kind, options = (".tif", [cv2.IMWRITE_TIFF_COMPRESSION, compression]) if compression else (".png", [])
    data = cv2.imencode(kind, values, options)[1].tobytes()  # OpenCV has blue first
    found = images.value_range(data)
    assert found == bits.Range(float(values[..., :3].max()))
    color, alpha = values[..., 2::-1] / 4095, values[..., 3:] / 65535 if channels == 4 else 1.0
    wanted = 255 * (color * alpha + 1 - alpha)
    whole = decode(data, white=4095)
    assert np.abs(whole - wanted).max() <= 1.5
    monkeypatch.setattr(bits, "BAND", 5 * SIDE)
    assert np.array_equal(decode(data, white=4095), whole)


def test_a_photo_above_white_is_refused():
    data = of_pillow(GRAY.astype(np.uint16) * 257)
    with pytest.raises(InvalidInput, match=r"x.png: it has values up to 65,535, but 4,095 is white \(data.white\)"):
        decode(data, name="x.png", white=4095)
    with pytest.raises(
        InvalidInput, match=r"floating-point image does not say which value is white, .* up to 1: say it"
    ):
        decode(tiff((GRAY / 255).astype(np.float32)))


@pytest.mark.parametrize("white", [0, -1, np.nan, np.inf])
def test_white_is_a_value_above_0(white: float):
    for call in (lambda: decode(GRAY, white=white), lambda: load(size=(8, 8), white=white)):
        with pytest.raises(InvalidInput, match=f"^white is {white!r}: it must be above 0"):
            call()


def test_masks_of_0_and_1_are_black_and_white(tmp_path: Path):
    path = write_set(tmp_path / "set", lambda photo: of_pillow(photo // 128))
    wanted, *_ = read_all(write_set(tmp_path / "wanted", lambda photo: of_pillow(photo // 128 * 255)))
    for options in ({}, {"memory": 0}, {"check": False}, {"white": 1}):
        pixels, reading, warnings = read_all(path, **options)
        assert equal(pixels, wanted)
        assert reading.white == 1
        assert warnings[0].startswith("no value of the photos (12 files) is above 1: 1 is white, as ")
    assert max(each.max() for each in read_all(path, white=255)[0].values()) == 1
    (path / "train" / "a" / "gray.png").write_bytes(of_pillow(GRAY))  # then they are no masks
    pixels, reading, warnings = read_all(path)
    assert (reading, warnings) == (Reading(), [])
    assert pixels["train/a/0.png"].max() == 1
    with pytest.raises(InvalidInput, match=r"data.white is 1, but train/a/gray.png has values up to 255"):
        read_all(path, white=1)


def test_a_bright_photo_stays_as_it_is_where_masks_were_learned():
    assert np.array_equal(decode(GRAY, channels=1, white=1)[..., 0], GRAY)
    assert np.array_equal(decode(of_pillow(GRAY), channels=1, white=1)[..., 0], GRAY)
    dark = GRAY // 5  # up to 51
    assert np.array_equal(decode(of_pillow(dark), channels=1, white=100)[..., 0], dark)
    transparent = np.dstack([GRAY // 255, np.full_like(GRAY, 255)])
    assert set(decode(of_pillow(transparent), channels=1, white=1).ravel().tolist()) == {0, 255}


@pytest.mark.parametrize("white", [100, 4095])
def test_a_setting_that_8_bits_cannot_follow_is_refused(tmp_path: Path, white: float):
    path = write_set(tmp_path / "set", of_pillow)
    for options in ({"path": path, "size": (8, 8)}, {"source": "embedded"}):
        with pytest.raises(InvalidInput, match=f"data.white is {white:,}, but all photos have 8 bits: leave it out"):
            load(**{"source": "folder", **options}, white=white)
    assert equal(read_all(path, white=255)[0], read_all(path)[0])


def test_photos_with_8_bits_are_known_by_their_header(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(images, "_open", lambda *args: pytest.fail("opened"))
    buffer = io.BytesIO()
    Image.fromarray(GRAY).save(buffer, "JPEG")
    for data in (of_pillow(GRAY), tiff(GRAY), tiff(GRAY // 64, bits=2), buffer.getvalue(), b"", b"II*\0", b"\x89PNG"):
        assert images.value_range(data) is None
    assert [headers.bits(data) for data in (tiff(in_bits(GRAY, 12), order=">"), png(in_bits(COLORS, 12)))] == [16, 16]


def test_a_server_reads_as_the_training_did(tmp_path: Path):
    path = write_set(tmp_path / "12", FORMS["12 in 16"][0])
    splits = load("folder", path=path, size=(8, 8))
    ask = PHOTOS.requests.decode
    name = splits.train.names[0]
    asked = ask((path / name).read_bytes(), (8, 8, 3), None, "row 0", splits.reading)
    assert np.array_equal(asked, splits.train.read([0])[0])
    with pytest.raises(InvalidInput, match=r"row 0: it has values up to 65,535, but 4,095 is white"):
        ask(of_pillow(GRAY.astype(np.uint16) * 257), (8, 8, 3), None, "row 0", splits.reading)
    shares = COLORS[..., :3] / 255
    answer = ask(shares, (SIDE, SIDE, 3), None, "row 0", Reading(white=1.0))
    assert np.array_equal(answer, COLORS[..., :3])
    with pytest.raises(InvalidInput, match="values from 0"):
        ask(shares, (SIDE, SIDE, 3), None, "row 0", Reading())


PIXELS = np.random.default_rng(2).integers(0, 256, (40, 9, 10, 3), np.uint8)
PIXELS[:, 0, 0] = 255
OPAQUE = np.full((40, 9, 10, 1), 255, np.uint8)
OPAQUE[:, :, :3] = 0  # the left is transparent
RGBA = np.concatenate([PIXELS, OPAQUE], axis=-1)
ON_WHITE = np.where(OPAQUE == 0, 255, PIXELS).astype(np.uint8)
SIGNALS = np.random.default_rng(3).random((40, 50, 6)).astype(np.float32)


def write_npz(path: Path, values: np.ndarray) -> Path:
    parts = {"train": values[:20], "val": values[20:30], "test": values[30:]}
    labels = {f"{split}_labels": [0, 1] * (len(part) // 2) for split, part in parts.items()}
    np.savez(path, **{f"{split}_images": part for split, part in parts.items()}, **labels)
    return path


def read_npz(path: Path, **options) -> tuple[np.ndarray, Reading, list[str], str]:
    splits = load("npz", path=path, **options)
    pixels = np.concatenate([part.read(range(len(part))) for part in (splits.train, splits.val, splits.test)])
    return pixels, splits.reading, splits.warnings, splits.kind


@pytest.mark.parametrize(
    ("values", "wanted", "white", "words"),
    [
        (PIXELS.transpose(0, 3, 1, 2), PIXELS, None, r"uint8 \(20, 3, 9, 10\): its second axis is taken for 3 ch"),
        (PIXELS[..., :1].transpose(0, 3, 1, 2), PIXELS[..., :1], None, "for 1 channel; volumes 1 deep need an axis"),
        ((PIXELS / 255).astype(np.float32), PIXELS, 1.0, r"10, 3\) with values from 0 to 1: photos, in which 1 is"),
        (PIXELS / 255, PIXELS, 1.0, "float64"),
        (PIXELS.astype(np.float32), PIXELS, None, "photos, in which 255 is white; data.white says otherwise"),
        (PIXELS.astype(np.int64), PIXELS, None, "int64"),
        (in_bits(PIXELS, 8), PIXELS, None, "uint16"),
        (in_bits(PIXELS, 12), PIXELS, 4095.0, "from 0 to 4,095: photos, in which 4,095 is white"),
        (in_bits(PIXELS, 16), PIXELS, 65535.0, "from 0 to 65,535: photos, in which 65,535 is white"),
        (PIXELS // 128, PIXELS // 128 * 255, 1.0, "photos, in which 1 is white; data.white says otherwise"),
        (RGBA, ON_WHITE, None, r"uint8 \(20, 9, 10, 4\) .*: photos with transparency, in which 255 is white"),
        (RGBA.transpose(0, 3, 1, 2) / np.float32(255), ON_WHITE, 1.0, "its second axis is taken for 4 channels"),
    ],
)  # fmt: skip
def test_arrays_that_are_photos_become_photos(tmp_path: Path, values, wanted, white: float | None, words: str):
    pixels, reading, warnings, kind = read_npz(write_npz(tmp_path / "a.npz", values))
    assert kind == "photos"
    assert np.array_equal(pixels, wanted)
    assert reading.white == white
    assert any(re.search(words, line) for line in warnings)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ((PIXELS / np.float32(255) - 0.5) * 2, "from -1 to 1, which are taken for arrays and not for photos: a "
         "pretrained backbone takes pixels from 0, so undo the standardization"),
        (PIXELS / np.float32(60), "if they are photos, say by data.white which value is white"),
        (PIXELS / np.float32(2.5), "data.white"),  # measurements up to 102
        (PIXELS.astype(np.uint16) + 45, "data.white"),
        (RGBA[..., [0, 1, 2, 0]], "the fourth channel is no transparency; photos have 1 or 3"),
        (RGBA // 128 * 255, "the fourth channel"),  # four masks
        (SIGNALS, None),
        (PIXELS[:, None, ..., 0].repeat(9, 1), None),  # volumes 9 deep
        (PIXELS.transpose(0, 3, 1, 2)[..., None], None),  # volumes 3 deep, with a channel
    ],
)  # fmt: skip
def test_other_arrays_stay_what_they_are(tmp_path: Path, values, words: str | None):
    given, reading, warnings, kind = read_npz(write_npz(tmp_path / "a.npz", values))
    assert (kind, reading) == ("arrays", Reading())
    assert np.array_equal(
        given.reshape(values.shape), values if values.dtype == np.uint8 else values.astype(np.float32)
    )
    assert len(warnings) == (words is not None)
    assert words is None or words in warnings[0]


def test_the_setting_makes_photos_of_arrays(tmp_path: Path):
    path = write_npz(tmp_path / "a.npz", (PIXELS[..., 0] / np.float32(51)))  # one channel, without an axis of it
    assert read_npz(path)[3] == "arrays"
    pixels, reading, warnings, kind = read_npz(path, white=5)
    assert (kind, reading.white) == ("photos", 5)
    assert np.array_equal(pixels, PIXELS[..., :1])
    assert warnings[0].endswith("with values from 0 to 5: photos, in which 5 is white, as data.white says")
    with pytest.raises(
        InvalidInput, match=r"a.npz: data.white is 4, but train_images is float32 \(20, 9, 10\) .* 0 to 5: "
    ):
        read_npz(path, white=4)
    with pytest.raises(
        InvalidInput, match=r"data.white is 1, which is for numbers .* train_images is float32 \(20, 50"
    ):
        read_npz(write_npz(tmp_path / "s.npz", SIGNALS.reshape(40, 50, 3, 2, 1)), white=1)


def test_a_backbone_that_gets_arrays_says_what_makes_them_photos(tmp_path: Path, capsys: pytest.CaptureFixture):
    path = write_npz(tmp_path / "a.npz", PIXELS / np.float32(60))
    settings = config.Finetune(data=config.Data(path=str(path)))
    with pytest.raises(InvalidInput, match=r"if these are photos, say by data.white which .*; if not, train"):
        _inputs.photos(settings)
    assert "with values from 0 to 4.25, which are taken for arrays" in capsys.readouterr().err
    assert _inputs.photos(config.Finetune(data=config.Data(path=str(path), white=4.25))).kind == "photos"
    with pytest.raises(InvalidInput, match="a pretrained backbone takes photos: train a network of your own"):
        _inputs.photos(config.Finetune(data=config.Data(path=str(write_arrays(tmp_path / "volumes.npz")))))


def test_pixels_that_are_nearly_black_need_the_setting(tmp_path: Path):
    path = write_npz(tmp_path / "digits.npz", PIXELS[..., 0] // 17)
    with pytest.raises(
        InvalidInput, match=r"no value of train_images is above 15 of 255, .* data.white .*, such as 15; 255"
    ):
        load("npz", path=path)
    pixels, reading, warnings, kind = read_npz(path, white=15)
    assert (kind, reading.white, len(warnings)) == ("photos", 15, 1)
    assert np.array_equal(pixels[..., 0], PIXELS[..., 0] // 17 * 17)
    pixels, reading, warnings, kind = read_npz(path, white=255)
    assert (pixels.max(), reading, warnings) == (15, Reading(), [])
    with pytest.raises(InvalidInput, match=r"data.white is 4,095, but train_images is uint8"):
        load("npz", path=path, white=4095)


def test_a_dark_array_beside_bright_ones_stays_dark(tmp_path: Path):
    values = (PIXELS / 255).astype(np.float32)
    values[3] = np.minimum(values[3], np.float32(1 / 255))
    pixels, reading, *_ = read_npz(write_npz(tmp_path / "a.npz", values))
    assert reading.white == 1
    assert pixels[3].max() == 1


def test_pixels_in_memory_stay_as_they_are():
    masks = list(PIXELS // 128)
    examples = Examples([f"{n}" for n in range(40)], [0, 1] * 20, ["a", "b"], [None] * 40, masks, [])
    splits = load(examples)
    assert splits.reading == Reading()
    assert splits.train.read([0]).max() == 1


@settings(max_examples=100, deadline=None)
@given(
    deep=st.sampled_from(["12 in 16", "12, TIFF", "12, RGB", "0 to 1"]),
    cut=st.integers(0, 200),
    damage=st.lists(st.tuples(st.integers(0, 500), st.integers(0, 255)), max_size=4),
)
def test_damage_gives_a_range_or_a_clear_error(deep: str, cut: int, damage: list[tuple[int, int]]):
    data = bytearray(FORMS[deep][0](GRAY))
    for place, value in damage:
        data[place % len(data)] = value
    try:
        outcome = images.value_range(bytes(data[: len(data) - cut]))
    except InvalidInput as error:
        outcome = str(error)
    if isinstance(outcome, str):
        assert outcome.startswith("the image: ")
        assert "\n" not in outcome
    else:
        assert outcome is None or outcome.high >= 0


def test_files_of_several_depths_are_named():
    ranges = {str(i): bits.Range(4000.0 if i % 3 else 65535.0) for i in range(9)}
    assert "a quarter of them end at 4,000 or below" in choose(ranges, {}, None)[1]
    ranges = {str(i): bits.Range(60000.0 - 4000 * i) for i in range(9)}
    assert "quarter" not in choose(ranges, {}, None)[1]


def test_splits_of_several_ranges_are_refused():
    part = np.linspace(0, 1, 64).reshape(1, 8, 8, 1)
    with pytest.raises(InvalidInput, match=r"different ranges \(train_images end at 1, test_images end at 255\)"):
        pixels.photos({"train": part, "test": part * 255})
    assert pixels.photos({"train": part * 255, "test": part * 60})[1] == 255
