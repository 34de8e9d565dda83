"""The pictures that `describe` saves: a network's first filters, its feature maps and its receptive fields."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tlkit.config import Describe
from tlkit.display import say
from tlkit.errors import InvalidInput
from tlkit.recipes import _links
from tlkit.recipes._layer_table import spaced

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

    from tlkit import anatomy
    from tlkit.data.modalities import Reading
    from tlkit.recipes._described_network import DescribedNetwork

FILTERS, FEATURE_MAPS, RECEPTIVE_FIELD = "filters.png", "feature_maps.png", "receptive_field.png"
RANDOM = 8  # inputs over which the receptive fields are averaged


def check_files(config: Describe) -> None:
    """Refuse, before anything is built, a photo that does not exist, and pictures that would replace others.

    Raises:
        InvalidInput: the message names the file.
    """
    if config.photo is not None and not Path(config.photo).is_file():
        raise InvalidInput(f"there is no photo {config.photo!r}; give the path of an image file")
    if config.pictures is None:
        return
    folder = Path(config.pictures)
    if folder.exists() and not folder.is_dir():
        raise InvalidInput(f"pictures is {config.pictures!r}, which is a file; give a folder")
    for name in (FILTERS, FEATURE_MAPS, RECEPTIVE_FIELD):
        if (folder / name).exists():
            raise InvalidInput(f"{folder / name} exists, and nothing is overwritten; give another folder")


def save(network: DescribedNetwork, stages: Sequence[anatomy.Stage], folder: Path, photo: str | None) -> None:
    """Draw a network and save the pictures.

    Args:
        network: It has one input of a fixed size.
        stages: The ends of its stages, of which feature maps and receptive fields are drawn.
        folder: Where the pictures are saved.
        photo: Image file for the feature maps; by default a sample.

    Raises:
        InvalidInput: the network's input is none that can be drawn, or the photo does not fit it.
    """
    from tlkit import anatomy, plots

    model, title = network.model, f"{network.name}, {network.weights}"
    shape = model.inputs[0].shape[1:]
    if len(model.inputs) != 1 or None in shape or not 2 <= len(shape) <= 4:
        raise InvalidInput(f"the network takes {spaced(shape)}; pictures need one input of a fixed size")
    image = sample(shape, photo, network.reading)
    figures: dict[str, Figure] = {}
    kernel = anatomy.first_kernel(model)
    if kernel is None:
        say(f"no convolution, so no {FILTERS}")
    else:
        figures[FILTERS] = plots.filters(kernel, f"{title}: first convolution")
    if stages:
        maps = anatomy.feature_maps(model, stages, network.scaled(image))
        figures[FEATURE_MAPS] = plots.feature_maps(image / 255, maps, f"{title}: most active channels")
        figures[RECEPTIVE_FIELD] = _receptive_fields(network, stages, title)
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        with open(folder / name, "xb") as stream:
            plots.save(figure, stream, format="png")
        say(f"picture     {_links.shown(folder / name)}")


def _receptive_fields(network: DescribedNetwork, stages: Sequence[anatomy.Stage], title: str) -> Figure:
    import numpy as np

    from tlkit import anatomy, plots

    say(f"\nreceptive fields: gradients of {RANDOM} random inputs …")
    shape = network.model.inputs[0].shape[1:]
    noise = np.random.default_rng(0).uniform(0, 255, (RANDOM, *shape)).astype(np.float32)
    effective = anatomy.effective_fields(network.model, stages, network.scaled(noise))
    fields = {stage.name: stage.field for stage in stages}
    sizes = {stage: anatomy.effective_size(weights) for stage, weights in effective.items()}
    return plots.receptive_fields(effective, fields, sizes, f"{title}: receptive fields")


def sample(shape: Sequence[int], photo: str | None = None, reading: Reading | None = None) -> np.ndarray:
    """Give an example of an input: a photo, by default scikit-learn's flower or digit, a tone or a hollow ball.

    Args:
        shape: The shape of the example.
        photo: An image file.
        reading: How the network reads files; None for the default.

    Shapes:
        shape: (*space, channels)
        returns: the same, from 0 to 255

    Raises:
        InvalidInput: a photo is given and the shape is not one of photos, or it cannot be decoded.

    >>> sample((32, 32, 1)).shape, float(sample((100, 1)).max()) <= 255
    ((32, 32, 1), True)
    """
    import numpy as np

    from tlkit.data import bits, modalities, photos

    *space, channels = shape
    if photo is not None:
        if len(space) != 2 or channels not in (1, 3):
            raise InvalidInput(f"photo is {photo!r}; the network takes {spaced(shape)}, which is no photo")
        decode = photos.file_format(modalities.PHOTOS).decode
        try:
            return decode(Path(photo), tuple(shape), photo, reading or modalities.Reading()).astype(np.float32)
        except InvalidInput as error:
            raise InvalidInput(str(error).replace(bits.BY_SETTING, "")) from error
    if len(space) == 2:
        return _sample_photo(space[0], space[1], channels)
    axes = np.meshgrid(*(np.linspace(-1, 1, size) for size in space), indexing="ij")
    if len(space) == 1:  # a tone that rises in pitch
        values = np.sin(8 * np.pi * (axes[0] + 1) ** 2) * np.cos(np.pi * axes[0] / 2)
    else:
        values = 2 * np.exp(-(((np.sqrt(sum(axis**2 for axis in axes)) - 0.6) / 0.15) ** 2)) - 1
    return np.repeat(127.5 * (values + 1)[..., None], channels, axis=-1).astype(np.float32)


def _sample_photo(height: int, width: int, channels: int) -> np.ndarray:
    import numpy as np
    from sklearn import datasets

    from tlkit.data import images

    if channels == 3:
        content = datasets.load_sample_image("flower.jpg")
    else:
        content = np.rint(datasets.load_digits().images[3] * (255 / 16)).astype(np.uint8)
    pixels = images.decode(content, (height, width), 3 if channels == 3 else 1)
    return np.broadcast_to(pixels, (height, width, channels)).astype(np.float32)
