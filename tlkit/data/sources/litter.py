"""Files that other programs leave beside photos: thumbnails, indexes of file browsers, masks."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePath

FOLDERS = {
    **dict.fromkeys(("@eadir", ".thumbnails"), "thumbnails"),
    "__macosx": "resource forks",
    **dict.fromkeys(("#recycle", "$recycle.bin"), "deleted files"),
    "system volume information": "system files",
    "mlruns": "files of MLflow",
}
"""Folders, in small letters, in which no photo is meant, and what they hold."""

FILES = frozenset(("thumbs.db", "ehthumbs.db", "desktop.ini", ".ds_store", ".picasa.ini", "picasa.ini", "mlflow.db"))
"""Files, in small letters, of file browsers and of programs that sort photos."""

THUMBNAILS = frozenset(("thumb", "thumbs", "thumbnail", "thumbnails"))
"""Folders, in small letters, that hold thumbnails where they stand beside photos: a class may be called so too."""

MASKS = frozenset(
    ("mask", "masks", "annotation", "annotations", "label", "labels", "segmentation", "segmentations", "ground_truth")
)
"""Folders, in small letters, that hold masks where photos beside them have the same names."""

IMAGES = frozenset(("image", "images", "img", "imgs", "photo", "photos"))
"""Folders, in small letters, that hold photos, whatever their class."""

_MASK_OF = re.compile(r"(?i)(.+?)[ _.-]?(mask|masks|segmentation|seg|gt|label)(_?\d+)?")


def litter(path: PurePath) -> str | None:
    """Return what a file is that no one means to be a photo, or None.

    Args:
        path: Of the file, below the folder of the data.

    >>> litter(PurePath("cat/@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg")), litter(PurePath("cat/1.jpg"))
    ('thumbnails', None)
    """
    for part in path.parts[:-1]:
        if what := FOLDERS.get(part.lower()):
            return what
    if path.name.startswith("._"):
        return "resource forks"
    if path.name.startswith("SYNOPHOTO_THUMB_"):
        return "thumbnails"
    return "system files" if path.name.lower() in FILES else None


def hidden(name: str) -> bool:
    """Whether a file or folder is passed by without a word: its name starts with a dot, and it is no known litter."""
    return name.startswith(".") and name.lower() not in FOLDERS and litter(PurePath(name)) is None


def beside_photos(files: Sequence[Path], parent: Path) -> dict[str, list[Path]]:
    """Return the thumbnails and masks among the photos of a class, which belong to others of them.

    Thumbnails are in a folder of such a name, where the class has photos outside of it. Masks are in a folder of such a
    name, where at least half of them have the name of a photo outside of it; or they lie beside the photo and are
    called as it is with `_mask` at the end.

    Args:
        files: The photos.
        parent: The folder of the class, in which they are.

    >>> files = [Path("cat/1.jpg"), Path("cat/1_mask.png"), Path("cat/thumbs/1.jpg")]
    >>> {what: [file.name for file in found] for what, found in beside_photos(files, Path("cat")).items()}
    {'thumbnails': ['1.jpg'], 'masks': ['1_mask.png']}
    """
    small, masks, others = list[Path](), list[Path](), list[Path]()
    for file in files:
        folders = {part.lower() for part in file.relative_to(parent).parts[:-1]}
        (small if folders & THUMBNAILS else masks if folders & MASKS else others).append(file)
    found: dict[str, list[Path]] = defaultdict(list)
    if others or masks:
        found["thumbnails"] = small
    stems = {file.stem for file in others}
    if masks and 2 * sum(file.stem in stems or _photo_of(file.stem) in stems for file in masks) >= len(masks):
        found["masks"] = masks
    paths = {file.with_suffix("") for file in others}
    for file in others:
        photo = _photo_of(file.stem)
        if photo and re.search(r"(?i)[ _.-](mask|segmentation)", file.stem) and file.with_name(photo) in paths:
            found["masks"].append(file)
    return {what: its for what, its in found.items() if its}


def _photo_of(stem: str) -> str | None:
    """The name of the photo that a mask is of, both without suffix."""
    match = _MASK_OF.fullmatch(stem)
    return match[1] if match else None
