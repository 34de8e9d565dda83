"""The functions of predict.py, which stands in an export's folder and imports nothing of tlkit.

It has those that its model needs: `read`, `eight_bits`, `resized` and `answer` are there in one way of several.
"""

# ruff: noqa: T201  it prints

import io
import json
import signal
import sys
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF")
UPRIGHT = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # EXIF's orientation, and what turns it upright


def load(path: str, threads: int = 0) -> Any:
    """Give the function from a batch to probabilities: that of the format, in `runtimes`."""
    raise NotImplementedError


def read(path: str, rules: dict[str, Any]) -> np.ndarray:
    """Read what the network takes: a photo, or an array."""
    return (read_photo if rules["kind"] == "photos" else read_array)(path, rules)


def read_photo(path: str, rules: dict[str, Any]) -> np.ndarray:
    """Read a photo as in training: float32, from 0 to 255, shape (height, width, channels)."""
    image = Image.open(io.BytesIO(Path(path).read_bytes()), formats=FORMATS)
    least = -int(-2 * max(rules["width"], rules["height"]) // (0.875 if rules["resize"] == "crop" else 1))
    image.draft(None, (least, least))  # large JPEGs are decoded at a fraction of their size
    photo = eight_bits(image, rules["white"])
    if photo.has_transparency_data:
        photo = photo.convert("RGBA")
        photo = Image.alpha_composite(Image.new("RGBA", photo.size, "white"), photo)
    photo = photo.convert("L" if rules["channels"] == 1 else "RGB")
    try:
        turn = UPRIGHT.get(image.getexif().get(0x0112, 1))
    except Exception:  # damaged EXIF
        turn = None
    photo = photo if turn is None else photo.transpose(Image.Transpose(turn))
    return np.asarray(resized(photo, rules), np.float32).reshape(rules["height"], rules["width"], rules["channels"])


def read_array(path: str, rules: dict[str, Any]) -> np.ndarray:
    """Read an array of the network's shape."""
    return np.load(path, allow_pickle=False).astype(np.float32).reshape(rules["shape"])


def eight_bits(image: Any, white: float | None) -> Any:
    """Decode a photo to 8 bits; white is the value that is white."""
    return scaled_from_16_bits(image) if white is None else scaled_from_white(image, white)


def scaled_from_16_bits(image: Any, _: None = None) -> Any:
    """Scale more than 8 bits to 8."""
    inverted = image.format == "TIFF" and image.tag_v2.get(262) == 0  # 0 is white
    image.load()
    if image.mode != "F" and not image.mode.startswith("I"):
        return image
    values = np.asarray(image)
    if image.mode == "F" or not 0 <= values.min() <= values.max() <= 65535:
        raise ValueError("it has values that do not lie between 0 and 65535, which is white")
    levels = ((values.astype(np.uint64) * 255 + 32767) // 65535).astype(np.uint8)
    return Image.fromarray(255 - levels if inverted else levels)


def scaled_from_white(image: Any, white: float) -> Any:
    """Scale values from 0 to white to 8 bits: those of more bits, and those of masks, such as of 0 and 1."""
    if len(image.getbands()) > 1 and any(";16" in str(tile) for tile in image.tile):
        raise ValueError("16 bits per color are not read here: convert it to 8 bits")
    inverted = image.format == "TIFF" and image.tag_v2.get(262) == 0  # 0 is white
    image.load()
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(scaled(np.asarray(image), white, inverted))
    if white >= 32 or image.mode not in ("L", "LA", "RGB", "RGBA"):
        return image
    pixels = np.array(image).reshape(image.height, image.width, -1)
    colors = pixels[:, :, : pixels.shape[2] - image.mode.endswith("A")]
    colors[:] = scaled(colors, white) if colors.max() <= white else colors
    return Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)


def scaled(values: np.ndarray, white: float, inverted: bool = False) -> np.ndarray:
    """Scale values from 0 to white to 8 bits."""
    if not 0 <= values.min() <= values.max() <= white:  # nan is neither
        raise ValueError(f"it has values that do not lie between 0 and {white:g}, which is white")
    if values.dtype.kind != "f" and white == int(white):
        levels = (values.astype(np.uint64) * 255 + int(white) // 2) // int(white)
        return (255 - levels if inverted else levels).astype(np.uint8)
    share = values.astype(np.float64) / white
    return np.rint((1 - share if inverted else share) * 255).astype(np.uint8)


def resized(photo: Any, rules: dict[str, Any]) -> Any:
    """Bring an upright photo to the size."""
    return RESIZED[rules["resize"]](photo, rules)


def squashed(photo: Any, rules: dict[str, Any]) -> Any:
    """Squeeze a photo into the size."""
    return photo.resize((rules["width"], rules["height"]), Image.Resampling.BILINEAR)


def cut_out(photo: Any, rules: dict[str, Any]) -> Any:
    """Cut out the center: as much as has the shape (center), or 7/8 of that (crop)."""
    bleed = 0.0625 if rules["resize"] == "crop" else 0
    return ImageOps.fit(photo, (rules["width"], rules["height"]), Image.Resampling.BILINEAR, bleed=bleed)


def framed(photo: Any, rules: dict[str, Any]) -> Any:
    """Keep the whole photo, framed with gray."""
    width, height = rules["width"], rules["height"]
    scale = max(photo.width / width, photo.height / height)
    inner = max(1, round(photo.width / scale)), max(1, round(photo.height / scale))
    frame = Image.new(photo.mode, (width, height), (128,) * len(photo.getbands()))
    place = (width - inner[0]) // 2, (height - inner[1]) // 2
    frame.paste(photo.resize(inner, Image.Resampling.BILINEAR), place)
    return frame


RESIZED = {"squash": squashed, "center": cut_out, "crop": cut_out, "pad": framed}


def answer(p: np.ndarray, rules: dict[str, Any], top: int = 3) -> str:
    """Write the answer as tlkit's `predict` does."""
    return (answer_several if rules["several_labels"] else answer_one)(p, rules, top)


def answer_one(p: np.ndarray, rules: dict[str, Any], top: int = 3) -> str:
    """Write the most probable classes with their probabilities; "unsure" before them below the threshold."""
    if not np.isfinite(p).all():
        raise ValueError("the network's answer is not a number")
    p = p.astype(np.float64) if len(p) > 1 else np.array([1 - p[0], p[0]])  # one is of the second of two classes
    p = np.maximum(p, 1e-12) ** (1 / rules["temperature"])
    best = np.argsort(-(p := p / p.sum()), kind="stable")
    texts = [f"{shown(rules['classes'][n])} {p[n]:.4f}" for n in best[:top]]
    if rules.get("set_threshold") is not None:
        inside = [n for n in best if p[n] >= rules["set_threshold"]] or best[:1]
        texts.append(f"one of {{{', '.join(shown(rules['classes'][n]) for n in inside)}}}")
    return "  ".join(["unsure"] * bool(p[best[0]] < (rules["threshold"] or 0)) + texts)


def answer_several(p: np.ndarray, rules: dict[str, Any], top: int = 3) -> str:
    """Write the most probable labels with their probabilities; * marks those that are given."""
    if not np.isfinite(p).all():
        raise ValueError("the network's answer is not a number")
    best = np.argsort(-p, kind="stable")[: max(top, int((p > 0.5).sum()))]
    texts = [f"{shown(rules['classes'][n])}{'*' * int(p[n] > 0.5)} {p[n]:.4f}" for n in best]
    return "  ".join(["unsure"] * bool(p[best[0]] < (rules["threshold"] or 0)) + texts)


def shown(text: str) -> str:
    """Write control characters as escapes, so that no name steers the terminal."""
    steer = ("Cc", "Cf", "Cs", "Zl", "Zp")
    return "".join(c.encode("unicode_escape").decode() if unicodedata.category(c) in steer else c for c in text)


def main(paths: list[str]) -> int:
    """Print the answer for each; the status is 3 where one could not be read."""
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # end quietly where `... | head` has read enough
    folder, unread = Path(__file__).resolve().parent, list[str]()
    rules = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
    run = load(str(folder / rules["model"]))
    for path in paths:
        try:
            pixels = read(path, rules)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            unread.append(f"{shown(path)}: {shown(str(error))}")
        else:
            print(f"{shown(path)}  {answer(run(pixels[None])[0], rules)}", flush=True)
    if unread:
        print(f"photos that could not be read ({len(unread)}):", *unread, sep="\n", file=sys.stderr)
    return 3 if unread else 0
