"""MLflow models: every way in gives the same answer, and what is wrong is refused in one clear line."""

from __future__ import annotations

import base64
import contextlib
import http.server
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import types
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tlkit import labels, serving
from tlkit.data import images, sounds
from tlkit.serving import cells
from tlkit.serving import classifier as classifying
from tlkit.serving import waiting as waiting_room

CLASSES = ["green", "red", "white"]
rng = np.random.default_rng(0)
PIXELS = rng.integers(0, 256, (16, 16, 3)).astype(np.uint8)


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


PNG = png(PIXELS)
TEXT = encoded(PNG)
LIST = PIXELS.tolist()


def classifier(shape: tuple[int, ...] = (16, 16, 3), units: int = 3, scale: float = 1 / 255) -> Any:
    import keras

    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input(shape),
            keras.layers.Rescaling(scale),
            keras.layers.Flatten(),
            keras.layers.Dense(units, activation="softmax" if units > 1 else "sigmoid"),
        ]
    )


def save(path: Path, model: Any, classes: list[str] = CLASSES, **options: Any) -> Path:
    serving.save_model(path, model, classes, requirements=["keras"], **{"kind": "photos", **options})
    return path


def load(path: Path) -> Any:
    import mlflow.pyfunc

    return mlflow.pyfunc.load_model(str(path))


@pytest.fixture(scope="module")
def model() -> Any:
    return classifier()


@pytest.fixture(scope="module")
def saved(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("serving") / "model", model, example=PNG)


@pytest.fixture(scope="module")
def served(saved: Path) -> Any:
    return load(saved)


