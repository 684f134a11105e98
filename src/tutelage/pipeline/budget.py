"""``tutelage budget``: students that meet a target, each measured on this machine, and the sweep over them."""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from tutelage.config import factory
from tutelage.config.plan import settled
from tutelage.config.validate import check, check_resolves, number
from tutelage.data.module import Data
from tutelage.errors import TutelageError, explain
from tutelage.evaluation.cost import multiply_adds, parameters
from tutelage.evaluation.predictions import eval_mode
from tutelage.models.tapped import Tapped, run
from tutelage.pipeline.candidates import Candidate, candidates, commands
from tutelage.pipeline.sweep import given
from tutelage.pipeline.timing import median_latency
from tutelage.runtime.job import short_job
from tutelage.runtime.json_files import write_json
from tutelage.runtime.text import as_text, in_a_line

log = logging.getLogger(__name__)

FIGURES = "budget.json"
TARGETS = ("parameters", "bytes", "milliseconds")
_KEYS = (*TARGETS, "batch_size", "threads", "each", "families", "timm", "students")
_SECONDS = 0.2  # that a student is timed


@dataclass(frozen=True)
class Affordable:
    """A student that meets the targets.

    Attributes:
        family: that it is one of.
        overrides: of ``tutelage distill``, that choose it.
        name: what it is called.
        parameters: their number.
        bytes: of its weights and buffers.
        multiply_adds: of one example; None where they can't be counted.
        milliseconds: median of one batch.
    """

    family: str
    overrides: tuple[str, ...]
    name: str
    parameters: int
    bytes: int
    multiply_adds: int | None
    milliseconds: float


@dataclass(frozen=True)
class Budget:
    """Students that meet a target; as text, a table.

    Attributes:
        target: the most that a student may have of ``parameters``, ``bytes`` and ``milliseconds``, as far as given.
        students: those that are listed, the nearest to the first target first.
        commands: of sweeps over them.
        batch_size: examples of a batch that is timed.
        threads: of PyTorch.
        tried: number of students that can take the data.
        met: number of those that meet the target.
        left_out: model that can't take the data → why.

    Examples:
        >>> import tutelage as tt
        >>> found = tt.Budget({"parameters": 100}, (), (), batch_size=1, threads=1, tried=3, met=0, left_out={})
        >>> found.document()["target"]
        {'parameters': 100}
    """

    target: Mapping[str, float]
    students: tuple[Affordable, ...]
    commands: tuple[str, ...]
    batch_size: int
    threads: int
    tried: int
    met: int
    left_out: Mapping[str, str]

    def document(self) -> dict[str, Any]:
        """Returns the content of ``budget.json``."""
        return {"schema": 1, **asdict(self)}

    def table(self) -> Table:
        """Returns the table for a terminal."""
        caption = (
            f"{self.met} of {self.tried} students meet {_text(self.target)}. Latency: median of a batch of "
            f"{self.batch_size} in PyTorch on the CPU, {self.threads} thread{'s' * (self.threads > 1)}; multiply-adds "
            "of one example."
        )
        if self.left_out:
            caption += f" These can't take the data: {', '.join(self.left_out)}."
        made = Table(box=SIMPLE_HEAD, show_edge=False, caption=caption, caption_justify="left")
        made.add_column("student", overflow="fold")
        for head in ("parameters", "kB", "multiply-adds", "ms"):
            made.add_column(head, justify="right")
        for one in self.students:
            macs = "–" if one.multiply_adds is None else f"{one.multiply_adds:,}"
            made.add_row(one.name, f"{one.parameters:,}", f"{one.bytes / 1000:,.1f}", macs, f"{one.milliseconds:.3g}")
        return made

    def __str__(self) -> str:
        return as_text([self.table()])


def budget_job(cfg: DictConfig) -> None:
    """Lists students that meet the targets; prints them and the commands, and writes ``budget.json``."""
    hydra = HydraConfig.get()
    folder, words = Path(hydra.runtime.output_dir), given(hydra)
    with short_job(cfg, folder, words):
        found = budget(cfg, words, folder)
        write_json(folder / FIGURES, found.document())
    Console(soft_wrap=True).print(found.table())
    print(*found.commands, folder / FIGURES, sep="\n")


def budget(cfg: DictConfig, words: Sequence[str], folder: Path) -> Budget:
    """Tries students and measures those that may meet the targets.

    Args:
        cfg: of the verb.
        words: the overrides that it was composed with.
        folder: below which the sweeps over the students go.

    Raises:
        TutelageError: a key is wrong, no target is given, or no student meets it.
    """
    target, threads = _check(cfg), int(cfg.threads or torch.get_num_threads())
    words = _of_distill(words)
    chosen = candidates(cfg)
    own = settled(OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key not in _KEYS]), HydraConfig.get())
    stage = check(own, words, check_resolves(own)).student
    meter = _Meter(stage, factory.data(stage), target, int(cfg.batch_size))
    with _threads(threads):
        found = [(one, entry) for one in chosen if (entry := meter.measured(one)) is not None]
    if not found:
        raise TutelageError(_none(meter, target))
    listed = _nearest(found, next(iter(target)), cfg.each)
    return Budget(
        target, tuple(entry for _, entry in listed),
        tuple(commands(words, [one for one, _ in listed], _relative(folder), int(cfg.seed))),
        meter.batch_size, threads, len(meter.counts), len(found), meter.left_out,
    )  # fmt: skip


