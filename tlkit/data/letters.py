"""Letters drawn from the fonts that come with matplotlib, distorted like handwriting: what LetterNet is pretrained on.

A glyph is kept as a signed distance field (how far is the nearest edge, positive inside the ink): looking it up at
other places rotates, bends and scales the letter, and adding a number makes its strokes thicker.

Letters only. No digit, no numeral and no letter whose form is a digit is ever drawn, so that handwritten digits are
new to a network that has learned from these.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

SIZE = 32  # height and width in pixels of the images that `draw` returns
FIELD = 48  # height and width of a distance field
BOX = 34  # the longer side of a letter within its field
REACH = 8.0  # distances are clipped to this many pixels of a field
STEPS = 15  # a distance is stored in 1/15 pixel, so that it fits int8
PEN = (1.2, 3.4)  # half the width of a letter's thickest stroke, in pixels of a field

REFERENCE = "DejaVuSans"  # the font in which letters are compared: it has more of them than any other
ALIKE = 3.0  # pixels of a field

# Fonts of brackets, of symbols in the places of letters, and of stand-ins for glyphs that are missing elsewhere.
NOT_LETTERS = ("LastResort", "STIXSiz", "STIXNonUni", "cmex10", "cmsy10")
# Unicode calls these letters, but they are drawn as digits: tones two, five and six, two with stroke, tresillo (3)
# and cuatrillo (4).
DRAWN_AS_DIGITS = frozenset("ƧƨƼƽƄƅƻꜪꜫꜬꜭꜮꜯ")


class Glyphs(NamedTuple):
    """Drawn letters.

    Shapes:
        fields: (glyphs, FIELD, FIELD), int8: distance from the edge in 1/STEPS pixel, positive inside the ink
        labels: (glyphs,): index into `classes`
        fonts: (glyphs,): the name of the font
        classes: one string for each class: the letters that look alike, the first one leads
    """

    fields: np.ndarray
    labels: np.ndarray
    fonts: np.ndarray
    classes: tuple[str, ...]


def fonts() -> list[Path]:
    """List the font files to draw with, in alphabetical order.

    >>> "DejaVuSans" in [path.stem for path in fonts()]
    True
    """
    import matplotlib

    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    return sorted(path for path in folder.glob("*.ttf") if not path.stem.startswith(NOT_LETTERS))


def letter(character: str) -> str | None:
    """Return the letter that a character draws, or None where it is not a plain letter.

    Mathematical alphabets (script, Fraktur, sans-serif …) count as further fonts of the same letter. Accented letters
    and ligatures are left out: at 32 pixels they repeat the plain ones.

    >>> letter("a"), letter("𝔞"), letter("é"), letter("7"), letter("Ⅷ")
    ('a', 'a', None, None, None)
    """
    parts = unicodedata.decomposition(character).split()
    if parts:
        if parts[0] != "<font>" or len(parts) != 2:
            return None
        character = chr(int(parts[1], 16))
    named = unicodedata.name(character, "").split()  # a few letters bear a digit, or are "Roman numeral …" by name
    number = unicodedata.numeric(character, None) is not None or "DIGIT" in named or "NUMERAL" in named
    return None if not character.isalpha() or number or character in DRAWN_AS_DIGITS else character


def glyphs(paths: Sequence[Path] | None = None, alphabet: str | None = None) -> Glyphs:
    """Draw every letter of the fonts once.

    Args:
        paths: Font files; by default all of `fonts()`.
        alphabet: Draw only these letters; by default all that the fonts have.

    >>> drawn = glyphs([path for path in fonts() if path.stem == "DejaVuSans"], alphabet="oOA")
    >>> drawn.fields.shape, drawn.classes
    ((10, 48, 48), ('A', 'Oo'))
    """
    masks, letters, names = [], [], []
    for path in fonts() if paths is None else paths:
        for name, mask in _masks(path, alphabet):
            masks.append(mask)
            letters.append(name)
            names.append(path.stem)
    fields = _distances(np.stack(masks))
    label_of, classes = _look_alikes(fields, letters, names)
    labels = np.array([label_of[name] for name in letters], "int32")
    return Glyphs(fields, labels, np.array(names), classes)


def draw(drawn: Glyphs, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw random letters: a class, then one of its glyphs, then a distortion.

    Shapes:
        returns: images (count, SIZE, SIZE, 1), uint8, white (255) on black (0), and labels (count,), int32

    >>> drawn = glyphs(fonts()[:1], alphabet="abc")
    >>> images, labels = draw(drawn, 8, np.random.default_rng(0))
    >>> images.shape, images.dtype.name, labels.shape
    ((8, 32, 32, 1), 'uint8', (8,))
    """
    sizes = np.bincount(drawn.labels, minlength=len(drawn.classes))
    # The square root stands between "every class alike", which would drown the letters that all fonts share in the
    # hundreds that one font has, and "every glyph alike", which would do the reverse.
    odds = (sizes**-0.5)[drawn.labels]
    chosen = rng.choice(len(drawn.labels), count, p=odds / odds.sum())
    images = [distort(drawn.fields[part], rng) for part in np.array_split(chosen, -(-count // 512))]
    return np.concatenate(images), drawn.labels[chosen]


def distort(fields: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw distance fields as images of bent, slanted, thick or thin, sharp or coarse letters.

    Shapes:
        fields: (letters, FIELD, FIELD), int8
        returns: (letters, SIZE, SIZE, 1), uint8
    """
    count = len(fields)
    source = _affine(count, rng) + _bend(count, rng)
    # Half the stroke's width is random; a bold letter with hairlines must not lose them, hence the lower bound.
    depth = fields.max((1, 2)) / STEPS
    thicker = np.clip(rng.uniform(*PEN, count) - depth, -1.2, 3).astype("float32")[:, None, None]
    # Where does the letter end once it is bent? The second look fits it to the frame, as a scanner would.
    source = _fit(source, _look_up(fields, source) + thicker > 0, rng)
    distance = _look_up(fields, source) + thicker
    sharpness = rng.uniform(0.6, 1.5, (count, 1, 1)).astype("float32")
    return _scan(np.clip(distance * sharpness + 0.5, 0, 1), rng)


def _masks(path: Path, alphabet: str | None):
    """Yield (letter, mask) for each letter of a font; a mask is boolean, (FIELD, FIELD)."""
    from matplotlib.ft2font import FT2Font
    from PIL import Image, ImageFont

    font = ImageFont.truetype(str(path), 2 * BOX, layout_engine=ImageFont.Layout.BASIC)
    for code in sorted(FT2Font(str(path)).get_charmap()):  # the map holds only what the font can draw
        name = letter(chr(code))
        if name is None or (alphabet is not None and name not in alphabet):
            continue
        mask, _ = font.getmask2(chr(code), mode="L")
        box = mask.getbbox()
        if box is None:
            continue
        pixels = np.asarray(mask, "uint8").reshape(mask.size[1], mask.size[0])
        pixels = pixels[box[1] : box[3], box[0] : box[2]]
        height, width = (max(1, round(side * BOX / max(pixels.shape))) for side in pixels.shape)
        small = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
        top, left = (FIELD - height) // 2, (FIELD - width) // 2
        framed = np.zeros((FIELD, FIELD), bool)
        framed[top : top + height, left : left + width] = small > 127
        yield name, framed


def _distances(masks: np.ndarray) -> np.ndarray:
    """Turn masks into signed distances from the edge; (glyphs, FIELD, FIELD) in, the same out, int8."""
    from scipy import ndimage

    apart = (10 * FIELD, 1, 1)  # one call for many letters: the nearest edge is never in another one
    fields = np.empty(masks.shape, "int8")
    for part in range(0, len(masks), 256):
        mask = masks[part : part + 256]
        inside = ndimage.distance_transform_edt(mask, apart)
        outside = ndimage.distance_transform_edt(~mask, apart)
        distance = ndimage.gaussian_filter(inside - outside, (0, 0.7, 0.7))  # takes the staircase off the edges
        fields[part : part + 256] = np.round(np.clip(distance, -REACH, REACH) * STEPS)
    return fields


def _look_alikes(
    fields: np.ndarray, letters: Sequence[str], fonts: Sequence[str]
) -> tuple[dict[str, int], tuple[str, ...]]:
    """Give letters of the same form one class: o and O, or A of Latin, Greek and Cyrillic.

    Letters are compared as REFERENCE draws them, or else the first font that has them. Two are of the same form where
    no ink of one is further than ALIKE pixels from ink of the other.
    """
    first: dict[str, int] = {}
    for index in sorted(range(len(letters)), key=lambda index: fonts[index] != REFERENCE):
        first.setdefault(letters[index], index)
    names = sorted(first)
    shapes = fields[[first[name] for name in names]].reshape(len(names), -1)
    limit = -ALIKE * STEPS
    leaders: list[int] = []
    classes: list[str] = []
    labels: dict[str, int] = {}
    for index, name in enumerate(names):
        shape, ink = shapes[index], shapes[index] > 0
        others = shapes[leaders]
        alike = np.all(others[:, ink] >= limit, axis=1)
        alike[alike] = np.all((others[alike] <= 0) | (shape >= limit), axis=1)
        if alike.any():
            labels[name] = int(alike.argmax())
            classes[labels[name]] += name
        else:
            labels[name] = len(classes)
            leaders.append(index)
            classes.append(name)
    return labels, tuple(classes)


def _affine(count: int, rng: np.random.Generator) -> np.ndarray:
    """Return where each pixel of an image comes from: (count, 2, SIZE, SIZE), y and x from the middle of the field."""
    angle = np.deg2rad(np.clip(rng.normal(0, 9, count), -25, 25))
    slant = rng.uniform(-0.35, 0.35, count)
    narrow = np.exp(rng.uniform(-0.15, 0.45, count))  # handwriting is narrower than print
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shape = np.array([[np.ones(count), np.zeros(count)], [slant, narrow]])
    matrix = np.einsum("ijn,jkn->nik", turn, shape).astype("float32")
    line = (np.arange(SIZE, dtype="float32") - (SIZE - 1) / 2) * (1.3 * BOX / SIZE)
    grid = np.stack(np.meshgrid(line, line, indexing="ij")).reshape(2, -1)
    return (matrix @ grid).reshape(count, 2, SIZE, SIZE)


def _bend(count: int, rng: np.random.Generator) -> np.ndarray:
    """Return a smooth random shift of each pixel, in pixels of the field: (count, 2, SIZE, SIZE)."""
    knots = rng.normal(size=(count, 2, 5, 5)) * rng.uniform(0, 2.4, (count, 1, 1, 1))
    smooth = _enlarge(5).astype("float32")
    return smooth @ knots.astype("float32") @ smooth.T


def _fit(source: np.ndarray, ink: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Scale and shift so that the ink fills the height of the image, all but a few pixels, and at most its width."""
    count = len(source)
    rows, columns = np.any(ink, axis=2), np.any(ink, axis=1)
    low = np.stack([rows.argmax(1), columns.argmax(1)], 1)
    high = SIZE - 1 - np.stack([rows[:, ::-1].argmax(1), columns[:, ::-1].argmax(1)], 1)
    size = high - low + 1
    most = np.stack([SIZE - rng.uniform(-1, 4, count), rng.uniform(16, 30, count)], 1)
    factor = size / most
    factor[:, 1] = np.maximum(factor[:, 1], factor[:, 0])  # made narrower where it must be, never wider
    factor = np.clip(factor, 0.5, 2)
    slack = np.maximum(0, SIZE - size / factor) * (0.25, 0.15)
    middle = (low + high) / 2 + rng.uniform(-1, 1, (count, 2)) * slack
    # The new grid is looked up in the old one: bending goes along, and the look-up is bilinear again.
    line = np.arange(SIZE) - (SIZE - 1) / 2
    where = middle[:, :, None] + line * factor[:, :, None]  # (count, 2, SIZE)
    rows_at, columns_at = (_weights(where[:, axis]) for axis in (0, 1))
    return rows_at[:, None] @ source @ columns_at[:, None].transpose(0, 1, 3, 2)


def _weights(where: np.ndarray) -> np.ndarray:
    """Bilinear weights (count, SIZE, SIZE) that read a line of SIZE values at the places (count, SIZE).

    Beyond the ends the outermost step goes on, so that what lies outside stays outside.
    """
    start = np.clip(np.floor(where), 0, SIZE - 2)
    rest = where - start
    weights = np.zeros((*where.shape, SIZE), "float32")
    np.put_along_axis(weights, start.astype(int)[..., None], (1 - rest)[..., None], -1)
    np.put_along_axis(weights, start.astype(int)[..., None] + 1, rest[..., None], -1)
    return weights


def _look_up(fields: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Read the fields at the places `source`, bilinearly: (count, SIZE, SIZE), in pixels."""
    count = len(fields)
    place = np.clip(source + (FIELD - 1) / 2, 0, FIELD - 1.001)
    start = place.astype("int32")
    y, x = (place - start).transpose(1, 0, 2, 3)
    corner = start[:, 0] * FIELD + start[:, 1] + (np.arange(count, dtype="int32") * FIELD**2)[:, None, None]
    flat = fields.reshape(-1)
    upper = flat[corner] * (1 - x) + flat[corner + 1] * x
    lower = flat[corner + FIELD] * (1 - x) + flat[corner + FIELD + 1] * x
    return (upper * (1 - y) + lower * y) / STEPS


def _scan(ink: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Digitize at a random resolution: most at 8 x 8, as the embedded digits were, some at 16 x 16, some in full."""
    count = len(ink)
    images = np.empty((count, SIZE, SIZE), "float32")
    side = rng.choice([8, 16, SIZE], count, p=[0.6, 0.2, 0.2])
    for pixels in (8, 16, SIZE):
        rows = side == pixels
        block = SIZE // pixels
        # A cell counts its black points, from 0 to 16, as in the making of the embedded digits.
        bitmap = ink[rows] > 0.5 if pixels == 8 else ink[rows]
        cells = bitmap.reshape(-1, pixels, block, pixels, block).mean((2, 4), dtype="float32")
        enlarge = _enlarge(pixels).astype("float32")
        images[rows] = enlarge @ cells @ enlarge.T
    contrast = rng.uniform(0.85, 1.1, (count, 1, 1))
    grain = rng.normal(0, 1, images.shape).astype("float32") * rng.uniform(0, 0.05, (count, 1, 1))
    return np.round(np.clip(images * contrast + grain, 0, 1) * 255).astype("uint8")[..., None]


def _enlarge(size: int) -> np.ndarray:
    """The matrix (SIZE, size) by which Pillow's bilinear filter makes `size` pixels SIZE."""
    where = (np.arange(SIZE) + 0.5) * size / SIZE - 0.5
    weights = np.maximum(0, 1 - np.abs(where[:, None] - np.arange(size)))
    return weights / weights.sum(1, keepdims=True)
