"""The two traps of the blog's experiment, measured on a run of ``experiment=mnist_mlp``.

    python docs/results/mnist_mlp.py outputs/distill/… [KEY=VALUE …]

prints a table of markdown; KEY=VALUE go over the run's data config, such as root=/elsewhere.
"""

import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.nn.functional import kl_div

from tutelage.config.saved import data_of, network_of
from tutelage.evaluation.predictions import eval_mode
from tutelage.report.dark_knowledge import find

TEMPERATURE, BATCHES = 20.0, 20


def divergence(student: Tensor, teacher: Tensor, reduction: str) -> float:
    """KLDivLoss at T = 20, without T²."""
    log_p, q = (student / TEMPERATURE).log_softmax(1), (teacher / TEMPERATURE).softmax(1)
    return float(kl_div(log_p, q, reduction=reduction))


def traps(teacher: nn.Module, student: nn.Module, batches: Iterator[dict[str, Tensor]]) -> dict[str, float]:
    """Means over ``batches`` of what the two mistakes change; the teacher's dropout draws from seed 0."""
    sums: dict[str, float] = {}
    count = 0
    with torch.random.fork_rng(), torch.no_grad(), eval_mode(teacher), eval_mode(student):
        torch.manual_seed(0)
        for batch in batches:
            quiet, said = teacher.eval()(batch["input"]), student(batch["input"])
            loud, again = teacher.train()(batch["input"]), teacher(batch["input"])
            count += 1
            for key, value in {
                "kl_batchmean": divergence(said, quiet, "batchmean"),
                "kl_mean": divergence(said, quiet, "mean"),
                "kl_dropout": divergence(said, loud, "batchmean"),
                "kl_between_dropouts": divergence(loud, again, "batchmean"),
                "teacher_right": float((quiet.argmax(1) == batch["label"]).float().mean()),
                "teacher_right_dropout": float((loud.argmax(1) == batch["label"]).float().mean()),
            }.items():
                sums[key] = sums.get(key, 0.0) + value
    return {key: value / count for key, value in sums.items()}


def main() -> None:
    """Measures a run: its first training batches, and the teacher's accuracy on test."""
    run, changes = Path(sys.argv[1]), sys.argv[2:]
    path = run / "checkpoints" / "last.safetensors"
    (teacher, _), (student, header) = network_of(find(run)), network_of(path)
    data = data_of(header, OmegaConf.from_dotlist(changes), path)
    on_train = traps(teacher, student, islice(data.unaugmented_train_loader(0), BATCHES))
    on_test = traps(teacher, student, iter(data.whole("test")))
    print(f"| | {BATCHES} training batches | test |\n|---|---|---|")
    for key in on_train:
        print(f"| {key} | {on_train[key]:.6f} | {on_test[key]:.6f} |")


if __name__ == "__main__":
    main()
