"""The network that settings stand for: one of the table, one of the user's own, or that of a classifier of tlkit."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tlkit import config as configs
from tlkit import untrusted
from tlkit.errors import InvalidInput
from tlkit.recipes import _models, _parents, _versions

if TYPE_CHECKING:
    import keras

    from tlkit import backbones

OWN = ("cut", "stages", "pixels")
"""Settings that are for a network of the user's own."""
LICENCE = "accept_license"
"""Setting that is for a backbone of KerasHub, or a classifier that was made of one."""


class Source(NamedTuple):
    """A network that a head can be put on.

    Args:
        row: What there is to know of it.
        build: From height and width in pixels to the network, from pixels to its feature map.
        settings: Settings that follow from it, each with its value and why, for people.
        parent: The classifier that is gone on from, if it is one.
        resize: How its own preprocessing brings photos to their size, as a value of `data.resize`, if it says so.
    """

    row: backbones.Row
    build: Callable[[int], keras.Model]
    settings: tuple[tuple[str, Any, str], ...] = ()
    parent: _parents.Parent | None = None
    resize: str | None = None


def resolve(backbone: configs.Backbone, size: int | None = None) -> Source:
    """Find the network that settings stand for; nothing of a table's network is built.

    Another kind of name is one more branch here.

    Args:
        backbone: The settings.
        size: Height and width of the photos in pixels; by default the network's own.

    Raises:
        InvalidInput: there is none, it cannot be a backbone, or a setting is not for it.
    """
    if goes_on(backbone):
        return _of_parent(backbone, size, *_located(backbone.weights))
    if is_hub(backbone.name):
        return _of_hub(backbone, size, *_located_hub(backbone.name))
    if is_own(backbone.name):
        return _of_own(backbone, size, *_located(backbone.name))
    return _of_table(backbone)


def goes_on(backbone: configs.Backbone) -> bool:
    """Whether a classifier of tlkit is gone on from."""
    return _parents.is_model(backbone.weights)


def row(backbone: configs.Backbone, size: int | None = None) -> backbones.Row:
    """Give what there is to know of a network; see `resolve`."""
    return resolve(backbone, size).row


def check(backbone: configs.Backbone, size: int | None = None) -> None:
    """Refuse a network that cannot be built at a size; none of the table's is built.

    Raises:
        InvalidInput: as in `resolve`, or its weights or width are not allowed.
    """
    from tlkit import backbones

    source = resolve(backbone, size)
    if source.row.pretrained != backbones.own.WORD:
        shape = (size, size, source.row.channels) if size else None
        backbones.check(backbone.name, shape, backbone.weights, backbone.alpha)


def is_here(backbone: configs.Backbone) -> bool:
    """Whether a network is on this machine, with its weights.

    Raises:
        InvalidInput: as in `resolve`.
        Unavailable: it cannot be had.
    """
    from tlkit import backbones

    known = row(backbone)
    if backbone.weights not in ("pretrained", known.pretrained) or not known.file:
        return True  # as there is no published file to download
    alphas = (backbone.alpha, 1.0) if backbone.alpha is None else (backbone.alpha,)
    return any(each.name == backbone.name and each.alpha in alphas for each in backbones.on_this_machine())


def is_hub(name: str) -> bool:
    """Whether a name is that of a preset of KerasHub.

    >>> is_hub("hub:dinov2_small"), is_hub("dinov2_small")
    (True, False)
    """
    return name.startswith("hub:")


def is_own(name: str) -> bool:
    """Whether a name is that of a model of the user's, and not of a network that tlkit knows.

    >>> is_own("mine.keras"), is_own("models:/mine@champion"), is_own("VGG16")
    (True, True, False)
    """
    return not is_hub(name) and (_parents.is_model(name) or os.sep in name or os.path.exists(name))


