"""Table of ``experiment=cross_modal_*``.

    python docs/results/cross_modal.py 'NAME=SWEEP[,SWEEP of all labels]' …

Prints a row of markdown for each pair of modalities: test accuracy in percent, last weights, mean ± standard deviation
over seeds, and the gain of transfer without a label over the control with few labels, its 95 % interval paired by seed.
"""

import json
import sys
from pathlib import Path
from statistics import mean, stdev

from safetensors.torch import load_file

from tutelage.report.statistics import paired

HEAD = (
    "| | seeds | teacher | few labels alone | all labels alone | transfer, no label | then few labels "
    "| transfer − few labels alone (95 %) |\n|" + "---|" * 8
)


def accuracies(sweep: str, role: str) -> dict[int, float]:
    """Returns seed → test accuracy in percent of ``teacher``, ``control``, ``student`` or ``transfer``."""
    found = {}
    for path in Path(sweep).glob("*/metrics.json"):
        run = json.loads(path.read_text())
        if role == "transfer":
            saved = load_file(path.parent / "checkpoints" / "phases" / "transfer" / "predictions.safetensors")
            right = saved["last.test.logits"].argmax(1) == saved["last.test.label"]
            found[run["seed"]] = 100 * right.double().mean().item()
        else:
            found[run["seed"]] = 100 * run[role]["last"]["test"]["accuracy"]
    return found


def cell(values: dict[int, float]) -> str:
    """Returns mean ± standard deviation."""
    own = list(values.values())
    return f"{mean(own):.2f} ± {stdev(own):.2f}" if len(set(own)) > 1 else f"{own[0]:.2f}"


def row(name: str, sweeps: list[str]) -> str:
    """One row."""
    teacher, few, moved, tuned = (accuracies(sweeps[0], role) for role in ("teacher", "control", "transfer", "student"))
    full = cell(accuracies(sweeps[1], "control")) if len(sweeps) > 1 else "–"
    found = paired([moved[seed] - few[seed] for seed in sorted(few)])
    cells = [
        name, str(len(few)), cell(teacher), cell(few), full, cell(moved), cell(tuned),
        f"{found.mean:+.2f} ({found.low:+.2f} to {found.high:+.2f})",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Prints the table."""
    print(HEAD)
    for argument in sys.argv[1:]:
        name, _, folders = argument.partition("=")
        print(row(name, folders.split(",")))


if __name__ == "__main__":
    main()
