"""The baselines of the benchmarks: loops written by hand, and the least that the work can cost."""

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from tutelage.config import factory
from tutelage.config.paths import conf_dir
from tutelage.data.base import ImageData

T, ALPHA, BATCH = 20.0, 0.7, 64
PAIRS = {
    "cnn_dense": ["model@teacher=cnn", "model@student=dense"],
    "mlp": ["model@teacher=mlp", "teacher.net.widths=[1200,1200]", "teacher.net.dropout=0.5",
            "model@student=mlp", "student.net.widths=[800,800]"],
}  # fmt: skip


class PerSample(Dataset):
    """MNIST as tutorials read it: a PIL image, ToTensor and Normalize for every example."""

    def __init__(self, data: ImageData):
        from torchvision import transforms

        train = data.splits["train"]
        batch = train[0, torch.arange(len(train))]
        pixels = batch["input"] * data.normalise.std + data.normalise.mean
        self.images, self.labels = pixels.mul(255).round().byte()[:, 0], batch["label"]
        self.transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.images[index].numpy(), mode=None)), int(self.labels[index])


def config(pair: str, root: str, epochs: int, steps: int) -> DictConfig:
    """Returns what ``tutelage distill`` would have for this pair on MNIST."""
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        overrides = [
            "data=mnist", f"data.root={root}", "data.download=false", "data.val_size=512", f"data.batch_size={BATCH}",
            f"trainer.max_epochs={epochs}", f"+trainer.limit_train_batches={steps}", "trainer.accelerator=cpu",
            f"loss.temperature={T}", f"loss.alpha={ALPHA}",
        ]  # fmt: skip
        return compose("distill", overrides=overrides + PAIRS[pair])


def kd_loss(student: Tensor, teacher: Tensor, label: Tensor) -> Tensor:
    soft = F.kl_div(F.log_softmax(student / T, -1), F.softmax(teacher / T, -1), reduction="batchmean") * T * T
    return (1 - ALPHA) * F.cross_entropy(student, label) + ALPHA * soft


def networks(cfg: DictConfig) -> tuple[nn.Module, nn.Module]:
    """Teacher and student in torch's own memory layout, as a tutorial has them."""
    stage = factory.stage_config(cfg, "student")
    teacher, student = (
        factory.network(stage.teacher, 0, "teacher").net,
        factory.network(stage.student, 0, "student").net,
    )
    plain = torch.contiguous_format
    return teacher.to(memory_format=plain).eval(), student.to(memory_format=plain).train()


def tutorial(cfg: DictConfig, images: PerSample, steps: int, epochs: int = 1) -> None:
    """A per-sample dataset, a live teacher, default Adam, ``.item()`` at every step."""
    teacher, student = networks(cfg)
    optimizer = torch.optim.Adam(student.parameters())
    total = 0.0
    for _ in range(epochs):
        for _, (x, y) in zip(range(steps), DataLoader(images, batch_size=BATCH, shuffle=True, drop_last=True)):  # noqa: B905
            with torch.no_grad():
                target = teacher(x)
            loss = kd_loss(student(x), target, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()


def floor(cfg: DictConfig, inputs: Tensor, labels: Tensor, steps: int, epochs: int = 1, keep: bool = False) -> None:
    """Whole-tensor batches and fused Adam, nothing else; the teacher live, or its logits kept in memory."""
    teacher, student = networks(cfg)
    optimizer = torch.optim.Adam(student.parameters(), fused=True)
    with torch.no_grad():
        kept = torch.cat([teacher(x) for x in inputs.split(512)]) if keep else None
    for _ in range(epochs):
        for rows in torch.randperm(len(labels)).split(BATCH)[:steps]:
            x, y = inputs[rows], labels[rows]
            with torch.no_grad():
                target = teacher(x) if kept is None else kept[rows]
            loss = kd_loss(student(x), target, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def timed(run: Callable[[], object]) -> tuple[float, float]:
    """Wall-clock and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - cpu
