"""The settings of the recipes that make no model: they show data, networks, models and runs, and tend the stores."""

from __future__ import annotations

import dataclasses
import re
from typing import Literal

from tlkit.config.data import Data
from tlkit.config.fields import require, require_cluster, require_names
from tlkit.config.networks import Network
from tlkit.config.recipes import Finetune
from tlkit.config.training import ExportFormat


@dataclasses.dataclass(frozen=True)
class FindLr(Finetune):
    """Look for a learning rate by a range test (arXiv:1506.01186); all other settings are those of `finetune`.

    Args:
        phase: Phase whose learning rate is tested.
        lowest: First learning rate.
        highest: Last learning rate; the test ends earlier if the loss explodes.
        steps: Number of steps; the learning rate grows by the same factor in each.
    """

    phase: Literal["head", "full"] = "full"
    lowest: float = 1e-7
    highest: float = 10.0
    steps: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.resume is None, "resume", self.resume, "a range test cannot be resumed: leave it out")
        require(0 < self.lowest < self.highest, "lowest", self.lowest, f"it must be above 0 and below {self.highest}")
        require(self.highest < float("inf"), "highest", self.highest, "it must be finite")
        require(self.steps >= 10, "steps", self.steps, "it must be 10 or more")


@dataclasses.dataclass(frozen=True)
class Preview(Finetune):
    """Draw what the network sees of the training photos; all other settings are those of `finetune`.

    Args:
        photos: Number of photos, one per row.
        views: Number of augmented views of each photo, next to the photo itself.
        output: Picture to write; it is not overwritten.
    """

    photos: int = 4
    views: int = 7
    output: str = "preview.png"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.resume is None, "resume", self.resume, "a preview cannot be resumed: leave it out")
        for name in ("photos", "views"):
            require(1 <= getattr(self, name) <= 50, name, getattr(self, name), "it must be from 1 to 50")
        require(bool(self.output), "output", self.output, "it must be the path of a file")


@dataclasses.dataclass(frozen=True)
class Describe:
    """What to describe, and where to save pictures of it.

    Args:
        builder: The network, by its name.
        model: A `.keras` file or an MLflow URI, in place of a name.
        pictures: Folder for pictures of its filters, feature maps and receptive fields; it is made where there is none,
            and nothing in it is overwritten. By default there are no pictures.
        photo: Image file for the feature maps; by default a sample.
    """

    builder: Network = dataclasses.field(default_factory=Network)
    model: str | None = None
    pictures: str | None = None
    photo: str | None = None

    def __post_init__(self) -> None:
        named = self.builder != Network()
        require(
            self.model is None or not named, "model", self.model, "it takes the place of --builder: give one of them"
        )
        require(self.photo is None or self.pictures is not None, "photo", self.photo, "it goes with --pictures")


@dataclasses.dataclass(frozen=True)
class Predict:
    """Which model looks at which photos.

    Args:
        model: A `.keras` file, or an MLflow URI such as `models:/m-…`, `models:/NAME@champion` or `runs:/ID/model`.
        photos: Image files, folders, patterns such as 'photos/**/*.jpg', tables (CSV, TSV or Parquet) with a column
            path, or - for names on standard input, one in a line.
        top: How many labels to print for each photo.
        output: File for the answers, a row for each photo, which ends in .csv, .jsonl or .parquet; it is not
            overwritten. By default up to 64 answers are printed, and the classes are counted where there are more.
        threshold: The label is `unsure` where the highest probability is below this; by default as the model was saved
            (see target_accuracy of the recipes that train), or never.
        cluster: Where more than 64 photos are answered: `local` for one worker process on each core of this machine,
            `local:WORKERS`, or `tls://host:port` of a Dask scheduler; by default in this process. It needs tlkit[dask].
    """

    model: str
    photos: list[str]
    top: int = 3
    output: str | None = None
    threshold: float | None = None
    cluster: str | None = None

    def __post_init__(self) -> None:
        require_cluster(self.cluster)
        require(self.top >= 1, "top", self.top, "it must be 1 or more")
        allowed = self.threshold is None or 0 < self.threshold <= 1
        require(allowed, "threshold", self.threshold, "it must be a probability above 0, up to 1")


