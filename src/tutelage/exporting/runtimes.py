"""Exported files as networks again, so that everything that measures a network measures them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.errors import TutelageError, first_line
from tutelage.sources.onnx_model import open_session


class Runtime(nn.Module, ABC):
    """An exported file, asked like a network that reads fields of a batch by name.

    Args:
        fields: of a batch, in the order of the file's arguments.
        raw: makes raw pixels of a batch's ``input``; None where the file takes it as it is.
    """

    def __init__(self, fields: Sequence[str], raw: Callable[[Tensor], Tensor] | None = None):
        super().__init__()
        self.__dict__["_reads"] = {name: name for name in fields}
        self.raw = raw

    def forward(self, **values: Tensor) -> Tensor:
        """Returns logits [B, …, C] of the fields."""
        if self.raw is not None:
            values["input"] = self.raw(values["input"])
        return self.answer(values)

    @abstractmethod
    def answer(self, values: dict[str, Tensor]) -> Tensor:
        """Returns what the file answers to its own arguments."""


class OnnxRuntime(Runtime):
    """An ONNX file under onnxruntime.

    Args:
        path: the file.
        raw: as of :class:`Runtime`.

    Attributes:
        metadata: texts in the file, by name.

    Raises:
        TutelageError: onnxruntime is missing, or can't load the file.
    """

    def __init__(self, path: Path, raw: Callable[[Tensor], Tensor] | None = None):
        session: Any = open_session(path)
        super().__init__([one.name for one in session.get_inputs()], raw)
        self.path, self.session = path, session
        self.metadata = dict(session.get_modelmeta().custom_metadata_map)

    def answer(self, values: dict[str, Tensor]) -> Tensor:
        """Returns the first output.

        Raises:
            TutelageError: the file does not take such values.
        """
        try:
            found = self.session.run(None, {name: x.numpy() for name, x in values.items()})[0]
        except Exception as error:  # onnxruntime's own exceptions share no other base
            shapes = {name: [*x.shape] for name, x in values.items()}
            raise TutelageError(f"{self.path} cannot take {shapes}: {first_line(error)}") from error
        return torch.from_numpy(found)


class ProgramRuntime(Runtime):
    """A program of ``torch.export``.

    Args:
        path: the file.
        fields: as of :class:`Runtime`.
        raw: as of :class:`Runtime`.
    """

    def __init__(self, path: Path, fields: Sequence[str], raw: Callable[[Tensor], Tensor] | None = None):
        super().__init__(fields, raw)
        self.program = (torch.export.load(path).module(),)  # no child: it has no eval mode to set

    def answer(self, values: dict[str, Tensor]) -> Tensor:
        """Returns the program's logits."""
        logits: Tensor = self.program[0](*values.values())
        return logits
