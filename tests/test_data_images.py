"""Every odd image that users have is decoded to the right pixels, or refused in one line that names it."""

import io
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, PngImagePlugin

from tlkit.data import bits, decode, headers, images
from tlkit.errors import InvalidInput

HEIGHT, WIDTH = 12, 16
RED_TO_BLUE = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
RED_TO_BLUE[..., 0] = np.linspace(255, 0, WIDTH)
RED_TO_BLUE[..., 2] = np.linspace(0, 255, WIDTH)
RED_TO_BLUE[: HEIGHT // 2, :, 1] = 90
GRAY = np.linspace(0, 255, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.uint8)
EXIF = {  # the EXIF standard: how what is stored has to be turned to stand upright
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: np.swapaxes(a, 0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.swapaxes(a[::-1, ::-1], 0, 1),
    8: lambda a: np.rot90(a, 1),
}


def encoded(image, kind, **options):
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def with_alpha(mode):
    """The gradient with its left half transparent, over a color that must not show."""
    image = Image.fromarray(RED_TO_BLUE).convert("RGBA")
    image.paste((1, 2, 3, 0), (0, 0, WIDTH // 2, HEIGHT))
    return image.convert(mode) if mode != "RGBA" else image


@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("WEBP", {"lossless": True})],
)
def test_a_lossless_file_keeps_every_pixel(kind, options):
    data = encoded(RED_TO_BLUE, kind, **options)
    assert np.array_equal(decode(data), RED_TO_BLUE)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_is_not_inverted(kind):
    # Pillow writes CMYK JPEGs as Adobe does, inverted and with the Adobe marker.
    data = encoded(Image.fromarray(RED_TO_BLUE).convert("CMYK"), kind)
    assert Image.open(io.BytesIO(data)).mode == "CMYK"
    assert np.abs(decode(data).astype(int) - RED_TO_BLUE).mean() < 8


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
@pytest.mark.parametrize("orientation", EXIF)
def test_a_photo_is_turned_upright(kind, orientation):
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 98, "subsampling": 0}}.get(kind, {})
    image = decode(encoded(RED_TO_BLUE, kind, exif=exif(orientation), **options))
    upright = EXIF[orientation](RED_TO_BLUE)
    assert image.shape == upright.shape
    assert np.abs(image.astype(int) - upright).mean() < (6 if kind == "JPEG" else 1e-9)