def title(name: str) -> str:
    """Name a network in a few letters.

    >>> title("networks/mine.keras"), title("models:/mine/3"), title("VGG16"), title("hub:/presets/dinov2_small")
    ('mine', 'models:/mine/3', 'VGG16', 'dinov2_small')
    """
    if is_hub(name):
        return Path(name.removeprefix("hub:")).name
    return Path(name).stem if is_own(name) and not name.startswith(_models.URIS) else name


@functools.lru_cache(4)
def _of_hub(backbone: configs.Backbone, own_size: int | None, pinned: str, changed: float) -> Source:
    """Load a backbone of KerasHub, to find its stages; once for each state of its files."""
    from tlkit.backbones import hub, own

    if backbone.weights not in ("pretrained", own.WORD):
        raise InvalidInput(
            f"backbone.weights is {backbone.weights!r}, but {backbone.name} comes with its weights: leave it out"
        )
    _refuse_alpha(backbone)
    for name in ("cut", "stages"):
        if (value := getattr(backbone, name)) is not None:
            raise InvalidInput(f"backbone.{name} is {value!r}, but that of {backbone.name} is found: leave it out")

    def adopt(size: int | None) -> hub.Hub:
        return hub.adopt(pinned, size, backbone.pixels, backbone.accept_license)

    found = adopt(own_size)
    licence = "as given" if backbone.accept_license else "of its published weights"
    settings = (
        ("backbone.name", pinned, found.what),
        ("backbone.weights", own.WORD, ""),
        ("backbone.accept_license", found.licence.name, f"the licence {licence}"),
    )
    return Source(found.row, lambda size: adopt(size).network, settings, resize=found.resize)


def _located_hub(name: str) -> tuple[str, float]:
    """Give a preset's name with an absolute path, and when its folder was changed."""
    from tlkit.backbones import hubpresets

    preset = hubpresets.locate(name)
    changed = (
        max((each.stat().st_mtime for each in Path(preset).iterdir()), default=0.0) if os.path.isabs(preset) else 0
    )
    return f"{hubpresets.PREFIX}{preset}", changed


def _of_table(backbone: configs.Backbone) -> Source:
    from tlkit import backbones

    table_row = backbones.row(backbone.name)
    for name in OWN:
        if (value := getattr(backbone, name)) is not None:
            raise InvalidInput(
                f"backbone.{name} is {value!r}, which is for a network of your own, and {backbone.name} is known: "
                "leave it out"
            )
    _refuse_licence(backbone)

    def build(size: int) -> keras.Model:
        return backbones.build(backbone.name, (size, size, table_row.channels), backbone.weights, backbone.alpha)

    return Source(table_row, build)


@functools.lru_cache(16)
def _of_own(backbone: configs.Backbone, own_size: int | None, pinned: str, path: Path, changed: float) -> Source:
    """Load a network of the user's own, to find its cut and stages; once for each state of its file."""
    from tlkit import backbones
    from tlkit.backbones import own

    if backbone.weights not in ("pretrained", own.WORD):
        raise InvalidInput(
            f"backbone.weights is {backbone.weights!r}, but {backbone.name} comes with its weights: leave it out"
        )
    _refuse_alpha(backbone)
    _refuse_licence(backbone)
    _refuse_subclassed(backbone.name, path)

    def adopt(size: int | None) -> backbones.Own:
        model = _models.load(pinned, path).model
        given = {"cut": backbone.cut, "stages": backbone.stages, "pixels": backbone.pixels}
        return backbones.adopt(model, backbone.name, **given, size=size)  # type: ignore[arg-type]

    found = adopt(own_size)
    settings = [
        ("backbone.name", pinned, ""),
        ("backbone.weights", own.WORD, ""),
        ("backbone.cut", found.cut, found.cut_reason if backbone.cut is None else ""),
        ("backbone.stages", found.stages, found.stages_reason),
        ("backbone.pixels", found.pixels, found.pixels_reason if backbone.pixels is None else ""),
    ]
    return Source(found.row, lambda size: adopt(size).network, tuple(settings))


