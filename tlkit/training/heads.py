"""The head of a classifier, on features of its frozen backbone: solved, trained, or both."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from tlkit import autolog, backbones, features, probes
from tlkit.data import ExampleSet, NamedExamples, batches
from tlkit.display import say
from tlkit.features import Features
from tlkit.training import batched, finder, verdicts
from tlkit.training.batched import Learner
from tlkit.training.phases import compiled
from tlkit.training.settings import Checkpointing, History, Settings

BRIEF_STEPS = 15  # of `train_head_briefly`; after 30 the loss hardly falls in a range test of the whole network
PLAIN = Settings(epochs=0, learning_rate=1e-3)


class Head(NamedTuple):
    """A head that was learned before.

    Args:
        kernel: Shape (features, classes).
        bias: Shape (classes,).
        name: What messages call the model that it is of.
    """

    kernel: np.ndarray
    bias: np.ndarray
    name: str


def solve_head(
    model: keras.Model,
    train: NamedExamples | Features,
    val: NamedExamples | Features,
    settings: Settings = PLAIN,
    *,
    seed: int = 0,
    before: Head | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> History:
    """Solve the head of a classifier: logistic regression on features of the frozen backbone.

    Fine-tuning that starts from such a head changes good features less (Kumar et al. 2022, arXiv:2202.10054).

    Args:
        model: A classifier of `backbones.classifier` with one label per example.
        train: The training photos, or their pooled features (`tlkit.features.Features`) if these are known already.
        val: The validation photos, or their pooled features.
        settings: Settings of the loss that is reported.
        seed: Seeds the cross-validation that chooses the regularization.
        before: A head for the same classes, which is kept where it is clearly better on the validation photos.
        callbacks: Keras callbacks; they see one epoch.

    Returns:
        A history of one epoch, without a learning rate.

    Raises:
        InvalidInput: see `probes.logistic_regression`.

    >>> from tlkit import data
    >>> splits = data.load("embedded", size=(32, 32), channels=1)
    >>> model = backbones.classifier(backbones.build("LetterNet"), len(splits.classes))
    >>> history = solve_head(model, splits.train, splits.val)
    head: solved by logistic regression, l2 ...; validation loss ..., accuracy ...
    """
    began = time.perf_counter()
    train_features, val_features = pooled_features(model, train, val)
    logits = head_of(model, train_features)
    probe = _solved(model, train_features, seed)
    backbones.set_head(model, probe.kernel, probe.bias)
    origin = f"solved by logistic regression, l2 {probe.l2:.2g}"
    if before and _is_better(before, probe, val_features):
        backbones.set_head(model, before.kernel, before.bias)
        origin = f"that of {before.name}, clearly better on the validation photos than the solved one"
    compiled(logits, settings, settings.learning_rate)
    scores = {
        f"{prefix}{name}": float(value)
        for prefix, part in {"": train_features, "val_": val_features}.items()
        for name, value in logits.evaluate(batches(part, 256), verbose=0, return_dict=True).items()
    }
    outcome = f"validation loss {scores['val_loss']:.4f}, accuracy {scores['val_accuracy']:.4f}"
    say(f"head: {origin}; {outcome}")
    keras.callbacks.CallbackList(list(callbacks), model=logits).on_epoch_end(0, scores)
    return History([{"epoch": 1, "phase": "head", **scores, "seconds": time.perf_counter() - began}])


def solve_kept(model: keras.Model, known: Features, seed: int = 0) -> probes.Probe:
    """Solve a head that fine-tuning has not improved on once more, on the training and validation examples together.

    The validation examples have shown that no epoch is better; after that they can be learned from, as
    `feature_extraction` does. What is trainable stays so.

    Args:
        model: A classifier of `backbones.classifier` whose backbone is as it was.
        known: Pooled features of the training and validation examples.
        seed: Seeds the cross-validation that chooses the regularization.
    """
    probe = _solved(model, known, seed)
    model.get_layer("head").set_weights([probe.kernel, probe.bias])
    return probe


def _solved(model: keras.Model, known: Features, seed: int) -> probes.Probe:
    """Solve a head on pooled features of its backbone."""
    return probes.logistic_regression(
        known.array(),
        known.labels,
        model.get_layer("head").output.shape[-1],
        groups=known.groups,
        blocks=backbones.pooled_widths(model),
        seed=seed,
        sample_only=True,
    )


def _is_better(before: Head, probe: probes.Probe, val: Features) -> bool:
    """Compare a head with a solved one."""
    values = val.read(np.arange(len(val))).astype(np.float32)
    theirs, solved = (values @ each.kernel + each.bias for each in (before, probe))
    return verdicts.compare(solved, theirs, val.labels).clearly_better


def fit_head(
    model: keras.Model,
    train: Features,
    val: Features,
    settings: Settings,
    *,
    seed: int = 0,
    before: History | None = None,
    checkpointing: Checkpointing | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> History:
    """Train the head of a classifier on features of the frozen backbone.

    It gives what passing the photos through the frozen backbone in each epoch would give, because nothing below the
    head is random.

    Args:
        model: A classifier of `backbones.classifier`.
        train: The pooled features of the training photos.
        val: The pooled features of the validation photos.
        settings: How the head learns.
        seed: Seeds the order of the examples.
        before: What `solve_head` returned; the model keeps its weights unless this phase finds better ones.
        checkpointing: See `fit_full`.
        callbacks: Keras callbacks.

    Returns:
        One entry per epoch, that of `before` included; the model has the weights of the best one.
    """
    learner = Learner(head_of(model, train), train, settings, seed)
    return batched.fit(learner, val, "head", before=before, checkpointing=checkpointing, callbacks=callbacks)


def range_test_head(
    model: keras.Model, train: Features, settings: Settings, *, seed: int = 0, **more: Any
) -> finder.RangeTest:
    """Test learning rates for `fit_head`; the model is left as it was.

    Args:
        model: A classifier of `backbones.classifier`.
        train: The pooled features of the training photos.
        settings: How the head learns; the learning rate does not matter.
        seed: Seeds the order of the examples.
        more: See `finder.range_test`.
    """
    return batched.range_test(Learner(head_of(model, train), train, settings, seed), **more)


def train_head_briefly(model: keras.Model, train: Features, settings: Settings, seed: int = 0) -> None:
    """Train a new head for a few steps before the learning rates of the whole network are tested.

    With a good head the loss falls at no rate of the whole network; with a random one its fall says nothing.

    Args:
        model: A classifier of `backbones.classifier`.
        train: The pooled features of the training photos.
        settings: How the head learns.
        seed: Seeds the order of the examples.
    """
    logits = head_of(model, train)
    compiled(logits, settings, settings.learning_rate, multi_label=train.labels.ndim == 2)
    examples = batches(train, settings.batch_size, shuffle=True, seed=seed)
    epochs, steps = math.ceil(BRIEF_STEPS * settings.batch_size / len(train)), None
    if epochs == 1:
        steps = min(BRIEF_STEPS, math.ceil(len(train) / settings.batch_size))
    with autolog.suspended():
        logits.fit(examples, epochs=epochs, steps_per_epoch=steps, shuffle=False, verbose=0)


def pooled_features(model: keras.Model, *examples: NamedExamples | Features) -> list[Features]:
    """Give the pooled features of each example set; those that are features already stay as they are."""
    photos = [part for part in examples if not isinstance(part, Features)]
    computed = iter(features.Extractor(features.pooled(model)).extract(*photos) if photos else [])
    return [part if isinstance(part, Features) else next(computed) for part in examples]


def head_of(model: keras.Model, examples: ExampleSet) -> keras.Model:
    """Give the head alone, from pooled features to logits."""
    inputs = keras.Input(examples.shape)
    return keras.Model(inputs, model.get_layer("head")(model.get_layer("dropout")(inputs)))