@pytest.fixture(autouse=True)
def paths(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allowed, whether or not another test has loaded a server into this process."""
    monkeypatch.setenv(serving.VARIABLE, "true")


@pytest.fixture
def no_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(serving.VARIABLE, "false")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    (tmp_path / "photo.png").write_bytes(PNG)
    return tmp_path / "photo.png"


def check(answer: Any, wanted: np.ndarray, rows: int = 1) -> None:
    assert list(answer.columns) == ["label", "probability", "top"]
    assert len(answer) == rows
    order = np.argsort(-wanted)
    for label, probability, top in zip(answer.label, answer.probability, answer.top, strict=True):
        assert label == CLASSES[order[0]]
        assert probability == pytest.approx(wanted.max(), abs=1e-5)
        assert [entry["label"] for entry in top] == [CLASSES[place] for place in order]
        np.testing.assert_allclose([entry["probability"] for entry in top], wanted[order], atol=1e-5)


CELLS: dict[str, Callable[[Path], Any]] = {
    "base64": lambda photo: TEXT,
    "base64 in lines": lambda photo: base64.encodebytes(PNG).decode(),
    "data URI": lambda photo: f"data:image/png;base64,{TEXT}",
    "bytes": lambda photo: PNG,
    "path": str,
    "Path": lambda photo: photo,
    "array": lambda photo: PIXELS,
    "floats": lambda photo: PIXELS.astype(np.float32),
    "list": lambda photo: LIST,
}


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_a_cell_may_hold_what_people_have(cell: Callable[[Path], Any], photo: Path, model: Any, served: Any):
    wanted = model.predict(PIXELS[None], verbose=0)[0]
    check(served.predict(pd.DataFrame({"image": [cell(photo)]})), wanted)
    several = served.predict(pd.DataFrame({"image": [cell(photo), PNG]}, index=["a", "b"]))
    check(several, wanted, 2)
    assert list(several.index) == ["a", "b"]


def test_a_dict_or_a_list_of_dicts_will_do(model: Any, served: Any):
    wanted = model.predict(PIXELS[None], verbose=0)[0]
    check(served.predict({"image": TEXT}), wanted)
    check(served.predict({"image": [TEXT, TEXT]}), wanted, 2)
    check(served.predict({"image": np.stack([PIXELS, PIXELS])}), wanted, 2)
    check(served.predict([{"image": TEXT}, {"image": PIXELS}]), wanted, 2)


def test_more_rows_than_a_batch_keep_their_order(model: Any, served: Any):
    many = np.random.default_rng(1).integers(0, 256, (2 * classifying.BATCH + 1, 16, 16, 3)).astype(np.uint8)
    answer = served.predict({"image": many})
    np.testing.assert_allclose(answer.probability, model.predict(many, verbose=0).max(axis=1), atol=1e-5)


def table(*cells: Any, column: str = "image") -> dict[str, Any]:
    return {"dataframe_split": {"columns": [column], "data": [[cell] for cell in cells]}}


def ask(served: Any, request: Any, content_type: str = "application/json") -> Any:
    """What the scoring server does with a request, without the server."""
    from mlflow.pyfunc.scoring_server import invocations

    body = request if isinstance(request, bytes) else json.dumps(request).encode()
    return invocations(body, content_type, served, served.metadata.get_input_schema())


REQUESTS = {
    "split": table(TEXT, TEXT),
    "split, arrays": table(LIST, LIST),
    "records": {"dataframe_records": [{"image": TEXT}] * 2},
    "records, arrays": {"dataframe_records": [{"image": LIST}] * 2},
    "inputs": {"inputs": [TEXT, TEXT]},
    "inputs, dict": {"inputs": {"image": [TEXT, TEXT]}},
    "inputs, records": {"inputs": [{"image": TEXT}] * 2},
    "inputs, arrays": {"inputs": [LIST, LIST]},
    "instances": {"instances": [TEXT, TEXT]},
    "instances, records": {"instances": [{"image": TEXT}] * 2},
    "instances, arrays": {"instances": [{"image": LIST}] * 2},
}


@pytest.mark.usefixtures("no_paths")
@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
def test_all_formats_of_the_scoring_server_work(request_: dict[str, Any], model: Any, served: Any):
    response = ask(served, request_)
    assert response.status == 200
    answer = pd.DataFrame(json.loads(response.response)["predictions"])
    check(answer, model.predict(PIXELS[None], verbose=0)[0], 2)


def changed(value: Any) -> list[Any]:
    array = PIXELS.tolist()
    array[0][0][0] = value
    return array


TAKES = "column 'image' takes a JPEG, PNG, GIF, BMP, WebP or TIFF file in base64, or an array (height, width, channels)"
OPERATOR = "paths and URLs are read only where the server's operator sets TLKIT_SERVE_PATHS=true"
WRONG = {
    "not base64": (table(TEXT, "hello!"), f"row 1, 'hello!', is not base64: {OPERATOR}; {TAKES}"),
    "text": (table(encoded(b"hello world")), f"row 0: not a JPEG, PNG, GIF, BMP, WebP or TIFF image; {TAKES}"),
    "empty": (table(""), f"row 0: the file is empty (0 bytes); {TAKES}"),
    "damaged": (table(encoded(PNG[:500])), "row 0: "),
    "data URI": (table("data:image/svg+xml,<svg/>"), "row 0 is a data URI that is not in base64"),
    "null": (table(TEXT, None), f"row 1 is null; {TAKES}"),
    "number": (table(3), f"row 0 is 3 of type int; {TAKES}"),
    "true": (table(True), "row 0 is True of type bool"),
    "dict": (table({"a": 1}), "row 0 is {'a': 1} of type dict"),
    "no rows": (table(), f"the table is empty; {TAKES}"),
    "no records": ({"dataframe_records": []}, "Model is missing inputs ['image']"),
    "column": (table(TEXT, column="picture"), "Model is missing inputs ['image']"),
    "no key": ({"image": [TEXT]}, "exactly one of the input fields"),
    "two keys": ({"inputs": [TEXT], "instances": [TEXT]}, "exactly one of the input fields"),
    "no JSON": (b"{", "valid JSON"),
    "a list": ([TEXT], "Received a list"),
    "NaN": (table(changed(float("nan"))), "row 0 holds values that are not finite"),
    "one photo, not in a list": ({"inputs": LIST}, f"row 0 is an array of shape (16, 3); {TAKES}"),
    "channels first": (table(np.zeros((3, 16, 16), int).tolist()), "row 0 is an array of shape (3, 16, 16)"),
    "ragged": (table([[[1, 2, 3]], []]), "row 0 is a list whose parts differ in length or depth"),
    "letters": (table([[["a"]]]), "row 0 is an array of <U1 of shape (1, 1, 1)"),
    "truths": (table((PIXELS > 9).tolist()), "row 0 is an array of bool of shape (16, 16, 3)"),
    "more than 255": (table(changed(256)), "row 0 is an array of values from 0 to 256"),
    "less than 0": (table(changed(-1)), "row 0 is an array of values from -1 to "),
    "scaled": (table((PIXELS / 255).tolist()), "row 0 is an array of values from 0 to 1"),
    "path": (table("/etc/passwd.png"), f"row 0, '/etc/passwd.png', is not base64: {OPERATOR}"),
    "URL": (table("http://127.0.0.1:9/a.png"), f"row 0 is a URL: {OPERATOR}"),
    "file URL": (table("file:///etc/passwd"), f"row 0 is a URL: {OPERATOR}"),
}


@pytest.mark.usefixtures("no_paths")
@pytest.mark.parametrize(("request_", "message"), WRONG.values(), ids=WRONG)
def test_the_scoring_server_answers_400(request_: Any, message: str, served: Any, monkeypatch: pytest.MonkeyPatch):
    from mlflow.exceptions import MlflowException

    def never(*arguments: Any) -> None:
        pytest.fail("looked for a file")

    monkeypatch.setattr(cells, "_is_file", never)
    monkeypatch.setattr(cells, "_download", never)
    with pytest.raises(MlflowException) as raised:
        ask(served, request_)
    assert raised.value.get_http_status_code() == 400
    assert message in str(raised.value)


def test_another_content_type_is_refused(served: Any):
    assert ask(served, b"", "image/png").status == 415


def test_an_array_of_another_size_is_resized_as_a_file_is(model: Any, served: Any):
    from mlflow.exceptions import MlflowException

    large = rng.integers(0, 256, (40, 30, 3)).astype(np.uint8)
    wanted = model.predict(images.decode(png(large), (16, 16))[None], verbose=0)[0]
    check(served.predict({"image": large[None]}), wanted)
    check(served.predict({"image": large[None].astype(np.float64)}), wanted)
    check(served.predict({"image": TEXT}), model.predict(PIXELS[None], verbose=0)[0])
    gray = large[..., :1]
    check(served.predict({"image": gray[None]}), model.predict(images.decode(gray, (16, 16))[None], verbose=0)[0])
    with pytest.raises(MlflowException, match="has fractions: round it, or resize it to 16 x 16 x 3"):
        served.predict({"image": large[None] + 0.5 * (large[None] < 255)})


def test_fractions_of_the_right_size_reach_the_network(model: Any, served: Any):
    half = PIXELS * 0.5
    check(served.predict({"image": half[None]}), model.predict(half[None], verbose=0)[0])


def test_a_sigmoid_unit_tells_two_classes_apart(tmp_path: Path):
    model = classifier(units=1)
    answer = load(save(tmp_path / "model", model, ["no", "yes"])).predict({"image": TEXT})
    share = float(model.predict(PIXELS[None], verbose=0)[0, 0])
    assert answer.label[0] == ("yes" if share > 0.5 else "no")
    assert {entry["label"]: entry["probability"] for entry in answer.top[0]} == pytest.approx(
        {"yes": share, "no": 1 - share}, abs=1e-5
    )


def test_of_many_classes_the_top_five_are_given(tmp_path: Path):
    model = classifier(units=7)
    (top,) = load(save(tmp_path / "model", model, [f"c{n}" for n in range(7)])).predict({"image": TEXT}).top
    shares = model.predict(PIXELS[None], verbose=0)[0]
    assert [entry["label"] for entry in top] == [f"c{n}" for n in np.argsort(-shares)[:5]]


def test_grayscale(tmp_path: Path):
    model = classifier((16, 16, 1))
    answer = load(save(tmp_path / "model", model)).predict({"image": TEXT})
    check(answer, model.predict(images.decode(PNG, (16, 16), 1)[None], verbose=0)[0])


def test_sounds(tmp_path: Path):
    from mlflow.exceptions import MlflowException

    model = classifier((400, 1), scale=1.0)
    sound = 0.5 * np.sin(np.arange(300, dtype=np.float32))[:, None]
    wav = sounds.encode(sound, 8000)
    wanted = model.predict(sounds.decode(wav, 400)[None], verbose=0)[0]
    served = load(save(tmp_path / "model", model, kind="sounds", rate=8000))
    check(served.predict({"sound": encoded(wav)}), wanted)
    check(served.predict({"sound": [sounds.decode(wav), sounds.decode(wav)[:, 0]]}), wanted, 2)
    longer = np.concatenate([sounds.decode(wav, 400), sound])
    check(served.predict([{"sound": longer}]), wanted)
    for wrong, message in (
        (sounds.encode(sound, 16000), "row 0 has 16,000 samples a second; the network learned from 8,000"),
        (PNG, "row 0: not a WAV, FLAC or OGG file"),
        (1000 * sound, r"row 0 is an array of shape \(300, 1\) with values from -5"),
        (np.zeros((300, 2)), r"row 0 is an array of shape \(300, 2\)"),
    ):
        with pytest.raises(MlflowException, match=f"{message}.*; column 'sound' takes a WAV, FLAC or OGG file"):
            served.predict([{"sound": wrong}])


def npy(array: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def test_arrays(tmp_path: Path):
    from mlflow.exceptions import MlflowException

    model = classifier((4, 5, 6, 1))
    array = rng.integers(0, 256, (4, 5, 6, 1)).astype(np.uint8)
    wanted = model.predict(array[None], verbose=0)[0]
    served = load(save(tmp_path / "model", model, kind="arrays"))
    (tmp_path / "example.npy").write_bytes(npy(array))
    answer = served.predict([{"array": cell} for cell in (array, encoded(npy(array)), str(tmp_path / "example.npy"))])
    check(answer, wanted, 3)
    check(served.predict({"array": array[None]}), wanted)
    promised = npy(array).replace(b"(4, 5, 6, 1)", b"(4, 5, 6, 9)")
    for wrong, message in (
        (array[0], r"row 0 is an array of shape \(5, 6, 1\); the network takes \(4, 5, 6, 1\)"),
        (npy(array[0]), r"row 0 is an array of shape \(5, 6, 1\)"),
        (PNG, "row 0: not an .npy file"),
        (promised, r"row 0 is an .npy file of uint8 \(4, 5, 6, 9\) with 248 bytes"),
        (npy(np.array([{}]), allow_pickle=True), "row 0 is an .npy file of object"),
    ):
        with pytest.raises(MlflowException, match=f"{message}.*; column 'array' takes an .npy file"):
            served.predict([{"array": wrong}])


def test_of_nodes_the_tensors_stay(tmp_path: Path):
    import keras

    nodes, edges = keras.Input((4, 3), name="features"), keras.Input((5, 2), dtype="int32", name="edges")
    pooled = keras.layers.Flatten()(nodes) + keras.ops.cast(keras.layers.Flatten()(edges)[:, :1], "float32")
    model = keras.Model([nodes, edges], keras.layers.Dense(3)(pooled))
    served = load(save(tmp_path / "model", model, kind="nodes"))
    inputs = {"features": np.ones((1, 4, 3), np.float32), "edges": np.ones((1, 5, 2), np.int32)}
    np.testing.assert_allclose(served.predict(inputs), model.predict(inputs, verbose=0), atol=1e-5)
    assert labels.read(tmp_path / "model" / "data" / "model.keras") == CLASSES


@pytest.mark.parametrize(
    ("kind", "message"), [("videos", "kind is 'videos'; give one of"), ("sounds", "rate is missing")]
)
def test_what_cannot_be_served_is_not_written(kind: str, message: str, model: Any, tmp_path: Path):
    with pytest.raises(ValueError, match=message):
        save(tmp_path / "model", model, kind=kind)
    assert not (tmp_path / "model").exists()


def test_the_folder_has_both_flavors_and_nothing_pickled(saved: Path, model: Any):
    import mlflow.keras
    import mlflow.models

    files = {str(path.relative_to(saved)) for path in saved.rglob("*") if path.is_file()}
    assert files == {
        "MLmodel",
        "conda.yaml",
        "data/keras_module.txt",
        "data/model.keras",
        "input_example.json",
        "python_env.yaml",
        "requirements.txt",
        "serving_input_example.json",
    }
    plain = mlflow.keras.load_model(str(saved))
    np.testing.assert_array_equal(plain.predict(PIXELS[None], verbose=0), model.predict(PIXELS[None], verbose=0))
    info = mlflow.models.get_model_info(str(saved))
    assert info.metadata == {"classes": CLASSES}
    assert info.signature.inputs.input_names() == ["image"]
    assert info.signature.outputs.input_names() == ["label", "probability", "top"]


def test_the_example_is_a_request(saved: Path, served: Any, model: Any):
    request = json.loads((saved / "serving_input_example.json").read_text(encoding="utf-8"))
    assert request == serving.serving_example(PNG)
    assert ask(served, request).status == 200
    check(served.predict(served.input_example), model.predict(PIXELS[None], verbose=0)[0])


def test_it_survives_being_logged_by_another_hand(saved: Path, tmp_path: Path, model: Any):
    from mlflow.models import Model

    source, target = Model.load(str(saved)), Model(model_uuid="m-1", run_id="1")
    target.flavors, target.signature, target.metadata = source.flavors, source.signature, source.metadata
    shutil.copytree(saved, tmp_path / "model", ignore=shutil.ignore_patterns("MLmodel"))
    target.save(str(tmp_path / "model" / "MLmodel"))
    check(load(tmp_path / "model").predict({"image": TEXT}), model.predict(PIXELS[None], verbose=0)[0])


def test_evaluate_gets_labels_alone(saved: Path, model: Any):
    import mlflow.pyfunc

    given = mlflow.pyfunc.load_model(str(saved), model_config={"output": "label"}).predict({"image": [PNG, PNG]})
    assert isinstance(given, pd.Series)
    assert list(given) == [CLASSES[model.predict(PIXELS[None], verbose=0).argmax()]] * 2
    with pytest.raises(ValueError, match="model_config has output 'top'; give table or label"):
        mlflow.pyfunc.load_model(str(saved), model_config={"output": "top"})


def jpeg(side: int, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side)).save(file, "JPEG", **options)
    return file.getvalue()


@pytest.mark.usefixtures("no_paths")
def test_a_stranger_sends_no_huge_photo(served: Any, model: Any, monkeypatch: pytest.MonkeyPatch):
    from mlflow.exceptions import MlflowException

    monkeypatch.setenv(images.VARIABLE, str(16 * 16))
    check(served.predict({"image": TEXT}), model.predict(PIXELS[None], verbose=0)[0])
    with pytest.raises(MlflowException, match="row 0: 17 x 16 pixels, more than the 256 that TLKIT_MAX_PIXELS allows"):
        served.predict({"image": encoded(png(np.zeros((16, 17, 3), np.uint8)))})
    monkeypatch.setenv(images.VARIABLE, str(2**15))
    assert len(served.predict({"image": encoded(jpeg(512))})) == 1  # decoded at an eighth
    with pytest.raises(MlflowException, match="row 0: 512 x 512 pixels, more than the 32,768"):
        served.predict({"image": encoded(jpeg(512, progressive=True))})


@pytest.mark.usefixtures("no_paths")
def test_the_work_of_a_request_is_bounded(served: Any, monkeypatch: pytest.MonkeyPatch):
    from mlflow.exceptions import MlflowException

    monkeypatch.setenv(images.VARIABLE, str(2 * classifying.ROW))
    assert len(served.predict({"image": [TEXT] * 8})) == 8
    words = r"the first 9 of 12 rows take as long as 294,912 pixels, more than 4 times the 65,536 that TLKIT_MAX_PIXELS"
    with pytest.raises(MlflowException, match=words):
        served.predict({"image": [TEXT] * 12})
    monkeypatch.setattr(cells, "FILE_BYTES", 0)
    with pytest.raises(MlflowException, match="row 0 is larger than 0 MiB"):
        served.predict({"image": "A" * (2**20 + 1)})
    monkeypatch.setenv(serving.VARIABLE, "true")
    assert len(served.predict({"image": [TEXT] * 12})) == 12


@pytest.mark.usefixtures("no_paths")
def test_large_requests_wait_in_line_and_hold_up_no_other(model: Any, monkeypatch: pytest.MonkeyPatch):
    from mlflow.exceptions import MlflowException

    large, small = pd.DataFrame({"image": [jpeg(512, progressive=True)]}), pd.DataFrame({"image": [PNG]})
    monkeypatch.setattr(waiting_room, "HEAVY", 2**17)
    began, go_on, decode = threading.Semaphore(0), threading.Event(), images.decode

    def decode_slowly(content: bytes, *arguments: Any) -> np.ndarray:
        if content != PNG:
            began.release()
            assert go_on.wait(60)
        return decode(content, *arguments)

    monkeypatch.setattr(images, "decode", decode_slowly)
    served = serving.Classifier(model, CLASSES, "photos")
    places = min(32, os.cpu_count() + 4) // 2
    with ThreadPoolExecutor(places + 1) as pool:
        try:
            waiting = [pool.submit(served.predict, large) for _ in range(places + 1)]
            assert began.acquire(timeout=60)
            while not any(one.done() for one in waiting):
                time.sleep(0.01)
            assert len(served.predict(small)) == 1
        finally:
            go_on.set()
        (busy,) = [error for one in waiting if (error := one.exception())]
    assert isinstance(busy, MlflowException)
    assert busy.get_http_status_code() == 429
    assert "busy with large requests: try again later" in str(busy)
    assert len(served.predict(large)) == 1  # all places are free again


@pytest.mark.usefixtures("no_paths")
def test_arrays_of_several_shapes_are_refused():
    from mlflow.exceptions import MlflowException

    any_length = types.SimpleNamespace(input_shape=(None, None, 2))
    served = serving.Classifier(any_length, CLASSES, "arrays")
    words = r"row 1 is of shape \(4, 2\), and row 0 of \(3, 2\): send one shape at a time"
    with pytest.raises(MlflowException, match=words):
        served.predict(pd.DataFrame({"array": [np.zeros((3, 2)), np.zeros((4, 2))]}))


def test_class_names_must_fit(model: Any, tmp_path: Path):
    save(tmp_path / "model", model, ["a", "b"])
    with pytest.raises(ValueError, match="holds 2 class names for 3 classes"):
        load(tmp_path / "model")


@pytest.mark.parametrize(
    ("module", "value", "allowed"),
    [
        (None, None, True),
        ("mlflow.pyfunc.scoring_server.app", None, False),
        ("uvicorn", None, False),
        ("uvicorn", "true", True),
        (None, "false", False),
        (None, "maybe", False),
    ],
)
def test_a_server_reads_no_paths(module: str | None, value: str | None, allowed: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(cells.SERVING, raising=False)
    for name in cells.SERVERS:
        monkeypatch.delitem(sys.modules, name, raising=False)
    if module:
        monkeypatch.setitem(sys.modules, module, sys)
    if value is None:
        monkeypatch.delenv(serving.VARIABLE)
    else:
        monkeypatch.setenv(serving.VARIABLE, value)
    assert serving.paths_allowed() is allowed
    if value is None:
        monkeypatch.setenv(cells.SERVING, "true")
        assert not serving.paths_allowed()


@contextlib.contextmanager
def website(answers: dict[str, Callable[[Any], None]]) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answers[self.path.partition("?")[0]](self)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_urls(served: Any, model: Any, monkeypatch: pytest.MonkeyPatch):
    from mlflow.exceptions import MlflowException

    def give(content: bytes, pause: float = 0.0) -> Callable[[Any], None]:
        def answer(handler: Any) -> None:
            handler.send_response(200)
            handler.end_headers()
            with contextlib.suppress(OSError):
                for start in range(0, len(content), 100):
                    handler.wfile.write(content[start : start + 100])
                    handler.wfile.flush()
                    time.sleep(pause)

        return answer

    def redirect(where: str) -> Callable[[Any], None]:
        def answer(handler: Any) -> None:
            handler.send_response(302)
            handler.send_header("Location", where)
            handler.end_headers()

        return answer

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(cells, "FILE_BYTES", 2000)
    monkeypatch.setattr(cells, "DOWNLOAD_SECONDS", 0.5)
    pages = {
        "/photo.png": give(PNG),
        "/moved": redirect("/photo.png"),
        "/ftp": redirect("ftp://127.0.0.1/photo.png"),
        "/file": redirect("file:///etc/passwd"),
        "/large": give(bytes(3000)),
        "/slow": give(bytes(1500), 0.1),
        "/none": lambda handler: handler.send_error(404),
    }
    with website(pages) as address:
        for page in ("/photo.png", "/moved"):
            check(served.predict({"image": address + page}), model.predict(PIXELS[None], verbose=0)[0])
        for url, message in (
            (f"{address}/large?key=secret", "row 0: what 127.0.0.1 has is larger than 0 MiB"),
            (f"{address}/slow", "row 0: what 127.0.0.1 has does not come within 0.5 s"),
            (f"{address}/none", "row 0: cannot download it: Not Found"),
            (f"{address}/ftp", "row 0: cannot download it: unknown url type: ftp"),
            (f"{address}/file", "row 0: cannot download it: .*Redirection to url 'file:"),
            ("file:///etc/passwd", "row 0: cannot download it: unknown url type: file"),
            ("http://127.0.0.1:9/", "row 0: cannot download it: .*refused"),
            ("http://[", "row 0: cannot download it: "),
        ):
            with pytest.raises(MlflowException, match=message) as raised:
                served.predict({"image": url})
            assert "secret" not in str(raised.value)


def test_many_threads_get_their_own_answers_one_after_the_other(model: Any):
    inside: list[int] = []
    most = 0

    def predict_on_batch(values: np.ndarray) -> np.ndarray:
        nonlocal most
        inside.append(1)
        most = max(most, len(inside))
        time.sleep(0.002)
        inside.pop()
        return model.predict_on_batch(values)

    slow = types.SimpleNamespace(input_shape=model.input_shape, predict_on_batch=predict_on_batch)
    served = serving.Classifier(slow, CLASSES, "photos")
    photos = np.random.default_rng(2).integers(0, 256, (24, 16, 16, 3)).astype(np.uint8)
    wanted = model.predict(photos, verbose=0).max(axis=1)
    groups = [range(start, min(start + size, 24)) for start, size in ((0, 1), (1, 2), (3, 5), (8, 1), (9, 8), (17, 7))]

    def answer(rows: range) -> Any:
        return served.predict(pd.DataFrame({"image": [png(photos[i]) for i in rows]})).probability

    with ThreadPoolExecutor(6) as pool:
        for _ in range(5):
            np.testing.assert_allclose(np.concatenate(list(pool.map(answer, groups))), wanted, atol=1e-5)
    assert most == 1


def post(address: str, request: Any, content_type: str = "application/json") -> tuple[int, str]:
    body = request if isinstance(request, bytes) else json.dumps(request).encode()
    asked = urllib.request.Request(f"{address}/invocations", body, {"Content-Type": content_type})  # noqa: S310
    try:
        with urllib.request.urlopen(asked, timeout=60) as answer:  # noqa: S310
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@contextlib.contextmanager
def server(folder: Path, log: Path) -> Iterator[str]:
    """A real `mlflow models serve`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if name != serving.VARIABLE}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"  # it calls uvicorn
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(folder), "--env-manager", "local"]
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [*command, "--port", str(port), "--host", "127.0.0.1"],
            env=environment,
            cwd=log.parent,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        for _ in range(600):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5).close()
                break
            assert process.poll() is None, log.read_text(encoding="utf-8")
            time.sleep(0.2)
        else:
            pytest.fail(f"no answer:\n{log.read_text(encoding='utf-8')}")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, 9)  # of its own session: the command and the server that it started
        process.wait()