@functools.lru_cache(16)
def _of_parent(backbone: configs.Backbone, own_size: int | None, pinned: str, path: Path, changed: float) -> Source:
    """Load a classifier of tlkit, to go on from it; once for each state of its file."""
    from tlkit import backbones

    _refuse_alpha(backbone)
    for name in ("cut", "pixels"):
        if (value := getattr(backbone, name)) is not None:
            raise InvalidInput(f"backbone.{name} is {value!r}, but that of {backbone.weights} stays: leave it out")
    saved = _models.load(pinned, path)
    parent = _parents.read(backbone.weights, pinned, path, saved)
    if backbone.name not in ("auto", parent.backbone):
        raise InvalidInput(
            f"backbone.name is {backbone.name!r}, and the network of {backbone.weights} is {parent.backbone}: leave "
            "--backbone.name out"
        )

    def adopt(size: int | None, model: keras.Model | None = None) -> backbones.Own:
        network = _parents.network(model or _models.load(pinned, path).model, backbone.weights)
        stages = backbone.stages or _parents.known_stages(parent, network)
        return backbones.adopt(network, backbone.weights, stages=stages, pixels="0..255", size=size)

    settings = [
        ("backbone.weights", pinned, ""),
        ("backbone.name", parent.backbone, ""),
        ("backbone.pooled_stages", parent.pooled_stages, ""),
    ]
    params = parent.training.run.data.params if parent.training.run else {}
    if (licence := params.get(f"backbone.{LICENCE}", "None")) != "None":
        settings.append((f"backbone.{LICENCE}", licence, f"as {parent.name} has it"))
    elif parent.training.run:
        _refuse_licence(backbone)
    return Source(adopt(own_size, saved.model).row, lambda size: adopt(size).network, tuple(settings), parent)


def _refuse_alpha(backbone: configs.Backbone) -> None:
    if backbone.alpha is not None:
        raise InvalidInput(f"backbone.alpha is {backbone.alpha:g}, but the network is built already: leave it out")


def _refuse_licence(backbone: configs.Backbone) -> None:
    if (value := getattr(backbone, LICENCE)) is not None:
        raise InvalidInput(
            f"backbone.{LICENCE} is {value!r}, which is for a backbone of KerasHub, as hub:PRESET: leave it out"
        )


def _located(name: str) -> tuple[str, Path, float]:
    """Pin an alias to its version, and find the model's file and when it was changed.

    Raises:
        InvalidInput: there is none, or it is of another kind.
    """
    folder = Path(name)
    if not name.startswith(_models.URIS) and folder.is_dir() and (folder / "saved_model.pb").is_file():
        raise InvalidInput(
            f"{name} is a SavedModel, a graph that can be run but neither cut nor trained in part, and that may hold "
            "any operation: save the model itself by model.save('mine.keras') and give that file"
        )
    if name.startswith(_models.URIS):
        import mlflow

        pinned = _versions.resolve(name).uri
        return pinned, _downloaded(pinned, mlflow.get_tracking_uri()), 0.0
    path = _models.locate(name).absolute()
    return str(path), path, path.stat().st_mtime


@functools.lru_cache(16)
def _downloaded(pinned: str, store: str) -> Path:
    return _models.locate(pinned)


def _refuse_subclassed(name: str, path: Path) -> None:
    """Refuse a model whose class is not Keras' own, before Keras looks for its code."""
    import zipfile

    from tlkit.backbones import modelfiles

    with modelfiles.one_line(f"{name} cannot be read"), zipfile.ZipFile(path) as archive:
        content = untrusted.parse_json(untrusted.member(archive, modelfiles.CONFIG, modelfiles.LONGEST_CONFIG), "it")
    kind = content.get("class_name") if isinstance(content, dict) else None
    if isinstance(kind, str) and kind not in ("Functional", "Sequential"):
        raise InvalidInput(
            f"{name} is a {kind}, a subclassed model: only its code knows how its layers follow each other, so it can "
            "be neither cut nor unfrozen in part; build it as a functional model"
        )
