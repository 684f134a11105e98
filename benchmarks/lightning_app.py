"""A distillation sweep as it is usually written with Lightning and Hydra: for ``benchmarks/sweep.py``.

The teacher's logits are computed once and lie in memory beside images that are already normalised; every step logs
three values; TensorBoard, no progress bar, Lightning's own checkpoints, validation after each epoch, a test at the end.
"""

import os

import hydra
import lightning as L
import torch
import torch.nn.functional as F
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


class Student(L.LightningModule):  # noqa: D101
    def __init__(self, temperature: float, alpha: float):
        super().__init__()
        self.net = nn.Sequential(
            nn.Flatten(), nn.Linear(784, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 10)
        )  # fmt: skip
        self.temperature, self.alpha = temperature, alpha

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:  # noqa: D102
        x, y, teacher = batch
        logits = self.net(x)
        hard = F.cross_entropy(logits, y)
        t = self.temperature
        soft = F.kl_div(F.log_softmax(logits / t, -1), F.softmax(teacher / t, -1), reduction="batchmean") * t * t
        loss = (1 - self.alpha) * hard + self.alpha * soft
        self.log("train/loss", loss)
        self.log("train/hard", hard)
        self.log("train/soft", soft)
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:  # noqa: D102
        self.log("val/accuracy", (self.net(batch[0]).argmax(-1) == batch[1]).float().mean())

    def test_step(self, batch: list[Tensor], batch_idx: int) -> None:  # noqa: D102
        self.log("test/accuracy", (self.net(batch[0]).argmax(-1) == batch[1]).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:  # noqa: D102
        return torch.optim.Adam(self.parameters())


@hydra.main(version_base="1.3", config_path=None)
def main(cfg: DictConfig) -> None:
    torch.set_num_threads(1)  # a second one only waits at this size
    L.seed_everything(cfg.seed, verbose=False)
    parts = torch.load(os.environ["SWEEP_DATA"])
    loaders = [
        DataLoader(TensorDataset(*parts[split]), batch_size=64 if split == "train" else 512, shuffle=split == "train")
        for split in ("train", "val", "test")
    ]
    folder = hydra.core.hydra_config.HydraConfig.get().runtime.output_dir
    trainer = L.Trainer(
        max_epochs=cfg.epochs, accelerator="cpu", default_root_dir=folder, enable_progress_bar=False,
        enable_model_summary=False, logger=L.pytorch.loggers.TensorBoardLogger(folder),
    )  # fmt: skip
    trainer.fit(module := Student(cfg.temperature, cfg.alpha), *loaders[:2])
    trainer.test(module, loaders[2], verbose=False)


if __name__ == "__main__":
    main()
