"""``tutelage export``: writes a trained network in other formats, and measures the files."""

import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from torch import Tensor, nn

from tutelage.checkpoints.weights import digest
from tutelage.config.saved import checkpoint_of, data_of, network_of, task_of
from tutelage.config.unknown_keys import refuse_unknown_keys
from tutelage.config.validate import number
from tutelage.data.module import Data
from tutelage.errors import TutelageError
from tutelage.evaluation.cost import multiply_adds, parameters
from tutelage.exporting.base import Format
from tutelage.exporting.card import card
from tutelage.exporting.formats import chosen
from tutelage.exporting.measure import AnswersOfFile, measured, paired_difference, with_interval
from tutelage.exporting.subject import FromPixels, Subject, fields_of
from tutelage.exporting.table import table
from tutelage.pipeline.described import description, files_beside
from tutelage.pipeline.export_folder import FIGURES, ExportFolder
from tutelage.pipeline.sweep import given
from tutelage.pipeline.timing import BATCHES, timed
from tutelage.report.charts import NAMES
from tutelage.report.runs import Run, read_run
from tutelage.runtime.files import write_atomically
from tutelage.runtime.job import short_job
from tutelage.runtime.json_files import write_json
from tutelage.tasks.base import Task
from tutelage.types import Batch

log = logging.getLogger(__name__)

_KEYS = (
    "checkpoint", "format", "output", "overwrite", "preprocess", "calibration", "teacher", "split", "threads", "data",
    "trust", "paths.outputs",
)  # fmt: skip
_AT_ONCE = 32  # calibration examples


def export_job(cfg: DictConfig) -> Path:
    """Exports ``checkpoint``; prints a table of the files and what they measure, and returns their folder."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    with short_job(cfg, folder, given(HydraConfig.get())):
        refuse_unknown_keys(cfg, _KEYS)
        output, document = export(cfg)
    Console(soft_wrap=True).print(table(document))
    print(output)
    return output


def export(cfg: DictConfig) -> tuple[Path, dict[str, Any]]:
    """Writes a network in the formats of a config.

    Args:
        cfg: of the verb.

    Returns:
        The folder, and the content of its ``export.json``.

    Raises:
        TutelageError: a key or the checkpoint is wrong, the folder holds something else, or a format can't express the
            network; then the folder is as it was.
    """
    formats = _check(cfg)
    checkpoint = checkpoint_of(cfg)
    net, header = network_of(checkpoint, cfg.trust)
    output = Path(cfg.output) if cfg.output is not None else default_folder(checkpoint)
    place = ExportFolder(output, digest(net), cfg.overwrite)
    data = data_of(header, cfg.data, checkpoint, cfg.trust)
    task = task_of(header, data, checkpoint, cfg.trust)
    subject = _subject(cfg, net, header, data)
    work = output.with_name(f".{output.name}.{os.getpid()}.work")
    work.mkdir(parents=True)
    try:
        for one in formats:
            one.write(subject, work, lambda: _calibration(data, cfg.calibration))
        beside = files_beside(header, data, [*subject.example])
        document = _Measuring(cfg, subject, data, task, checkpoint).document(formats, work)
        document["formats"] = place.formats(document)
        write_json(work / FIGURES, document)
        run = _run_of(checkpoint)
        page = card(document, run.metrics if run else {}, run.provenance if run else {}, [*beside], NAMES)
        for name, content in {**beside, "README.md": page}.items():
            write_atomically(work / name, content.encode())
        place.publish(work)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return output, document


def _check(cfg: DictConfig) -> list[Format]:
    if OmegaConf.is_missing(cfg, "checkpoint"):
        raise TutelageError("checkpoint=… is needed: a file that `tutelage distill` wrote, such as …/last.safetensors")
    if cfg.split not in ("val", "test"):
        raise TutelageError(f"split must be val or test; found {cfg.split!r}")
    for key in ("calibration", "threads"):
        if cfg[key] is not None:
            number(cfg, key, 1, whole=True)
    names = cfg.format if isinstance(cfg.format, str) else OmegaConf.to_container(cfg.format)
    return chosen(names)  # type: ignore[arg-type]


def default_folder(checkpoint: Path) -> Path:
    """Returns the default folder of the files: in the run's, ``export`` with the weights' path in ``checkpoints``."""
    path = checkpoint.absolute()
    if (folder := _folder_of(checkpoint)) is None:
        return path.parent / "export" / path.stem
    return folder / "export" / path.relative_to(folder / "checkpoints").with_suffix("")


def _folder_of(checkpoint: Path) -> Path | None:
    """Returns the folder whose ``checkpoints``, or a folder in it, has the file, such as a run's; None without one."""
    above = checkpoint.absolute().parents
    return next((folder.parent for folder in above if folder.name == "checkpoints"), None)


