"""Files of folders, of patterns, of installed packages and of the local cache of a hub."""

import glob
import hashlib
import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

WEIGHTS = (".safetensors", ".pth", ".pt", ".bin")  # suffixes of files of weights


def listed(path: Path) -> list[Path]:
    """Returns the files below a folder, or those that a pattern such as ``shards/*.tar`` names, sorted.

    Empty for a folder that contains the current one, in which outputs and code lie, too.
    """
    if path.is_dir():
        if Path.cwd().is_relative_to(path.resolve()):
            return []
        return sorted(Path(root, name) for root, _, names in os.walk(path) for name in names)
    return [Path(name) for name in sorted(glob.glob(str(path), recursive=True))] if glob.has_magic(str(path)) else []


def listing_digest(files: Sequence[Path]) -> str:
    """Returns a SHA-256 (64 hex digits) of the path, size and time of modification of each file, wherever they lie."""
    made, start = hashlib.sha256(), os.path.commonpath(files)
    for file in files:
        stat = file.stat() if file.exists() else file.lstat()  # a link to nothing
        made.update(repr((os.path.relpath(file, start), stat.st_size, stat.st_mtime_ns)).encode())
    return made.hexdigest()


def package_files(name: str, suffixes: Sequence[str]) -> list[Path]:
    """Returns the files with one of these suffixes in an installed package, which is not imported; empty without it."""
    spec = find_spec(name) if name.isidentifier() else None
    folders = spec.submodule_search_locations or [] if spec is not None else []
    return sorted(file for folder in folders for file in Path(folder).rglob("*") if file.suffix in suffixes)


def hub_files(name: str, suffixes: Sequence[str]) -> list[Path]:
    """Returns the files with one of these suffixes that Hugging Face's local cache has of a repository's last revision.

    Nothing is downloaded; empty for what is no name of a repository, such as ``org/model``, or is not in the cache.
    """
    if name.count("/") > 1 or find_spec("huggingface_hub") is None:
        return []
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, "config.json")
    except HFValidationError:
        return []
    folder = Path(found).parent if isinstance(found, str) else None
    return [] if folder is None else sorted(file for file in folder.iterdir() if file.suffix in suffixes)