def test_damaged_exif_beside_good_pixels_is_ignored():
    data = encoded(RED_TO_BLUE, "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert np.array_equal(decode(data), RED_TO_BLUE)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_and_not_clipped(kind):
    deep = GRAY.astype(np.uint16) * 257
    assert np.array_equal(decode(encoded(deep, kind), channels=1)[..., 0], GRAY)


def test_thirty_two_bit_integers_within_sixteen_bits_are_scaled():
    data = encoded(Image.fromarray(GRAY.astype(np.int32) * 257), "TIFF")
    assert Image.open(io.BytesIO(data)).mode == "I"
    assert np.array_equal(decode(data, channels=1)[..., 0], GRAY)


@pytest.mark.parametrize(
    ("values", "words"), [(GRAY.astype(np.int32) * 100_000, "32-bit"), (GRAY / np.float32(255), "floating-point")]
)
def test_a_depth_without_a_white_is_refused(values, words):
    with pytest.raises(InvalidInput, match=f"{words} image does not say which value is white"):
        decode(encoded(Image.fromarray(values), "TIFF"))


def test_one_bit_is_black_and_white():
    data = encoded(Image.fromarray(GRAY > 127), "PNG")
    assert Image.open(io.BytesIO(data)).mode == "1"
    assert np.array_equal(decode(data, channels=1)[..., 0], np.where(GRAY > 127, 255, 0))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_becomes_white(mode, channels):
    data = encoded(with_alpha(mode), "PNG")
    assert Image.open(io.BytesIO(data)).has_transparency_data
    image = decode(data, channels=channels)
    assert image[:, : WIDTH // 2].min() == 255
    assert image[:, WIDTH // 2 :].min() < 128


def test_a_transparent_colour_becomes_white():
    image = Image.fromarray(RED_TO_BLUE)
    data = encoded(image, "PNG", transparency=image.getpixel((0, 0)))
    assert (decode(data)[0, 0] == 255).all()
    assert np.array_equal(decode(data)[:, 1:], RED_TO_BLUE[:, 1:])


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF"])
def test_the_first_frame_of_an_animation_counts(kind):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert (decode(data) == (255, 0, 0)).all()


def test_the_first_picture_of_a_stereo_jpeg_counts():
    data = encoded(RED_TO_BLUE, "MPO", save_all=True, append_images=[Image.fromarray(RED_TO_BLUE[:, ::-1])])
    assert np.abs(decode(data).astype(int) - RED_TO_BLUE).mean() < 8


def test_the_content_decides_and_not_the_suffix(tmp_path):
    photo = tmp_path / "really_a_gif.jpg"
    photo.write_bytes(encoded(RED_TO_BLUE, "GIF"))
    assert decode(photo).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", r"the file is empty \(0 bytes\)"),
        (b"These are words.", "not a JPEG, PNG, GIF, BMP, WebP or TIFF image"),
        (encoded(RED_TO_BLUE, "PPM"), "not a JPEG"),  # Pillow could, but formats beyond the list are never tried
        (encoded(RED_TO_BLUE, "JPEG")[:-40], "truncated"),
        (encoded(RED_TO_BLUE, "PNG")[:-30], "[Tt]runcated"),
        (encoded(RED_TO_BLUE, "GIF")[:-30], "truncated"),
    ],
)
def test_a_damaged_photo_is_named_in_one_line(tmp_path, content, reason):
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(content)
    with pytest.raises(InvalidInput, match=rf"photo\.jpg: .*{reason}") as error:
        decode(photo)
    assert "\n" not in str(error.value)


def test_a_missing_photo_is_named(tmp_path):
    with pytest.raises(InvalidInput, match=r"gone\.jpg: No such file"):
        decode(tmp_path / "gone.jpg")


def progressive(image, repeated=0):
    """A JPEG whose pixels are gone over in ten scans, and in the last of them again."""
    data = encoded(image, "JPEG", progressive=True, quality=30)
    last = data.rfind(b"\xff\xda")
    return data[:-2] + data[last:-2] * repeated + data[-2:]


def animation(canvas, place):
    """A GIF of 1 pixel at a place, with which the canvas grows."""
    gif = bytearray(encoded(Image.new("P", (1, 1)), "GIF"))
    gif[6:10] = struct.pack("<2H", *canvas)
    at = gif.index(b",")
    gif[at + 1 : at + 5] = struct.pack("<2H", *place)
    return bytes(gif)


def tiled(side):
    """A compressed TIFF of 9 x 9 pixels in one tile."""
    data = zlib.compress(bytes(side * side))
    values = {256: 9, 257: 9, 258: 8, 259: 8, 262: 1, 277: 1, 322: side, 323: side, 324: 8, 325: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in values.items())
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(values)) + entries + bytes(4)


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


FLAT = Image.new("RGB", (100, 100), "tan")
PNG, GIF, JPEG = (encoded(FLAT, kind) for kind in ("PNG", "GIF", "JPEG"))
TOO_MANY = {
    "PNG": (encoded(FLAT, "PNG"), "100 x 100 pixels, more than the 9,999 that TLKIT_MAX_PIXELS allows"),
    "progressive": (progressive(FLAT), "100 x 100 pixels, more than the 9,999 that TLKIT_MAX_PIXELS allows"),
    "two scans": (encoded(FLAT, "JPEG", progressive=True)[:-2], "100 x 100 pixels, more than the 9,999 that"),
    "baseline": (
        encoded(FLAT.resize((800, 800)), "JPEG"),
        "800 x 800 pixels, more than 32 times the 9,999 that TLKIT_MAX_PIXELS allows",
    ),
    "scans": (
        progressive(FLAT.resize((90, 90)), 40),
        "90 x 90 pixels in 50 scans, more than 32 times the 9,999 that TLKIT_MAX_PIXELS allows",
    ),
    "more scans": (progressive(FLAT.resize((9, 9)), 91), "a JPEG of more than 100 scans"),
    "WebP": (
        encoded(FLAT.resize((71, 71)), "WEBP"),
        "71 x 71 pixels of WebP, which count three times, more than the 9,999 that TLKIT_MAX_PIXELS allows",
    ),
    "canvas": (animation((100, 100), (0, 0)), "100 x 100 pixels, more than the 9,999 that"),
    "grown canvas": (animation((1, 1), (9999, 9999)), "10,000 x 10,000 pixels, more than the 9,999 that"),
    "tile": (tiled(112), "112 x 112 pixels, more than the 9,999 that"),
    "beyond Pillow's limit": (
        PNG[:8] + chunk(b"IHDR", struct.pack(">2I5B", 40_000, 40_000, 8, 0, 0, 0, 0)) + PNG[33:],
        "40,000 x 40,000 pixels, more than the 9,999 that",
    ),
}


