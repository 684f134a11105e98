"""One distillation epoch on full MNIST with a live teacher: Tutelage against plain PyTorch loops.

    python benchmarks/epoch.py [--pairs cnn_dense mlp] [--rounds 5] [--steps 929] [--data ../shared/data]

(a) tutorial: a per-sample dataset with PIL transforms, default Adam, ``.item()`` at every step;
(b) floor: whole-tensor batches and fused Adam, nothing else;
(c) tutelage: the project's own data, module and Trainer, with progress bar, TensorBoard and checkpoints on.

The three run interleaved, each a whole epoch at batch 64; printed are medians over the rounds and their ratios, by wall
clock and by CPU time of the process (the second is steadier on a shared machine).
"""

import argparse
import contextlib
import io
import os
import statistics
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

os.environ["FORCE_COLOR"] = "1"  # draw the bar although nobody watches

import torch
from omegaconf import DictConfig
from plain import PAIRS, PerSample, config, floor, timed, tutorial

import tutelage.cli.main  # noqa: F401  (sets OMP_WAIT_POLICY before torch is imported)
from tutelage.config import factory, resolvers
from tutelage.data.base import ImageData
from tutelage.pipeline import fit
from tutelage.seeding import seeded


def ours(cfg: DictConfig, data: ImageData) -> Callable[[], None]:
    """Everything that a job builds for its student; what is returned trains the epoch."""
    stage = factory.stage_config(cfg, "student")
    folder = Path(tempfile.mkdtemp(prefix="tutelage-benchmark-"))
    module = factory.distillation_module(stage, data, factory.sources(stage), None)
    with contextlib.redirect_stdout(io.StringIO()):
        trainer = factory.trainer(stage, "student", folder, folder / "tensorboard", len(data.train_dataloader()))

    def epoch() -> None:
        with contextlib.redirect_stdout(io.StringIO()), fit.threads(module, data):
            trainer.fit(module, datamodule=data)

    return epoch


def measure(pair: str, root: str, rounds: int, steps: int) -> None:
    cfg = config(pair, root, 1, steps)
    data = factory.data(factory.stage_config(cfg, "student"))
    train = data.splits["train"]
    batch = train[0, torch.arange(len(train))]
    images = PerSample(data)
    found: dict[str, list[tuple[float, float]]] = {"a": [], "b": [], "c": []}
    for _ in range(rounds + 1):
        with seeded("benchmark"):
            found["b"].append(timed(lambda: floor(cfg, batch["input"], batch["label"], steps)))
            found["c"].append(timed(ours(cfg, data)))
            found["a"].append(timed(lambda: tutorial(cfg, images, steps)))
    medians = {name: [statistics.median(x) for x in zip(*times[1:], strict=True)] for name, times in found.items()}
    for clock, i in (("wall", 0), ("cpu", 1)):
        a, b, c = (medians[name][i] for name in "abc")
        print(f"| {pair} | {clock} | {a:.2f} | {b:.2f} | {c:.2f} | {c / b:.2f} | {a / c:.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", nargs="+", default=list(PAIRS), choices=list(PAIRS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=929, help="optimizer steps of an epoch, at most 929")
    parser.add_argument("--data", default=os.environ.get("TUTELAGE_DATA", "../shared/data"))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    resolvers.register()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {os.cpu_count()} CPUs")
    print("| pair | clock | (a) tutorial s | (b) floor s | (c) tutelage s | c/b | a/c |\n|---|---|---|---|---|---|---|")
    for pair in arguments.pairs:
        measure(pair, arguments.data, arguments.rounds, arguments.steps)


if __name__ == "__main__":
    main()
