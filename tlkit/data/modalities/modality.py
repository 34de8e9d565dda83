"""What the rest of tlkit needs to know of a modality: one row, filled in by the modality's own file."""

from __future__ import annotations

import io
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tlkit.data.bits import Range
from tlkit.data.contents import Content, Named
from tlkit.data.resizing import RESIZES, Resize
from tlkit.display import shown
from tlkit.errors import InvalidInput

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Shape = tuple[int, ...]  # of one example: (*space, channels)


class Framing(NamedTuple):
    """What the caller of `tlkit.data.load` asked of the shape; see there."""

    size: tuple[int, int] | None = None
    channels: int | None = None
    seconds: float | None = None


class Reading(NamedTuple):
    """How a file becomes an example, beside its shape; part of the activation store's key, and saved with a model.

    Args:
        resize: Of photos: how they are brought to the size; see `tlkit.data.images.decode`.
        white: Of photos with more than 8 bits: the value that is white; None for 65535. See `tlkit.data.images.decode`.
    """

    resize: Resize = "squash"
    white: float | None = None

    @property
    def changed(self) -> dict[str, str | float]:
        """What differs from the default, by name.

        >>> Reading(white=4095).changed
        {'white': 4095}
        """
        return {name: value for name, value in self._asdict().items() if value != self._field_defaults[name]}

    @classmethod
    def of(cls, changed: object) -> Reading:
        """Make the reading whose `changed` was written down; checked, because it may come from a stranger's model.

        Raises:
            InvalidInput: it is none, or one that this version of tlkit does not know.

        >>> Reading.of({"resize": "crop"})
        Reading(resize='crop', white=None)
        """
        if not isinstance(changed, dict):
            raise InvalidInput(f"the reading is {shown(reprlib.repr(changed))}: it must be settings with their names")
        for name, value in changed.items():
            if name not in _READ or not _READ[name](value):
                setting = shown(f"{reprlib.repr(name)}: {reprlib.repr(value)}")
                raise InvalidInput(f"the reading has {setting}, which this version of tlkit does not know")
        return cls(**changed)


def _is_white(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 2**32


_READ: dict[str, Callable[[object], bool]] = {"resize": RESIZES.__contains__, "white": _is_white}
"""What the fields of `Reading` may be, where they are written down."""


@dataclass(frozen=True)
class Files:
    """How files of a modality become examples.

    Args:
        suffixes: Of the files, in lower case, with the dot. No two modalities share one.
        dtype: Of a decoded example.
        framing: Fields of `Framing` that apply.
        frame: Takes the contents, their names for errors, and the framing; returns the shape that every example gets,
            and the sampling rate, or None where there is none.
        decode: Takes a content, the shape, a name for errors and the reading; returns an example of that shape.
        value_range: Takes a content and a name for errors; returns the range of its values, or None for a file whose
            values are scaled already.
        white: Decides for a whole set which value is white. Takes the ranges by name, the names and contents of the
            others, and the setting `data.white`; returns the value for `Reading`, and a line for the user or "".
    """

    suffixes: frozenset[str]
    dtype: np.dtype
    framing: tuple[str, ...]
    frame: Callable[[Sequence[Content], Sequence[str], Framing], tuple[Shape, int | None]]
    decode: Callable[[Content, Shape, str, Reading], np.ndarray]
    value_range: Callable[[Content, str], Range | None] | None = None
    white: Callable[[Mapping[str, Range], Named, float | None], tuple[float | None, str]] | None = None


@dataclass(frozen=True)
class Requests:
    """How a served model is asked about examples of a modality.

    Args:
        column: Of the table in a request.
        file: The files that a cell may hold, in words.
        array: The arrays that a cell may hold, in words.
        decode: Takes a file's bytes or an array of finite numbers, the network's input shape, the sampling rate, a
            name for errors and the reading; returns an example.
        work: Takes a file's bytes, the network's input shape, a name for errors and the reading; returns how many
            pixels or other values must be decoded, from the header alone.
    """

    column: str
    file: str
    array: str
    decode: Callable[[bytes | np.ndarray, tuple[int | None, ...], int | None, str, Reading], np.ndarray]
    work: Callable[[bytes, tuple[int | None, ...], str, Reading], int]


def draw_array(axes: Axes, array: np.ndarray) -> None:
    """Draw an example of any rank; see `tlkit.plots.draw_array`."""
    from tlkit import plots

    plots.draw_array(axes, array)


def changed_by(name: str) -> Callable[..., np.ndarray]:
    """Return a function of `tlkit.data.augmentation`, which is imported when it is called: predicting needs no OpenCV.

    >>> changed_by("augment_array")(np.zeros((2, 1)), np.random.default_rng(0)).shape
    (2, 1)
    """

    def change(*example: Any, **changes: Any) -> np.ndarray:
        from tlkit.data import augmentation

        return getattr(augmentation, name)(*example, **changes)

    change.__name__ = name
    return change


def encode_array(array: np.ndarray, rate: int | None = None) -> bytes:
    """Make an .npy file.

    >>> encode_array(np.zeros(3, np.uint8))[1:6]
    b'NUMPY'
    """
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@dataclass(frozen=True)
class Modality:
    """A row of `tlkit.data.modalities.MODALITIES`; what is left out does not exist for the modality.

    Args:
        name: Stored as the tag `kind` of runs and in saved models; also what messages call several examples.
        singular: What messages call one example.
        input: Name of the input of a network of its own.
        files: How files become examples.
        changes: Fields of `tlkit.config.Augment` that training may use.
        augment: Changes one example at random; see `tlkit.data.augment`.
        mirrored: Whether `flip` mirrors left and right only, and is switched on unless the user says otherwise.
        pretrained: Whether the pretrained backbones take them.
        sampled: Whether they are sampled in time, at a rate that a saved model must know, and may become spectrograms.
        predicted: Whether `tlkit.recipes.predict` takes files of them.
        draw: Draws one example on axes; None for photos; see `tlkit.plots.mistakes`.
        example_file: Name of the file with one example that a run keeps, or "" for none.
        encode: Takes an example and the sampling rate; returns the content of that file, by default an .npy file.
        requests: How a served model is asked.
    """

    name: str
    singular: str
    input: str | None = None
    files: Files | None = None
    changes: tuple[str, ...] = ()
    augment: Callable[..., np.ndarray] | None = None
    mirrored: bool = False
    pretrained: bool = False
    sampled: bool = False
    predicted: bool = False
    draw: Callable[[Axes, np.ndarray], None] | None = draw_array
    example_file: str = ""
    encode: Callable[[np.ndarray, int | None], bytes] = encode_array
    requests: Requests | None = None

    @property
    def resized(self) -> bool:
        """Whether examples can be brought to a height and a width."""
        return self.files is not None and "size" in self.files.framing
