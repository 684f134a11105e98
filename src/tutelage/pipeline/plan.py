"""Plans of whole commands: the tasks of one job, or of all jobs of a multirun, and how they are shown."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from rich import box
from rich.markup import escape
from rich.table import Table

from tutelage.config import factory
from tutelage.config.composed import check_words, composed, jobs_of_sweep
from tutelage.config.plan import settled
from tutelage.config.validate import check, check_resolves
from tutelage.errors import TutelageError
from tutelage.evaluation.cost import total
from tutelage.pipeline import sweep
from tutelage.pipeline.planned_tasks import GO_ON, REUSE, TRAIN, WRITE, PlannedTask
from tutelage.pipeline.survey import tasks_of
from tutelage.pipeline.try_out import try_out
from tutelage.runtime.messages import quiet
from tutelage.runtime.text import as_text, in_a_line


@dataclass(frozen=True)
class PlannedJob:
    """One job of a plan.

    Attributes:
        name: of a multirun's job what varies, else empty.
        tasks: all of its work, in its order.
        refused: why the job would end before its first step; empty if it would not.
    """

    name: str
    tasks: tuple[PlannedTask, ...]
    refused: str = ""


@dataclass(frozen=True)
class Plan:
    """The work that a command would do; as text, a table.

    Attributes:
        jobs: in their order.
    """

    jobs: tuple[PlannedJob, ...]

    @property
    def tasks(self) -> list[PlannedTask]:
        """Returns the tasks of all jobs, shared ones once."""
        return list({task.key: task for job in self.jobs for task in job.tasks}.values())

    def tables(self) -> list[Table | str]:
        """Returns what is printed."""
        if len(self.jobs) == 1 and not self.jobs[0].name:
            return [_table_of_tasks(self.jobs[0].tasks), _sentence(self.tasks)]
        return [_table_of_jobs(self.jobs), f"together, what several jobs share once: {_sentence(self.tasks)}"]

    def __str__(self) -> str:
        return as_text(self.tables())


def plan_jobs(words: Sequence[str], multirun: bool = False, verb: str = "distill") -> Plan:
    """Plans a command without training anything or making a folder.

    Args:
        words: its overrides.
        multirun: whether values with commas are those of several jobs.
        verb: ``distill`` or ``cache``.

    Raises:
        TutelageError: the command would be refused; of a multirun's jobs each says so by itself.
    """
    check_words(words)
    if not multirun:
        return Plan((_plan_job(list(words), verb),))
    constant = ",".join(f"'{key}'" for key in sweep.same(words))
    jobs = []
    for number, own in enumerate(jobs_of_sweep(words, verb)):
        own = [*own, f"hydra.job.config.override_dirname.exclude_keys=[{constant}]"]
        try:
            jobs.append(_plan_job(own, verb, number))
        except TutelageError as error:
            jobs.append(PlannedJob(f"#{number}", (), in_a_line(str(error).splitlines()[0])))
    return Plan(tuple(jobs))


def _plan_job(words: list[str], verb: str, number: int | None = None) -> PlannedJob:
    quiet()
    with composed(words, verb=verb, number=number) as (cfg, folder):
        cfg = settled(cfg, HydraConfig.get())
        config = check_resolves(cfg)
        plan = check(cfg, words, config)
        data = factory.data(plan.student)
        try_out(plan, data)
        own = folder if (folder / "config.yaml").is_file() else None
        tasks = tasks_of(plan, data, own, student=verb == "distill")
        return PlannedJob("" if number is None else Path(folder).name, tuple(tasks))


def _table_of_tasks(tasks: Iterable[PlannedTask]) -> Table:
    made = Table(box=box.SIMPLE_HEAD)
    for name in ("", "what", "artifact", "waits for"):
        made.add_column(name, overflow="fold")
    for name in ("epochs", "steps", "mult-adds", "disk"):
        made.add_column(name, justify="right")
    for task in tasks:
        known = f"{task.kind} {task.digest}" if task.digest else ""
        made.add_row(
            task.action, escape(task.name), f"{known}, made {task.made}" if task.made and known else known or task.made,
            escape(", ".join(task.after)), *_cost(task),
        )  # fmt: skip
    return made


def _cost(task: PlannedTask) -> list[str]:
    if task.is_there:
        return ["", "", "", ""]
    numbers = ["" if number is None else f"{number:,}" for number in (task.epochs, task.steps)]
    return [*numbers, "" if task.macs is None else f"{task.macs:.2g}", _size(task.bytes) if task.bytes else ""]


def _table_of_jobs(jobs: Iterable[PlannedJob]) -> Table:
    made = Table(box=box.SIMPLE_HEAD)
    for name in ("job", "trains", "writes", "reuses"):
        made.add_column(name, overflow="fold")
    for name in ("steps", "mult-adds", "disk"):
        made.add_column(name, justify="right")
    for job in jobs:
        if job.refused:
            made.add_row(escape(in_a_line(job.name)), f"[red]refused[/]: {escape(job.refused)}", *[""] * 5)
            continue
        done = [task for task in job.tasks if task.is_there]
        open_ = [task for task in job.tasks if not task.is_there]
        lists = [
            ", ".join(task.name for task in open_ if task.action in (TRAIN, GO_ON)),
            ", ".join(task.name for task in open_ if task.action == WRITE),
            ", ".join(task.name for task in done),
        ]
        steps, macs, size = _sums(job.tasks)
        made.add_row(escape(in_a_line(job.name)), *map(escape, lists), f"{steps:,}", macs, size)
    return made


def _sentence(tasks: Sequence[PlannedTask]) -> str:
    """Returns how much there is to do, in a line."""
    counts = Counter(task.action for task in tasks)
    trained = Counter(task.kind for task in tasks if task.action in (TRAIN, GO_ON))
    kinds = ", ".join(f"{count} {kind}{'s' * (count > 1)}" for kind, count in trained.items())
    steps, macs, size = _sums(tasks)
    work = f"{sum(trained.values())} to train ({kinds})" if trained else "nothing to train"
    more = f", {counts[GO_ON]} of them begun" if counts[GO_ON] else ""
    return (
        f"{work}{more}, {counts[WRITE]} to write, {counts[REUSE]} to reuse: {steps:,} steps, {macs} multiply-adds, "
        f"{size} on disk (estimated)"
    )


def _sums(tasks: Iterable[PlannedTask]) -> tuple[int, str, str]:
    todo = [task for task in tasks if not task.is_there]
    macs = total(task.macs for task in todo if task.steps or task.kind == "signals")
    return (
        sum(task.steps or 0 for task in todo),
        "unknown" if macs is None else f"{macs:.2g}",
        _size(sum(task.bytes for task in todo)),
    )


def _size(count: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
