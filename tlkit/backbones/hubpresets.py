"""Presets of KerasHub: in a folder, in the caches of Kaggle and Hugging Face, or downloaded; else one line."""

from __future__ import annotations

import contextlib
import difflib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

from tlkit import startup, untrusted
from tlkit.backbones import weightfiles
from tlkit.display import few
from tlkit.errors import InvalidInput, Unavailable, first_line

PREFIX = "hub:"
HANDLES = {"kaggle://": "https://www.kaggle.com", "hf://": "https://huggingface.co"}
CONFIG, WEIGHTS = "config.json", "model.weights.h5"
LONGEST_CONFIG = 2**24  # bytes


def library() -> Any:
    """Import KerasHub.

    Raises:
        InvalidInput: it is not installed.
    """
    if not startup.is_installed("keras_hub"):
        raise InvalidInput('backbone.name begins with hub:, which needs KerasHub: pip install "tlkit[hub]"')
    with startup.native_stderr_held():  # it imports TensorFlow with any backend
        import keras_hub

    return keras_hub


def locate(name: str) -> str:
    """Give a preset as KerasHub takes it: the absolute path of a folder, a name or a handle; nothing is downloaded.

    Args:
        name: As the user gave it, with `hub:` in front.

    Raises:
        InvalidInput: there is no such preset.
        Unavailable: it is not on this machine, and its host cannot be reached.
    """
    presets, preset = library().models.Backbone.presets, name.removeprefix(PREFIX)
    if preset in presets:
        _check_reachable(preset, presets[preset]["kaggle_handle"])
    elif any(preset.startswith(scheme) for scheme in HANDLES):
        _check_reachable(preset, preset)
    elif os.path.isdir(preset):
        _check_folder(Path(preset))
        return os.path.abspath(preset)
    else:
        close = few(difflib.get_close_matches(preset, presets, n=3) if os.sep not in preset else [], 3)
        raise InvalidInput(
            f"backbone.name is {name!r}: there is no such folder, and KerasHub has no such preset"
            f"{f', but {close}' if close else ''}: give a preset's name, a folder, hf://… or kaggle://…"
        )
    return preset


def _check_folder(folder: Path) -> None:
    """Check a preset's files before KerasHub opens them."""
    if not (folder / CONFIG).is_file():
        raise InvalidInput(f"{folder} is no preset of KerasHub, as it has no {CONFIG}: give what save_to_preset wrote")
    if (folder / CONFIG).stat().st_size > LONGEST_CONFIG:
        raise InvalidInput(f"{folder / CONFIG} is larger than a network's description")
    if (weights := folder / WEIGHTS).is_file():
        size = weights.stat().st_size
        untrusted.check_memory(2 * size, str(weights))
        with one_line(f"{weights} cannot be read"):
            untrusted.check_hdf5(str(weights), size, str(weights))


def _check_reachable(preset: str, handle: str) -> None:
    """Raise at once, and not after a library's retries, where there is neither a copy nor a way to the host."""
    host = next(url for scheme, url in HANDLES.items() if handle.startswith(scheme))
    place, found = _cached(handle)
    if found or weightfiles.reachable(host):
        return
    raise Unavailable(
        f"{PREFIX}{preset} is not on this machine (looked in {place}), and {host.removeprefix('https://')} cannot be "
        f"reached: copy the preset's folder here and give {PREFIX}FOLDER"
    )


def _cached(handle: str) -> tuple[str, bool]:
    """Say where copies of a handle's files lie, and whether its configuration is there."""
    if handle.startswith("hf://"):
        import huggingface_hub

        found = huggingface_hub.try_to_load_from_cache(handle.removeprefix("hf://"), CONFIG)
        return str(huggingface_hub.constants.HF_HUB_CACHE), isinstance(found, str)
    import kagglehub
    from kagglehub.cache import Cache

    with one_line(f"{handle!r} is no handle"):
        parsed = kagglehub.handle.parse_model_handle(handle.removeprefix("kaggle://"))
        place = str(Cache().get_path(parsed)).removesuffix("/None")  # of no version
        return place, parsed.is_versioned() and Cache().load_from_cache(parsed, CONFIG) is not None


@contextlib.contextmanager
def one_line(what: str) -> Iterator[None]:
    """Turn any error of KerasHub, Kaggle, Hugging Face, h5py or Keras into one line.

    Raises:
        InvalidInput: with the reason; an error of this kind stays.
    """
    try:
        yield
    except (InvalidInput, Unavailable):
        raise
    except OSError as error:  # of the disk or the network
        raise Unavailable(f"{what}: {first_line(error)}") from error
    except Exception as error:  # whatever a library raises on files from anywhere
        raise InvalidInput(f"{what}: {first_line(error)}") from error


def loader(preset: str) -> Any:
    """Give KerasHub's loader of a preset, which has read its configuration only."""
    from keras_hub.src.utils.preset_utils import get_preset_loader  # the class can be asked for in no public way

    with one_line(f"KerasHub cannot read {preset}"):
        return get_preset_loader(preset)


def load(preset: str, side: int | None) -> keras.Model:
    """Load the backbone of a preset with its weights.

    Args:
        preset: As `locate` gives it.
        side: Height and width of its photos in pixels; None for its own.
    """
    shape = {} if side is None else {"image_shape": (side, side, 3)}
    size = "" if side is None else f" at {side} x {side} pixels"
    dtype = keras.config.dtype_policy().name
    with one_line(f"KerasHub cannot build {preset}{size}"), _quietly():
        found = loader(preset)
        kind = found.check_backbone_class()
        if not issubclass(kind, keras.Model):
            raise InvalidInput(f"{preset} holds a {kind.__name__}, and no network")
        model = found.load_backbone(kind, load_weights=True, dtype=dtype, **shape)
    weightfiles.check_finite(model, preset)
    return model


def converter(preset: str) -> Any:
    """Load the image converter of a preset; None if it has none.

    Raises:
        InvalidInput: its file is damaged.
    """
    from keras_hub.src.layers.preprocessing.image_converter import ImageConverter
    from keras_hub.src.utils.preset_utils import KerasPresetLoader

    found = loader(preset)
    none = FileNotFoundError if isinstance(found, KerasPresetLoader) else Exception  # others raise what they like
    with one_line(f"the image converter of {preset} is damaged or cannot be read"):
        try:
            return ImageConverter.from_preset(preset)
        except FileNotFoundError:
            return None
        except ValueError:  # no class of converters is for the encoder of a larger backbone
            with contextlib.suppress(none):
                return found.load_image_converter(ImageConverter)
            return None


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    level = logging.getLogger("absl").level
    logging.getLogger("absl").setLevel(logging.ERROR)
    try:
        yield
    finally:
        logging.getLogger("absl").setLevel(level)
