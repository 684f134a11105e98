"""Versions of installed packages."""

import hashlib
import importlib.metadata
import re
from functools import cache

# Distributions with another name than the package; searching for it takes half a second.
_DISTRIBUTIONS = {"hydra": "hydra-core", "PIL": "pillow", "sklearn": "scikit-learn", "yaml": "PyYAML"}


@cache
def version(package: str) -> str | None:
    """The version of an installed package; with the checksums of its files, where Tutelage does not depend on it.

    None where it was not installed but put there.
    """
    name = _DISTRIBUTIONS.get(package, package)
    try:
        found = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        if not (names := importlib.metadata.packages_distributions().get(package)):
            return None
        found = importlib.metadata.distribution(name := names[0])
    if name == "tutelage" or _plain(name) in _needed():
        return found.version
    lines = [line for line in (found.read_text("RECORD") or "").splitlines() if ",sha256=" in line]
    content = "\n".join(sorted(line for line in lines if ".dist-info/" not in line))
    return f"{found.version} {hashlib.sha256(content.encode()).hexdigest()[:12]}"


@cache
def _needed() -> frozenset[str]:
    """Tutelage's dependencies, those of its extras included."""
    try:
        lines = importlib.metadata.requires("tutelage") or []
    except importlib.metadata.PackageNotFoundError:  # a checkout that was not installed
        lines = []
    return frozenset(_plain(re.split(r"[^\w.-]", line, maxsplit=1)[0]) for line in lines)


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
