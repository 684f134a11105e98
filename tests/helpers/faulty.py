"""Networks and losses with a user's mistakes."""

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
