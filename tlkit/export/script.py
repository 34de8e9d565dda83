"""The text of predict.py, which stands in an export's folder and imports nothing of tlkit."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from tlkit.data.images import FORMATS
from tlkit.data.resizing import least_side

_PHOTOS = '''\
"""Print the labels of photos: python predict.py photo.jpg ...; README.md names the packages it needs."""

import contextlib
import io
import json
import signal
import sys
import unicodedata
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

'''

_ARRAYS = '''\
"""Print the labels of arrays: python predict.py array.npy ...; README.md names the packages it needs."""

import json
import signal
import sys
import unicodedata
from pathlib import Path

import numpy as np

'''

_READ_ARRAY = '''
def read(path):
    """Read an array of the network's shape."""
    return np.load(path, allow_pickle=False).astype(np.float32).reshape({shape})
'''

_READ_PHOTO = '''
def read(path):
    """Read a photo as in training: float32, from 0 to 255, shape ({height}, {width}, {channels})."""
    image = Image.open(io.BytesIO(Path(path).read_bytes()), formats={formats})
    image.draft(None, ({least}, {least}))  # large JPEGs are decoded at a fraction of their size
{bits}
    if photo.has_transparency_data:
        photo = Image.alpha_composite(Image.new("RGBA", photo.size, "white"), photo.convert("RGBA"))
    photo = photo.convert("{mode}")
    with contextlib.suppress(Exception):  # no EXIF, or a damaged one
        photo = photo.transpose({{2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}}[image.getexif()[0x0112]])
    return np.asarray({resized}, np.float32){gray}
'''

_SIXTEEN_BITS = """\
    photo = image
    if image.mode.startswith(("I", "F")):  # 16 bits are scaled to 8
        values = np.asarray(image, np.float64) / 257
        if image.mode == "F" or values.min() < 0 or values.max() > 255:
            raise ValueError("it has values that do not lie between 0 and 65535, which is white")
        inverted = image.format == "TIFF" and image.tag_v2.get(262) == 0  # 0 is white
        photo = Image.fromarray(np.rint(255 - values if inverted else values).astype(np.uint8))"""

_WHITE = '''
def eight_bits(image):
    """Decode a photo and scale values from 0 to white to 8 bits: more bits, and masks, such as of 0 and 1."""
    if len(image.getbands()) > 1 and any("RGB" in str(tile) and ";16" in str(tile) for tile in image.tile):
        raise ValueError("16 bits per color are not read here: convert it to 8 bits")
    inverted = image.format == "TIFF" and image.tag_v2.get(262) == 0  # 0 is white
    image.load()
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(scaled(np.asarray(image), inverted))
    if WHITE > 31 or image.mode not in ("L", "LA", "RGB", "RGBA"):
        return image
    pixels = np.array(image).reshape(image.height, image.width, -1)
    colors = pixels[:, :, : pixels.shape[2] - image.mode.endswith("A")]
    colors[:] = scaled(colors) if colors.max() <= WHITE else colors
    return Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)


