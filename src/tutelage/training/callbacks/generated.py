"""Shows the images that were made for a student: by a generator in turn with it, or by ``tutelage condense`` before."""

import io
from pathlib import Path
from typing import cast

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from torch import Tensor

from tutelage.compat.lightning import logging_step
from tutelage.data.module import Data
from tutelage.runtime.files import write_atomically
from tutelage.training.alternating import AlternatingModule

NAME = "generated.png"
_SIDE, _GAP, _TIMES = 8, 2, 10  # images in a row and rows; pixels between them; how often in a training


class GeneratedImages(L.Callback):
    """Logs 64 generated images to TensorBoard ten times in a training, and writes the last to ``generated.png``.

    They are of the same random numbers each time, and in the brightness of the data. Images that were made before the
    training (``data.made``) are logged once.

    Args:
        fixed: whether the images are those of the data, of which the first 64 are shown.
    """

    def __init__(self, fixed: bool = False):
        self.fixed = fixed

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Logs them."""
        epochs = int(trainer.max_epochs or 1)
        every = max(1, epochs // _TIMES)
        boards = [one for one in trainer.loggers if isinstance(one, TensorBoardLogger)]
        if boards and (not trainer.current_epoch if self.fixed else (trainer.current_epoch + 1) % every == 0):
            picture = self._grid(trainer, pl_module)
            for board in boards:
                board.experiment.add_image("generated", picture, logging_step(trainer))

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Writes them."""
        pixels = self._grid(trainer, pl_module).permute(1, 2, 0)
        path = Path(trainer.default_root_dir) / NAME
        made = Image.fromarray(pixels.squeeze(2).numpy() if pixels.shape[2] == 1 else pixels.numpy())
        write_atomically(path, _png(made))

    def _grid(self, trainer: L.Trainer, pl_module: L.LightningModule) -> Tensor:
        """Returns the images as one, [C, H, W] uint8."""
        data: Data = trainer.datamodule  # type: ignore[attr-defined]
        if self.fixed:
            images = torch.cat([batch["input"] for batch in data.whole("train")])[: _SIDE**2].float()
        else:
            images = cast(AlternatingModule, pl_module).examples(_SIDE**2).float().cpu()
        pictures = data.pictures(images)
        return grid(images.sigmoid() if pictures is None else pictures)


def grid(images: Tensor) -> Tensor:
    """Returns images [n, C, H, W] in [0, 1] as one of 8 columns, [C, height, width] uint8; white where none is left."""
    images = torch.cat([images, images.new_ones(-len(images) % _SIDE, *images.shape[1:])])
    framed = torch.nn.functional.pad((images * 255).round().byte(), (0, _GAP, 0, _GAP), value=255)
    rows = framed.unflatten(0, (-1, _SIDE)).permute(2, 0, 3, 1, 4)  # C, row, height, column, width
    return rows.flatten(3, 4).flatten(1, 2)[:, :-_GAP, :-_GAP]


def _png(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "PNG", optimize=True)
    return out.getvalue()