@pytest.mark.slow
def test_a_real_server_answers_as_predict_does(saved: Path, model: Any, photo: Path, tmp_path: Path):
    from tlkit.config import Predict
    from tlkit.recipes import predict

    ((best, *_),) = predict.run(Predict(model=str(saved / "data" / "model.keras"), photos=[str(photo)])).rankings
    shares = model.predict(PIXELS[None], verbose=0)[0]
    with server(saved, tmp_path / "log") as address:
        status, text = post(address, serving.serving_example(PNG))
        assert status == 200
        (row,) = json.loads(text)["predictions"]
        assert row["label"] == best[0] == CLASSES[shares.argmax()]
        assert row["probability"] == pytest.approx(best[1], abs=1e-5)
        assert row["probability"] == pytest.approx(float(shares.max()), abs=1e-5)
        assert [entry["label"] for entry in row["top"]] == [CLASSES[place] for place in np.argsort(-shares)]
        for name, (request, message) in WRONG.items():
            status, text = post(address, request)
            assert (status, message in json.loads(text)["message"]) == (400, True), (name, text)
        status, text = post(address, table(str(photo)))
        assert status == 400
        assert OPERATOR in json.loads(text)["message"]
        assert post(address, PNG, "image/png")[0] == 415
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: post(address, serving.serving_example(PNG))[1], range(16)))
        assert {json.loads(answer)["predictions"][0]["label"] for answer in answers} == {best[0]}


