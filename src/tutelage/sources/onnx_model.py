"""Runs an ONNX file as a black-box teacher."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tutelage.errors import TutelageError, first_line, nearest


class OnnxModel:
    """Runs a model by onnxruntime on the CPU (extra ``onnx``), with as many threads as torch uses.

    A model with a fixed batch size gets exactly that many rows, padded with zeros.

    Args:
        path: the file.
        output: name of the output to use; by default the first.

    Attributes:
        version: SHA-256 of the file, so that answers of different files are stored apart. Weights in a separate file
            are not included.

    Raises:
        TutelageError: onnxruntime is not installed, the file is not a model, it has not exactly one float32 input, or
            no output of that name.
    """

    def __init__(self, path: str, output: str | None = None):
        self._session = open_session(Path(path))
        self.path = path
        self.version = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        outputs = [found.name for found in self._session.get_outputs()]
        if output is not None and output not in outputs:
            raise TutelageError(f"{path} has no output {output!r}; {nearest(output, outputs)}")
        self._output = output or outputs[0]
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or inputs[0].type != "tensor(float)":
            raise TutelageError(f"{path}: expected one input, float32; found {[(i.name, i.type) for i in inputs]}")
        self._input: str = inputs[0].name
        self._batch = inputs[0].shape[0] if inputs[0].shape and isinstance(inputs[0].shape[0], int) else None

    def __call__(self, images: NDArray[np.float32]) -> NDArray[Any]:
        """Returns the model's outputs [B, C] for images [B, C, H, W].

        Raises:
            TutelageError: the model fails on images of this shape.
        """
        size = self._batch or len(images)
        return np.concatenate([self._run(images[at : at + size], size) for at in range(0, len(images), size)])

    def _run(self, images: NDArray[np.float32], size: int) -> NDArray[Any]:
        filled = np.zeros((size, *images.shape[1:]), np.float32)
        filled[: len(images)] = images
        try:
            return self._session.run([self._output], {self._input: filled})[0][: len(images)]
        except Exception as error:  # as above
            raise TutelageError(f"{self.path} cannot take images {list(filled.shape)}: {first_line(error)}") from error


def open_session(path: Path, threads: int | None = None) -> Any:
    """Returns a session of onnxruntime on the CPU.

    Args:
        path: an ONNX file.
        threads: of an operator; None: as many as torch uses.

    Raises:
        TutelageError: onnxruntime is not installed, or the file is missing or not a model.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise TutelageError("an ONNX model needs onnxruntime: pip install 'tutelage[onnx]'") from error
    if not path.is_file():
        raise TutelageError(f"{path.absolute()}: no such ONNX file")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads() if threads is None else threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # it would compete with training
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exceptions share no other base
        raise TutelageError(f"{path}: onnxruntime cannot load it ({first_line(error)})") from error
