"""Says what a job would train, reuse and write, without training: by the recipes that the job itself would use."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from tutelage.checkpoints.weights import load_into
from tutelage.config import factory
from tutelage.config.plan import JobPlan, TeacherPlan, replaced
from tutelage.config.source_nodes import networks, without_files
from tutelage.data.module import Data
from tutelage.evaluation.cost import total
from tutelage.evaluation.predictions import Predictions
from tutelage.evaluation.results import read_answers
from tutelage.pipeline import artifacts
from tutelage.pipeline.planned_costs import bytes_of_network, cost_beside_sources, cost_of_training, macs
from tutelage.pipeline.planned_tasks import GO_ON, REUSE, TRAIN, WRITE, PlannedTask
from tutelage.pipeline.specialists import find_or_take_groups, recipe_of_all, trainings_of
from tutelage.pipeline.student_start import recipe_of_start
from tutelage.pipeline.supervised import recipe
from tutelage.pipeline.teacher_cache import bytes_of_example, recipe_of_signals, to_cache, verify_signals
from tutelage.pipeline.teachers import (
    fill,
    fill_specialists,
    recipe_of_assistant,
    recipe_of_ensemble,
    recipe_of_given,
    taught_by,
    training,
)
from tutelage.runtime import manifest
from tutelage.runtime.files import recipe_digest
from tutelage.runtime.job import is_complete
from tutelage.runtime.json_files import read_json


def tasks_of(plan: JobPlan, data: Data, folder: Path | None = None, student: bool = True) -> list[PlannedTask]:
    """Returns all work of a job in its order.

    Args:
        plan: of the job.
        data: the student's, loaded.
        folder: the job's, where it may have been begun or finished; None for a new one.
        student: also the control and the student; False for ``tutelage cache``.

    Raises:
        TutelageError: a file that is given can't be read, or a cache that is named does not fit.
    """
    survey = _Survey(plan, data)
    survey.teachers()
    survey.assistants()
    survey.signals(survey.stage, "")
    if student:
        survey.control()
        survey.student(folder)
    return survey.tasks


class _Survey:
    """Walks through a job as :func:`tutelage.pipeline.distill.distill` does, and makes nothing.

    ``stage`` is the student's; its sources have the files of networks as far as these are there, and ``waits`` has the
    tasks for the others.
    """

    def __init__(self, plan: JobPlan, data: Data):
        self.plan, self.data, self.stage = plan, data, plan.student
        self.since = artifacts.oldest(plan.config)
        self.tasks: list[PlannedTask] = []
        self.waits: list[PlannedTask] = []

    def teachers(self) -> None:
        """Notes the networks of ``sources`` and what is combined of them."""
        sources = factory.writable(self.plan.student.sources)
        found: dict[str, list[tuple[PlannedTask, Path]]] = {str(name): [] for name in sources}
        for one in self.plan.teachers:
            several = sum(other.source == one.source for other in self.plan.teachers) > 1
            name = f"{one.source} {len(found[one.source]) + 1}" if several else one.source
            found[one.source].append(self._teacher(one, name))
        for key, node in sources.items():
            name = str(key)
            own = [folder for _, folder in found[name]]
            missing = [task for task, _ in found[name] if not task.is_there]
            fill(node, own, self.plan.weights)
            group = node.get("source") or node
            if own and "members" in group:
                made = self._combined(name, recipe_of_ensemble(group, own, self.plan.weights), "ensemble", missing)
                if made.is_there:
                    place = self.plan.artifacts / made.kind / str(made.digest)
                    group.weights = read_json(place / "stage.json")["weights"]
                else:
                    missing.append(made)
            if "generalist" in group:
                missing += self._specialists(name, group, *found[name][0])
            self.waits += missing
        self.stage = replaced(self.plan.student, {"sources": sources})

    def _teacher(self, one: TeacherPlan, name: str) -> tuple[PlannedTask, Path]:
        """Notes a network of ``sources``; returns the artifact that teaches and its folder."""
        if one.is_given:
            return self._given(one, name, one.checkpoint)
        data, stage = self._data(one.training), one.training
        task, folder = self._artifact(
            name, "teacher", training(self.plan, one).recipe(data), TRAIN, **cost_of_training(stage, data)
        )
        if self.plan.epoch is None:
            return task, folder
        if task.is_there:
            file = folder / "epochs" / f"{self.plan.epoch}.safetensors"
            return self._given(replace(one, loading={}), f"epoch {self.plan.epoch} of {name}", str(file))
        later = PlannedTask(
            f"epoch {self.plan.epoch} of {name}", "given", WRITE, f"{task.key} {self.plan.epoch}", after=(task.name,)
        )
        self.tasks.append(later)
        return later, folder

    def _given(self, one: TeacherPlan, name: str, file: str | None) -> tuple[PlannedTask, Path]:
        """Notes a network from a file, or as it is built, whose predictions are an artifact."""
        net = factory.network(one.training.network, one.training.seed, "teacher").net
        if file is not None:
            load_into(net, file, **one.loading)
        found = recipe_of_given(one.training, self.data, net)
        return self._artifact(name, "given", found, WRITE, bytes=bytes_of_network(net, self.data))

    def _specialists(self, name: str, node: DictConfig, generalist: PlannedTask, folder: Path) -> list[PlannedTask]:
        """Notes the specialists of a generalist and the combination; returns those of them that are missing."""
        [stage] = [one.specialist for one in self.plan.teachers if one.source == name]
        assert stage is not None  # the plan has it for every generalist
        if not generalist.is_there:
            count = len(node.groups) if node.get("groups") else node.get("count", 3)
            cost = cost_of_training(stage, self._data(stage))
            later = [
                self._later(f"specialist {number + 1} of {name}", "specialist", TRAIN, [generalist], **cost)
                for number in range(count)
            ]
            return [*later, self._later(f"combination of {name}", "specialists", WRITE, later)]
        known = read_answers(folder, self.plan.weights, "val")
        assert isinstance(known, Predictions)  # every finished classifier has them
        groups = find_or_take_groups(node, known.logits, stage.seed)
        trainings, _ = trainings_of(self.plan, stage, groups, folder)
        made = []
        for number, one in enumerate(trainings, start=1):
            data = factory.data(one.stage)
            cost = cost_of_training(one.stage, data)
            made.append(self._artifact(f"specialist {number} of {name}", "specialist", one.recipe(data), TRAIN, **cost))
        folders, missing = [place for _, place in made], [task for task, _ in made if not task.is_there]
        self._combined(
            name,
            recipe_of_all(groups, [folder, *folders], self.plan.weights, node.get("top", 1)),
            "specialists",
            missing,
        )
        fill_specialists(node, groups, folders)
        return missing

    def _combined(self, name: str, found: dict[str, Any], kind: str, missing: list[PlannedTask]) -> PlannedTask:
        if any(task.digest is None for task in missing):
            return self._later(f"combination of {name}", kind, WRITE, missing)
        return self._artifact(f"combination of {name}", kind, found, WRITE, after=tuple(task.name for task in missing))[
            0
        ]

    def assistants(self) -> None:
        """Notes the networks between teacher and student, each taught by the one before it."""
        for name, own in self.plan.assistants.items():
            stage = replaced(own, {"sources": self.stage.sources})
            data = self._data(stage)
            cost = cost_beside_sources(stage, data)
            self.signals(stage, f" for {name}")
            if self.waits:
                task = self._later(name, "assistant", TRAIN, self.waits, stage, **cost)
                folder = Path(task.key)
            else:
                found = recipe_of_assistant(stage, data)
                task, folder = self._artifact(name, "assistant", found, TRAIN, **cost)
            self.waits = [] if task.is_there else [task]
            node = taught_by(own.network, str(folder / f"{self.plan.weights}.safetensors"))
            self.stage = replaced(self.stage, {"sources": {"teacher": node}})

    def signals(self, stage: DictConfig, of: str) -> None:
        """Notes what is written of the teachers of a training, or found."""
        for name, (node, needs) in to_cache(stage, self.data).items():
            if node.folder is not None:
                continue  # the user's
            rows = len(self.data.splits["train"]) * (node.views or 1)
            nets = [macs(network.net, self.data) for network in networks(node.source)]
            forward = total(nets)
            cost: dict[str, Any] = {
                "macs": None if forward is None else forward * rows,
                "bytes": rows * bytes_of_example(self.plan.student, name, node, needs, self.data),
            }
            title = f"signals of {name}{of}"
            if self.waits:
                self._later(title, "signals", WRITE, self.waits, node, **cost)
            else:
                found = recipe_of_signals(stage, node, needs, self.data)
                self._artifact(title, "signals", found, WRITE, verify=verify_signals, **cost)

    def control(self) -> None:
        """Notes the student alone."""
        stage = self.plan.control
        cost = cost_of_training(stage, self.data)
        if stage.network.get("init") is not None and self.waits:  # its first weights are the teacher's
            self._later("control", "control", TRAIN, self.waits, stage, **cost)
            return
        found = recipe(stage, "control", self.data) | recipe_of_start(stage, self.stage.sources)
        self._artifact("control", "control", found, TRAIN, **cost)

    def student(self, folder: Path | None) -> None:
        """Notes the job's own training."""
        cost = cost_beside_sources(self.stage, self.data)
        signals = [task for task in self.tasks if task.kind == "signals" and not task.is_there]
        after = tuple(task.name for task in signals or self.waits)
        for name, own in self.plan.phases.items():
            stage = replaced(own, {"sources": self.stage.sources})
            cost_of = cost_beside_sources(stage, self._data(stage))
            task = self._later(f"student, phase {name}", "student", TRAIN, self.waits, stage, **cost_of)
            after = (*after, task.name)
        key = recipe_digest({"stage": _plain_recipe(self.stage, self.data)})
        action, made = TRAIN, ""
        if folder is not None and (folder / "checkpoints").is_dir():
            action = GO_ON
            if is_complete(self.plan.config, folder):
                action, made = REUSE, manifest.read(folder / "checkpoints")["made"]
        self.tasks.append(PlannedTask("student", "student", action, key, None, made, after, **cost))

    def _artifact(
        self, name: str, kind: str, found: dict[str, Any], action: str, verify: Any = manifest.check, **more: Any
    ) -> tuple[PlannedTask, Path]:
        folder = artifacts.place(self.plan.artifacts, kind, found)
        made = ""
        if artifacts.is_usable(folder, self.since, verify):
            action, made, more = REUSE, str(manifest.read(folder)["made"]), {**more, "after": ()}
        elif action == TRAIN and (folder.with_name(f".{folder.name}.work") / "states").is_dir():
            action = GO_ON
        task = PlannedTask(name, kind, action, f"{kind}/{folder.name}", folder.name, made, **more)
        self.tasks.append(task)
        return task, folder

    def _later(
        self,
        name: str,
        kind: str,
        action: str,
        after: list[PlannedTask],
        made_by: DictConfig | None = None,
        **more: Any,
    ) -> PlannedTask:
        """Notes an artifact whose recipe needs the weights of others that are not there yet."""
        known = {"name": name, "after": [task.key for task in after]}
        if made_by is not None and "sources" in made_by:
            known |= _plain_recipe(made_by, self.data)
        elif made_by is not None:
            known |= {"node": without_files(made_by)}
        task = PlannedTask(name, kind, action, recipe_digest(known), after=tuple(one.name for one in after), **more)
        self.tasks.append(task)
        return task

    def _data(self, stage: DictConfig) -> Data:
        return self.data if stage.data == self.plan.student.data else factory.data(stage)


def _plain_recipe(stage: DictConfig, data: Data) -> dict[str, Any]:
    return recipe(stage, "student", data, sources=without_files(stage.sources))
