"""Draws dark knowledge: a network's probabilities of the classes that it does not choose, at several temperatures.

    python -m tutelage.report.dark_knowledge answers outputs/distill/… --temperatures 1 2 4 8 20
    python -m tutelage.report.dark_knowledge curve --logits -1 0 4 3

The first writes ``answers.svg`` and prints the outputs' mean entropy on a split at each temperature; the second
writes ``curve.svg``, softmax(z / T) of given logits. Both files are self-contained.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from omegaconf import OmegaConf
from torch import Tensor

from tutelage.config.saved import data_of, network_of
from tutelage.data.module import Data
from tutelage.errors import TutelageError
from tutelage.evaluation.pictures import interesting
from tutelage.evaluation.predictions import predict
from tutelage.report.runs import read_run
from tutelage.report.softened_picture import SoftenedExamples, answers_picture, curve_picture

_CHOOSING = 4.0  # the temperature at which examples are chosen


@dataclass(frozen=True)
class Softened:
    """Means over N examples of measures of softmax(z / T).

    Attributes:
        temperature: T.
        entropy: in bits.
        first: probability of the most probable class.
        second: probability of the second most probable class.
    """

    temperature: float
    entropy: float
    first: float
    second: float


def softened(logits: Tensor, temperature: float) -> Softened:
    """Computes the measures of logits [N, C], C at least 2, at a temperature."""
    log_p = (logits.double() / temperature).log_softmax(1)
    p = log_p.exp()
    entropy = -(p * log_p).sum(1).mean() / torch.tensor(2.0).log()
    first, second = p.topk(2).values.mean(0).tolist()
    return Softened(temperature, float(entropy), first, second)


def find(place: Path) -> Path:
    """Returns the file of weights: ``place`` itself, the last weights of an artifact, or those of a run's teacher.

    Raises:
        TutelageError: there is none.
    """
    if not place.is_dir():
        return place
    if not (made := place / "artifacts.json").is_file():
        return place / "last.safetensors"
    run = read_run(place.absolute())
    if "teacher" not in run.artifacts:
        raise TutelageError(f"{made}: this run's teacher is not a network")
    if (folder := run.place("teacher")) is None:
        raise TutelageError(f"{made}: its teacher's folder {run.artifacts['teacher']['folder']} is missing")
    return folder / f"{run.weights('teacher', 'last')}.safetensors"


def draw(
    place: Path,
    split: str,
    count: int,
    temperatures: Sequence[float],
    changes: Sequence[str],
    trusted: Sequence[str] = (),
) -> tuple[str, list[Softened]]:
    """Draws a network's predictions for a few examples, and measures those for the whole split.

    Args:
        place: a file that Tutelage wrote, an artifact's folder, or a run's folder for its teacher.
        split: ``train``, ``val`` or ``test``, from which :func:`tutelage.evaluation.pictures.interesting` chooses.
        count: number of examples.
        temperatures: one per column.
        changes: ``key=value`` overrides of the data config in the file, such as ``root=/elsewhere``.
        trusted: packages, beside Tutelage, whose classes the file may name.

    Raises:
        TutelageError: no such file, a count below 1, a temperature that is not positive, or examples without a label.
    """
    if count < 1:
        raise TutelageError(f"count must be at least 1; found {count}")
    _check(temperatures)
    path = find(place)
    net, header = network_of(path, trusted)
    data = data_of(header, OmegaConf.from_dotlist(list(changes)), path, trusted)
    predictions = predict(net, data.whole(split), "cpu")
    rows = interesting(predictions.logits, predictions.label, count, _CHOOSING)
    shown = SoftenedExamples(
        _pixels(data, split, rows), predictions.label[rows], predictions.logits[rows], data.class_names
    )
    title = f"Softened answers: {header['stage']}, seed {header['seed']}, {data.name} {split}"
    return answers_picture(shown, temperatures, title), [softened(predictions.logits, t) for t in temperatures]


def _pixels(data: Data, split: str, rows: Tensor) -> Tensor:
    """Returns the images [n, C, H, W] in [0, 1]."""
    images = data.pictures(data.whole(split).dataset[0, rows]["input"])
    if images is None:
        raise TutelageError(f"{data.name}: its inputs are not images that can be drawn")
    return images


def curve(logits: Sequence[float], temperatures: Sequence[float]) -> str:
    """Draws softmax(z / T) at each temperature.

    Raises:
        TutelageError: fewer than two logits, one that is not finite, or a temperature that is not positive.
    """
    z = torch.tensor(logits, dtype=torch.float64)
    if len(z) < 2 or not z.isfinite().all():
        raise TutelageError(f"a curve needs at least two finite logits; found {list(logits)}")
    _check(temperatures)
    return curve_picture(z, temperatures)


def _check(temperatures: Sequence[float]) -> None:
    if not temperatures or not all(0 < t < float("inf") for t in temperatures):
        raise TutelageError(f"temperatures must be positive numbers; found {list(temperatures)}")


def table(found: Sequence[Softened]) -> str:
    """Returns the measures as a markdown table."""
    lines = ["| T | mean entropy, bits | most probable class | second |", "|---|---|---|---|"]
    lines += [
        f"| {one.temperature:g} | {one.entropy:.3f} | {100 * one.first:.2f} % | {100 * one.second:.2f} % |"
        for one in found
    ]
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tutelage.report.dark_knowledge", description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    answers = kinds.add_parser("answers", help="a network's softened predictions for a few examples")
    answers.add_argument("place", type=Path, help="a file that tutelage wrote, an artifact's folder or a run's")
    answers.add_argument("data", nargs="*", metavar="KEY=VALUE", help="of the data config, such as root=/elsewhere")
    answers.add_argument("--split", choices=("train", "val", "test"), default="val")
    answers.add_argument("--count", type=int, default=6, help="how many examples")
    answers.add_argument("--temperatures", type=float, nargs="+", default=[1, 2, 4, 8, 20])
    answers.add_argument("--trust", nargs="+", default=[], metavar="PACKAGE", help="whose code the file may run")
    answers.add_argument("--out", type=Path, default=Path("answers.svg"))
    softmax = kinds.add_parser("curve", help="softmax(z / T) of given logits")
    softmax.add_argument("--logits", type=float, nargs="+", default=[-1, 0, 4, 3])
    softmax.add_argument("--temperatures", type=float, nargs="+", default=[1, 2, 3, 4, 5])
    softmax.add_argument("--out", type=Path, default=Path("curve.svg"))
    return parser


def main() -> None:
    """Runs the command line: draws, writes and prints."""
    parser = _parser()
    given = parser.parse_args()
    try:
        if given.kind == "curve":
            drawn = curve(given.logits, given.temperatures)
        else:
            drawn, found = draw(given.place, given.split, given.count, given.temperatures, given.data, given.trust)
            print(table(found))
    except TutelageError as error:
        sys.exit(f"{parser.prog}: {error}")
    given.out.write_text(drawn, encoding="utf-8")
    print(given.out.absolute())


if __name__ == "__main__":
    main()
