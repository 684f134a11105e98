"""Reads and writes the folder of a finished training."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tutelage.checkpoints.weights import serialise
from tutelage.errors import TutelageError
from tutelage.evaluation.predictions import Predictions, Stored, stored
from tutelage.runtime import manifest
from tutelage.runtime.files import write_atomically
from tutelage.runtime.json_files import read_json, write_json
from tutelage.tasks.base import Task
from tutelage.tasks.predictions import TRAIN, as_saved, read_saved

WEIGHTS = ("last", "best")  # of every training
AVERAGE = "average"  # and of one with callbacks=average_best
SPLITS = ("val", "test")


@dataclass(frozen=True)
class Trained:
    """A finished stage: its facts and predictions, read from its folder.

    Attributes:
        folder: folder of ``last.safetensors``, ``best.safetensors``, ``predictions.safetensors`` and ``stage.json``.
        reused: whether it existed before this job.
        facts: parameters, multiply_adds, seconds, epochs, steps, the epoch of each of the weights, and what the terms'
            gradients were (:class:`~tutelage.training.callbacks.gradient_norms.GradientNorms`).
        predictions: (weights, split) → what the task stores of that split; of ``train`` where the folder has it.
        made: when the folder was finished.
    """

    folder: Path
    reused: bool
    facts: dict[str, Any]
    predictions: dict[tuple[str, str], Stored]
    made: str = ""

    @property
    def kinds(self) -> list[str]:
        """Returns which weights there are: ``last``, ``best``, and ``average`` where the training made one."""
        return _kinds(self.facts)

    @staticmethod
    def read(folder: Path, reused: bool) -> "Trained":
        """Reads the folder of a finished stage.

        Raises:
            TutelageError: a file in it is damaged.
        """
        manifest.check(folder)
        facts = read_json(folder / "stage.json")
        kinds = [(weights, split) for weights in _kinds(facts) for split in (*SPLITS, TRAIN)]
        read = {kind: read_answers(folder, *kind) for kind in kinds}
        predictions = {kind: answers for kind, answers in read.items() if answers is not None}
        return Trained(folder, reused, facts, predictions, manifest.read(folder)["made"])

    def logits_on(self, weights: str, split: str) -> Predictions:
        """Returns the predictions of one split.

        Raises:
            TutelageError: the task keeps no logits.
        """
        found = self.predictions[weights, split]
        if not isinstance(found, Predictions):
            raise TutelageError(f"{self.folder} has no logits of its examples, only totals of them")
        return found

    def figures(self, task: Task, weights: str, split: str, teacher: Stored | None = None) -> dict[str, float]:
        """Returns all figures of one split: the task's, and the user's own metrics.

        Args:
            task: of the job.
            weights: last, best or average.
            split: val, test or train.
            teacher: what was stored of the teacher on the same split.
        """
        own, theirs = as_saved(self.predictions[weights, split]), None if teacher is None else as_saved(teacher)
        found = (task.figures_on_train if split == TRAIN else task.figures)(own, theirs)
        return found | self.facts.get("metrics", {}).get(f"{weights}.{split}", {})

    @property
    def digest(self) -> str | None:
        """Returns the digest of an artifact's recipe, its folder's name; None for a job's own student."""
        return self.folder.name if (self.folder / "recipe.json").is_file() else None


def _kinds(facts: Mapping[str, Any]) -> list[str]:
    return [*WEIGHTS, *([AVERAGE] if AVERAGE in facts.get("epoch", {}) else [])]


def read_answers(folder: Path, weights: str, split: str) -> Stored | None:
    """Returns a finished stage's predictions on one split; None of ``train`` where its folder does not have it.

    Raises:
        TutelageError: the file is damaged.
    """
    found = read_saved(folder, weights, split)
    if found is None:
        return None
    return stored({name: torch.from_numpy(field) for name, field in found.fields.items()})


def write_results(folder: Path, predictions: Mapping[tuple[str, str], Stored], facts: Mapping[str, Any]) -> None:
    """Writes what a :class:`Trained` reads: the predictions, then the facts, then the folder's manifest."""
    tensors = {
        f"{kind}.{split}.{name}": field
        for (kind, split), one in predictions.items()
        for name, field in one.fields.items()
    }
    write_atomically(folder / "predictions.safetensors", serialise({name: x.clone() for name, x in tensors.items()}))
    write_json(folder / "stage.json", facts)
    manifest.write(folder)
