"""Draws a trained soft decision tree with the path of one example, and evaluates it on a split.

    python -m tutelage.report.tree outputs/distill/…/checkpoints/last.safetensors --example 3

writes the self-contained ``tree.svg`` and prints the accuracy by the most probable leaf and by the mean of all leaves.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from omegaconf import OmegaConf

from tutelage.config.saved import data_of, network_of
from tutelage.data.module import Data
from tutelage.errors import TutelageError
from tutelage.evaluation.predictions import eval_mode
from tutelage.models.soft_tree import SoftTree
from tutelage.report.tree_picture import Seen, tree_picture


def watch(net: SoftTree, data: Data, split: str) -> Seen:
    """Runs a tree on a split and counts the examples at each node."""
    found, labels, right = [], [], torch.zeros(2)
    with eval_mode(net), torch.no_grad():
        each = net.leaves.logits.argmax(1)
        for batch in data.whole(split):
            paths = net.paths(net.filters(net.flatten(batch["input"])))
            found.append(paths.argmax(1))
            labels.append(batch["label"])
            mean = paths.exp() @ net.leaves.logits.softmax(1)
            right += torch.stack([(one == labels[-1]).sum() for one in (each[found[-1]], mean.argmax(1))])
    leaf, label = torch.cat(found), torch.cat(labels)
    level = leaf.bincount(minlength=len(net.leaves.logits)) / len(leaf)
    levels = [level]
    while len(level) > 1:
        level = level.view(-1, 2).sum(1)
        levels.append(level)
    by_leaf, by_mean = (right / len(leaf)).tolist()
    return Seen(leaf, label, torch.cat(levels[::-1]).tolist(), (by_leaf, by_mean))


def draw(checkpoint: Path, split: str, example: int, changes: Sequence[str]) -> tuple[str, Seen]:
    """Draws the tree in a file that Tutelage wrote.

    Args:
        checkpoint: the file, or a run's folder for its student's last weights.
        split: the split whose examples are counted.
        example: index in the split of the example whose path is marked.
        changes: ``key=value`` overrides of the data config in the file, such as ``root=/elsewhere``.

    Raises:
        TutelageError: the network is not a soft tree, or there is no such example.
    """
    path = checkpoint / "checkpoints" / "last.safetensors" if checkpoint.is_dir() else checkpoint
    net, header = network_of(path)
    if not isinstance(net, SoftTree):
        raise TutelageError(f"{path}: expected a soft tree; found {type(net).__name__}")
    data = data_of(header, OmegaConf.from_dotlist(list(changes)), path)
    if not 0 <= example < (size := len(data.splits[split])):
        raise TutelageError(f"example must be in 0 … {size - 1}; found {example}")
    batch = data.splits[split][0, torch.tensor([example])]
    if (pixels := data.pictures(batch["input"])) is None:
        raise TutelageError(f"{path}: its data are not images, which the drawing needs")
    seen = watch(net, data, split)
    title = f"Soft decision tree: {header['stage']}, seed {header['seed']}, {data.name} {split}"
    return tree_picture(net, seen, batch["input"][0], pixels[0], int(batch["label"]), data.class_names, title), seen


def main() -> None:
    """Runs the command line: draws, writes and prints."""
    parser = argparse.ArgumentParser(prog="python -m tutelage.report.tree", description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="a file that tutelage wrote, or a run's folder")
    parser.add_argument("data", nargs="*", metavar="KEY=VALUE", help="of the data config, such as root=/elsewhere")
    parser.add_argument("--out", type=Path, default=Path("tree.svg"))
    parser.add_argument("--split", choices=("train", "val", "test"), default="test")
    parser.add_argument("--example", type=int, default=0, help="the example whose path is marked")
    given = parser.parse_args()
    try:
        drawn, seen = draw(given.checkpoint, given.split, given.example, given.data)
    except TutelageError as error:
        sys.exit(f"{parser.prog}: {error}")
    given.out.write_text(drawn, encoding="utf-8")
    by_leaf, by_mean = (f"{100 * one:.2f} %" for one in seen.accuracy)
    print(f"{given.split}: {by_leaf} by the most probable leaf, {by_mean} by the mean of all\n{given.out.absolute()}")


if __name__ == "__main__":
    main()
