"""Changes to a backbone that is built: a head, which stages are trained, and where the network is cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import keras
import numpy as np

from tlkit.backbones.table import row
from tlkit.errors import InvalidInput
from tlkit.layers import global_pool, is_stage


def classifier(
    backbone: keras.Model, classes: int, dropout: float = 0.0, multi_label: bool = False, pooled_stages: int = 1
) -> keras.Model:
    """Put a new head on a backbone: raw pixels to probabilities.

    The layers are `pixels`, `backbone` (the model passed, preprocessing included), `pool`, `dropout`, `head` (the
    logits) and `probabilities`; from `pool` on they compute in float32. `freeze` and `unfreeze` set which layers
    are trained; by default both keep the pretrained statistics of the backbone's BatchNormalization.

    Args:
        backbone: A model of `build`, or of `tlkit.builders` without top; its layers are shared, not copied.
        classes: 2 or more give a softmax over as many units; 1 gives a single sigmoid unit.
        dropout: Share of the pooled features dropped in training, from 0 to below 1.
        multi_label: Whether a photo may have several of the classes, or none: each gets a sigmoid unit of its own.
        pooled_stages: Number of last stages whose averages over all positions are the pooled features, side by side;
            all stages where there are fewer. 1 is the plain average of the backbone's output.

    Shapes:
        pixels: (batch, height, width, channels), from 0 to 255
        returns: a model to (batch, classes), from 0 to 1

    Raises:
        InvalidInput: there is less than one class, or with `multi_label` less than two, or the dropout is out of range,
            or `pooled_stages` is below 1; or it is more than 1, and the stages are unknown, as in `stages`.

    >>> from tlkit.backbones import build
    >>> model = classifier(build("MobileNet", (64, 64, 3), weights="none", alpha=0.25), 5)
    >>> [layer.name for layer in model.layers]
    ['pixels', 'backbone', 'pool', 'dropout', 'head', 'probabilities']
    """
    if classes < 1:
        raise InvalidInput(f"classes is {classes}: at least 1")
    if multi_label and classes < 2:
        raise InvalidInput("classes is 1 with multi_label: at least 2; a single sigmoid unit tells two classes apart")
    if len(backbone.output_shape) < 3:
        raise InvalidInput(
            f"the backbone {backbone.name} gives {backbone.output_shape}: build it without top and pooling"
        )
    if not 0 <= dropout < 1:
        raise InvalidInput(f"dropout is {dropout}: from 0 to below 1")
    if pooled_stages < 1:
        raise InvalidInput(f"pooled_stages is {pooled_stages}: 1 or more")
    pixels = keras.Input(backbone.input.shape[1:], dtype="float32", name="pixels")
    # Not training=False: `fit` overrides it (https://github.com/keras-team/keras/issues/20285).
    x = pool((backbone if pooled_stages == 1 else _several_outputs(backbone, pooled_stages))(pixels))
    x = keras.layers.Dropout(dropout, name="dropout", dtype="float32")(x)
    x = keras.layers.Dense(int(classes), name="head", dtype="float32")(x)
    activation = "sigmoid" if classes == 1 or multi_label else "softmax"
    x = keras.layers.Activation(activation, name="probabilities", dtype="float32")(x)
    return keras.Model(pixels, x, name="classifier")


def _several_outputs(backbone: keras.Model, count: int) -> keras.Model:
    """Return the backbone with the ends of its last stages as outputs; the layers are shared."""
    ends = list(_ends(backbone, backbone, None).values())[-count:-1]
    outputs = [*(backbone.get_layer(end).output for end in ends), backbone.output]
    model = keras.Model(backbone.input, outputs, name=backbone.name)
    for name in ("backbone_name", "stage_ends"):
        if hasattr(backbone, name):
            setattr(model, name, getattr(backbone, name))
    return model


def pool(maps: keras.KerasTensor | Sequence[keras.KerasTensor], name: str = "pool") -> keras.KerasTensor:
    """Average a map over all positions, or several, side by side; one layer, so that a classifier stays a chain."""
    if isinstance(maps, keras.KerasTensor):
        return global_pool(maps, name=name, dtype="float32")
    inputs = [keras.Input(each.shape[1:], dtype=each.dtype) for each in maps]
    parts = [global_pool(each, name=f"average{number}", dtype="float32") for number, each in enumerate(inputs, 1)]
    side_by_side = keras.layers.Concatenate(name="features", dtype="float32")(parts)
    return keras.Model(inputs, side_by_side, name=name)(maps)


def freeze(model: keras.Model) -> None:
    """Freeze the whole backbone: only the head is left to train. Compile the model afterwards.

    Args:
        model: One of `classifier`, `build` or `tlkit.builders`, new or loaded from a file, or one that holds it at any
            depth, such as after layers of augmentation.

    Raises:
        InvalidInput: the model holds no backbone, several, or one without a head that is not called `backbone`.

    >>> from tlkit.backbones import build
    >>> model = classifier(build("MobileNet", (64, 64, 3), weights="none", alpha=0.25), 5)
    >>> freeze(model)
    >>> [weight.path for weight in model.trainable_weights]
    ['head/kernel', 'head/bias']
    >>> outer = keras.Sequential([keras.Input((64, 64, 3)), keras.layers.RandomFlip("horizontal"), model])
    >>> freeze(outer)
    >>> [weight.path for weight in outer.trainable_weights]
    ['head/kernel', 'head/bias']
    """
    path = _path(model)
    backbone = path[-1]
    if all(layer.name != "head" for layer in backbone.layers) or _learns_after(path):
        _set_trainable(backbone, False)
        return
    _set_trainable(backbone, True)
    for layer in backbone.layers:
        layer.trainable = layer.name == "head"


def stages(model: keras.Model, name: str | None = None) -> dict[str, str]:
    """Return the stages of a model's backbone: the name of each, first to last, and of the layer that ends it.

    Args:
        model: As in `freeze`.
        name: The backbone it was built with, a key of `BACKBONES`. By default the name that `build` noted on the model
            it returned (its attribute `backbone_name`, which is lost when the model is saved or cloned), or else the
            layers' own names: LetterNet and the networks of `tlkit.builders` have layers called `stem`, `stage1` ...

    Raises:
        InvalidInput: `name` is unknown, or not the model's; or there is none, and no layer bears a stage's name; or as
            in `freeze`.

    >>> from tlkit.backbones import build
    >>> model = classifier(build("MobileNet", (64, 64, 3), weights="none", alpha=0.25), 5)
    >>> stages(model)["stage4"]
    'conv_pw_13_relu'
    """
    return _ends(model, backbone_of(model), name)


def unfreeze(
    model: keras.Model,
    name: str | None = None,
    from_stage: str | None = None,
    batch_normalization: Literal["inference", "train", "freeze-affine"] = "inference",
) -> None:
    """Make the backbone trainable from a stage on, and freeze what comes before. Compile the model afterwards.

    Frozen are the layers that the end of the stage before depends on, by the graph and not by the order of layers.
    Which layers of a model loaded from a `.keras` file are trainable depends on Keras' backend: call this again.

    Args:
        model: As in `freeze`.
        name: The backbone it was built with, a key of `BACKBONES`; by default as in `stages`.
        from_stage: First stage to train, for example `stage4`; by default everything.
        batch_normalization: In the stages that are trained. `inference` normalizes by the pretrained statistics, which
            stay, and learns scale and offset, as Keras' guide advises. `train` normalizes by each batch and updates the
            statistics. `freeze-affine` is `inference` with constant scale and offset, as in all frozen stages.

    Raises:
        InvalidInput: the backbone has no such stage; or as in `stages` and in `freeze`.

    >>> from tlkit.backbones import build
    >>> model = classifier(build("MobileNet", (64, 64, 3), weights="none", alpha=0.25), 5)
    >>> unfreeze(model, from_stage="stage4")
    >>> model.trainable_weights[0].path
    'conv_dw_12/kernel'
    >>> any("moving" in weight.path for weight in model.trainable_weights)  # the statistics
    False
    """
    backbone = backbone_of(model)
    if name is None and from_stage is None:
        ends: dict[str, str] = {}  # everything is trained, and any network will do
    else:
        ends = _ends(model, backbone, name)
    if from_stage is not None and from_stage not in ends:
        raise InvalidInput(f"stage {from_stage!r} is unknown: {_name(backbone, name)} has {', '.join(ends)}")
    _set_trainable(backbone, True)
    if below := _below(ends, from_stage):
        for layer in keras.Model(backbone.input, backbone.get_layer(below).output).layers:
            layer.trainable = False
    for layer in backbone._flatten_layers():  # inside the blocks of another library too
        if not isinstance(layer, keras.layers.BatchNormalization) or not layer.trainable:
            continue
        layer.trainable = batch_normalization == "train"  # alone keeps it in inference mode, whatever `fit` says
        for variable in (layer.gamma, layer.beta) if batch_normalization == "inference" else ():
            if variable is not None:
                variable.trainable = True


def split(
    model: keras.Model, name: str | None = None, from_stage: str | None = None
) -> tuple[keras.Model, keras.Model]:
    """Cut a model of `classifier` in front of a stage, to train the upper part on the outputs of the lower part.

    The layers are shared: what the upper model learns, the whole model has too. The lower part runs in inference mode,
    without the randomness of training (EfficientNet's stochastic depth).

    Args:
        model: Made by `classifier`.
        name: The backbone it was built with, a key of `BACKBONES`; by default as in `stages`.
        from_stage: The upper model's first stage; there is no default.

    Shapes:
        returns: a model from pixels to activations, and one from these to logits

    Raises:
        InvalidInput: the backbone has no such stage or no stage before it; a later layer needs more of the lower part
            than the end of the stage before (NASNet); or as in `stages` and in `freeze`.

    >>> from tlkit.backbones import build
    >>> model = classifier(build("MobileNet", (64, 64, 3), weights="none", alpha=0.25), 5)
    >>> lower, upper = split(model, from_stage="stage4")
    >>> lower.output.shape, upper.output.shape
    ((None, 4, 4, 128), (None, 5))
    """
    backbone = backbone_of(model)
    if backbone not in [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)][:1]:
        raise InvalidInput(
            f"model {model.name!r} cannot be cut: split takes one of tlkit.backbones.classifier, whose first layer is "
            "the backbone; give the one inside, and apply what comes before it to your data"
        )
    ends = _ends(model, backbone, name)
    below = _below(ends, from_stage)
    if below is None:
        raise InvalidInput(
            f"stage {from_stage!r} is not a stage with another below it: {_name(backbone, name)} has {', '.join(ends)}"
        )
    cut = backbone.get_layer(below).output
    inputs = keras.Input(cut.shape[1:], dtype=cut.dtype, name="activations")
    above = [each for each in backbone.outputs if each is not cut]  # Keras refuses an output that is an input
    try:
        computed = iter(keras.tree.flatten(keras.Model(cut, above)(inputs)))
    except ValueError as error:
        raise InvalidInput(
            f"{_name(backbone, name)} cannot be cut in front of {from_stage}: later layers need what is below"
        ) from error
    outputs = [inputs if each is cut else next(computed) for each in backbone.outputs]
    x = outputs if len(outputs) > 1 else outputs[0]
    for layer in model.layers[model.layers.index(backbone) + 1 : -1]:  # up to the head
        x = layer(x)
    return keras.Model(backbone.input, cut), keras.Model(inputs, x, name="upper")


def pooled_widths(model: keras.Model) -> list[int]:
    """Return how many of the pooled features each stage gives, in a model of `classifier`.

    >>> from tlkit.backbones import build
    >>> backbone = build("MobileNet", (64, 64, 3), weights="none", alpha=0.25)
    >>> pooled_widths(classifier(backbone, 5)), pooled_widths(classifier(backbone, 5, pooled_stages=2))
    ([256], [128, 256])
    """
    return [each.shape[-1] for each in keras.tree.flatten(model.get_layer("pool").input)]


def set_head(model: keras.Model, kernel: np.ndarray, bias: np.ndarray) -> None:
    """Set the weights of the head of a model of `classifier`, and freeze all layers below it.

    Shapes:
        kernel: (features, classes)
        bias: (classes,)

    >>> from tlkit.backbones import build
    >>> model = classifier(build("MobileNet", (64, 64, 3), weights="none", alpha=0.25), 5)
    >>> set_head(model, np.zeros((256, 5)), np.arange(5))
    >>> model.predict_on_batch(np.zeros((1, 64, 64, 3))).argmax()
    np.int64(4)
    """
    if all(layer.name != "head" for layer in model.layers):
        raise InvalidInput(f"model {model.name!r} has no layer called head: give one of tlkit.backbones.classifier")
    freeze(model)
    model.get_layer("head").set_weights([kernel, bias])


def _set_trainable(network: keras.Model, value: bool) -> None:
    # On TensorFlow, Keras ignores the assignment of an equal value, which may differ from that of inner layers.
    for step in (value, not value, value):
        network.trainable = step


def _ends(model: keras.Model, backbone: keras.Model, name: str | None) -> dict[str, str]:
    """Return the layer that ends each stage of the backbone inside a model."""
    if name is None and (own := getattr(backbone, "stage_ends", None)):
        return dict(own)
    layers = {layer.name for layer in backbone.layers}
    built_as = name if name is not None else getattr(backbone, "backbone_name", None)
    if built_as is None:
        if ends := {layer.name: layer.name for layer in backbone.layers if is_stage(layer.name)}:
            return ends
        raise InvalidInput(
            f"model {model.name!r} does not tell its stages: no layer is called stem or stage1, and the name of its "
            "backbone is known only where tlkit.backbones.build made it in this process; give the name, a key of "
            "tlkit.backbones.BACKBONES"
        )
    ends = dict(row(built_as).stages)
    if not layers.issuperset(ends.values()):
        raise InvalidInput(f"the backbone of this model is not {built_as}: give the name it was built with")
    return ends


def _name(backbone: keras.Model, name: str | None) -> str:
    """Name a backbone in a message."""
    return name or getattr(backbone, "backbone_name", None) or str(backbone.name)


def _below(ends: dict[str, str], stage: str | None) -> str | None:
    """Return the layer that ends the stage below one; None where there is no such stage, or none below it."""
    index = list(ends).index(stage) if stage in ends else 0
    return list(ends.values())[index - 1] if index else None


def backbone_of(model: keras.Model) -> keras.Model:
    """Give the backbone inside a model; see `freeze`."""
    return _path(model)[-1]


def _path(model: keras.Model) -> list[keras.Model]:
    """Return the model, the models inside it that hold the backbone, and the backbone last.

    Raises:
        InvalidInput: there is no backbone, or there are several.
    """
    named = _paths(model, lambda inner: inner.name == "backbone" or any(is_stage(layer.name) for layer in inner.layers))
    # From another library: the innermost model with weights, in front of layers that learn.
    others = _paths(model, lambda inner: not any(layer.weights for layer in _models(inner)))
    candidates = named or [path for path in others if len(path) > 1 and _learns_after(path)]
    if len(candidates) == 1:
        return candidates[0]
    advice = "build it with tlkit.backbones.classifier, or freeze its layers yourself"
    if candidates:
        names = ", ".join("/".join(inner.name for inner in path[1:]) for path in candidates)
        raise InvalidInput(f"model {model.name!r} holds {len(candidates)} that may be its backbone ({names}): {advice}")
    raise InvalidInput(f"model {model.name!r} has no layer called backbone in front of a head: {advice}")


def _paths(model: keras.Model, wanted: Callable[[keras.Model], bool]) -> list[list[keras.Model]]:
    """List the paths to the outermost wanted models inside a model."""
    if wanted(model):
        return [[model]]
    return [[model, *path] for inner in _models(model) if inner.weights for path in _paths(inner, wanted)]


def _models(model: keras.Model) -> list[keras.Model]:
    return [layer for layer in model.layers if isinstance(layer, keras.Model)]


def _learns_after(path: Sequence[keras.Model]) -> bool:
    """Tell whether layers that learn follow the last model of a path, in any of the models around it."""
    return any(
        layer.weights and not isinstance(layer, keras.layers.BatchNormalization)
        for outer, inner in pairwise(path)
        for layer in outer.layers[outer.layers.index(inner) + 1 :]
    )
