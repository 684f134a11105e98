"""Names the runs of a sweep in TensorBoard: links to its jobs' curves, in one folder, by stage and cell.

TensorBoard names a run by its folder, so the curves of a job, ``<job>/tensorboard/student``, would come last in their
name, and a teacher that all jobs share would be there once a job. ``<sweep>/tensorboard`` has, for each job,
``student alpha=0.9,T=4 seed=1`` and ``final …`` (figures and HParams), and each teacher, control and assistant once:
``control seed=1 3f09ab``, with its seed and the first digits of its artifact.
"""

import logging
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode

from tutelage.config.resolvers import folder_name
from tutelage.runtime.json_files import read_json

log = logging.getLogger(__name__)

FOLDER = "tensorboard"  # of a job's curves, and of a sweep's links
_SHORT = {"loss.temperature": "T"}
_DIGITS = 6  # of an artifact's digest


@dataclass(frozen=True)
class SweepRuns:
    """The runs of one job of a sweep.

    Attributes:
        sweep: folder of the sweep.
        job: folder of the job.
        cell: what it varies, such as ``alpha=0.9,T=4 seed=1``.
    """

    sweep: Path
    job: Path
    cell: str

    def begin(self) -> None:
        """Links the student's curves, before they are there, so that its training can be watched."""
        self._link(f"student {self.cell}", "student", f"student {folder_name(self._place)}")

    def finish(self) -> None:
        """Links all curves of the finished job; of its artifacts those that no other job's folder is linked for."""
        if not (self.job / FOLDER).is_dir():
            return
        self.begin()
        self._link(f"final {self.cell}", "final", f"final {folder_name(self._place)}")
        for made in read_json(self.job / "artifacts.json").values():
            folder = Path(made["folder"])
            if "recipe" in made and (folder / FOLDER).is_dir():
                for curves in sorted((folder / FOLDER).iterdir()):
                    name = f"{curves.name} seed={made['recipe'].get('seed')} {folder.name[:_DIGITS]}"
                    self._link(name, curves.name)

    @property
    def _place(self) -> str:
        return self.job.relative_to(self.sweep).as_posix()

    def _link(self, name: str, stage: str, otherwise: str = "") -> None:
        """Makes a link; where another job's has the name, ``otherwise`` is taken, or that one stays."""
        link, target = self.sweep / FOLDER / name, os.path.relpath(self.job / FOLDER / stage, self.sweep / FOLDER)
        try:
            link.parent.mkdir(exist_ok=True)
            with suppress(FileExistsError):
                link.symlink_to(target)
            if os.readlink(link) == target:
                return
            if not link.exists():  # to a job that is no longer there
                link.unlink()
                link.symlink_to(target)
            elif otherwise:
                self._link(otherwise, stage)
        except OSError as error:  # such as a file system without links: the curves themselves are written
            log.debug("no link to TensorBoard's files: %s", error)


def of_job(hydra: Any, job: Path) -> SweepRuns | None:
    """Returns the runs of a job of a multirun; None of any other job.

    Args:
        hydra: Hydra's part of the job's config.
        job: its folder.
    """
    sweep = Path(str(hydra.sweep.dir)).absolute()
    if hydra.mode != RunMode.MULTIRUN or sweep not in job.absolute().parents:
        return None
    constant = set(hydra.job.config.override_dirname.exclude_keys)
    name = cell_name([str(one) for one in hydra.overrides.task], constant)
    return SweepRuns(sweep, job.absolute(), name or folder_name(job.absolute().relative_to(sweep).as_posix()))


def cell_name(overrides: Sequence[str], constant: Iterable[str] = ()) -> str:
    """Returns what a job's overrides vary, seed last: ``alpha=0.9,T=4 seed=1``.

    A key is shortened to its last part where that is unique among them.

    Args:
        overrides: of the job.
        constant: keys and groups that all jobs have the same value of.
    """
    fixed, parsed = {*constant}, OverridesParser.create().parse_overrides([*overrides])
    varied = [one for one in parsed if one.key_or_group not in fixed]
    found = {one.get_key_element().lstrip("+~"): str(one.get_value_element_as_str()) for one in varied}
    values = dict(sorted(found.items()))
    seed = values.pop("seed", None)
    last = [_last(key) for key in values]
    short = [_SHORT.get(key, name if last.count(name) == 1 else key) for key, name in zip(values, last, strict=True)]
    cell = folder_name(",".join(f"{key}={value}" for key, value in zip(short, values.values(), strict=True)))
    return " ".join(part for part in (cell, f"seed={seed}" if seed is not None else "") if part)


def _last(key: str) -> str:
    """Returns the last part of a key; of a group with a package, the package."""
    return key.rpartition("@")[2].rpartition(".")[2]
