"""Show why a model decides as it does: where in a photo the decision is, and which training photos it is like.

python -m tlkit.recipes.explain models:/flowers@champion photo.jpg
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tlkit import cli
from tlkit.config import Explain
from tlkit.display import few, say, shown
from tlkit.errors import InvalidInput
from tlkit.recipes import _jobs, _known_photos, _links, _models, _png, _predicted
from tlkit.recipes._models import Classifier

if TYPE_CHECKING:
    import numpy as np

    from tlkit import explanation
    from tlkit.plots import Explained

MOST = 24  # photos on a sheet
BATCH = 8


def run(config: Explain) -> Path:
    """Explain, print and draw what the model says of each photo; see `config.Explain` for the settings.

    Raises:
        InvalidInput: the model, a photo or the class does not exist, the model has no map that could be explained, or
            the picture cannot be written.

    Returns:
        Path of the picture.
    """
    _png.check(config.output)
    path = _models.locate(config.model)
    from tlkit.data.sources.named import named_photos

    named = named_photos(config.photos)
    if len(named.photos) > MOST:
        raise InvalidInput(f"there are {len(named.photos):,} photos: give at most {MOST} for a sheet")
    _jobs.start_keras()
    classifier = _models.load_classifier(config.model, path, "explain")
    if config.label is not None and config.label not in classifier.classes:
        raise InvalidInput(f"label is {config.label!r}, and the model has {few(classifier.classes, 10)}")
    from tlkit import explanation, plots
    from tlkit.explanation.heatmaps import WAYS

    explainer = explanation.explainer(classifier.model, config.method)
    names, pixels = _read(classifier, named.photos)
    known = _known_photos.find(classifier, path) if config.nearest else None
    rows = _explained(config, classifier, explainer, names, pixels, known)
    say(f"\nmethod   {WAYS[explainer.way]}")
    figure = plots.explanations(rows, f"{Path(config.model).name}: why, by {WAYS[explainer.way].split(':')[0]}")
    output = _png.write(config.output, figure)
    if explainer.way != "occlusion":
        say("\nNext, to check the heatmaps by hiding parts of the photos:")
        say(f"  {_links.command('explain', **{'method': 'occlusion', 'output': 'occlusion.png'})}")
    return output


def _read(classifier: Classifier, photos: dict[str, str]) -> tuple[list[str], np.ndarray]:
    """Read the photos as the model does; those that cannot be read are said."""
    import numpy as np

    from tlkit.serving import many

    read, names, pixels, problem = many.reader(classifier.model.input_shape[1:], classifier.reading), [], [], ""
    for name, reason in photos.items():
        try:
            if reason:
                raise InvalidInput(reason)
            pixels.append(read(name))
            names.append(name)
        except (InvalidInput, OSError) as error:
            problem = f"{shown(name)}: {error}"
            say(problem, error=True)
    if not pixels:
        raise InvalidInput(f"no photo can be read: {problem}")
    return names, np.stack(pixels)


def _explained(
    config: Explain,
    classifier: Classifier,
    explainer: explanation.Explainer,
    names: Sequence[str],
    pixels: np.ndarray,
    known: _known_photos.Known | None,
) -> list[Explained]:
    """Explain each photo, and print its classes."""
    import numpy as np

    from tlkit import explanation, serving
    from tlkit.plots import Explained

    rows, classes = [], classifier.classes
    abstention = classifier.abstention._replace(novelty=None)
    wanted = -1 if config.label is None else classes.index(config.label)
    near = _nearest(config.nearest, classifier, pixels, known)
    for start in range(0, len(pixels), BATCH):
        batch = pixels[start : start + BATCH]
        heat, probabilities = explainer.heatmaps(batch, np.full(len(batch), wanted))
        for place, (photo, values, shares) in enumerate(zip(batch, heat, probabilities, strict=True), start):
            top = serving.ranked(shares, classes)
            answer = serving.answer(shares, classes, classifier.several, abstention)
            _predicted.print_answer(names[place], answer, top[:3], classifier.several)
            label = config.label or top[0][0]
            like = _known_photos.pictures(known, near[place], classifier) if known else []
            for caption, _ in like[:1]:
                say(f"  looks like {caption}")
            if not values.any():
                say(f"  no place in it speaks for {shown(label)}")
            overlay = explanation.overlay(photo, values) if values.any() else None
            rows.append(Explained(Path(names[place]).name, photo, overlay, label, top, like))
    return rows


def _nearest(
    count: int, classifier: Classifier, pixels: np.ndarray, known: _known_photos.Known | None
) -> Sequence[Sequence[int]]:
    """Give the positions of the known photos that are most like each photo."""
    if known is None:
        return []
    import keras
    import numpy as np

    from tlkit import inference
    from tlkit.probes import novelty

    model = classifier.model
    network = inference.in_full_precision(keras.Model(model.inputs[0], model.get_layer("head").input))
    parts = [
        np.asarray(keras.ops.convert_to_numpy(network.predict_on_batch(pixels[start : start + BATCH])))
        for start in range(0, len(pixels), BATCH)
    ]
    return novelty.nearest(np.concatenate(parts), known.references, count).tolist()


if __name__ == "__main__":
    cli.main(Explain, run, positional=("model", "photos"))
