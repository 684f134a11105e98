"""Networks, losses and other classes with a user's mistakes."""

import lightning as L
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import nn


class Net(nn.Module):
    """Calls what is not there."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x):
        return self.layr(x.flatten(1))


class NoWeights(nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :10]


class OneEach(nn.Module):
    """A loss for each example and class."""

    def forward(self, student, teacher):
        return (student - teacher).square()


class Number(nn.Module):
    def forward(self, student, teacher):
        return 1.0


class Nothing(nn.Module):
    def forward(self, student, teacher):
        (student - teacher).square().mean()


class WrongKey(nn.Module):
    def forward(self, student, teacher):
        return {}["x"]


class NoTeacher(nn.Module):
    def forward(self, student):
        return student.mean()


class Callback(L.Callback):
    """Fails in one hook."""

    def __init__(self, hook):
        setattr(self, hook, self.fail)

    def fail(self, *arguments, **more):
        return 1 / 0


class FailsAtOnce(L.Callback):
    def __init__(self):
        raise ValueError("never made")


class Logger(CSVLogger):
    def __init__(self, save_dir=".", name="mine", version=None):
        super().__init__(save_dir, name, version)

    def log_metrics(self, metrics, step=None):
        return {}["no such metric"]


class Steps(torch.optim.SGD):
    def step(self, closure=None):
        return [][0]