@dataclasses.dataclass(frozen=True)
class Explain:
    """Which decisions of a model to explain, and how.

    Args:
        model: A `.keras` file, or an MLflow URI such as `models:/m-…`, `models:/NAME@champion` or `runs:/ID/model`.
        photos: Image files, folders, patterns or tables, as `predict` takes them; 24 photos at the most.
        label: Class that is explained; by default the most probable one of each photo.
        method: `activation` is each place's own share of the class's score, exact where the head is linear; `layer` is
            LayerCAM, which needs gradients; `occlusion` hides one part of the photo after the other, which takes
            a second or more for each; `auto` is the first of these that the model allows.
        nearest: Number of training photos to show that look most like each photo to the network.
        output: Picture to write; it is not overwritten.
    """

    model: str
    photos: list[str]
    label: str | None = None
    method: Literal["auto", "activation", "layer", "occlusion"] = "auto"
    nearest: int = 3
    output: str = "explanation.png"

    def __post_init__(self) -> None:
        require(0 <= self.nearest <= 8, "nearest", self.nearest, "it must be from 0 to 8")
        require(bool(self.output), "output", self.output, "it must be the path of a file")


@dataclasses.dataclass(frozen=True)
class Serve:
    """Which model is served over HTTP, where, and what a request may cost.

    Args:
        model: A `.keras` file, or an MLflow URI such as `models:/m-…`, `models:/NAME@champion` or `runs:/ID/model`.
        port: Port to listen on.
        host: Address to listen on. By default only this machine can connect; with 0.0.0.0, every machine that reaches
            it, without authentication or TLS.
        reload: Seconds after which an alias such as `@champion` is looked up again; if it has moved, the new version
            takes over. 0 never looks.
        waiting: Maximum number of photos that wait for their answers; further requests get status 503.
        photos: Maximum number of photos in a request.
        megabytes: Maximum size of a request in MiB.
        timeout: Seconds in which the body of a request must have come, and in which it must then be answered.
    """

    model: str
    port: int = 8000
    host: str = "127.0.0.1"
    reload: float = 60.0
    waiting: int = 256
    photos: int = 64
    megabytes: float = 32.0
    timeout: float = 30.0

    def __post_init__(self) -> None:
        require(1 <= self.port <= 65535, "port", self.port, "it must be from 1 to 65535")
        require(bool(self.host.strip()), "host", self.host, "it must be an address such as 127.0.0.1 or 0.0.0.0")
        allowed = self.reload == 0 or 1 <= self.reload < float("inf")
        require(allowed, "reload", self.reload, "it must be 1 second or more, or 0 to look only once")
        require(1 <= self.photos <= 4096, "photos", self.photos, "it must be from 1 to 4096")
        wanted = f"it must be at least {self.photos}, the photos of one request"
        require(self.waiting >= self.photos, "waiting", self.waiting, wanted)
        require(0 < self.megabytes <= 1024, "megabytes", self.megabytes, "it must be above 0, up to 1024")
        require(0 < self.timeout <= 3600, "timeout", self.timeout, "it must be above 0, up to 3600 seconds")


@dataclasses.dataclass(frozen=True)
class Export:
    """Which model to export, and how.

    Args:
        model: A `.keras` file, or an MLflow URI such as `models:/m-…`, `models:/NAME@champion` or `runs:/ID/model`.
        output: Folder to write; it must not exist, or be empty.
        format: The runtime: `onnx` for ONNX Runtime, `openvino` for Intel's, `saved_model` for TensorFlow, `litert` for
            phones and small computers, formerly TensorFlow Lite, `keras_hub` for a folder that KerasHub's
            `ImageClassifier.from_preset` loads, or `all` of those that are installed, each in a folder of its own.
        int8: Compute with 8-bit numbers: smaller and, on some processors, faster. Calibrated by training photos.
        data: Examples on which the export is compared with the model; by default the test photos of its run.
        accept: Write the export even where its answers are not those of the model.
        threshold: `predict.py` says `unsure` where the highest probability is below this; by default as the model was
            saved, or never.
    """

    model: str
    output: str
    format: ExportFormat = "onnx"
    int8: bool = False
    data: Data = dataclasses.field(default_factory=Data)
    accept: bool = False
    threshold: float | None = None

    def __post_init__(self) -> None:
        require(bool(self.output), "output", self.output, "it must be the path of a folder")
        allowed = self.threshold is None or 0 < self.threshold <= 1
        require(allowed, "threshold", self.threshold, "it must be a probability above 0, up to 1")


