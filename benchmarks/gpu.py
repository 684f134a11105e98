"""Training steps per second on a GPU: Tutelage against loops written by hand, in one run.

    python benchmarks/gpu.py [--pairs cnn_dense resnet] [--rounds 2]
    python benchmarks/gpu.py --device cpu --examples 1000 --rounds 1 --stacks 2    without a GPU, to see that it works

Batches of 64, soft targets; images of MNIST's and CIFAR-100's sizes are random numbers, so that no data set is needed.

* eager: whole tensors on the device, fused optimizer, the teacher live or its logits computed once; nothing else;
* graphed: the same step captured by hand as a CUDA graph, the least that these kernels cost;
* tutelage: a student's training with its progress bar, TensorBoard and checkpoints, ``graph=never`` and ``auto``;
* tutelage on the CPU: the same, which a GPU should beat;
* torchdistill: its box and loop, if it is installed.

Interleaved, medians over the rounds. Each is timed over some epochs and over twice as many; the difference counts, so
that start-up does not. Then ``stack.py``: 64 and 256 students as one module.
"""

# ruff: noqa: E402  (it may not be installed)

import argparse
import contextlib
import importlib.util
import io
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / part) for part in ("src", "tests/helpers")]

import tutelage.cli.main  # noqa: F401  (how threads wait: before torch)

# isort: split
import cifar_writer
import numpy as np
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from plain import ALPHA, BATCH, T, kd_loss, networks
from small_mnist import write_part
from torch import Tensor

from tutelage.checkpoints.weights import save_network
from tutelage.config import factory, resolvers, source_nodes
from tutelage.config.paths import conf_dir
from tutelage.data.base import ImageData
from tutelage.pipeline import fit
from tutelage.pipeline.teacher_cache import cached
from tutelage.seeding import seeded

PAIRS = {
    "cnn_dense": ("data=mnist", "model@teacher=cnn", "model@student=dense"),
    "resnet": (
        "data=cifar100",
        "data.verify=false",
        "model@teacher=resnet32x4",
        "model@student=resnet8x4",
        "trainer.precision=bf16-mixed",
    ),
}
EPOCHS = {"cnn_dense": 3, "resnet": 1}  # timed, and twice as many


@dataclass(frozen=True)
class Case:
    """One pair with its teacher live or cached.

    Attributes:
        pair: key of ``PAIRS``.
        live: whether the teacher runs in every step.
        root: folder of the images.
        device: ``gpu`` or ``cpu``.
    """

    pair: str
    live: bool
    root: Path
    device: str

    def config(self, epochs: int, *overrides: str) -> DictConfig:
        """Composes the job of so many epochs."""
        words = [
            f"data.root={self.root}", "data.download=false", "data.val_size=512",
            f"data.batch_size={BATCH}", f"trainer.max_epochs={epochs}", f"trainer.accelerator={self.device}",
            f"loss.temperature={T}", f"loss.alpha={ALPHA}", "data.augment=null",
            f"sources.teacher.cache={str(not self.live).lower()}", "paths.outputs=/unused",
        ]  # fmt: skip
        with initialize_config_dir(conf_dir(), version_base="1.3"):
            return compose("distill", overrides=[*PAIRS[self.pair], *words, *overrides])


def write_images(root: Path, examples: int) -> None:
    """Writes random images of both data sets' sizes and formats."""
    random = np.random.default_rng(0)
    for part, count in (("train", examples), ("t10k", 100)):
        images = random.integers(0, 256, (count, 28, 28), np.uint8)
        write_part(root, part, images, random.integers(0, 10, count).astype(np.uint8))
    files = cifar_writer.contents("CIFAR100", examples)
    cifar_writer.write(root, "CIFAR100", cifar_writer.written_by_python_3, **files)


