"""Exports: the script's photos and answers are tlkit's, parity is proven, and a folder is whole or not there."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import numpy as np
import pytest
from conftest import write_photos
from PIL import Image

from tlkit import atomic, cli, config, export, labels
from tlkit.data.images import decode
from tlkit.data.modalities import Reading
from tlkit.data.resizing import RESIZES
from tlkit.errors import InvalidInput, Unavailable
from tlkit.export import formats, parity, script, speed
from tlkit.recipes import export as recipe
from tlkit.recipes import predict

CLASSES = ["green", "red"]


def installed(name: str) -> Any:
    missing = [module for module in export.FORMATS[name].needs if importlib.util.find_spec(module) is None]
    reason = f"{', '.join(missing)} not installed: pip install 'tlkit[{export.FORMATS[name].extra}]'"
    return pytest.param(name, marks=pytest.mark.skipif(bool(missing), reason=reason))


# How files can be, by name; `script.read` must give the pixels of `decode` for each.


def odd_photos(folder: Path) -> list[Path]:
    """Photos of every kind that people have: turned, CMYK, palette, gray, transparent, with 16 bits."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).resize((160, 120), Image.Resampling.BICUBIC)
    folder.mkdir(parents=True, exist_ok=True)
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        coarse.save(folder / f"turned{turn}.jpg", exif=exif)
    coarse.resize((900, 700)).save(folder / "large.jpg")
    coarse.convert("CMYK").save(folder / "cmyk.jpg")
    coarse.convert("P", palette=Image.Palette.ADAPTIVE).save(folder / "palette.png")
    coarse.convert("P", palette=Image.Palette.ADAPTIVE).save(folder / "transparent.gif", transparency=3)
    coarse.convert("L").save(folder / "gray.png")
    coarse.convert("1").save(folder / "lines.png")
    coarse.convert("LA").save(folder / "gray_alpha.png")
    alpha = coarse.copy()
    alpha.putalpha(Image.fromarray(rng.integers(0, 256, (120, 160), np.uint8)))
    alpha.save(folder / "alpha.png")
    alpha.save(folder / "alpha.webp", lossless=True)
    deep = rng.integers(0, 65536, (90, 50), np.uint16)
    Image.fromarray(deep).save(folder / "deep.png")
    Image.fromarray(deep).save(folder / "deep.tif")
    Image.fromarray(deep).save(folder / "inverted.tif", tiffinfo={262: 0})
    coarse.save(folder / "color.bmp")
    coarse.convert("CMYK").save(folder / "cmyk.tif")
    coarse.resize((3, 200)).save(folder / "thin.png")
    return sorted(folder.iterdir())


def rules(size: int, channels: int, resize: str, white: float | None = None) -> dict[str, Any]:
    return {"kind": "photos", "width": size, "height": size, "channels": channels, "resize": resize, "white": white}


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_script_reads_photos_as_tlkit_does(tmp_path: Path, resize: Any, channels: int):
    photos = odd_photos(tmp_path / "photos")
    assert len(photos) == 23
    for photo in photos:
        ours = decode(photo, (32, 32), channels, resize=resize)
        theirs = script.read(str(photo), rules(32, channels, resize))
        assert theirs.dtype == np.float32
        assert np.array_equal(ours, theirs), photo.name
    assert decode(photos[0], (24, 40), channels, resize=resize).tolist() == (
        script.read(str(photos[0]), rules(24, channels, resize) | {"width": 40}).tolist()
    )


def test_the_script_knows_which_value_is_white(tmp_path: Path):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 4096, (30, 20), np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray(rng.integers(0, 4096, (30, 20), np.uint16)).save(tmp_path / "inverted.tif", tiffinfo={262: 0})
    Image.fromarray(rng.integers(0, 2, (30, 20), np.uint8)).save(tmp_path / "mask.png")
    Image.fromarray(rng.integers(0, 256, (30, 20), np.uint8)).save(tmp_path / "plain.png")
    Image.fromarray(rng.integers(0, 2, (30, 20, 4), np.uint8)).save(tmp_path / "color_mask.png")
    Image.fromarray(rng.random((30, 20), np.float32)).save(tmp_path / "floating.tif")
    Image.fromarray(rng.random((30, 20), np.float32)).save(tmp_path / "floating_inverted.tif", tiffinfo={262: 0})
    for name, white in (
        ("deep.png", 4095),
        ("deep.png", 5000.5),
        ("inverted.tif", 4095),
        ("inverted.tif", 5000.5),
        ("mask.png", 1),
        ("color_mask.png", 1),
        ("color_mask.png", 1.5),
        ("plain.png", 1),
        ("floating.tif", 1),
        ("floating_inverted.tif", 1),
    ):
        ours = decode(tmp_path / name, (16, 16), 3, white=white)
        assert np.array_equal(ours, script.read(str(tmp_path / name), rules(16, 3, "squash", white))), (name, white)
    for name, white in (("deep.png", 100), ("floating.tif", None)):
        with pytest.raises(InvalidInput):
            decode(tmp_path / name, (16, 16), 3, white=white)
        with pytest.raises(ValueError, match="which is white"):
            script.read(str(tmp_path / name), rules(16, 3, "squash", white))


def test_damaged_exif_turns_nothing(tmp_path: Path):
    photo = tmp_path / "photo.jpg"
    buffer = io.BytesIO()
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(buffer, "JPEG", exif=b"Exif\0\0II*\0\xff")
    photo.write_bytes(buffer.getvalue())
    assert np.array_equal(decode(photo, (8, 8)), script.read(str(photo), rules(8, 3, "squash")))
