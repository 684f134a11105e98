"""A fresh environment: the package's wheel and the packages that it requires, without the checkout and the extras."""

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution, distributions
from importlib.util import find_spec
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]


def _run(*command: object) -> None:
    done = subprocess.run([sys.executable, "-m", *map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def environment(folder: Path) -> Path:
    """Makes a virtual environment of the wheel that it builds; returns the environment's folder.

    What the wheel requires is linked from the packages of this Python. Nothing is downloaded but, where hatchling is
    not installed, hatchling, for the build.
    """
    isolation = ["--no-isolation"] if find_spec("hatchling") else []
    _run("build", "--wheel", *isolation, "--outdir", folder / "dist", ROOT)
    fresh = folder / "fresh"
    _run("venv", "--without-pip", fresh)
    wheel = next((folder / "dist").glob("*.whl"))
    _run("pip", "--python", fresh / "bin" / "python", "install", "-q", "--no-index", "--no-deps", wheel)
    site = next((fresh / "lib").glob("python*/site-packages"))
    own = next(iter(distributions(path=[str(site)])))
    for name in _required(own.requires or [], set()):
        _link(name, site)
    return fresh


def _required(lines: list[str], asked: set[str], extras: frozenset[str] = frozenset()) -> set[str]:
    """Adds to ``asked`` the names that these requirements lead to; an extra's where it is among ``extras``."""
    for one in map(Requirement, lines):
        wanted = one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in ("", *extras))
        if wanted and not {one.name, *(f"{one.name}[{extra}]" for extra in one.extras)} <= asked:
            asked |= {one.name, *(f"{one.name}[{extra}]" for extra in one.extras)}
            try:
                _required(distribution(one.name).requires or [], asked, frozenset(one.extras))
            except PackageNotFoundError:  # such as CUDA's libraries, where torch is built without
                continue
    return asked


def _link(name: str, site: Path) -> None:
    """Links a distribution's modules and metadata into ``site``."""
    try:
        found = distribution(name.partition("[")[0])
    except PackageNotFoundError:
        return
    for part in {file.parts[0] for file in found.files or []} - {"..", "__pycache__"}:
        if not (site / part).exists():
            (site / part).symlink_to(found.locate_file(part))
