"""Sheets of examples: those that were classified wrongly, and photos as training changes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from PIL import Image

from tlkit.display import shown
from tlkit.plots.mistaken import worst
from tlkit.plots.style import BLUE, GRAY, ORANGE, shortened

DPI = 100  # pixels an inch of a page


def draw_photo(axes: Axes, pixels: np.ndarray, **options: Any) -> None:
    """Draw a photo.

    Args:
        axes: Where to draw.
        pixels: Shape (height, width, 1 | 3), from 0 to 255.
        options: Options of Matplotlib's `imshow`.
    """
    axes.imshow(_eight_bits(_thumbnail(pixels)), cmap="gray", vmin=0, vmax=255, **options)


def _eight_bits(pixels: np.ndarray) -> np.ndarray:
    return pixels if pixels.dtype == np.uint8 else np.clip(pixels, 0, 255).astype(np.uint8)


def draw_sound(axes: Axes, sound: np.ndarray) -> None:
    """Draw the waveform of a sound, from its lowest to its highest value.

    Shapes:
        sound: (samples, channels); the first channel is drawn
    """
    first = sound[:, 0].astype(float)
    parts = np.array_split(first, min(len(first), 400))  # the envelope: a second has thousands of samples
    lows, highs = [part.min() for part in parts], [part.max() for part in parts]
    axes.fill_between(range(len(parts)), lows, highs, color=BLUE, ec=BLUE, lw=0.8)
    axes.set_box_aspect(1)


def draw_array(axes: Axes, array: np.ndarray) -> None:
    """Draw an array from its lowest to its highest value; of a volume, the middle slice along the first axis.

    Shapes:
        array: (*space, channels), with one to three axes of space; one is drawn as a waveform
    """
    rank = array.ndim - 1
    if rank == 1:
        draw_sound(axes, array)
        return
    image = array[len(array) // 2] if rank == 3 else array
    _image(axes, image)


def _thumbnail(image: np.ndarray) -> np.ndarray:
    step = max(1, max(image.shape[:2]) // 256)  # nobody sees a hundred thousand pixels more
    image = image[::step, ::step]
    return image if image.shape[-1] == 3 else image[..., 0]


def _image(axes: Axes, image: np.ndarray) -> None:
    image = _thumbnail(image)
    low, high = float(np.nanmin(image)), float(np.nanmax(image))
    scaled = (image.astype(float) - low) / max(high - low, 1e-9)
    axes.imshow(np.clip(scaled, 0, 1), cmap="gray", vmin=0, vmax=1)


def mistakes(
    read: Callable[[np.ndarray], Iterable[np.ndarray]],
    labels: Sequence[str],
    predicted: Sequence[str],
    probabilities: Sequence[float],
    kind: str = "photos",
    names: Sequence[str] | None = None,
    most: int = 24,
    losses: Sequence[float] | np.ndarray | None = None,
    draw: Callable[[Axes, np.ndarray], None] | None = None,
) -> Figure:
    """Draw wrongly classified examples on one sheet, the most confident mistakes first, or those of the highest loss.

    Args:
        read: Reads the examples at some positions, (k, *space, channels), such as `tlkit.data.Photos.read`; only those
            that are drawn are read.
        labels: The right class of each example.
        predicted: The predicted class of each example.
        probabilities: Probability of each predicted class.
        kind: Name of the examples, such as `photos`.
        names: Names of the examples' files.
        most: Maximum number of mistakes to draw.
        losses: Loss of each example, to sort by and to write in place of probabilities where examples may have several
            labels.
        draw: Draws one example on axes of its own: `draw_sound`, `draw_array`, or a function like them. None for
            photos, which share the sheet's: 24 axes take longer than all else on it.
    """
    shares: Sequence[float] | np.ndarray = probabilities if losses is None else losses
    wrong = worst(labels, predicted, shares)
    what, first = ("probability", "most confident") if losses is None else ("loss", "most costly")
    if losses is not None:
        labels, predicted = ([name or "(no label)" for name in some] for some in (labels, predicted))
    order = wrong[:most]
    if not len(order):
        figure = Figure(figsize=(5, 1), layout="constrained")
        figure.text(0.5, 0.5, f"no mistakes among {len(labels):,} {kind}", ha="center", va="center", fontsize=12)
        return figure
    columns = min(len(order), 6)
    width, height, side = max(1.75 * columns, 5), 2.2 * -(-len(order) // columns) + 0.55, 1.6  # in inches
    page = _Page(width, height)
    figure, whole = page.figure, page.axes
    style: dict[str, Any] = {"ha": "center", "fontsize": 8, "parse_math": False}
    for place, (index, example) in enumerate(zip(order.tolist(), read(order), strict=False)):
        row, column = divmod(place, columns)
        middle, top = (column + 0.5) * width / columns, height - 0.95 - 2.2 * row
        if draw is None:
            page.fit(np.asarray(example), (middle - side / 2, top - side), side)
        else:
            axes = figure.add_axes(((middle - side / 2) / width, (top - side) / height, side / width, side / height))
            draw(axes, np.asarray(example))
            axes.set_axis_off()
        text = f"{shortened(predicted[index], 15)} ({shares[index]:.2f})"
        whole.text(middle, top + 0.2, shortened(labels[index], 21), **style)
        whole.text(middle, top + 0.06, text, **style, color=ORANGE)
        if names is not None:
            end = {**style, "fontsize": 5.5, "va": "top", "color": GRAY}
            whole.text(middle, top - side - 0.06, _end(names[index], 32), **end)
    are = "is" if len(wrong) == 1 else "are"
    count = f"{len(wrong):,} of {len(labels):,} {kind} {are} classified wrongly"
    shown = f"the {len(order)} {first} mistakes" if len(order) < len(wrong) else f"the {first} first"
    figure.suptitle(f"{count}: {shown}\nblack: the label; orange: what was predicted, with its {what}", fontsize=9)
    page.draw()
    return figure


class _Background(AxesImage):
    """An image of a whole figure, drawn as it is where its pixels are the figure's: resampling takes much longer."""

    def draw(self, renderer: Any) -> None:
        """Draw it."""
        pixels = self.get_array()
        if pixels is None or tuple(renderer.get_canvas_width_height()) != (pixels.shape[1], pixels.shape[0]):
            super().draw(renderer)
            return
        context = renderer.new_gc()
        renderer.draw_image(context, 0, 0, np.asarray(pixels)[::-1])
        context.restore()
        self.stale = False