def _check(cfg: DictConfig) -> dict[str, float]:
    target = {name: cfg[name] for name in TARGETS if cfg[name] is not None}
    if not target:
        raise TutelageError(
            "a target is needed: parameters=…, bytes=… or milliseconds=…, the most that a student may have"
        )
    for name in target:
        number(cfg, name, above=0)
    for name in ("batch_size", "threads", "each"):
        if cfg[name] is not None or name == "batch_size":
            number(cfg, name, 1, whole=True)
    return target


def _of_distill(words: Sequence[str]) -> list[str]:
    """Returns the overrides that are ``tutelage distill``'s, too."""
    kept = []
    for word, one in zip(words, OverridesParser.create().parse_overrides([*words]), strict=True):
        key = one.get_key_element().lstrip("+~")
        if key == "model@student" or key.split(".")[0] == "student":
            raise TutelageError(
                f"{word}: the student is what budget looks for; a family of your own is "
                "'+students.mine=\"model@student=… student.net.width=8,16\"'"
            )
        if key.split(".")[0] not in (*_KEYS, "hydra"):
            kept.append(word)
    return kept


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Meter:
    """Builds students and measures them on a batch of the data."""

    def __init__(self, stage: DictConfig, data: Data, target: Mapping[str, float], batch_size: int):
        self.stage, self.data, self.target = stage, data, target
        self.task, self.sample, self.example = factory.task(stage, data), data.sample(batch_size), data.sample(1)
        self.batch_size = len(self.sample["label"])
        self.counts: dict[str, int] = {}  # parameters of those that take the data
        self.left_out: dict[str, str] = {}

    def measured(self, one: Candidate) -> Affordable | None:
        """Returns what a student measures; None if it can't take the data or does not meet the targets."""
        if one.model in self.left_out:
            return None
        node = one.node(self.stage)
        try:
            net = factory.network(node, self.stage.seed, "student")
            self._check_answers(net)
        except Exception as error:  # whatever a network raises on inputs that it is not made for
            self.left_out[one.model] = in_a_line((explain(error).splitlines() or [type(error).__name__])[0])
            return None
        self.counts[one.name] = count = parameters(net.net)
        size = sum(x.numel() * x.element_size() for x in net.net.state_dict().values())
        if count > self.target.get("parameters", count) or size > self.target.get("bytes", size):
            return None
        with eval_mode(net.net), torch.inference_mode():
            spent, _ = median_latency(lambda: run(net.net, self.sample), _SECONDS)
        log.info("%s: %s parameters, %.3g ms", one.name, f"{count:,}", spent)
        if spent > self.target.get("milliseconds", spent):
            return None
        return Affordable(one.family, one.words, one.name, count, size, multiply_adds(net.net, self.example), spent)

    def _check_answers(self, net: Tapped) -> None:
        with eval_mode(net), torch.no_grad():
            found = list(net(self.sample)["logits"].shape)
        if found != (expected := self.task.logits_shape(self.sample["label"], self.data.num_outputs)):
            raise TutelageError(f"its logits are {found}; the data's labels need {expected}")


def _nearest(
    found: Sequence[tuple[Candidate, Affordable]], target: str, each: int | None
) -> list[tuple[Candidate, Affordable]]:
    """Returns students with the greatest value of a target first, of each family the first few."""
    kept, of_family = [], dict[str, int]()
    for one, entry in sorted(found, key=lambda pair: -getattr(pair[1], target)):
        of_family[one.family] = place = of_family.get(one.family, 0) + 1
        if each is None or place <= each:
            kept.append((one, entry))
    return kept


def _none(meter: _Meter, target: Mapping[str, float]) -> str:
    if not meter.counts:
        name, why = next(iter(meter.left_out.items()))
        return f"no student can take these data; {name}: {why}"
    name, count = min(meter.counts.items(), key=lambda pair: pair[1])
    return (
        f"none of {len(meter.counts)} students meets {_text(target)}; the smallest is {name} with {count:,} parameters"
    )


def _text(target: Mapping[str, float]) -> str:
    return " and ".join(f"{name}={value:,}" for name, value in target.items())


def _relative(folder: Path) -> str:
    here = os.path.relpath(folder)
    return str(folder) if here.startswith("..") else here
