"""Contrastive representation distillation (Tian et al. 2020)."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.errors import TutelageError
from tutelage.losses.base import Loss
from tutelage.losses.logits import checked_temperature, constant
from tutelage.losses.precision import in_float32
from tutelage.losses.ranks import all_ranks
from tutelage.losses.relation.cc import Embedding
from tutelage.losses.relation.sp import flat_rows, unit
from tutelage.runtime import devices

_NO_LABEL = -100  # torch's ignore_index


class CRD(Loss):
    """Contrasts the student's and the teacher's embeddings of examples by noise-contrastive estimation.

    Two banks store an embedding of every training example, one the student's and one the teacher's. An example's
    student embedding v is scored against the teacher's bank at its own key (c = 0) and at K other keys (c = 1 … K),
    and the teacher's embedding against the student's bank likewise:

    ``P_c = exp(v·w_c/τ)/Z``, ``h_c = P_c/(P_c + K/N)``, ``loss = −1/B Σ_b [log h_0 + Σ_{c ≥ 1} log(1 − h_c)]``,
    summed over the two sides. Z is set once, to N times the mean of exp(v·w/τ) over the first training batch. N then
    cancels, and log h = log σ(v·w/τ − log(Z·K/N)) is computed without exponentials or an ε.

    Negatives: with ``label`` [B] they are of other classes (call :meth:`bind` first), without it any other examples;
    uniform and, as in RepDistiller, without replacement, or with replacement if there are fewer than K. They are drawn
    from torch's global generator on the keys' device, which the training loop reseeds per (seed, step, rank). An
    unlabelled example (label −100) has all other examples as negatives and is a negative of every class.

    State: in training mode a forward call updates the bank at the batch's keys, ``w ← unit(momentum·w + (1 −
    momentum)·v)`` (after scoring), and the first one sets Z. In eval mode nothing is written, and Z, if unset, is that
    of the batch. So run the first call, which sets the embeddings' input widths, in eval mode. Keys are always those of
    the training set. Banks and Z are in the state_dict: a resumed run is bit-identical. If a key occurs twice in a
    batch, one of its embeddings is stored.

    Under DDP each rank contrasts its own slice of the batch with its own negatives, but the banks receive the
    embeddings of all ranks and Z is the mean over all, so every rank holds the same state (DDP's broadcast of rank 0's
    buffers would otherwise discard the other ranks' updates). All ranks must be in training mode at the same time;
    their slices may differ in size.

    Cost: each side is scored against its whole bank in one product, B·N·dim multiplications and B·N numbers for any
    K. Gathering the B·(K + 1) rows instead takes 19 times as long on a CPU (B = 64, K = 16384, N = 50000:
    ``benchmarks/losses.py --only crd``).

    Args:
        examples: N, number of keys, 0 … N − 1: the size of the training set before validation is split off. None: set
            by :meth:`bind`.
        dim: width of the embeddings.
        negatives: K.
        temperature: τ, at least 1e-3.
        momentum: share of the old row that a bank keeps, in [0, 0.999].

    Shape:
        student [B, …], teacher [B, …], key [B] int64 (the examples' indices), label [B] int64 or None. Returns a
        scalar.

    Published weight: 0.8 with cross-entropy at 1 (RepDistiller, CIFAR-100, τ = 0.07, K = 16384).

    Tian et al., "Contrastive Representation Distillation", 2020, arXiv:1910.10699.

    Raises:
        TutelageError: an argument is out of range.
    """

    takes_unlabelled = same_on_ranks = True

    temperature: Tensor
    momentum: Tensor
    bank: Tensor
    log_mean: Tensor
    started: Tensor
    pool: Tensor
    place: Tensor
    first: Tensor
    count: Tensor

    def __init__(
        self,
        examples: int | None = None,
        dim: int = 128,
        negatives: int = 16384,
        temperature: float = 0.07,
        momentum: float = 0.5,
    ):
        super().__init__()
        sizes = {"dim": (dim, 1), "negatives": (negatives, 1)} | (
            {} if examples is None else {"examples": (examples, 2)}
        )
        for name, (number, least) in sizes.items():
            if not isinstance(number, int) or number < least:
                raise TutelageError(f"CRD.{name}: expected an integer of {least} or more, found {number!r}")
        self.dim, self.negatives, self.some_unlabelled = dim, negatives, False
        self.fewest = self.most = 0
        self.register_buffer("temperature", checked_temperature(temperature, "CRD"), persistent=False)
        self.register_buffer("momentum", constant(momentum, "CRD.momentum", 0.0, 0.999), persistent=False)
        self.student_embedding, self.teacher_embedding = Embedding(dim), Embedding(dim)
        self._allocate(examples or 0)
        self.register_buffer("log_mean", torch.zeros(2, 1, 1))  # log(Z/N) of each side
        self.register_buffer("started", torch.tensor(False))  # whether log_mean is set
        nothing = torch.empty(0, dtype=torch.int64)
        self.register_buffer("first", nothing, persistent=False)  # class → where it starts in the pool
        self.register_buffer("count", nothing, persistent=False)  # class → how many of it follow there

    def _allocate(self, examples: int) -> None:
        """Makes the banks, and a pool of all keys."""
        self.examples = examples
        bound = math.sqrt(3 / self.dim)  # variance 1/dim: rows of length about 1
        bank = torch.empty(2, examples, self.dim).uniform_(-bound, bound)  # the student's, the teacher's
        self.register_buffer("bank", bank)
        self.register_buffer("pool", torch.arange(examples), persistent=False)  # keys of which negatives are drawn
        self.register_buffer("place", torch.arange(examples), persistent=False)  # key → its place in the pool, or −1

    def bind(self, keys: Tensor, labels: Tensor) -> None:
        """Sets the training examples and their classes: negatives are drawn from these alone.

        Makes the banks, up to the greatest key, if ``examples`` is None. Without this call every key below ``examples``
        may be drawn, and ``forward`` refuses ``label``.

        Args:
            keys: [n] integers, the distinct keys of the training set.
            labels: [n] integers, their labels; −100 for none.

        Raises:
            TutelageError: not one label per key, a key is out of range or repeated, a label is negative but not −100,
                or all labels are equal.
        """
        if (
            keys.ndim != 1
            or not len(keys)
            or keys.shape != labels.shape
            or keys.is_floating_point()
            or labels.is_floating_point()
        ):
            raise TutelageError(
                "CRD.bind: expected keys [n] and labels [n], both integers, n ≥ 1; "
                f"found {list(keys.shape)} of {keys.dtype} and {list(labels.shape)} of {labels.dtype}"
            )
        if not self.examples:
            self._allocate(int(keys.max()) + 1)
        keys, labels = (x.to(self.pool.device, torch.int64) for x in (keys, labels))
        self._check_range("keys", keys, self.examples)
        if len(keys.unique()) < len(keys):
            raise TutelageError(f"CRD.bind: expected each key once; found {len(keys) - len(keys.unique())} repeated")
        known = labels != _NO_LABEL
        if bool((labels[known] < 0).any()) or int(labels.min()) == int(labels.max()):
            found = f"{int(labels.min())} … {int(labels.max())}"
            raise TutelageError(f"CRD.bind: expected labels ≥ 0 (or −100: none) of at least two classes; found {found}")
        self.some_unlabelled = not bool(known.all())
        last = labels.where(known, labels.max() + 1)  # unlabelled examples come last
        self.pool = keys[last.argsort(stable=True)]  # class c is pool[first[c] : first[c] + count[c]]
        self.place = torch.full_like(self.place, -1)
        self.place[self.pool] = torch.arange(len(self.pool), device=self.pool.device)
        self.count = labels[known].bincount()
        self.first = self.count.cumsum(0) - self.count
        left_out = self.count[self.count > 0].tolist() + ([1] if self.some_unlabelled else [])
        self.fewest, self.most = len(self.pool) - max(left_out), len(self.pool) - min(left_out)  # negatives of a label

    def draw(self, key: Tensor, label: Tensor | None = None) -> Tensor:
        """Draws the keys of the negatives [B, K] uniformly from all other classes, or without labels all other keys.

        Without replacement in rows that have K candidates or more, else with replacement.
        """
        first, count = self.place[key], torch.ones_like(key)
        if label is not None and self.some_unlabelled:
            known, label = label != _NO_LABEL, self._some_class(label)
            first, count = torch.where(known, self.first[label], first), torch.where(known, self.count[label], count)
        elif label is not None:
            first, count = self.first[label], self.count[label]
        alone = len(self.pool) - 1
        fewest, most = (alone, alone) if label is None else (self.fewest, self.most)
        if self.negatives > fewest:
            again = self._with_replacement(first, count)
            if self.negatives > most:
                return again
        place = torch.arange(len(self.pool), device=key.device)
        own = (place >= first[:, None]) & (place < (first + count)[:, None])
        draws = torch.rand(len(key), len(self.pool), device=key.device).masked_fill_(own, -1)
        once = self.pool[draws.topk(self.negatives, sorted=False).indices]  # a uniform subset of size K
        if self.negatives <= fewest:
            return once
        return torch.where((len(self.pool) - count >= self.negatives)[:, None], once, again)

    def _with_replacement(self, first: Tensor, count: Tensor) -> Tensor:
        draws = torch.randint(1 << 62, (len(first), self.negatives), device=first.device)  # so large that % has no bias
        other = draws % (len(self.pool) - count)[:, None]
        return self.pool[other + count[:, None] * (other >= first[:, None])]  # skips the excluded range

    @in_float32
    def forward(self, student: Tensor, teacher: Tensor, key: Tensor, label: Tensor | None = None) -> Tensor:
        """Returns the contrastive loss, averaged over B and summed over both sides: a scalar."""
        student, teacher = flat_rows(student, teacher, "CRD")
        self._check(len(student), key, label)
        views = torch.stack([unit(self.student_embedding(student)), unit(self.teacher_embedding(teacher))])
        keys = torch.cat([key[:, None], self.draw(key, label)], 1)  # [B, 1 + K], the positive first
        loss = self._contrast(views.flip(0), keys)  # each view against the other's bank
        if self.training:
            self._remember(key, views.detach())
        return loss

    def _contrast(self, views: Tensor, keys: Tensor) -> Tensor:
        """Returns the loss of ``views`` [2, B, dim] against the banks at ``keys`` [B, 1 + K].

        The gradient is computed here, since the bank is updated before backward runs.
        """
        with torch.no_grad():
            bank = self.bank.to(views.dtype)
            at = keys.expand(2, -1, -1)
            score = (views @ bank.mT).gather(2, at) / self.temperature
            logit = score - self._log_mean(score) - math.log(self.negatives)
            logit[:, :, 0].neg_()  # −log h_0 = softplus(−logit), −log(1 − h_c) = softplus(logit)
            loss = F.softplus(logit).sum() / len(keys)
            slope = torch.sigmoid(logit) / (len(keys) * self.temperature)
            slope[:, :, 0].neg_()
            gradient = views.new_zeros(2, len(keys), self.examples).scatter_add_(2, at, slope) @ bank
        return _KnownGradient.apply(views, loss, gradient)

    def _log_mean(self, score: Tensor) -> Tensor:
        """Returns log(Z/N) [2, 1, 1]: of the first training batch, or of this batch if there was none."""
        here = score.logsumexp((1, 2), keepdim=True) - math.log(score[0].numel())
        if self.training:
            ranks = all_ranks(here.mT)  # every rank's [2, 1, 1] side by side
            here = ranks.logsumexp(1, keepdim=True) - math.log(ranks.shape[1])
            self.log_mean.copy_(torch.where(self.started, self.log_mean, here))
            self.started.fill_(True)
            return self.log_mean.to(score.dtype)
        return torch.where(self.started, self.log_mean.to(score.dtype), here)

    @torch.no_grad()
    def _remember(self, key: Tensor, views: Tensor) -> None:
        """Updates the banks with ``views`` [2, B, dim] of all ranks."""
        key, views = all_ranks(key[None])[0], all_ranks(views)
        rows = unit(self.momentum * self.bank[:, key] + (1 - self.momentum) * views)
        self.bank.index_copy_(1, key, rows.to(self.bank.dtype))

    def _check(self, size: int, key: Tensor, label: Tensor | None) -> None:
        if label is not None and not len(self.count):
            raise TutelageError("CRD: 'label' is given but no classes are known; call bind(keys, labels) first")
        given = {"key": (key, self.examples)}
        if label is not None:
            given["label"] = (self._some_class(label), len(self.count))
        for name, (index, limit) in given.items():
            if index.shape != (size,):
                raise TutelageError(f"CRD: {name} must be [{size}], as the signals; found {list(index.shape)}")
            if not devices.waits(index.device):  # on an accelerator it is a device-side assertion, without waiting
                self._check_range(name, index, limit)
        if not devices.waits(key.device) and bool((unknown := key[self.place[key] < 0]).numel()):
            raise TutelageError(f"CRD: expected keys that were passed to bind(), found {unknown[:3].tolist()}")

    def _some_class(self, label: Tensor) -> Tensor:
        """Returns ``label`` with 0 for unlabelled examples."""
        return label.where(label != _NO_LABEL, 0) if self.some_unlabelled else label

    def _check_range(self, name: str, index: Tensor, limit: int) -> None:
        low, high = map(int, index.aminmax())
        if low < 0 or high >= limit:
            raise TutelageError(f"CRD: {name} must be in 0 … {limit - 1}; found {low} … {high}")


class _KnownGradient(torch.autograd.Function):
    """The scalar ``loss`` as a function of ``x`` with a precomputed gradient; it has no second derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, loss: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        if torch.is_grad_enabled():  # ``once_differentiable`` would not raise, as ``upstream`` needs no gradient
            raise TutelageError("CRD: its gradient cannot be differentiated again (create_graph=True)")
        return upstream * ctx.saved_tensors[0], None, None