def _subject(cfg: DictConfig, net: nn.Module, header: Mapping[str, Any], data: Data) -> Subject:
    about, sample = description(header), data.sample(2)
    pixels = None
    if cfg.preprocess is not None:
        if not about["mean"] or not about["std"]:
            raise TutelageError(f"preprocess={cfg.preprocess}: the data have no mean and std of pixels (data.mean)")
        pixels = FromPixels(str(cfg.preprocess), about["mean"], about["std"])
    example = fields_of(net, sample)
    about |= {"fields": [*example], "preprocess": cfg.preprocess}
    return Subject(
        net.eval(), example, pixels, about, header, lambda path: network_of(path, cfg.trust)[0],
        texts=data.vocab_size is not None,
    )  # fmt: skip


def _calibration(data: Data, count: int) -> list[Batch]:
    """Returns training examples without augmentation: the first of a permutation with a fixed seed."""
    dataset: Any = data.whole("train").dataset
    rows = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))[:count]
    return [dataset[0, some] for some in data.short_first(dataset, rows).split(_AT_ONCE)]


def _run_of(checkpoint: Path) -> Run | None:
    """Returns the run that a checkpoint belongs to; None of another file."""
    if (folder := _folder_of(checkpoint)) is None or not (folder / "metrics.json").is_file():
        return None
    found = read_run(folder)
    return None if found.problem else found


@dataclass(frozen=True, eq=False)
class _Measuring:
    """Measures exported files beside the network and its teacher."""

    cfg: DictConfig
    subject: Subject
    data: Data
    task: Task
    checkpoint: Path

    def document(self, formats: list[Format], folder: Path) -> dict[str, Any]:
        """Returns the content of ``export.json``."""
        net = self.subject.net
        trained = self._answers(net)
        document: dict[str, Any] = {
            "schema": 1, "checkpoint": str(self.checkpoint.absolute()), "weights": digest(net),
            "about": dict(self.subject.header), "described": self.subject.about, "split": self.cfg.split,
            "threads": self._threads, "task": self.task.figure_kinds.document(), "parameters": parameters(net),
            "multiply_adds": multiply_adds(net, self.data.sample(1)),
            "headline": with_interval(self.task, trained.saved),
            "trained": self._entry(trained, self.checkpoint, self._inputs(raw=False)),
        }  # fmt: skip
        if teacher := self._teacher():
            document["teacher"] = teacher
        document["formats"] = {one.name: self._of_format(one, folder, trained) for one in formats}
        return document

    @property
    def _threads(self) -> int:
        return int(self.cfg.threads or torch.get_num_threads())

    def _answers(self, net: nn.Module) -> AnswersOfFile:
        fields = [*self.subject.example]
        return measured(net, self.subject.net, fields, self.data.whole(self.cfg.split), self.task)

    def _of_format(self, one: Format, folder: Path, trained: AnswersOfFile) -> dict[str, Any]:
        log.info("measuring %s", one.file)
        found = self._answers(one.runtime(self.subject, folder))
        raw = self.subject.pixels is not None
        entry = {"file": one.file, **self._entry(found, folder / one.file, self._inputs(raw))}
        return {
            **entry, "largest_difference": found.difference,
            "difference": paired_difference(self.task, found.saved, trained.saved),
        }  # fmt: skip

    def _entry(self, found: AnswersOfFile, path: Path, inputs: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
        spent = timed(path, inputs, self._threads, [*self.cfg.trust])
        return {"bytes": path.stat().st_size, "figures": found.figures, **spent}

    def _inputs(self, raw: bool, fields: Mapping[str, Tensor] | None = None) -> dict[int, dict[str, Any]]:
        """Returns what latency is measured on: the first examples of the split, repeated where there are fewer."""
        dataset: Any = self.data.whole(self.cfg.split).dataset
        batch = dataset[0, torch.arange(max(BATCHES)) % len(dataset)]
        names = [*(fields or self.subject.example)]
        values = {name: batch[name] for name in names}
        if raw:
            values = dict(zip(names, self.subject.arguments(batch), strict=True))
        return {size: {name: x[:size].numpy() for name, x in values.items()} for size in BATCHES}

    def _teacher(self) -> dict[str, Any] | None:
        """Returns the entry of the teacher; None without a file of one that reads the same data."""
        path = self.cfg.teacher
        if path is None and (run := _run_of(self.checkpoint)) and (place := run.place("teacher")):
            path = place / f"{run.weights('teacher', 'last')}.safetensors"
            if not path.is_file():
                return None
        if path is None:
            return None
        net = network_of(path, self.cfg.trust)[0].eval()
        fields = fields_of(net, self.data.sample(2))
        found = measured(net, net, [*fields], self.data.whole(self.cfg.split), self.task)
        return {
            "checkpoint": str(Path(path).absolute()), "parameters": parameters(net),
            **self._entry(found, Path(path), self._inputs(raw=False, fields=fields)),
        }  # fmt: skip
