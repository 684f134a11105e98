"""Table of ``experiment=glnn_cora`` and ``glnn_citeseer``.

    python docs/results/glnn.py NAME=SWEEP[,SWEEP] …

Prints a row of markdown for each sweep: test accuracy in percent, last weights, every seed with a split and teacher of
its own.
"""

import json
import sys
from pathlib import Path
from statistics import mean, stdev

from tutelage.report.statistics import paired

ROLES = ("teacher", "control", "student")
HEAD = (
    "| | seeds | teacher | perceptron alone | distilled | gain (95 %) | gain of each seed | agreement |\n|" + "---|" * 8
)


def row(name: str, runs: list[dict]) -> str:
    """One row."""
    values = {role: [100 * run[role]["last"]["test"]["accuracy"] for run in runs] for role in ROLES}
    gains = [own - alone for own, alone in zip(values["student"], values["control"], strict=True)]
    found = paired(gains)
    agreement = 100 * mean(run["student"]["last"]["test"]["agreement"] for run in runs)
    cells = [
        name, str(len(runs)), *(f"{mean(values[role]):.2f} ± {stdev(values[role]):.2f}" for role in ROLES),
        f"{found.mean:+.2f} ({found.low:+.2f} to {found.high:+.2f})", ", ".join(f"{gain:+.1f}" for gain in gains),
        f"{agreement:.1f}",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Prints the table, and the seconds of a seed's trainings."""
    print(HEAD)
    for argument in sys.argv[1:]:
        name, _, folders = argument.partition("=")
        found = {}
        for path in (path for sweep in folders.split(",") for path in Path(sweep).glob("*/metrics.json")):
            run = json.loads(path.read_text())
            found[run["seed"]] = run
        runs = [found[seed] for seed in sorted(found)]
        print(row(name, runs))
        for role in ROLES:
            print(f"<!-- {role}: {mean(run[role]['seconds'] for run in runs):.1f} s -->")


if __name__ == "__main__":
    main()
