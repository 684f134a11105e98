"""Trajectories of experts: the weights that networks pass through while they learn from all real images."""

import logging
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector

from tutelage.condense.images import TrainingSet, check_counts
from tutelage.condense.matching import augmented, batches, drawn
from tutelage.data.augment import Step
from tutelage.errors import TutelageError
from tutelage.models.convnet import ConvNet
from tutelage.runtime.files import write_atomically

log = logging.getLogger(__name__)


class Experts:
    """Networks trained by plain SGD on the real images, whose weights after each epoch are kept.

    Args:
        count: number of networks; published: 100.
        epochs: of each; published: 50.
        lr: of SGD; published: 0.01.
        batch: images of a step; published: 256.
        per_class: training images of each class that one sees, drawn for it; None: all, as published.
        width: channels of a convolution; published: 128.
        depth: number of blocks; published: 3.
        padding: of the first convolution; published for images of one channel: 3.
        augment: of their images, each by itself; None: nothing.
        seed: of weights, order and augmentation.

    Raises:
        TutelageError: an argument is out of range.
    """

    def __init__(
        self,
        count: int = 10,
        epochs: int = 20,
        lr: float = 0.01,
        batch: int = 256,
        per_class: int | None = None,
        width: int = 32,
        depth: int = 3,
        padding: int = 1,
        augment: Step | None = None,
        seed: int = 0,
    ):
        counts = {"count": count, "epochs": epochs, "batch": batch, "width": width, "depth": depth, "padding": padding}
        check_counts(**{f"experts.{key}": one for key, one in (counts | {"per_class": per_class or 1}).items()})
        if not lr > 0:
            raise TutelageError(f"condense.experts.lr must be above 0; found {lr}")
        self.count, self.epochs, self.lr, self.batch, self.per_class = count, epochs, float(lr), batch, per_class
        self.width, self.depth, self.padding, self.augment, self.seed = width, depth, padding, augment, seed

    def network(self, train: TrainingSet, *chance: int | str) -> ConvNet:
        """Returns an untrained network, its weights a function of ``chance``."""
        return drawn(train, self.width, self.depth, self.padding, *chance)

    def train(self, train: TrainingSet, folder: Path) -> None:
        """Writes the trajectory of each network that has none in a folder; one that was killed begins again."""
        for number in range(self.count):
            if not file(folder, number).is_file():
                write_atomically(file(folder, number), save({"parameters": self.trajectory(train, number)}))
                log.info("condense expert %d/%d", number + 1, self.count)

    def trajectory(self, train: TrainingSet, number: int) -> Tensor:
        """Returns the weights of a network before its training and after each epoch, [epochs + 1, parameters].

        Raises:
            TutelageError: its weights are not finite.
        """
        chance = (self.seed, "condense", "expert", number)
        net = self.network(train, *chance)
        rows = torch.arange(len(train.labels))
        if self.per_class is not None:
            rows = train.balanced(self.per_class, *chance, "images")
        optimizer = torch.optim.SGD(net.parameters(), lr=self.lr)
        path = [parameters_to_vector(net.parameters()).detach()]
        for epoch in range(self.epochs):
            for step, batch in enumerate(batches(len(rows), self.batch, *chance, epoch)):
                chosen = rows[batch]
                seen = augmented(self.augment, train.images[chosen], chosen, *chance, epoch, step, "augment")
                optimizer.zero_grad()
                F.cross_entropy(net(seen), train.labels[chosen]).backward()
                optimizer.step()
            path.append(parameters_to_vector(net.parameters()).detach())
        if not path[-1].isfinite().all():
            raise TutelageError(f"condense: weights of expert {number} are not finite; try a lower condense.experts.lr")
        return torch.stack(path)


def file(folder: Path, number: int) -> Path:
    """Returns the file of a network's trajectory."""
    return folder / f"expert-{number:03d}.safetensors"


def weights(folder: Path, number: int, *epochs: int) -> list[Tensor]:
    """Returns a network's weights after some numbers of epochs, [parameters] each.

    Raises:
        TutelageError: the file can't be read.
    """
    path = file(folder, number)
    try:
        with safe_open(path, "pt") as content:
            found = content.get_slice("parameters")
            return [found[epoch] for epoch in epochs]
    except (OSError, SafetensorError) as error:
        raise TutelageError(f"{path} is no file of a trajectory: {error}") from error
