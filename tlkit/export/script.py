"""Print the labels of photos: python predict.py photo.jpg ...

It needs the packages that README.md names. It ends with status 3 where a photo could not be read.
"""

# An export has this file as its predict.py, with `load` of its own format. So nothing of tlkit is imported here.
import io
import json
import math
import os
import sys
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF")
UPRIGHT = dict(enumerate((0, 3, 1, 5, 4, 6, 2), 2))  # EXIF's orientation, and what turns it upright, for `transpose`


def load(path: str, threads: int = 0) -> Any:
    """Give the function from a batch to probabilities."""
    raise NotImplementedError


def scaled(values: np.ndarray, white: float | None, inverted: bool = False) -> np.ndarray:
    """Scale values from 0 to white to 8 bits."""
    most, whole = 65535 if white is None else white, values.dtype.kind != "f"
    if not (whole or white is not None) or not 0 <= values.min() <= values.max() <= most:  # nan is neither
        raise ValueError(f"it has values that do not lie between 0 and {most:g}, which is white")
    if whole and most == int(most):
        levels = (values.astype(np.uint64) * 255 + int(most) // 2) // int(most)
        return (255 - levels if inverted else levels).astype(np.uint8)
    share = values.astype(np.float64) / most
    return np.rint((1 - share if inverted else share) * 255).astype(np.uint8)


def flat(image: Image.Image, mode: str, white: float | None, inverted: bool) -> Image.Image:
    """Convert a palette, transparency, CMYK or more than 8 bits to L or RGB."""
    if image.mode == "F" or image.mode.startswith("I"):
        image = Image.fromarray(scaled(np.asarray(image), white, inverted))
    elif white is not None and white <= 31 and image.mode in ("L", "LA", "RGB", "RGBA"):
        bands = len(image.getbands())
        colors = bands - image.mode.endswith("A")
        if np.asarray(image).reshape(-1, bands)[:, :colors].max() <= white:  # such as a mask of 0 and 1
            table = scaled(np.arange(256).clip(0, int(white)), white).tolist()
            image = image.point(table * colors + list(range(256)) * (bands - colors))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == mode else image.convert(mode)


def resized(photo: Image.Image, width: int, height: int, resize: str) -> Image.Image:
    """Bring an upright photo to a size: squeezed (squash), cut out (center, crop), or framed with gray (pad)."""
    bilinear = Image.Resampling.BILINEAR
    if resize in ("center", "crop"):
        keep = 0.875 if resize == "crop" else 1.0
        window = min(photo.width, photo.height * width / height), min(photo.height, photo.width * height / width)
        left, top = (photo.width - keep * window[0]) / 2, (photo.height - keep * window[1]) / 2
        return photo.resize((width, height), bilinear, box=(left, top, photo.width - left, photo.height - top))
    if resize == "pad":
        scale = max(photo.width / width, photo.height / height)
        inner = max(1, round(photo.width / scale)), max(1, round(photo.height / scale))
        padded = Image.new(photo.mode, (width, height), (128,) * len(photo.getbands()))
        padded.paste(photo.resize(inner, bilinear), ((width - inner[0]) // 2, (height - inner[1]) // 2))
        return padded
    return photo.resize((width, height), bilinear)


def read(path: str, rules: dict[str, Any]) -> np.ndarray:
    """Read a photo as it was read in training: float32, from 0 to 255, shape (height, width, channels)."""
    if rules["kind"] != "photos":  # an array of the network's shape
        return np.load(path, allow_pickle=False).astype(np.float32).reshape(rules["shape"])
    image = Image.open(io.BytesIO(Path(path).read_bytes()), formats=FORMATS)
    width, height, resize, white = rules["width"], rules["height"], rules["resize"], rules["white"]
    least = math.ceil(2 * max(width, height) / (0.875 if resize == "crop" else 1))
    image.draft(None, (least, least))  # large JPEGs are decoded at a fraction of their size
    if white is not None and len(image.getbands()) > 1 and any(";16" in str(tile) for tile in image.tile):
        raise ValueError("16 bits per color are not read here: convert it to 8 bits")
    gray = image.mode == "F" or image.mode.startswith("I")
    inverted = image.format == "TIFF" and gray and image.tag_v2.get(262) == 0  # type: ignore[attr-defined]
    image.load()
    try:
        turn = UPRIGHT.get(image.getexif().get(0x0112, 1))
    except Exception:  # damaged EXIF
        turn = None
    photo = flat(image, "L" if rules["channels"] == 1 else "RGB", white, inverted)
    photo = photo if turn is None else photo.transpose(Image.Transpose(turn))
    return np.asarray(resized(photo, width, height, resize), np.float32).reshape(height, width, rules["channels"])


def answer(probabilities: np.ndarray, rules: dict[str, Any], top: int = 3) -> str:
    """Write the most probable classes with their probabilities; where there may be several labels, * marks these."""
    if not np.isfinite(probabilities).all():
        raise ValueError("the network's answer is not a number")
    if rules["temperature"] != 1 and len(probabilities) > 1:
        powers = np.log(np.maximum(probabilities.astype(np.float64), 1e-12)) / rules["temperature"]
        probabilities = np.exp(powers) / np.exp(powers).sum()
    shares = probabilities if len(probabilities) > 1 else np.array([1 - probabilities[0], probabilities[0]])
    several, threshold = rules["several_labels"], rules["threshold"]
    best = np.argsort(-shares, kind="stable")[: max(top, int((shares > 0.5).sum())) if several else top]
    texts = ["unsure"] if threshold is not None and shares[best[0]] < threshold else []
    for index in best:
        texts.append(
            f"{shown(rules['classes'][index])}{'*' * int(several and shares[index] > 0.5)} {shares[index]:.4f}"
        )
    if rules.get("set_threshold") is not None and not several:
        inside = [index for index in np.argsort(-shares, kind="stable") if shares[index] >= rules["set_threshold"]]
        names = ", ".join(shown(rules["classes"][index]) for index in inside or best[:1])
        texts.append(f"one of {{{names}}}")
    return "  ".join(texts)


def shown(text: str) -> str:
    """Write control characters as escapes, so that no name steers the terminal."""
    steers = [unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp") for letter in text]
    letters = (letter.encode("unicode_escape").decode() if bad else letter for letter, bad in zip(text, steers))  # noqa: B905
    return "".join(letters)


def main(photos: list[str]) -> int:
    """Print the answer for each photo."""
    folder = Path(__file__).resolve().parent
    rules = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
    run, unread = load(str(folder / rules["model"])), []
    for photo in photos:
        try:
            pixels = read(photo, rules)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            unread.append(f"{shown(photo)}: {shown(str(error))}\n")
            continue
        try:
            sys.stdout.write(f"{shown(photo)}  {answer(run(pixels[None])[0], rules)}\n")
            sys.stdout.flush()
        except BrokenPipeError:  # `... | head` has read enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            break
    sys.stderr.write(f"photos that could not be read ({len(unread)}):\n{''.join(unread)}" if unread else "")
    return 3 if unread else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) if sys.argv[1:] else "usage: python predict.py PHOTO ...")
