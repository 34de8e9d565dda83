"""How each format is loaded and run. An export's predict.py has the function of its format, so nothing else is used."""

from __future__ import annotations

from typing import Any

import numpy as np


def load_onnx(path: str, threads: int = 0) -> Any:
    """Give the function from a batch to probabilities; 0 threads are as many as there are cores."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda batch: session.run(None, {session.get_inputs()[0].name: batch})[0]


def load_openvino(path: str, threads: int = 0) -> Any:
    """Give the function from a batch to probabilities; 0 threads are as many as there are cores."""
    import openvino

    # Else some processors compute in bfloat16, and probabilities are off by 0.05.
    settings = {"INFERENCE_PRECISION_HINT": "f32"} | ({"INFERENCE_NUM_THREADS": threads} if threads else {})
    compiled = openvino.Core().compile_model(path, "CPU", settings)
    return lambda batch: compiled(batch)[0].copy()


def load_saved_model(path: str, threads: int = 0) -> Any:
    """Give the function from a batch to probabilities; 0 threads are as many as there are cores."""
    import tensorflow

    if threads:
        tensorflow.config.threading.set_intra_op_parallelism_threads(threads)
        tensorflow.config.threading.set_inter_op_parallelism_threads(threads)
    model = tensorflow.saved_model.load(path)
    return lambda batch: model.serve(tensorflow.constant(batch)).numpy()


def load_litert(path: str, threads: int = 0) -> Any:
    """Give the function from a batch to probabilities; 0 threads are as many as there are cores."""
    import os

    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=path, num_threads=threads or os.cpu_count())
    interpreter.allocate_tensors()
    given, result = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def run(batch: np.ndarray) -> np.ndarray:
        rows = []
        for example in batch:  # the file takes one at a time
            interpreter.set_tensor(given, example[None])
            interpreter.invoke()
            rows.append(interpreter.get_tensor(result)[0])
        return np.stack(rows)

    return run


def load_keras_hub(path: str, threads: int = 0) -> Any:
    """Give the function from a batch to probabilities; the threads are Keras' own."""
    import keras_hub

    task = keras_hub.models.ImageClassifier.from_preset(path)
    return lambda batch: np.asarray(task.predict(batch, verbose=0))
