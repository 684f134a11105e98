"""Online knowledge distillation by collaborative learning (Guo et al. 2020)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.errors import TutelageError, nearest
from tutelage.losses.base import Loss
from tutelage.losses.logit.soft_target import soft_target
from tutelage.losses.logits import all_members, checked_temperature, column
from tutelage.losses.online.simplex import least_on_simplex
from tutelage.losses.precision import in_float32
from tutelage.losses.ranks import all_ranks

_STEPS = 50  # of gradients towards the weights of a target; 0.001 nats from the least cross-entropy, on average
_NEWTON_STEPS = 12  # towards the single weight of two networks


class KDCL(Loss):
    """Draws each of K networks to one target that is made of the logits of all of them.

    ``Σ_i T² · mean_b KL(q ‖ p_i)``, p_i = softmax(z_i / T), q = softmax(z / T) detached. The target's logits z are, by
    ``rule``, for each example with label y:

    * ``mean``: the mean of all z_i, as a public reimplementation has it (shaoeric);
    * ``naive``: the z_i of least cross-entropy;
    * ``linear``: Σ w_i z_i of least cross-entropy over all w ≥ 0 with Σ w = 1, by 50 accelerated gradient steps, of two
      networks by 12 of Newton's;
    * ``minlogit``: z_c = min_i (z_ic − z_iy), the least logit of every class relative to that of the label;
    * ``general``: Σ w_i z_i with w the same for all examples: of least ``wᵀ E w`` over w ≥ 0, Σ w = 1, with E_ij the
      mean of Σ_c (p_ic − 1[c = y]) (p_jc − 1[c = y]) at T = 1. In the first epoch w is equal; then it is of the epoch
      before, as the training batches went by. The paper measures E on held-out examples after each epoch.

    Args:
        rule: how the target is made.
        temperature: T.
        peers: K − 1, which ``general`` needs to know.

    Attributes:
        weights: w of ``general`` [K], part of the state_dict as its running sums are.

    Shape:
        student [B, C]; peers [B, K − 1, C]; label [B]. Returns a scalar.

    Raises:
        TutelageError: an unknown rule, T is not finite or below 1e-3, or the shapes do not match.

    Published weight: 1 with cross-entropy at 1 for each network, T = 2; shaoeric: ``mean``, T = 4, with a half each. In
    both every network sees an augmentation of its own of an example, as here with ``data.inputs`` = K.

    Guo et al., "Online Knowledge Distillation via Collaborative Learning", CVPR 2020.
    """

    over_classes = True
    same_on_ranks = fixed_graph = True  # on_epoch_start only changes numbers

    temperature: Tensor
    weights: Tensor
    errors: Tensor
    epoch: Tensor

    def __init__(self, rule: str = "minlogit", temperature: float = 2.0, peers: int = 1):
        super().__init__()
        if rule not in _RULES and rule != "general":
            raise TutelageError(f"KDCL.rule: found {rule!r}; {nearest(rule, [*_RULES, 'general'])}")
        if peers < 1:
            raise TutelageError(f"KDCL.peers: expected 1 or more, found {peers}")
        self.rule, networks = rule, peers + 1
        self.register_buffer("temperature", checked_temperature(temperature, "KDCL"), persistent=False)
        self.register_buffer("weights", torch.full((networks,), 1 / networks))
        self.register_buffer("errors", torch.zeros(networks, networks))
        self.register_buffer("epoch", torch.tensor(0))

    def on_epoch_start(self, epoch: int, epochs: int) -> None:
        """Sets the weights of ``general`` from the errors of the epoch before; does nothing within an epoch."""
        if self.rule != "general" or epoch == int(self.epoch):
            return
        if bool(self.errors.any()):
            self.weights.copy_(least_error(self.errors))
        self.errors.zero_()
        self.epoch.fill_(epoch)

    @in_float32
    def forward(self, student: Tensor, peers: Tensor, label: Tensor) -> Tensor:
        """Returns the loss, a scalar."""
        index = column(label, student, "KDCL")
        members = all_members(student, peers, "KDCL")
        with torch.no_grad():
            logits = torch.stack(members, 1)
            target = self._general(logits, index) if self.rule == "general" else _RULES[self.rule](logits, index)
        return torch.stack([soft_target(one, target, self.temperature) for one in members]).sum()

    def _general(self, logits: Tensor, label: Tensor) -> Tensor:
        if logits.shape[1] != len(self.weights):
            raise TutelageError(f"KDCL.peers={len(self.weights) - 1}: found the logits of {logits.shape[1] - 1}")
        if self.training:
            self.errors += all_ranks(error_products(logits, label)[None])[0].sum(0).to(self.errors.dtype)
        return torch.einsum("k,bkc->bc", self.weights.to(logits.dtype), logits)


def _mean(logits: Tensor, label: Tensor) -> Tensor:
    return logits.mean(1)


def _naive(logits: Tensor, label: Tensor) -> Tensor:
    own = label[:, None].expand(-1, logits.shape[1], 1)
    best = logits.log_softmax(2).gather(2, own).argmax(1, keepdim=True)
    return logits.gather(1, best.expand(-1, 1, logits.shape[2]))[:, 0]


def _min_logit(logits: Tensor, label: Tensor) -> Tensor:
    return (logits - logits.gather(2, label[:, None].expand(-1, logits.shape[1], 1))).amin(1)


def least_cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """Returns Σ w_i z_i of least cross-entropy, by example: logits [B, K, C], labels [B, 1] → [B, C]."""
    if logits.shape[1] == 2:
        first, second = logits.unbind(1)
        return _least_between(first, second, label)
    true = F.one_hot(label[:, 0], logits.shape[2]).to(logits.dtype)
    spread = logits - logits.mean(1, keepdim=True)  # weights sum to 1: only differences of networks bend the function
    bound = (spread.square().sum((1, 2)) / 2)[:, None].clamp(min=1e-3)  # a softmax's Hessian is at most 1/2

    def gradient(weights: Tensor) -> Tensor:
        return torch.einsum("bkc,bc->bk", spread, _mixed(weights, logits).softmax(1) - true)

    equal = logits.new_full(logits.shape[:2], 1 / logits.shape[1])
    return _mixed(least_on_simplex(gradient, equal, bound, _STEPS), logits)


def _least_between(first: Tensor, second: Tensor, label: Tensor) -> Tensor:
    """The same of two networks, by Newton's method within a bracket of w, which is halved where a step leaves it."""
    apart = first - second
    of_label = apart.gather(1, label)

    def slope(weight: Tensor) -> tuple[Tensor, Tensor]:
        chance = (second + weight * apart).softmax(1)
        mean = (chance * apart).sum(1, keepdim=True)
        return mean - of_label, (chance * (apart - mean).square()).sum(1, keepdim=True)

    low, high = torch.zeros_like(of_label), torch.ones_like(of_label)
    rising, falling = slope(low)[0] >= 0, slope(high)[0] <= 0  # then an end is the least
    weight = (low + high) / 2
    for _ in range(_NEWTON_STEPS):
        gradient, curvature = slope(weight)
        left = gradient > 0
        low, high = torch.where(left, low, weight), torch.where(left, weight, high)
        step = weight - gradient / curvature.clamp(min=1e-12)
        weight = torch.where((step > low) & (step < high), step, (low + high) / 2)
    weight = weight.masked_fill(falling, 1.0).masked_fill(rising, 0.0)
    return second + weight * apart


def _mixed(weights: Tensor, logits: Tensor) -> Tensor:
    return torch.einsum("bk,bkc->bc", weights, logits)


def error_products(logits: Tensor, label: Tensor) -> Tensor:
    """Returns Σ_c (p_ic − 1[c = y]) (p_jc − 1[c = y]) for each example: [B, K, C], [B, 1] → [B, K, K]."""
    errors = logits.softmax(2) - F.one_hot(label, logits.shape[2]).to(logits.dtype)
    return errors @ errors.transpose(1, 2)


def least_error(errors: Tensor) -> Tensor:
    """Returns the weights [K] ≥ 0 of sum 1 with the least ``wᵀ E w`` for a matrix of errors E [K, K]."""
    scaled = (errors / errors.diagonal().amax())[None].double()
    bound = torch.linalg.matrix_norm(scaled, ord=2)[:, None] * 2
    equal = scaled.new_full(scaled.shape[:2], 1 / len(errors))
    found = least_on_simplex(lambda w: 2 * torch.einsum("bij,bj->bi", scaled, w), equal, bound, 20 * _STEPS)
    return found[0].to(errors.dtype)


_RULES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mean": _mean,
    "naive": _naive,
    "linear": least_cross_entropy,
    "minlogit": _min_logit,
}
