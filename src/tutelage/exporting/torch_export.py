"""Programs of ``torch.export``, which PyTorch runs without the network's code."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from tutelage.compat.torch import traced_program
from tutelage.errors import TutelageError, first_line
from tutelage.exporting.base import Format, raw_of
from tutelage.exporting.runtimes import ProgramRuntime
from tutelage.exporting.subject import Subject
from tutelage.types import Batch


class TorchExport(Format):
    """One file ``model.pt2``, with batches of any size; ``tutelage.json`` in it describes the network."""

    name = "torch_export"
    file = "model.pt2"

    def write(self, subject: Subject, folder: Path, calibration: Callable[[], list[Batch]]) -> None:
        """Writes ``model.pt2``.

        Raises:
            TutelageError: the network branches on values, or does something else that a program can't.
        """
        try:
            program = traced_program(subject.entrance, subject.arguments(subject.example), subject.axes())
        except Exception as error:  # whatever torch raises
            raise TutelageError(
                f"format={self.name}: {type(subject.net).__name__} can't be written as a program of torch.export: "
                f"{first_line(error)}"
            ) from error
        with warnings.catch_warnings():  # of views, whose values it writes all the same
            warnings.filterwarnings("ignore", "No complete tensor found in the group")
            torch.export.save(program, folder / self.file, extra_files={"tutelage.json": json.dumps(subject.about)})

    def runtime(self, subject: Subject, folder: Path) -> nn.Module:
        """Returns the program."""
        return ProgramRuntime(folder / self.file, [*subject.example], raw_of(subject))