@pytest.mark.parametrize(("data", "words"), TOO_MANY.values(), ids=TOO_MANY)
def test_pixels_are_counted_before_they_are_decoded(data, words, monkeypatch):
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: pytest.fail("decoded"))
    monkeypatch.setenv("TLKIT_MAX_PIXELS", "9999")
    with pytest.raises(InvalidInput, match=f"the image: {words}"):
        decode(data, size=(8, 8))
    with pytest.raises(InvalidInput, match=f"photo 3: {words}"):
        images.work(data, (8, 8), "photo 3")


@pytest.mark.parametrize("kind", ["PNG", "progressive", "WebP", "scans", "tile"])
def test_another_limit_can_be_set(kind, monkeypatch):
    monkeypatch.setenv("TLKIT_MAX_PIXELS", "20000")
    assert decode(TOO_MANY[kind][0], size=(8, 8)).shape == (8, 8, 3)


@pytest.mark.parametrize("value", ["0", "-1", "many", "1e8", "9" * 5000])
def test_a_limit_is_a_number(value, monkeypatch):
    monkeypatch.setenv("TLKIT_MAX_PIXELS", value)
    with pytest.raises(
        InvalidInput, match=r"TLKIT_MAX_PIXELS is '.*'; give the number of pixels that a photo may have"
    ):
        decode(encoded(FLAT, "PNG"))


def test_a_jpeg_of_many_pixels_that_is_decoded_at_an_eighth_is_taken():
    side = 14_000  # 196 megapixels, of which Pillow's own limit stops at 179
    row = encoded(Image.new("RGB", (side, 16), "tan"), "JPEG", quality=30)
    at = row.index(b"\xff\xc0")
    whole = row[: at + 5] + struct.pack(">H", side) + row[at + 7 :]  # what is missing is grey
    whole = whole[:-2] + b"\xff\xd9"
    assert images.work(whole, (224, 224)) < 2**24
    with pytest.raises(InvalidInput, match="14,000 x 14,000 pixels, more than the 67,108,864"):
        images.work(whole)
    data = encoded(Image.new("RGB", (side // 7, side // 7), "tan"), "JPEG", quality=30)
    assert np.abs(decode(data, (224, 224)).astype(int) - (210, 180, 140)).max() < 4


STRIPS = struct.pack("<HH", 0x4949, 42) + struct.pack("<IHHHII", 8, 1, 273, 3, 2**18 + 1, 0)
MANY_PARTS = {
    "chunks": (PNG[:33] + chunk(b"tEXt", b"") * 2**17 + PNG[33:], "a PNG of more than 131,072 chunks"),
    "blocks": (GIF[:13] + b"!\xfe" + b"\x01a" * 2**17 + GIF[13:], "a GIF of more than 131,072 blocks"),
    "segments": (JPEG[:2] + b"\xff\xfe\0\2" * 2**17 + JPEG[2:], "a JPEG of more than 131,072 segments"),
    "junk": (JPEG[:2] + bytes(2**20 + 1) + JPEG[2:], "a JPEG with more than 1,048,576 bytes between its segments"),
    "fill": (JPEG[:2] + b"\xff" * 2**20 + JPEG[2:], "a JPEG with more than 1,048,576 bytes between its segments"),
    "strips": (STRIPS, "a TIFF of 262,145 strips or tiles"),
}


@pytest.mark.parametrize(("data", "words"), MANY_PARTS.values(), ids=MANY_PARTS)
def test_a_file_of_endless_parts_is_refused_before_pillow_reads_them(data, words, monkeypatch):
    monkeypatch.setattr(images, "_identified", lambda data: pytest.fail("opened"))
    with pytest.raises(InvalidInput, match=f"the image: {words}"):
        decode(data)


def test_only_what_is_a_scan_is_counted():
    picture = encoded(FLAT, "JPEG", progressive=True, exif=b"Exif\0\0" + b"\xff\xda\0\x0c" * 200)
    assert headers.read(picture + picture + b"\xff\xda\0\x0c" * 200).scans == 10  # nor a second picture behind it
    once = encoded(FLAT, "JPEG", restart_marker_rows=1)
    assert headers.read(once) == headers.Header(100, 100, 1, scaled=True)


def test_a_large_run_length_encoded_bmp_is_refused():
    head = struct.pack("<IiiHHIIIIII", 40, 2049, 2049, 1, 8, 1, 0, 0, 0, 256, 0)
    bmp = b"BM" + struct.pack("<IHHI", 0, 0, 0, 54 + 1024) + head + bytes(1024) + b"\0\1"
    with pytest.raises(InvalidInput, match="the image: a run-length encoded BMP of more than 4,194,304 pixels"):
        decode(bmp)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "CMYK", "I;16", "1", "RGB"])
def test_a_photo_converted_in_bands_is_that_converted_at_once(mode, monkeypatch):
    if mode == "I;16":
        image = Image.fromarray(GRAY.astype(np.uint16) * 257)
    else:
        image = with_alpha("RGBA") if mode in ("RGBA", "LA") else Image.fromarray(RED_TO_BLUE)
        image = image.convert(mode)
    data = encoded(image, "TIFF" if mode == "CMYK" else "PNG", exif=exif(6))
    whole = [decode(data, channels=channels) for channels in (1, 3)]
    monkeypatch.setattr(bits, "BAND", 5 * WIDTH)
    assert all(np.array_equal(decode(data, channels=c), at_once) for c, at_once in zip((1, 3), whole, strict=True))


def test_large_photos_are_decoded_a_few_at_a_time(monkeypatch):
    monkeypatch.setattr(images, "LARGE", 5_000)
    monkeypatch.setattr(images.os, "cpu_count", lambda: 1)
    monkeypatch.setenv("TLKIT_MAX_PIXELS", "20000")
    inside, most = [], []
    load = ImageFile.ImageFile.load

    def slowly(image):
        if not image.tile:  # it has been loaded
            return load(image)
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.01)
        inside.pop()
        return load(image)

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", slowly)
    with ThreadPoolExecutor(6) as pool:
        assert len({photo.tobytes() for photo in pool.map(decode, [PNG] * 12)}) == 1
    assert max(most) <= 2