@dataclasses.dataclass(frozen=True)
class Compare:
    """Which runs to compare.

    Args:
        runs: Ids, or names in the experiment; by default its newest runs, six at the most, that were scored on the same
            examples as the newest of all.
        search: MLflow search string, such as "metrics.test_accuracy > 0.9 and tags.recipe = 'finetune'", that finds the
            runs in the experiment, in place of `runs`.
        experiment: MLflow experiment of the runs that are not given by id; the environment variable
            MLFLOW_EXPERIMENT_NAME takes precedence. The comparison is kept in the experiment of that name followed by
            `comparisons`.
        run_name: Name of the MLflow run that keeps the comparison; by default `comparison` and the next number.
    """

    runs: list[str] = dataclasses.field(default_factory=list)
    search: str | None = None
    experiment: str = "tlkit"
    run_name: str | None = None

    def __post_init__(self) -> None:
        require(not self.runs or self.search is None, "search", self.search, "it takes the place of runs: give one")
        require_names(self.experiment, self.run_name)


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Which models to test on labeled data that they have not seen.

    Args:
        models: One model, or two to compare on the same examples: `.keras` files or MLflow URIs such as `models:/m-…`,
            `models:/NAME@champion` or `runs:/ID/model`.
        data: The data: their test split if they have one, else all of them.
        classes: Names of the classes in the order of the outputs, of a model that was saved without, such as
            `[cat, dog]`.
        seen: Also score examples that a model was trained on, and near copies of these; by default they are left out.
        positive: Of two classes, the one whose precision, recall and average precision are reported.
        promote: Make the better of two versions of a registered model its champion, or the only one if it has none.
        experiment: MLflow experiment, for models without a run in this store; the environment variable
            MLFLOW_EXPERIMENT_NAME takes precedence.
        run_name: Name of the MLflow run of a single model; by default what it is and the next number.
    """

    models: list[str]
    data: Data = dataclasses.field(default_factory=Data)
    classes: list[str] | None = None
    seen: bool = False
    positive: str | None = None
    promote: bool = False
    experiment: str = "tlkit"
    run_name: str | None = None

    def __post_init__(self) -> None:
        require(1 <= len(self.models) <= 2, "models", self.models, "give one model, or two to compare")
        distinct = self.classes is None or len(set(self.classes)) == len(self.classes) >= 2
        require(distinct, "classes", self.classes, "it must have two names or more, all different")
        for name in ("image_size", "resize", "white"):
            value = getattr(self.data, name)
            require(value is None, f"data.{name}", value, "a model reads photos as it did in training: leave it out")
        for name in ("val_fraction", "test_fraction", "val_as_test", "near_copies"):
            value = getattr(self.data, name)
            require(value == getattr(Data(), name), f"data.{name}", value, "nothing is split here: leave it out")
        registered = any(re.match(r"models:/+[^/@]+[/@]", model) for model in self.models)
        require(not self.promote or registered, "promote", self.promote, "give versions such as models:/NAME/3")
        single = self.run_name is None or len(self.models) == 1
        require(single, "run_name", self.run_name, "two models have a run each: leave it out")
        require_names(self.experiment, self.run_name)


@dataclasses.dataclass(frozen=True)
class Cache:
    """What to do with the activation store, and the networks that `predict` keeps in it.

    Args:
        action: `list` what it holds, `verify` every file, or `prune`: delete damaged files and, least recently used
            first, what is more than `limit`.
        store: Folder; by default what the environment's TLKIT_CACHE names, else the platform's place for caches.
        limit: Gigabytes (10^9 bytes) to which `prune` shrinks the store; 0 deletes everything.
    """

    action: Literal["list", "verify", "prune"] = "list"
    store: str | None = None
    limit: float | None = None

    def __post_init__(self) -> None:
        require(self.limit is None or self.limit >= 0, "limit", self.limit, "it must be 0 or more")
        require(self.limit is None or self.action == "prune", "limit", self.limit, "it goes with prune")


@dataclasses.dataclass(frozen=True)
class Sync:
    """What is to be sent to the tracking server.

    Args:
        folder: Folder with what runs could not send.
    """

    folder: str = "mlruns/unsent"


@dataclasses.dataclass(frozen=True)
class Ui:
    """Which runs the MLflow UI shows, and where.

    Args:
        port: Port on this machine; only its own browsers can connect.
        experiment: MLflow experiment to link to; by default that of the newest run. The environment
            variable MLFLOW_EXPERIMENT_NAME takes precedence.
    """

    port: int = 5000
    experiment: str | None = None

    def __post_init__(self) -> None:
        require(1 <= self.port <= 65535, "port", self.port, "it must be from 1 to 65535")