def scaled(values, inverted=False):
    """Scale values from 0 to white to 8 bits."""
    if not 0 <= values.min() <= values.max() <= WHITE:  # nan is neither
        raise ValueError(f"it has values that do not lie between 0 and {WHITE}, which is white")
    if values.dtype.kind != "f" and WHITE % 1 == 0:
        levels = (values.astype(np.uint64) * 255 + WHITE // 2) // WHITE
        return (255 - levels if inverted else levels).astype(np.uint8)
    share = values.astype(np.float64) / WHITE
    return np.rint((1 - share if inverted else share) * 255).astype(np.uint8)
'''

_FRAMED = '''
def framed(photo, width, height):
    """Keep the whole photo, framed with gray."""
    scale = max(photo.width / width, photo.height / height)
    inner = max(1, round(photo.width / scale)), max(1, round(photo.height / scale))
    frame = Image.new(photo.mode, (width, height), (128,) * len(photo.getbands()))
    place = (width - inner[0]) // 2, (height - inner[1]) // 2
    frame.paste(photo.resize(inner, Image.Resampling.BILINEAR), place)
    return frame
'''

_RESIZED = {
    "squash": "photo.resize(({width}, {height}), Image.Resampling.BILINEAR)",
    "center": "ImageOps.fit(photo, ({width}, {height}), Image.Resampling.BILINEAR)",
    "crop": "ImageOps.fit(photo, ({width}, {height}), Image.Resampling.BILINEAR, bleed=0.0625)",
    "pad": "framed(photo, {width}, {height})",
}

_ONE = '''
def answer(p, rules):
    """Write the most probable classes with their probabilities; "unsure" before them below the threshold."""
    if not np.isfinite(p).all():
        raise ValueError("the network's answer is not a number")
    p = np.maximum(p.astype(np.float64), 1e-12) ** (1 / rules["temperature"])
    best = np.argsort(-(p := p / p.sum()), kind="stable")
    texts = [f"{shown(rules['classes'][n])} {p[n]:.4f}" for n in best[:3]]
    return "  ".join(["unsure"] * bool(p[best[0]] < (rules["threshold"] or 0)) + texts)
'''

_ONE_NUMBER = """\
    p = p if len(p) > 1 else np.array([1 - p[0], p[0]])  # one is of the second of the two
"""

_SETS = """\
    inside = [n for n in best if p[n] >= rules["set_threshold"]] or best[:1]
    texts.append(f"one of {{{', '.join(shown(rules['classes'][n]) for n in inside)}}}")
"""

_SEVERAL = '''
def answer(p, rules):
    """Write the most probable labels with their probabilities; * marks those that are given."""
    if not np.isfinite(p).all():
        raise ValueError("the network's answer is not a number")
    best = np.argsort(-p, kind="stable")[: max(3, int((p > 0.5).sum()))]
    texts = [f"{shown(rules['classes'][n])}{'*' * int(p[n] > 0.5)} {p[n]:.4f}" for n in best]
    return "  ".join(["unsure"] * bool(p[best[0]] < (rules["threshold"] or 0)) + texts)
'''

_MAIN = '''
def shown(text):
    """Write control characters as escapes, so that no name steers the terminal."""
    steer = ("Cc", "Cf", "Cs", "Zl", "Zp")
    return "".join(c.encode("unicode_escape").decode() if unicodedata.category(c) in steer else c for c in text)


def main(paths):
    """Print the answer for each; the status is 3 where one could not be read."""
    signal.signal(getattr(signal, "SIGPIPE", signal.SIGINT), signal.SIG_DFL)  # `... | head` ends it quietly
    folder, status = Path(__file__).resolve().parent, 0
    rules = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
    run = load(str(folder / rules["model"]))
    for path in paths:
        try:
            pixels = read(path)
        except (OSError, ValueError, EOFError, SyntaxError, Image.DecompressionBombError) as error:
            status = 3
            print(shown(f"{path} could not be read: {error}"), file=sys.stderr)
        else:
            print(f"{shown(path)}  {answer(run(pixels[None])[0], rules)}", flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) if sys.argv[1:] else "usage: python predict.py FILE ...")
'''


def compose(load: Callable[..., Any], rules: Mapping[str, Any]) -> str:
    """Compose predict.py of the parts that a model needs.

    Args:
        load: How its format is loaded, one of `runtimes`.
        rules: What labels.json holds.
    """
    source = re.sub(r"def load_.*", "def load(path, threads=0):", inspect.getsource(load))
    answer = _SEVERAL
    if not rules["several_labels"]:
        answer = _ONE if len(rules["classes"]) > 2 else _ONE.replace("    p = ", f"{_ONE_NUMBER}    p = ")
        sets = "" if rules.get("set_threshold") is None else _SETS
        answer = answer.replace("    return", f"{sets}    return")
    if rules["kind"] != "photos":
        main = _MAIN.replace(", SyntaxError, Image.DecompressionBombError", "")
        return "\n".join([_ARRAYS, source, _READ_ARRAY.format(shape=rules["shape"]), answer, main])
    width, height, channels, resize, white = (
        rules[name] for name in ("width", "height", "channels", "resize", "white")
    )
    resized = _RESIZED[resize].format(width=width, height=height)
    read = _READ_PHOTO.format(
        width=width,
        height=height,
        channels=channels,
        formats=json.dumps(FORMATS),
        least=least_side((height, width), resize),
        bits="    photo = eight_bits(image)" if white else _SIXTEEN_BITS,
        mode="L" if channels == 1 else "RGB",
        resized=resized,
        gray="[..., None]" if channels == 1 else "",
    )
    parts = [_PHOTOS if "ImageOps" in resized else _PHOTOS.replace(", ImageOps", ""), source, read]
    if white:
        parts.append(f"\nWHITE = {int(white) if white % 1 == 0 else white}  # the value that is white\n\n{_WHITE}")
    if resize == "pad":
        parts.append(_FRAMED)
    return "\n".join([*parts, answer, _MAIN])
