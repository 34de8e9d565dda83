"""Every odd image that users have is decoded to the right pixels, or refused in one line that names it."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tlkit.data import decode
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
    """The gradient with its left half transparent, over a colour that must not show."""
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
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
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


def test_a_decompression_bomb_is_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", HEIGHT * WIDTH // 2 - 1)
    with pytest.raises(InvalidInput, match=r"the image: .*exceeds limit"):
        decode(encoded(RED_TO_BLUE, "PNG"))


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

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(InvalidInput, match=r"^the image: first second$"):
        decode(b"x")


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