class _Page:
    """A figure whose photos are one image: Matplotlib takes as long to place each as to place all of them.

    Args:
        width: In inches, to the pixel.
        height: Likewise.
    """

    def __init__(self, width: float, height: float):
        self.pixels = np.full((round(height * DPI), round(width * DPI), 3), 255, np.uint8)
        self.width, self.height = self.pixels.shape[1] / DPI, self.pixels.shape[0] / DPI
        self.figure = Figure(figsize=(self.width, self.height), dpi=DPI)
        limits: dict[str, Any] = {"xlim": (0, self.width), "ylim": (0, self.height)}  # the unit is an inch
        self.axes = self.figure.add_axes((0, 0, 1, 1), **limits, autoscale_on=False)
        self.axes.set_axis_off()

    def place(self, photo: np.ndarray, corner: tuple[float, float], size: tuple[float, float]) -> None:
        """Place a photo, with its lower left corner at x and y, in a width and height."""
        left, above = round(corner[0] * DPI), round((self.height - corner[1] - size[1]) * DPI)
        small = Image.fromarray(_eight_bits(_thumbnail(photo))).convert("RGB")
        small = small.resize((max(1, round(size[0] * DPI)), max(1, round(size[1] * DPI))), Image.Resampling.BILINEAR)
        there = self.pixels[above : above + small.height, left : left + small.width]
        there[:] = np.asarray(small)[: there.shape[0], : there.shape[1]]

    def fit(self, photo: np.ndarray, corner: tuple[float, float], side: float) -> None:
        """Place a photo in the middle of a square."""
        tall, wide = photo.shape[:2]
        tall, wide = side * tall / max(tall, wide), side * wide / max(tall, wide)
        self.place(photo, (corner[0] + (side - wide) / 2, corner[1] + (side - tall) / 2), (wide, tall))

    def draw(self) -> None:
        """Draw the photos, when all are placed."""
        image = _Background(self.axes, extent=(0, self.width, 0, self.height))
        image.set_data(np.dstack([self.pixels, np.full(self.pixels.shape[:2], 255, np.uint8)]))
        self.axes.add_image(image)


def sheet(
    rows: Sequence[Sequence[np.ndarray]],
    columns: Sequence[str],
    captions: Sequence[Sequence[str]],
    title: str = "",
) -> Figure:
    """Draw photos in rows, such as a photo and its changes in training.

    Args:
        rows: Rows of photos, each (height, width, 1 | 3), uint8.
        columns: Heading of each column.
        captions: Caption of each photo.
        title: Title of the picture.
    """
    across, down = len(columns), len(rows)
    height, width = rows[0][0].shape[:2]
    side = min(1.7, 90 / max(across, down))  # inches; large sheets have small photos
    tall = side * height / width
    gap, below, above = 0.08, 0.24 * side / 1.7, 0.28 * side / 1.7
    left, top = 0.15, 0.45 + above
    size = (across * (side + gap) - gap + 2 * left, top + down * (tall + below + gap) + 0.05)
    page = _Page(*size)
    figure, axes, size = page.figure, page.axes, (page.width, page.height)
    text: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 8 * side / 1.7, "parse_math": False}
    for row, (photos, texts) in enumerate(zip(rows, captions, strict=True)):
        y = size[1] - top - row * (tall + below + gap)
        for column, (photo, caption) in enumerate(zip(photos, texts, strict=True)):
            x = left + column * (side + gap)
            page.place(photo, (x, y - tall), (side, tall))
            axes.text(x + side / 2, y - tall - below / 2, caption, color=GRAY if column else "black", **text)
    for column, name in enumerate(columns):
        x = left + column * (side + gap) + side / 2
        axes.text(x, size[1] - top + above / 2, name, **text)
    axes.text(size[0] / 2, size[1] - 0.24, title, ha="center", va="center", fontsize=11, parse_math=False)
    page.draw()
    return figure


def _end(name: str, most: int) -> str:
    name = shown(name)
    return name if len(name) <= most else f"…{name[1 - most :]}"
