"""Print the labels of photos: python predict.py photo.jpg ...

It needs the packages that README.md names. It ends with status 3 where a photo could not be read.
"""

# An export has this file as its predict.py, with `load` of its own format. So nothing of tlkit is imported here.
import io
import json
import signal
import sys
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

UPRIGHT = dict(enumerate((0, 3, 1, 5, 4, 6, 2), 2))  # EXIF's orientation, and what turns it upright, for `transpose`


def load(path: str, threads: int = 0) -> Any:
    """Give the function from a batch to probabilities."""
    raise NotImplementedError


def read(path: str, rules: dict[str, Any]) -> np.ndarray:
    """Read a photo as it was read in training: float32, from 0 to 255, shape (height, width, channels)."""
    if rules["kind"] != "photos":  # an array of the network's shape
        return np.load(path, allow_pickle=False).astype(np.float32).reshape(rules["shape"])
    content = io.BytesIO(Path(path).read_bytes())
    image: Any = Image.open(content, formats=("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF"))
    width, height, resize, white = rules["width"], rules["height"], rules["resize"], rules["white"]
    least = -int(-2 * max(width, height) // (0.875 if resize == "crop" else 1))
    image.draft(None, (least, least))  # large JPEGs are decoded at a fraction of their size
    if white is not None and len(image.getbands()) > 1 and any(";16" in str(tile) for tile in image.tile):
        raise ValueError("16 bits per color are not read here: convert it to 8 bits")
    deep = image.mode == "F" or image.mode.startswith("I")
    inverted = deep and image.format == "TIFF" and image.tag_v2.get(262) == 0  # 0 is white
    image.load()
    try:
        turn = UPRIGHT.get(image.getexif().get(0x0112, 1))
    except Exception:  # damaged EXIF
        turn = None
    if deep:
        image = Image.fromarray(scaled(np.asarray(image), white, inverted))
    elif white is not None and white < 32 and image.mode in ("L", "LA", "RGB", "RGBA"):  # such as a mask of 0 and 1
        pixels = np.array(image).reshape(image.height, image.width, -1)
        colors = pixels[:, :, : pixels.shape[2] - image.mode.endswith("A")]
        colors[:] = scaled(colors, white) if colors.max() <= white else colors
        image = Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("L" if rules["channels"] == 1 else "RGB")
    image = image if turn is None else image.transpose(Image.Transpose(turn))
    return np.asarray(resized(image, width, height, resize), np.float32).reshape(height, width, rules["channels"])


def scaled(values: np.ndarray, white: float | None, inverted: bool = False) -> np.ndarray:
    """Scale values from 0 to white to 8 bits."""
    most, whole = 65535 if white is None else white, values.dtype.kind != "f"
    if not (whole or white) or not 0 <= values.min() <= values.max() <= most:  # nan is neither
        raise ValueError(f"it has values that do not lie between 0 and {most:g}, which is white")
    if whole and most == int(most):
        levels = (values.astype(np.uint64) * 255 + int(most) // 2) // int(most)
        return (255 - levels if inverted else levels).astype(np.uint8)
    share = values.astype(np.float64) / most
    return np.rint((1 - share if inverted else share) * 255).astype(np.uint8)


def resized(photo: Image.Image, width: int, height: int, resize: str) -> Image.Image:
    """Bring an upright photo to a size: squeezed (squash), cut out (center, crop), or framed with gray (pad)."""
    bilinear = Image.Resampling.BILINEAR
    if resize in ("center", "crop"):
        return ImageOps.fit(photo, (width, height), bilinear, bleed=0.0625 if resize == "crop" else 0)
    if resize == "squash":
        return photo.resize((width, height), bilinear)
    scale = max(photo.width / width, photo.height / height)
    inner = max(1, round(photo.width / scale)), max(1, round(photo.height / scale))
    framed = Image.new(photo.mode, (width, height), (128,) * len(photo.getbands()))
    framed.paste(photo.resize(inner, bilinear), ((width - inner[0]) // 2, (height - inner[1]) // 2))
    return framed


def answer(probabilities: np.ndarray, rules: dict[str, Any], top: int = 3) -> str:
    """Write the most probable classes with their probabilities; where there may be several labels, * marks these."""
    if not np.isfinite(probabilities).all():
        raise ValueError("the network's answer is not a number")
    if len(probabilities) == 1:  # of the second of two classes
        probabilities = np.array([1 - probabilities[0], probabilities[0]])
    elif rules["temperature"] != 1:
        powers = np.log(np.maximum(probabilities.astype(np.float64), 1e-12)) / rules["temperature"]
        probabilities = np.exp(powers) / np.exp(powers).sum()
    marked = (probabilities > 0.5) & rules["several_labels"]
    best = np.argsort(-probabilities, kind="stable")[: max(top, int(marked.sum()))]
    texts = [f"{shown(rules['classes'][n])}{'*' * int(marked[n])} {probabilities[n]:.4f}" for n in best]
    unsure = bool(probabilities[best[0]] < (rules["threshold"] or 0))
    if rules.get("set_threshold") is not None and not rules["several_labels"]:
        inside = [n for n in np.argsort(-probabilities, kind="stable") if probabilities[n] >= rules["set_threshold"]]
        texts.append(f"one of {{{', '.join(shown(rules['classes'][n]) for n in inside or best[:1])}}}")
    return "  ".join(["unsure"] * unsure + texts)


def shown(text: str) -> str:
    """Write control characters as escapes, so that no name steers the terminal."""
    steer = ("Cc", "Cf", "Cs", "Zl", "Zp")
    return "".join(c.encode("unicode_escape").decode() if unicodedata.category(c) in steer else c for c in text)


def main(photos: list[str]) -> int:
    """Print the answer for each photo."""
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # end quietly where `... | head` has read enough
    folder, unread = Path(__file__).resolve().parent, list[str]()
    rules = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
    run = load(str(folder / rules["model"]))
    for photo in photos:
        try:
            pixels = read(photo, rules)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            unread.append(f"{shown(photo)}: {shown(str(error))}\n")
        else:
            sys.stdout.write(f"{shown(photo)}  {answer(run(pixels[None])[0], rules)}\n")
            sys.stdout.flush()
    sys.stderr.write(f"photos that could not be read ({len(unread)}):\n{''.join(unread)}" if unread else "")
    return 3 if unread else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) if sys.argv[1:] else "usage: python predict.py PHOTO ...")
