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
import time
import warnings
from collections.abc import Callable
from pathlib import Path

os.environ["FORCE_COLOR"] = "1"  # draw the bar although nobody watches

import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

import tutelage  # noqa: F401  (sets OMP_WAIT_POLICY before torch is imported)
from tutelage import build, resolvers, stages
from tutelage.data.base import ImageData
from tutelage.paths import conf_dir
from tutelage.seeding import seeded

T, ALPHA = 20.0, 0.7
PAIRS = {
    "cnn_dense": ["model@teacher=cnn", "model@student=dense"],
    "mlp": ["model@teacher=mlp", "teacher.net.widths=[1200,1200]", "teacher.net.dropout=0.5",
            "model@student=mlp", "student.net.widths=[800,800]"],
}  # fmt: skip


class PerSample(Dataset):
    """MNIST as tutorials read it: a PIL image, ToTensor and Normalize for every example."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor):
        self.images, self.labels = images, labels
        self.transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.images[index].numpy(), mode=None)), int(self.labels[index])


def kd_loss(student: torch.Tensor, teacher: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    soft = F.kl_div(F.log_softmax(student / T, -1), F.softmax(teacher / T, -1), reduction="batchmean") * T * T
    return (1 - ALPHA) * F.cross_entropy(student, label) + ALPHA * soft


def networks(cfg: DictConfig) -> tuple[nn.Module, nn.Module]:
    """Teacher and student in torch's own memory layout, as a tutorial has them."""
    stage = build.stage_config(cfg, "student")
    teacher, student = build.network(stage.teacher, 0, "teacher").net, build.network(stage.student, 0, "student").net
    plain = torch.contiguous_format
    return teacher.to(memory_format=plain).eval(), student.to(memory_format=plain).train()


def tutorial(cfg: DictConfig, images: torch.Tensor, labels: torch.Tensor) -> None:
    teacher, student = networks(cfg)
    optimizer = torch.optim.Adam(student.parameters())
    total = 0.0
    for x, y in DataLoader(PerSample(images, labels), batch_size=64, shuffle=True, drop_last=True):
        with torch.no_grad():
            target = teacher(x)
        loss = kd_loss(student(x), target, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()


def floor(cfg: DictConfig, inputs: torch.Tensor, labels: torch.Tensor) -> None:
    teacher, student = networks(cfg)
    optimizer = torch.optim.Adam(student.parameters(), fused=True)
    for rows in torch.randperm(len(labels)).split(64)[: len(labels) // 64]:
        x, y = inputs[rows], labels[rows]
        with torch.no_grad():
            target = teacher(x)
        loss = kd_loss(student(x), target, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def ours(cfg: DictConfig, data: ImageData) -> Callable[[], None]:
    """Everything that a job builds for its student; what is returned trains the epoch."""
    stage = build.stage_config(cfg, "student")
    folder = Path(tempfile.mkdtemp(prefix="tutelage-benchmark-"))
    module = build.distillation_module(stage, data.num_classes, build.sources(stage, {}), None)
    with contextlib.redirect_stdout(io.StringIO()):
        trainer = build.trainer(stage, "student", folder, folder / "tensorboard", len(data.train_dataloader()))

    def epoch() -> None:
        with contextlib.redirect_stdout(io.StringIO()), stages.threads(module, data):
            trainer.fit(module, datamodule=data)

    return epoch


def timed(run: Callable[[], None]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - cpu


def measure(pair: str, root: str, rounds: int, steps: int) -> None:
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        overrides = [
            "data=mnist",
            f"data.root={root}",
            "data.download=false",
            "data.val_size=512",
            "trainer.max_epochs=1",
        ]
        overrides += [f"+trainer.limit_train_batches={steps}", "trainer.accelerator=cpu"]
        overrides += [f"loss.temperature={T}", f"loss.alpha={ALPHA}", *PAIRS[pair]]
        cfg = compose("distill", overrides=overrides)
    data = build.data(build.stage_config(cfg, "student"))
    train = data.splits["train"]
    batch = train[0, torch.arange(min(len(train), 64 * steps))]
    inputs, labels = batch["input"], batch["label"]
    images = (inputs * data.normalise.std + data.normalise.mean).mul(255).round().byte()[:, 0]
    found: dict[str, list[tuple[float, float]]] = {"a": [], "b": [], "c": []}
    for _ in range(rounds + 1):
        with seeded("benchmark"):
            found["b"].append(timed(lambda: floor(cfg, inputs, labels)))
            found["c"].append(timed(ours(cfg, data)))
            found["a"].append(timed(lambda: tutorial(cfg, images, labels)))
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
