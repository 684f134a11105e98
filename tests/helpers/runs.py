"""The content of a finished run's folder, in a form that can be compared with another's."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tutelage.checkpoints.weights import digest, read_state


def weights(*folders: Path) -> dict[str, str]:
    """Path below its folder, digests of artifacts left out, → digest of every weights file in the folders."""
    found = {}
    for folder in folders:
        for path in sorted(folder.rglob("*.safetensors")):
            if path.name != "predictions.safetensors" and not any(part.endswith(".work") for part in path.parts):
                found["/".join(part for part in path.relative_to(folder).parts if len(part) != 20)] = digest(
                    read_state(path)
                )
    return found


def figures(folder: Path) -> dict[str, Any]:
    """``metrics.json`` without what a clock or the state of the shop says."""
    document = json.loads((folder / "metrics.json").read_text())
    for role in ("teacher", "control", "student"):
        for key in ("seconds", "reused", "made", "digest"):
            document.get(role, {}).pop(key, None)
    return document


def status(folder: Path) -> dict[str, Any]:
    """``status.json``."""
    return json.loads((folder / "status.json").read_text())


def scalars(folder: Path) -> dict[str, set[tuple[int, float]]]:
    """``<stage>/<tag>`` → the set of (step, value) in all event files below ``folder/<stage>``."""
    found = defaultdict(set)
    for stage in sorted(path for path in folder.iterdir() if path.is_dir()):
        for path in sorted(stage.rglob("events.out.tfevents.*")):
            events = EventAccumulator(str(path), size_guidance={"scalars": 0}).Reload()
            for tag in events.Tags()["scalars"]:
                found[f"{stage.name}/{tag}"] |= {(event.step, event.value) for event in events.Scalars(tag)}
    return dict(found)


def first_steps(folder: Path) -> list[int]:
    """The first step that each attempt (each event file of training) of one stage has logged, oldest first."""
    found = []
    for path in sorted(folder.rglob("events.out.tfevents.*"), key=lambda path: path.stat().st_mtime):
        events = EventAccumulator(str(path)).Reload()
        if "train/loss" in events.Tags()["scalars"]:
            found.append(events.Scalars("train/loss")[0].step)
    return found


def artifacts(root: Path, kind: str) -> list[Path]:
    """The finished artifacts of a kind."""
    return sorted(path for path in (root / kind).glob("*") if path.is_dir() and not path.name.startswith("."))