@pytest.mark.parametrize("channels", [1, 3])
def test_size_is_height_and_width(channels):
    assert decode(RED_TO_BLUE, size=(5, 9), channels=channels).shape == (5, 9, channels)


@pytest.mark.parametrize("content", [GRAY, GRAY[..., None], RED_TO_BLUE])
def test_pixels_are_taken_as_they_are(content):
    channels = 3 if content is RED_TO_BLUE else 1
    assert np.array_equal(decode(content, channels=channels), content.reshape(HEIGHT, WIDTH, channels))


@pytest.mark.parametrize("content", [GRAY / 255, np.zeros(3, np.uint8)])
def test_other_arrays_are_refused(content):
    with pytest.raises(InvalidInput, match="give uint8"):
        decode(content)


def test_other_channels_are_refused():
    with pytest.raises(InvalidInput, match="channels is 4"):
        decode(GRAY, channels=4)


def test_a_large_jpeg_decoded_small_stays_close_to_the_whole():
    squares = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    data = encoded(squares.repeat(40, 0).repeat(40, 1), "JPEG", quality=90)
    whole = decode(decode(data), size=(224, 224))
    assert np.abs(decode(data, size=(224, 224)).astype(int) - whole).mean() < 1


def test_an_error_of_several_lines_becomes_one(monkeypatch):
    def fail(*args, **kwargs):
        raise ValueError("first\n  second")

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", fail)
    with pytest.raises(InvalidInput, match=r"^the image: first second$"):
        decode(PNG)


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"]),
    cut=st.integers(0, 400),
    damage=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=5),
)
def test_damage_gives_pixels_or_a_clear_error(kind, cut, damage):
    data = bytearray(encoded(RED_TO_BLUE, kind))
    for place, value in damage:
        data[place % len(data)] = value
    try:
        image = decode(bytes(data[: len(data) - cut]), size=(8, 8))
    except InvalidInput as error:
        outcome = str(error)
    else:
        outcome = image.shape
    assert outcome == (8, 8, 3) or (outcome.startswith("the image: ") and "\n" not in outcome)
