"""Tables of `experiment=equal_budget`: what was chosen, and every loss against three that have no teacher.

    python docs/results/equal_budget.py FOLDER… [--weights best]

Accuracy on test of the fresh seeds, in %; differences paired by seed, with a 95 % t-interval and p of the paired t-test
corrected by Holm over the losses. Alone is the control of the same seed; label smoothing and longer training are the
arms beside the losses. Then the cost of all students' trainings, without their start and evaluation.
"""

import argparse
import csv
import json
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev

from omegaconf import OmegaConf

from tutelage.report.statistics import Paired, holm, paired

AGAINST = ("alone", "smoothing", "longer")


def arm_of(folder: Path) -> str:
    """Returns a job's arm by its overrides: its loss, or the name of one that has no teacher."""
    words = OmegaConf.load(folder / ".hydra" / "overrides.yaml")
    given = dict(str(word).lstrip("+").split("=", 1) for word in words)
    if given.get("loss") != "hard":
        return given.get("loss", "soft_target")
    return "smoothing" if "loss.label_smoothing" in given else "longer"


def accuracies(folder: Path, weights: str) -> dict[str, dict[int, float]]:
    """Returns arm → seed → accuracy on test in %."""
    found: dict[str, dict[int, float]] = defaultdict(dict)
    for path in sorted(folder.glob("fresh/*/metrics.json")):
        run = json.loads(path.read_text())
        arm = arm_of(path.parent)
        found[arm][run["seed"]] = 100 * run["student"][weights]["test"]["accuracy"]
        if arm not in AGAINST:
            found["alone"][run["seed"]] = 100 * run["control"][weights]["test"]["accuracy"]
    return found


def difference(arm: dict[int, float], other: dict[int, float]) -> Paired:
    """Returns the statistics of the differences of the seeds that both have."""
    return paired([arm[seed] - other[seed] for seed in sorted(arm.keys() & other.keys())])


def cell(one: Paired, p: float | None) -> str:
    """Returns a difference with its interval and corrected p."""
    if one.mean is None:
        return "–"
    if one.low is None or one.high is None or p is None:
        return f"{one.mean:+.2f}".replace("-", "−")
    return f"{one.mean:+.2f} ({one.low:+.2f} to {one.high:+.2f})".replace("-", "−") + f", p {p:.2g}"


def chosen(folder: Path) -> dict[str, str]:
    """Returns arm → what was chosen for it: the best of its last rung on validation, of equals the first."""
    found: dict[str, tuple[int, float, str]] = {}
    with (folder / "rungs.csv").open() as file:
        for row in csv.DictReader(file):
            arm, value = row["arm"].removeprefix("loss="), row["validation"]
            one = (int(row["rung"]), float("-inf" if value == "failed" else value), row["sets"])
            if arm not in found or one[:2] > found[arm][:2]:
                found[arm] = one
    return {arm: sets for arm, (_, _, sets) in found.items()}


def main() -> None:
    """Prints the tables of each folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--weights", choices=("last", "best"), default="best")
    arguments = parser.parse_args()
    for folder in arguments.folders:
        found, picked = accuracies(folder, arguments.weights), chosen(folder)
        losses = sorted((arm for arm in found if arm not in AGAINST), key=lambda arm: -mean(found[arm].values()))
        print("| loss | chosen | accuracy | " + " | ".join(f"− {other}" for other in AGAINST) + " |")
        print("|---" * (3 + len(AGAINST)) + "|")
        columns = []
        for other in AGAINST:
            each = [difference(found[arm], found[other]) for arm in losses]
            columns.append([cell(*pair) for pair in zip(each, holm([one.p_t for one in each]), strict=True)])
        for row, arm in enumerate([*losses, *AGAINST]):
            values = [*found[arm].values()]
            spread = f"{mean(values):.2f} ± {stdev(values):.2f}" if len(values) > 1 else f"{mean(values):.2f}"
            sets = picked.get(arm, "–").replace("loss.", "").replace("temperature", "T")
            others = [column[row] for column in columns] if arm in losses else ["", "", ""]
            print("| " + " | ".join([arm, sets, spread, *others]) + " |")
        made = [json.loads(path.read_text()) for path in folder.rglob("metrics.json")]
        total = sum(run["student"].get("seconds") or 0 for run in made)
        print(f"\n{len(made)} jobs; {total:.0f} wall-clock seconds of training of students\n")


if __name__ == "__main__":
    main()