NESTED = b"[" * 100_000  # at which MLflow's own reader of JSON fails, before anything of ours is asked


def hostile(count: int) -> Iterator[tuple[bytes, str]]:
    """Requests that a server should refuse or answer, whatever they are, with their content type."""
    draw = np.random.default_rng(19)
    large, spoilt = Image.new("RGBA", (3000, 3000), (1, 2, 3, 4)), jpeg(64, progressive=True)
    last = spoilt.rfind(b"\xff\xda")
    files = [
        PNG,
        png(np.zeros((9000, 9000), np.uint8)),
        png(np.asarray(large)),
        jpeg(2000, progressive=True),
        jpeg(9000),
        spoilt[:last] + spoilt[last:-2] * 150 + spoilt[-2:],
        spoilt[:2] + b"\xff\xfe\0\2" * 2**17 + spoilt[2:],
        b"GIF89a" + b"\xff" * 7 + b"!\xfe" + b"\1a" * 100_000,
        b"BM" + bytes(100),
        b"RIFF\xff\xff\xff\xffWEBPVP8X" + b"\xff" * 30,
        npy(np.zeros((16, 16, 3))),
        sounds.encode(np.zeros((8, 1)), 8000),
        b"",
    ]
    for kind in ("GIF", "WEBP", "TIFF", "BMP", "JPEG"):
        file = io.BytesIO()
        large.convert("RGB").resize((40, 30)).save(file, kind)
        files.append(file.getvalue())
    deep: Any = 1
    for _ in range(500):
        deep = [deep]
    values = [
        *(encoded(file) for file in files),
        *(
            None,
            True,
            -1,
            1e308,
            10**400,
            float("nan"),
            "",
            " ",
            "A",
            "=",
            "é\x1b[31m\0",
            "A " * 2**20,
            "data:,",
            "data:;base64,",
        ),
        *("/etc/passwd", "file:///etc/passwd", "http://127.0.0.1:1/", "\ud800", "../" * 1000),
        *(
            {},
            {"a": {"b": []}},
            [],
            [[]],
            [[[]]],
            deep,
            {"a": deep},
            LIST,
            [LIST],
            [0] * 10_000,
            [[["a"]]],
            [[[10**400]]],
        ),
    ]
    whole = [
        b"",
        b"{",
        b"null",
        NESTED,
        b'{"inputs":' + b"[" * 900 + b"]" * 900 + b"}",
        b"\xff\xfe{}",
        b'{"dataframe_split": {"columns": ["image", "image"], "data": [[1, 2]]}}',
        b'{"dataframe_split": {"columns": [["image"]], "data": [[1]]}}',
        b'{"dataframe_split": {"columns": ["image"], "data": [[1, 2, 3]]}}',
        b'{"dataframe_split": {"columns": ["image"], "index": [1, 2], "data": [[1]]}}',
        b'{"dataframe_split": []}',
        b'{"dataframe_records": {"image": 1}}',
        b'{"dataframe_records": [1, 2]}',
        b'{"inputs": null}',
        b'{"inputs": {"image": {"image": {"image": 1}}}}',
        b'{"instances": "image"}',
        b'{"inputs": ["a"], "params": {"a": 1}}',
    ]
    forms: list[Callable[[Any], Any]] = [
        table,
        lambda cell: table(cell, cell),
        lambda cell: table(*[cell] * 40),
        lambda cell: {"inputs": [cell]},
        lambda cell: {"inputs": {"image": cell}},
        lambda cell: {"instances": [{"image": cell}]},
        lambda cell: {"dataframe_records": [{"image": cell, "other": cell}]},
    ]
    for number in range(count):
        if number % 10 == 0:
            yield whole[number // 10 % len(whole)], "application/json"
        elif number % 10 == 1:
            kinds = ("text/csv", "", "application/json; charset=utf-16", "application/json; charset=no", "image/png")
            yield json.dumps(table(TEXT)).encode(), kinds[number // 10 % len(kinds)]
        elif number % 10 < 6:  # damaged
            file = bytearray(files[draw.integers(len(files))][: 2**18])
            for place in draw.integers(0, max(1, len(file)), draw.integers(1, 9)):
                file[place : place + 1] = draw.bytes(1)
            yield json.dumps(table(encoded(bytes(file[: draw.integers(1, 2**18)])))).encode(), "application/json"
        else:
            cell = values[draw.integers(len(values))]
            yield json.dumps(forms[draw.integers(len(forms))](cell)).encode(), "application/json"


@pytest.mark.slow
def test_a_server_outlives_hostile_requests_and_its_memory_stays(saved: Path, tmp_path: Path):
    import psutil

    def memory() -> float:
        return max(child.memory_info().rss for child in psutil.Process().children(recursive=True)) / 1e6

    answers: dict[int, list[str]] = {}
    with server(saved, tmp_path / "log") as address:
        for body, content_type in hostile(300):
            status, text = post(address, body, content_type)
            answers.setdefault(status, []).append(text)
            assert status < 500 or body == NESTED, (status, body[:500], text)
        assert len(answers[200]) > 10 < len(answers[400])
        used = []
        for _ in range(8):
            with ThreadPoolExecutor(4) as pool:
                statuses = list(pool.map(lambda given: (post(address, *given)[0], given[0]), hostile(150)))
            assert all(status < 500 or body == NESTED for status, body in statuses)
            used.append(memory())
        # Means, as what four threads hold at the moment of looking differs by some 50 MB.
        assert np.mean(used[4:]) < np.mean(used[:4]) + 50, used
        assert max(used) < 1500, used
        assert post(address, serving.serving_example(PNG))[0] == 200


@pytest.mark.slow
def test_layers_of_ours_load_in_a_fresh_process(tmp_path: Path):
    import keras

    from tlkit import layers

    inputs = keras.Input((16, 16, 3))
    x = layers.LayerScale(0.5)(layers.LocalResponseNormalization()(inputs))
    model = keras.Model(inputs, keras.layers.Dense(3, "softmax")(keras.layers.GlobalAveragePooling2D()(x)))
    folder = save(tmp_path / "model", model)
    (tmp_path / "photo.png").write_bytes(PNG)

    def fresh(code: str) -> str:
        command = [sys.executable, "-c", code, str(folder), str(tmp_path / "photo.png")]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True).stdout

    share = fresh(
        "import sys, mlflow\n"
        "model = mlflow.pyfunc.load_model(sys.argv[1])\n"
        "print(model.predict({'image': sys.argv[2]}).probability[0])"
    )
    assert float(share) == pytest.approx(float(model.predict(PIXELS[None], verbose=0).max()), abs=1e-5)
    assert "(None, 3)" in fresh("import sys, mlflow; print(mlflow.keras.load_model(sys.argv[1]).output_shape)")
