"""From a trained teacher to a distilled student on full MNIST, 20 epochs at batch 64: Tutelage against plain loops.

    python benchmarks/taught.py [--pairs cnn_dense mlp] [--epochs 20] [--rounds 3] [--few 2] [--data ../shared/data]

(a) tutorial: a per-sample dataset with PIL transforms, a live teacher, default Adam, ``.item()`` at every step;
(b) floor: whole-tensor batches, fused Adam, the teacher's logits computed once and kept in memory, nothing else;
(c) tutelage: the teacher's logits written to disk, training with progress bar, TensorBoard and checkpoints,
    validation after each epoch, both weights' predictions on validation and test data, the finished folder;
(d) torchdistill with the data set of (a), if it is installed (``pip install torchdistill``).

Interleaved; medians over the rounds and their ratios, by wall clock and CPU time. (a) and (d), whose epochs all cost
the same, run ``--few`` epochs and are scaled up to all.
"""

import argparse
import contextlib
import importlib.util
import io
import logging
import os
import statistics
import tempfile
import warnings
from pathlib import Path

os.environ["FORCE_COLOR"] = "1"  # draw the bar although nobody watches

import torch
from omegaconf import DictConfig
from plain import ALPHA, BATCH, PAIRS, PerSample, T, config, floor, networks, timed, tutorial
from torch.utils.data import Dataset, RandomSampler

import tutelage.cli.main  # noqa: F401  (sets OMP_WAIT_POLICY before torch is imported)
from tutelage.checkpoints.weights import save_network
from tutelage.config import factory, resolvers, source_nodes
from tutelage.data.base import ImageData
from tutelage.pipeline import fit
from tutelage.pipeline.teacher_cache import cached
from tutelage.seeding import seeded


def ours(cfg: DictConfig, data: ImageData) -> None:
    """Runs a job whose teacher and control are there, with a cache that is not written yet."""
    stage = factory.stage_config(cfg, "student")
    folder = Path(tempfile.mkdtemp(prefix="tutelage-benchmark-"))
    weights = folder / "teacher.safetensors"
    save_network(factory.network(stage.teacher, 0, "teacher").net, weights, {"stage": "teacher"})
    for node in source_nodes.networks(stage.sources):
        node.checkpoint = str(weights)
    with contextlib.redirect_stdout(io.StringIO()):
        stage = cached(stage, folder / "artifacts", data)
        fit.run(
            stage, "student", folder / "student", folder / "tensorboard", data,
            lambda: factory.distillation_module(stage, data, factory.sources(stage), None),
        )  # fmt: skip


def torchdistill(cfg: DictConfig, images: Dataset | list, steps: int, epochs: int, device: torch.device) -> None:
    """Its own box and loop, with its KD loss (whose alpha weighs the labels)."""
    from torchdistill.core.distillation import get_distillation_box

    teacher, student = networks(cfg)
    reads = {f"{who}_module_path": "." for who in ("student", "teacher")}
    reads |= {f"{who}_module_io": "output" for who in ("student", "teacher")}
    kd = {"criterion": {"key": "KDLoss", "kwargs": {**reads, "temperature": T, "alpha": 1 - ALPHA}}, "weight": 1.0}
    side = {"forward_proc": "forward_batch_only"}
    loader = {"dataset_id": "train", "kwargs": {"batch_size": BATCH, "drop_last": True},
              "sampler": {"class_or_func": RandomSampler, "kwargs": {}}}  # fmt: skip
    train = {
        "num_epochs": epochs,
        "train_data_loader": loader,
        "teacher": {**side, "requires_grad": False},
        "student": side,
        "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": {"kd": kd}}},
        "optimizer": {"key": "Adam", "kwargs": {"lr": 1e-3}},
    }
    box = get_distillation_box(teacher.to(device), student.to(device), {"train": images}, train, device, None, False, 1)
    for epoch in range(epochs):
        box.pre_epoch_process(epoch=epoch)
        for _, (x, y, more) in zip(range(steps), box.train_data_loader):  # noqa: B905
            box.post_forward_process(loss=box.forward_process(x.to(device), y.to(device), more))
        box.post_epoch_process()


def measure(pair: str, arguments: argparse.Namespace) -> None:
    epochs, few, steps = arguments.epochs, arguments.few, arguments.steps
    cfg = config(pair, arguments.data, epochs, steps)
    data = factory.data(factory.stage_config(cfg, "student"))
    train = data.splits["train"]
    batch, images = train[0, torch.arange(len(train))], PerSample(data)
    runs = {
        "b": (lambda: floor(cfg, batch["input"], batch["label"], steps, epochs, keep=True), 1),
        "c": (lambda: ours(cfg, data), 1),
        "a": (lambda: tutorial(cfg, images, steps, few), epochs / few),
    }
    if importlib.util.find_spec("torchdistill"):
        runs["d"] = (lambda: torchdistill(cfg, images, steps, few, torch.device("cpu")), epochs / few)
    found: dict[str, list[list[float]]] = {name: [] for name in runs}
    for _ in range(arguments.rounds):
        for name, (run, scale) in runs.items():
            with seeded("benchmark"):
                found[name].append([scale * seconds for seconds in timed(run)])
    medians = {name: [statistics.median(x) for x in zip(*times, strict=True)] for name, times in found.items()}
    for clock, i in (("wall", 0), ("cpu", 1)):
        a, b, c = (medians[name][i] for name in "abc")
        d, faster = (f"{medians['d'][i]:.1f}", f"{medians['d'][i] / c:.1f}") if "d" in medians else ("–", "–")
        print(
            f"| {pair} | {clock} | {a:.1f} | {b:.1f} | {c:.1f} | {d} | {c / b:.2f} | {a / c:.1f} | {faster} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", nargs="+", default=list(PAIRS), choices=list(PAIRS))
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--few", type=int, default=2, help="epochs that (a) and (d) really run")
    parser.add_argument("--steps", type=int, default=929, help="optimizer steps of an epoch, at most 929")
    parser.add_argument("--data", default=os.environ.get("TUTELAGE_DATA", "../shared/data"))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    for noisy in ("lightning.pytorch", "torchdistill"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    resolvers.register()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {os.cpu_count()} CPUs")
    heads = ["pair", "clock", "(a) tutorial s", "(b) floor s", "(c) tutelage s", "(d) torchdistill s"]
    print("| " + " | ".join([*heads, "c/b", "a/c", "d/c"]) + " |\n" + "|---" * 9 + "|")
    for pair in arguments.pairs:
        measure(pair, arguments)


if __name__ == "__main__":
    main()
