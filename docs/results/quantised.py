"""Accuracy on test of float teachers that are quantised without training (PTQ), of the runs in a folder.

    python docs/results/quantised.py FOLDER

A line for each number of bits.
"""

import json
import sys
from pathlib import Path
from statistics import mean, stdev

from tutelage.config.saved import data_of, network_of
from tutelage.evaluation.predictions import predict
from tutelage.exporting.quantised import calibrated

EXAMPLES = 256  # of training, for the ranges


def main(folder: Path) -> None:
    """Prints a line for each number of bits."""
    runs = [json.loads(path.read_text()) for path in sorted(folder.rglob("artifacts.json"))]
    found: dict[int, list[float]] = {8: [], 4: [], 2: []}
    for teacher in sorted({run["teacher"]["folder"] for run in runs}):
        file = Path(teacher) / "last.safetensors"
        net, header = network_of(file)
        data = data_of(header, {}, file)
        for bits, values in found.items():
            answers = predict(calibrated(net, [data.sample(EXAMPLES)], bits), data.whole("test"), "cpu")
            values.append(100 * float((answers.choice == answers.label).float().mean()))
    for bits, values in found.items():
        print(f"{bits} bits: {mean(values):.2f} ± {stdev(values):.2f}  {[round(value, 2) for value in values]}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
