"""A markdown table of the runs below some folders: one line for each choice, mean ± standard deviation over seeds.

    python benchmarks/summary.py DIR… [--vary loss] [--weights last] [--split test]

Reads ``metrics.json`` and the command line of every run; ``--vary`` names the keys that tell lines apart. Gains are
paired by seed. Failed runs have a line of their own with what they said.
"""

import argparse
import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

import yaml


def spread(values: list[float], scale: float = 100.0) -> str:
    """Mean ± standard deviation; the mean alone where there is one value."""
    mean = f"{scale * statistics.mean(values):.2f}"
    return f"{mean} ± {scale * statistics.stdev(values):.2f}" if len(values) > 1 else mean


def choice(folder: Path, vary: list[str]) -> str:
    """Returns the command line's overrides of the keys in question."""
    overrides = yaml.safe_load((folder / ".hydra" / "overrides.yaml").read_text())
    given = dict(one.lstrip("+").split("=", 1) for one in overrides)
    return ", ".join(given.get(key, "–") if len(vary) == 1 else f"{key}={given.get(key, '–')}" for key in vary)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--vary", nargs="+", default=["loss"])
    parser.add_argument("--weights", choices=("last", "best"), default="last")
    parser.add_argument("--split", choices=("val", "test"), default="test")
    arguments = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    failed: dict[str, set[str]] = defaultdict(set)
    for path in sorted(path for folder in arguments.folders for path in folder.rglob("status.json")):
        name, metrics = choice(path.parent, arguments.vary), path.parent / "metrics.json"
        if metrics.is_file():
            found[name].append(json.loads(metrics.read_text()))
        else:
            status = json.loads(path.read_text())
            failed[name].add(f"{status['state']}: {status.get('why')}")
    rows = []
    for name, runs in found.items():
        of = {role: [run[role][arguments.weights][arguments.split] for run in runs if role in run]
              for role in ("teacher", "control", "student")}  # fmt: skip
        pairs = zip(of["student"], of["control"], strict=True)
        gains = [student["accuracy"] - control["accuracy"] for student, control in pairs]
        cells = [spread([run["accuracy"] for run in of[role]]) if of[role] else "–" for role in of]
        agreement = [run["agreement"] for run in of["student"] if run.get("agreement") is not None]
        above = f"{sum(gain > 0 for gain in gains)} of {len(gains)}"
        rows.append((statistics.mean(gains),
                     [name, *cells, spread(gains), above, spread(agreement) if agreement else "–"]))  # fmt: skip
    heads = [
        ", ".join(arguments.vary),
        "teacher %",
        "alone %",
        "distilled %",
        "gain, points",
        "gain > 0",
        "agreement %",
    ]
    print("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")
    for _, row in sorted(rows, key=lambda row: -row[0]):
        print("| " + " | ".join(row) + " |")
    for name, whys in sorted(failed.items()):
        print(f"| {name} | " + " | ".join([*["–"] * 5, "; ".join(sorted(whys))]) + " |")


if __name__ == "__main__":
    main()
