"""All formats, by the name that the command line has for them."""

from collections.abc import Iterable

from tutelage.errors import TutelageError, nearest
from tutelage.exporting.base import Format
from tutelage.exporting.int8 import Int8
from tutelage.exporting.onnx import Onnx
from tutelage.exporting.safetensors import Safetensors
from tutelage.exporting.torch_export import TorchExport

FORMATS: dict[str, Format] = {one.name: one for one in (Safetensors(), Onnx(), TorchExport(), Int8())}


def chosen(names: str | Iterable[str]) -> list[Format]:
    """Returns formats by name, each once, ready to write.

    Raises:
        TutelageError: there is none, one is unknown, or what it needs is not installed.
    """
    wanted = dict.fromkeys([names] if isinstance(names, str) else [str(name) for name in names])
    if not wanted:
        raise TutelageError(f"format=[]: expected one or several of {', '.join(FORMATS)}")
    for name in wanted:
        if name not in FORMATS:
            raise TutelageError(f"format: there is no {name!r}; {nearest(name, FORMATS)}")
        FORMATS[name].check()
    return [FORMATS[name] for name in wanted]
