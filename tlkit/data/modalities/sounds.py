"""Sounds: files of samples, cut or filled up to one length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tlkit.data import sounds
from tlkit.data.contents import Content
from tlkit.data.modalities.modality import Files, Framing, Modality, Reading, Requests, Shape, changed_by
from tlkit.errors import InvalidInput

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def _frame(contents: Sequence[Content], names: Sequence[str], framing: Framing) -> tuple[Shape, int]:
    samples, rate = sounds.frame(contents, names, framing.seconds)  # type: ignore[arg-type]  # files or bytes
    return (samples, 1), rate


def _decode(content: Content, shape: Shape, name: str, reading: Reading) -> np.ndarray:
    return sounds.decode(content, shape[0], name)  # type: ignore[arg-type]  # files or bytes


def _draw(axes: Axes, sound: np.ndarray) -> None:
    from tlkit import plots

    plots.draw_sound(axes, sound)


def _encode(sound: np.ndarray, rate: int | None) -> bytes:
    if rate is None:
        raise ValueError("rate is missing: give the samples per second of the sound")
    return sounds.encode(sound, rate)


def _requested(
    content: bytes | np.ndarray, shape: tuple[int | None, ...], rate: int | None, name: str, reading: Reading
) -> np.ndarray:
    samples = shape[0]
    if not isinstance(content, np.ndarray):
        sound, actual = sounds.decode(content, samples, name), sounds.rate(content)
        if actual != rate:
            raise InvalidInput(f"{name} has {actual:,} samples a second; the network learned from {rate:,}")
        return sound
    if content.ndim not in (1, 2) or content.size != len(content) or abs(content).max() > 1:
        raise InvalidInput(
            f"{name} is an array of shape {content.shape} with values from {content.min():.3g} to {content.max():.3g}"
        )
    sound = content.astype(np.float32).reshape(-1, 1)[:samples]
    return sound if samples is None else np.pad(sound, ((0, samples - len(sound)), (0, 0)))


def _work(content: bytes, shape: tuple[int | None, ...], name: str, reading: Reading) -> int:
    return len(content) // 4


SOUNDS = Modality(
    name="sounds",
    singular="sound",
    input="samples",
    files=Files(sounds.SUFFIXES, np.dtype(np.float32), ("seconds",), _frame, _decode),
    changes=("shift", "contrast", "mixup"),
    augment=changed_by("augment_sound"),
    sampled=True,
    draw=_draw,
    example_file="example.wav",
    encode=_encode,
    requests=Requests(
        column="sound",
        file="a WAV, FLAC or OGG file",
        array="an array (samples,) or (samples, 1) from -1 to 1",
        decode=_requested,
        work=_work,
    ),
)
