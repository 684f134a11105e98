"""ONNX files, for onnxruntime, OpenVINO, browsers and others."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from tutelage.compat.torch import write_onnx
from tutelage.errors import TutelageError, first_line
from tutelage.exporting.base import Format, raw_of
from tutelage.exporting.runtimes import OnnxRuntime
from tutelage.exporting.subject import Subject
from tutelage.types import Batch

DESCRIPTION = "tutelage"  # key of what a file says of itself


class Onnx(Format):
    """One file, with batches of any size, and of texts of any length; it describes itself in its metadata."""

    name = "onnx"
    file = "model.onnx"
    packages = ("onnx", "onnxruntime")

    def write(self, subject: Subject, folder: Path, calibration: Callable[[], list[Batch]]) -> None:
        """Writes ``model.onnx``.

        Raises:
            TutelageError: the network has an operator that ONNX lacks.
        """
        write_plain(subject, folder / self.file, self.name)

    def runtime(self, subject: Subject, folder: Path) -> nn.Module:
        """Returns the file under onnxruntime."""
        return OnnxRuntime(folder / self.file, raw_of(subject))


def write_plain(subject: Subject, path: Path, name: str) -> None:
    """Writes a network as ONNX, in the precision that it has.

    Raises:
        TutelageError: the network has an operator that ONNX lacks.
    """
    arguments = subject.arguments(subject.example)
    try:
        write_onnx(subject.entrance, arguments, subject.axes(), [*subject.example], path)
    except Exception as error:  # whatever an exporter raises
        path.unlink(missing_ok=True)
        raise TutelageError(
            f"format={name}: {type(subject.net).__name__} can't be written as ONNX: {first_line(error)}"
        ) from error
    describe(path, subject.about)


def describe(path: Path, about: dict[str, Any]) -> None:
    """Adds what a file says of itself to its metadata."""
    import onnx

    model = onnx.load(path)
    entry = model.metadata_props.add()
    entry.key, entry.value = DESCRIPTION, json.dumps(about)
    onnx.save(model, path)
