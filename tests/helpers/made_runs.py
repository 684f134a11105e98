"""Folders of runs that were never run: what `tutelage report` reads, with answers drawn at random."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from tutelage.evaluation.predictions import Predictions
from tutelage.evaluation.results import WEIGHTS, Trained, write_results
from tutelage.runtime.json_files import write_json
from tutelage.tasks.metrics.classification import figures, figures_of_own

COUNTS = {"val": 60, "test": 120, "train": 80}
FACTS = {"seconds": 1.5, "epochs": 3, "steps": 30, "epoch": {"last": 2, "best": 1}}
COST = {"teacher": (5000, 40000), "control": (500, 400), "student": (500, 400)}
LOSS = "tutelage.losses.logit.soft_target.SoftTarget"


def answers(labels: torch.Tensor, classes: int, skill: float, chance: int) -> Predictions:
    """Logits that are right about as often as ``skill`` says."""
    generator = torch.Generator().manual_seed(chance)
    logits = torch.randn(len(labels), classes, generator=generator)
    logits[torch.arange(len(labels)), labels] += 4 * skill
    return Predictions(logits, labels, torch.arange(len(labels)))


def network(folder: Path, role: str, skill: float, chance: int, classes: int = 4, splits: Any = COUNTS) -> Trained:
    """A finished stage's folder."""
    said = {}
    for place, (split, count) in enumerate(splits.items()):
        labels = torch.arange(count) % classes
        for kind in WEIGHTS:
            said[kind, split] = answers(labels, classes, skill, 1000 * chance + place)
    write_results(folder, said, {**FACTS, "parameters": COST[role][0], "multiply_adds": COST[role][1]})
    return Trained.read(folder, reused=False)


def entry(trained: Trained, teacher: Trained | None) -> dict[str, Any]:
    """Returns its entry of ``metrics.json``."""
    found: dict[str, Any] = {key: trained.facts[key] for key in ("parameters", "multiply_adds", "seconds", "epochs")}
    found["reused"] = False
    for kind in WEIGHTS:
        found[kind] = {"epoch": trained.facts["epoch"][kind]}
        for split in ("val", "test", "train"):
            if (own := trained.predictions.get((kind, split))) is not None:
                beside = teacher.predictions.get(("last", split)) if teacher else None
                found[kind][split] = (figures_of_own if split == "train" else figures)(own, beside)
    return found


def config(temperature: float, alpha: float, seed: int) -> dict[str, Any]:
    """As much of a resolved config as is read."""
    hard = {"loss": {"_target_": "torch.nn.CrossEntropyLoss", "label_smoothing": 0.0}, "weight": 1 - alpha}
    soft = {"loss": {"_target_": LOSS, "temperature": temperature}, "weight": alpha}
    loss = {"temperature": temperature, "alpha": alpha, "terms": {"hard": hard, "soft": soft}}
    return {
        "seed": seed,
        "loss": loss,
        "stages": {"teacher": {"weights": "last"}},
        "data": {"_target_": "no.such.Data"},
    }


def run(
    root: Path, seed: int, temperature: float = 4.0, alpha: float = 0.9, skill: float = 0.6, state: str = "COMPLETE",
    why: str | None = None, classes: int = 4, splits: Mapping[str, int] = COUNTS, **more: str,
) -> Path:  # fmt: skip
    """A whole run's folder below ``root``; without figures where it is not complete."""
    name = ",".join(f"{key}={value}" for key, value in {"T": temperature, "a": alpha, **more, "seed": seed}.items())
    folder = root / name
    overrides = [f"seed={seed}", f"loss.temperature={temperature}", f"loss.alpha={alpha}"]
    overrides += [f"{key}={value}" for key, value in more.items()]
    plain = config(temperature, alpha, seed) | {key: yaml.safe_load(value) for key, value in more.items()}
    hydra = {"job": {"config_name": "distill"}, "runtime": {"cwd": str(root), "choices": {"data": "made"}}}
    for path, document in {"overrides": overrides, "hydra": {"hydra": hydra}}.items():
        (folder / ".hydra").mkdir(parents=True, exist_ok=True)
        (folder / ".hydra" / f"{path}.yaml").write_text(yaml.safe_dump(document))
    (folder / "config.yaml").write_text(yaml.safe_dump(plain))
    write_json(folder / "status.json", {"state": state, "why": why, "ended": "2026-01-01T00:00:00+0000"})
    command = ["tutelage distill", "-m", "seed=range(0,5)"]
    write_json(folder / "provenance.json", {"command": command, "versions": {"torch": "2"}, "python": "3.11"})
    if state == "COMPLETE":
        _finish(folder, root / "artifacts", seed, skill, classes, splits)
    return folder


def _finish(folder: Path, artifacts: Path, seed: int, skill: float, classes: int, splits: Mapping[str, int]) -> None:
    places = {"teacher": artifacts / "teacher" / "t", "control": artifacts / "control" / f"c{seed}"}
    found = {
        "teacher": _once(places["teacher"], "teacher", 0.9, 99, classes, splits),
        "control": _once(places["control"], "control", 0.5, seed, classes, splits),
        "student": network(folder / "checkpoints", "student", skill, seed, classes, splits),
    }
    made: dict[str, Any] = {role: {"folder": str(trained.folder)} for role, trained in found.items()}
    made["control"]["recipe"] = {"seed": seed, "content": "abc"}
    write_json(folder / "artifacts.json", made)
    document: dict[str, Any] = {"schema": 1, "seed": seed}
    document |= {role: entry(one, None if role == "teacher" else found["teacher"]) for role, one in found.items()}
    write_json(folder / "metrics.json", document)


def _once(place: Path, role: str, skill: float, chance: int, classes: int, splits: Mapping[str, int]) -> Trained:
    if (place / "stage.json").is_file():
        return Trained.read(place, reused=True)
    return network(place, role, skill, chance, classes, splits)