def plain(case: Case, cfg: DictConfig, data: ImageData, graphed: bool) -> Callable[[int], None]:
    """Returns a loop by hand: epochs → None."""
    device = torch.device("cuda" if case.device == "gpu" else "cpu")
    teacher, student = (net.to(device) for net in networks(cfg))
    precision = str(cfg.trainer.precision)
    half = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed")
    optimizer = torch.optim.Adam(student.parameters(), fused=True, capturable=graphed)
    train = data.splits["train"]
    batch = train[0, torch.arange(len(train))]
    inputs, labels = batch["input"].to(device), batch["label"].to(device)
    with torch.no_grad(), half:
        kept = None if case.live else torch.cat([teacher(x).float() for x in inputs.split(512)])

    def step(rows: Tensor) -> None:
        x, y = inputs[rows], labels[rows]
        with half:
            with torch.no_grad():
                target = teacher(x) if kept is None else kept[rows]
            out = student(x)
        loss = kd_loss(out.float(), target.float(), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    replay = captured(step, torch.arange(BATCH, device=device)) if graphed else step

    def run(epochs: int) -> None:
        for _ in range(epochs):
            for rows in torch.randperm(len(labels), device=device).split(BATCH)[: len(labels) // BATCH]:
                replay(rows)

    return run


def captured(step: Callable[[Tensor], None], rows: Tensor) -> Callable[[Tensor], None]:
    """Returns ``step`` as a CUDA graph, after the warm-up that PyTorch's documentation asks for."""
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(3):
            step(rows)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step(rows)

    def replay(chosen: Tensor) -> None:
        rows.copy_(chosen)
        graph.replay()

    return replay


def ours(case: Case, data: ImageData, *overrides: str) -> Callable[[int], None]:
    """Returns the training of a student whose teacher's weights are there: epochs → None."""
    folder = Path(tempfile.mkdtemp(prefix="tutelage-gpu-", dir=case.root))
    weights = folder / "teacher.safetensors"
    first = factory.stage_config(case.config(1, *overrides), "student")
    save_network(factory.network(first.teacher, 0, "teacher").net, weights, {"stage": "teacher"})

    def run(epochs: int) -> None:
        stage = factory.stage_config(case.config(epochs, *overrides), "student")
        for node in source_nodes.networks(stage.sources):
            node.checkpoint = str(weights)
        here = Path(tempfile.mkdtemp(dir=folder))
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            stage = cached(stage, folder / "artifacts", data)
            fit.run(
                stage, "student", here / "student", here / "tensorboard", data,
                lambda: factory.distillation_module(stage, data, factory.sources(stage), None),
            )  # fmt: skip

    return run


def rate(run: Callable[[int], None], epochs: int, steps: int) -> float:
    """Returns steps per second, from the difference of ``2·epochs`` and ``epochs`` epochs of ``steps`` steps.

    NaN if the longer one took no longer: there were too few steps.
    """
    taken = []
    for count in (epochs, 2 * epochs):
        begun = time.perf_counter()
        run(count)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - begun)
    return epochs * steps / (taken[1] - taken[0]) if taken[1] > taken[0] else math.nan


def loops(case: Case, cfg: DictConfig, data: ImageData) -> Mapping[str, Callable[[int], None]]:
    """Returns what is compared: name → loop."""
    found = {"eager": plain(case, cfg, data, graphed=False), "tutelage": ours(case, data)}
    if case.device == "gpu":
        stages = [f"stages.{name}.graph=auto" for name in ("student", "teacher")]
        found["graphed"] = plain(case, cfg, data, graphed=True)
        found["tutelage, graph=auto"] = ours(case, data, *stages)
        if case.pair == "cnn_dense":  # a residual network would take minutes there
            found["tutelage on the CPU"] = ours(Case(case.pair, case.live, case.root, "cpu"), data)
    if importlib.util.find_spec("torchdistill"):
        found["torchdistill"] = torchdistill_loop(case, cfg, data)
    return found


def torchdistill_loop(case: Case, cfg: DictConfig, data: ImageData) -> Callable[[int], None]:
    """Returns torchdistill's box with a live teacher on the same images: epochs → None."""
    from taught import torchdistill

    device = torch.device("cuda" if case.device == "gpu" else "cpu")
    train = data.splits["train"]
    batch = train[0, torch.arange(len(train))]
    images = [(x, int(y)) for x, y in zip(batch["input"], batch["label"], strict=True)]
    return lambda epochs: torchdistill(cfg, images, len(images) // BATCH, epochs, device)


def measure(case: Case, rounds: int) -> None:
    """Prints a line of the table for each loop."""
    cfg = case.config(1)
    with seeded("benchmark"):
        data = factory.data(factory.stage_config(cfg, "student"))
        compared = loops(case, cfg, data)
        found: dict[str, list[float]] = {name: [] for name in compared}
        for _ in range(rounds):
            for name, run in compared.items():
                found[name].append(rate(run, EPOCHS[case.pair], len(data.splits["train"]) // BATCH))
    eager = statistics.median(found["eager"])
    for name, rates in found.items():
        middle = statistics.median(rates)
        spread = f"{min(rates):.0f} to {max(rates):.0f}"
        teacher = "live" if case.live else "cached"
        print(f"| {case.pair} | {teacher} | {name} | {middle:.0f} | {spread} | {middle / eager:.2f} |", flush=True)


def main() -> None:
    """Prints the table, and what stack.py says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu")
    parser.add_argument("--pairs", nargs="+", default=list(PAIRS), choices=list(PAIRS))
    parser.add_argument("--examples", type=int, default=20_000, help="training images, 512 of them for validation")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--stacks", nargs="*", type=int, default=[64, 256], help="numbers of students")
    given = parser.parse_args()
    if given.device == "gpu" and not torch.cuda.is_available():
        sys.exit("gpu: torch sees no GPU here; --device cpu --examples 1000 --rounds 1 runs it without one")
    resolvers.register()
    name = torch.cuda.get_device_name() if given.device == "gpu" else "CPU"
    print(f"{name}, torch {torch.__version__}\n\n| pair | teacher | loop | steps/s | spread | of eager |")
    print("|---|---|---|---:|---:|---:|", flush=True)
    with tempfile.TemporaryDirectory(prefix="tutelage-gpu-") as root:
        write_images(Path(root), given.examples)
        for pair in given.pairs:
            for live in (False, True):
                measure(Case(pair, live, Path(root), given.device), given.rounds)
        for students in given.stacks:
            words = f"--data {root} --device {given.device} --seeds 1 --cells {students} --rounds 2 data.val_size=512"
            print(f"{students} students:", flush=True)
            subprocess.run([sys.executable, Path(__file__).parent / "stack.py", *words.split()], check=True)


if __name__ == "__main__":
    main()
