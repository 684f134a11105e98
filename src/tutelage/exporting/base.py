"""The interface of a format of exported files."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.exporting.subject import Subject
from tutelage.types import Batch


class Format(ABC):
    """A format that networks are written in.

    Attributes:
        name: on the command line.
        file: its main file, in the folder of the export.
        packages: what writing and measuring it imports.
    """

    name: ClassVar[str]
    file: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ()

    def check(self) -> None:
        """Checks that what it needs is installed.

        Raises:
            TutelageError: it is not.
        """
        if missing := [package for package in self.packages if find_spec(package) is None]:
            raise TutelageError(f"format={self.name} needs {' and '.join(missing)}: pip install 'tutelage[onnx]'")

    @abstractmethod
    def write(self, subject: Subject, folder: Path, calibration: Callable[[], list[Batch]]) -> None:
        """Writes the network into a folder.

        Args:
            subject: what is exported.
            folder: exists.
            calibration: training examples without augmentation, for formats that need some.

        Raises:
            TutelageError: the format can't express the network.
        """

    @abstractmethod
    def runtime(self, subject: Subject, folder: Path) -> nn.Module:
        """Returns the written file as a network that reads the fields of the data's batches."""


def raw_of(subject: Subject) -> Callable[[Tensor], Tensor] | None:
    """Returns what makes raw pixels of normalised images; None where the file takes these."""
    return None if subject.pixels is None else subject.pixels.undone
