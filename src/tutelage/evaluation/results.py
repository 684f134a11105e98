"""Reads and writes the folder of a finished training."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tutelage.checkpoints.weights import serialise
from tutelage.evaluation.predictions import Predictions
from tutelage.evaluation.saved_predictions import TRAIN, read_predictions
from tutelage.runtime import manifest
from tutelage.runtime.files import write_atomically
from tutelage.runtime.json_files import read_json, write_json

WEIGHTS = ("last", "best")
SPLITS = ("val", "test")


@dataclass(frozen=True)
class Trained:
    """A finished stage: its facts and predictions, read from its folder.

    Attributes:
        folder: folder of ``last.safetensors``, ``best.safetensors``, ``predictions.safetensors`` and ``stage.json``.
        reused: whether it existed before this job.
        facts: parameters, multiply_adds, seconds, epochs, steps, the epoch of each of the weights, and what the terms'
            gradients were (:class:`~tutelage.training.callbacks.gradient_norms.GradientNorms`).
        predictions: (weights, split) → logits on that split; on ``train`` where the folder has them.
        made: time when the folder was finished.
    """

    folder: Path
    reused: bool
    facts: dict[str, Any]
    predictions: dict[tuple[str, str], Predictions]
    made: str = ""

    @staticmethod
    def read(folder: Path, reused: bool) -> "Trained":
        """Reads the folder of a finished stage.

        Raises:
            TutelageError: a file in it is damaged.
        """
        manifest.check(folder)
        kinds = [(weights, split) for weights in WEIGHTS for split in (*SPLITS, TRAIN)]
        read = {kind: read_answers(folder, *kind) for kind in kinds}
        predictions = {kind: answers for kind, answers in read.items() if answers is not None}
        facts, made = read_json(folder / "stage.json"), manifest.read(folder)["made"]
        return Trained(folder, reused, facts, predictions, made)

    @property
    def digest(self) -> str | None:
        """Returns the digest of an artifact's recipe, its folder's name; None for a job's own student."""
        return self.folder.name if (self.folder / "recipe.json").is_file() else None


def read_answers(folder: Path, weights: str, split: str) -> Predictions | None:
    """Returns a finished stage's predictions on one split; None for ``train`` if its folder has none.

    Raises:
        TutelageError: the file is damaged.
    """
    found = read_predictions(folder, weights, split)
    return None if found is None else Predictions(*map(torch.from_numpy, (found.logits, found.label, found.key)))


def write_results(folder: Path, predictions: Mapping[tuple[str, str], Predictions], facts: Mapping[str, Any]) -> None:
    """Writes a folder for :class:`Trained`: the predictions, then the facts, then the manifest."""
    fields = ("logits", "label", "key")
    tensors = {
        f"{kind}.{split}.{field}": getattr(one, field) for (kind, split), one in predictions.items() for field in fields
    }
    write_atomically(folder / "predictions.safetensors", serialise({name: x.clone() for name, x in tensors.items()}))
    write_json(folder / "stage.json", facts)
    manifest.write(folder)
