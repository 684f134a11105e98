"""Losses of soft decision trees (Frosst & Hinton 2017): cross-entropy of the leaves, balanced use of the branches."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.losses.base import Loss
from tutelage.losses.logits import checked_temperature, column, constant, log_softmax, rows
from tutelage.losses.precision import in_float32
from tutelage.losses.ranks import all_ranks


class LeafLabels(nn.Module):
    """Cross-entropy of every leaf with the label, weighted by its path probability.

    ``mean_b Σ_l P^l(x_b) · CE(t_b, softmax(φ^l))``, t the label, smoothed by ε: (1 − ε) · 1[c = y] + ε/C. The
    logarithm is inside the sum over leaves, unlike in the mixture's −log Σ_l P^l Q^l_y: each leaf is penalised for the
    examples that reach it, independently of the others. (The paper's equation 3 has another logarithm around the sum,
    of a negative number; this is what its text describes.)

    Args:
        label_smoothing: ε.

    Shape:
        paths [B, L], log path probabilities; leaves [L, C], φ; label [B]; a scalar.

    Raises:
        TutelageError: ε is not in [0, 1], or shapes do not match.

    Published weight: not given; 1 − alpha beside :class:`LeafSoftTarget`.

    Frosst & Hinton, "Distilling a Neural Network Into a Soft Decision Tree", 2017, arXiv:1711.09784.
    """

    over_classes = True
    label_smoothing: Tensor

    def __init__(self, label_smoothing: float = 0.0):
        super().__init__()
        epsilon = constant(label_smoothing, "LeafLabels.label_smoothing", 0.0, 1.0)
        self.register_buffer("label_smoothing", epsilon, persistent=False)

    @in_float32
    def forward(self, paths: Tensor, leaves: Tensor, label: Tensor) -> Tensor:
        """Returns the loss, a scalar."""
        expected = _expected(paths, log_softmax(leaves), "LeafLabels")
        right = expected.gather(1, column(label, expected, "LeafLabels")).mean()
        return -torch.lerp(right, expected.mean(), self.label_smoothing.to(expected.dtype))


class LeafSoftTarget(nn.Module):
    """Cross-entropy of every leaf with the teacher's distribution, weighted by its path probability.

    ``T² · mean_b Σ_l P^l(x_b) · CE(q_b, softmax(φ^l / T))``, ``q = softmax(z_t / T)``. With one leaf it is
    :class:`~tutelage.losses.logit.soft_target.SoftTarget` plus T² times the teacher's entropy, a constant. The paper
    has no T, i.e. T = 1.

    Args:
        temperature: T.

    Shape:
        paths [B, L], log path probabilities; leaves [L, C], φ; teacher [B, C]; a scalar.

    Raises:
        TutelageError: T is not finite or below 1e-3, or shapes do not match.

    Published weight: not given ("a composite of the true labels and the predictions of the neural net").

    Frosst & Hinton, "Distilling a Neural Network Into a Soft Decision Tree", 2017, arXiv:1711.09784.
    """

    over_classes = True
    temperature: Tensor

    def __init__(self, temperature: float = 1.0):
        super().__init__()
        self.register_buffer("temperature", checked_temperature(temperature, "LeafSoftTarget"), persistent=False)

    @in_float32
    def forward(self, paths: Tensor, leaves: Tensor, teacher: Tensor) -> Tensor:
        """Returns the loss, a scalar."""
        expected = _expected(paths, log_softmax(leaves, self.temperature), "LeafSoftTarget")
        teacher = rows(teacher, "LeafSoftTarget")
        if teacher.shape != expected.shape:
            raise TutelageError(
                f"LeafSoftTarget: expected a teacher of {list(expected.shape)}, found {list(teacher.shape)}"
            )
        q = log_softmax(teacher, self.temperature).exp()
        return -(q * expected).sum() * self.temperature**2 / len(q)


class Balance(Loss):
    """Penalises inner nodes that send unequal shares of the examples to the left and to the right.

    ``−Σ_i 2^{−d_i} [½ log α_i + ½ log(1 − α_i)]`` over the inner nodes i at depth d_i (the root's is 0), ``α_i`` the
    share of the probability mass at i that goes right: ``Σ_b P^i(x_b) p_i(x_b) / Σ_b P^i(x_b)``. λ is the term's
    weight. Few examples reach a deep node, so in training α_i is averaged over batches: first a plain mean, then an
    exponential average with a window of ``window · 2^{d_i}`` batches. The gradient is that of the current batch's part.

    On several ranks α_i is that of the whole batch. In ``eval()`` the average is neither read nor written.

    Args:
        window: number of batches that the root's average spans; 1 is the current batch alone.

    Attributes:
        average: [2^d − 1, 2], the averages of 1 − α and α, breadth first; part of the state_dict.
        batches: number of batches averaged so far; part of the state_dict.

    Shape:
        paths [B, 2^d], log path probabilities; a scalar.

    Raises:
        TutelageError: window is below 1, or the number of leaves is not a power of 2.

    Published weight: the paper gives neither λ nor the window, only how they change with the depth.

    Frosst & Hinton, "Distilling a Neural Network Into a Soft Decision Tree", 2017, arXiv:1711.09784.
    """

    over_classes = True
    same_on_ranks = True

    average: Tensor
    batches: Tensor

    def __init__(self, window: float = 1.0):
        super().__init__()
        self.window = float(constant(window, "Balance.window", low=1.0))
        self.register_buffer("average", torch.empty(0, 2))
        self.register_buffer("batches", torch.tensor(0.0))
        self.register_load_state_dict_pre_hook(_make_room)

    @in_float32
    def forward(self, paths: Tensor) -> Tensor:
        """Returns the penalty, a scalar."""
        if paths.dim() != 2 or (leaves := paths.shape[1]) < 2 or leaves & (leaves - 1):
            raise TutelageError(f"Balance: expected log path probabilities [B, 2^d], found {list(paths.shape)}")
        if not len(self.average):  # the very first forward runs in eval mode, so training finds a tensor to update
            self.average = self.average.new_zeros(leaves - 1, 2)
        mass = paths.logsumexp(0)
        log_shares = _log_shares(self._of_all_ranks(mass) if self.training else mass)
        nodes = torch.arange(1, leaves, device=paths.device, dtype=paths.dtype)
        growth = nodes / (2 * nodes.frexp().mantissa)  # 2^d of every node, exactly
        if self.training:
            log_shares = self._averaged(log_shares, growth[:, None])
        return -(log_shares.sum(1) / (2 * growth)).sum()

    def _averaged(self, log_shares: Tensor, growth: Tensor) -> Tensor:
        """Returns the logarithms of the running averages, this batch included."""
        self.batches += 1
        part = 1 / torch.minimum(self.batches.to(growth.dtype), self.window * growth)
        before = (self.average.to(part.dtype) * (1 - part)).log()
        averaged = torch.logaddexp(before, log_shares + part.log())
        self.average.copy_(averaged.detach().exp())
        return averaged

    @staticmethod
    def _of_all_ranks(mass: Tensor) -> Tensor:
        """Returns the log of the ranks' mean mass; DDP's average of its gradients is that of the whole batch."""
        own = mass.detach()
        ranks = all_ranks(own[None, None])[0]
        if len(ranks) == 1:
            return mass
        mean = ranks.logsumexp(0) - math.log(len(ranks))
        return mean + (mass - own) * (own - mean).exp()


def _expected(paths: Tensor, log_q: Tensor, what: str) -> Tensor:
    """Returns ``Σ_l P^l log Q^l`` [B, C], in which every cross-entropy with a distribution is linear."""
    if paths.dim() != 2 or log_q.dim() != 2 or paths.shape[1] != len(log_q):
        raise TutelageError(
            f"{what}: expected log path probabilities [B, L] and leaves [L, C], "
            f"found {list(paths.shape)} and {list(log_q.shape)}"
        )
    return paths.exp() @ log_q


def _log_shares(mass: Tensor) -> Tensor:
    """Returns log(1 − α) and log α of the inner nodes, [2^d − 1, 2], breadth first, from the leaves' log mass [2^d]."""
    levels = []
    while len(mass) > 1:
        children = mass.view(-1, 2)
        mass = children.logsumexp(1)
        levels.append(children - mass[:, None])
    return torch.cat(levels[::-1])


def _make_room(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Resizes the averages to those of a state dict before it is loaded."""
    if isinstance(module, Balance) and (stored := state.get(f"{prefix}average")) is not None:
        module.average = module.average.new_empty(stored.shape)
