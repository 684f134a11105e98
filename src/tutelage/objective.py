"""The objective: a weighted sum of terms, each a plain loss and the names of the tensors it reads."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, distributed, nn

from tutelage.compat.torch import KeepsPrecision
from tutelage.errors import TutelageError
from tutelage.losses.base import contract, hooks
from tutelage.losses.precision import in_float32
from tutelage.losses.ranks import mean_over_ranks
from tutelage.signal_paths import Path, detached, is_known, plain, read
from tutelage.types import SOFT_LABEL, Batch, Signals, is_shared

_LABELS = {"batch.label", f"batch.{SOFT_LABEL}"}


class Term(nn.Module):
    """One loss with its arguments bound to signals.

    With a mask (``where``) the loss gets only the rows where it is true: a signal whose leading axes are the mask's
    becomes [rows, …]; other signals, and ``<source>.<tap>.<parameter>``, are passed in full. If some training examples
    have no label, or labels have more than one axis (:meth:`bind`), a term that reads ``batch.label`` gets only the
    labelled rows. For a batch without a row the loss is computed on all rows with all labels 0 and multiplied by 0, so
    that every parameter still has a gradient. Over several ranks a mean over rows is the mean over all rows of the
    batch, however these are spread; a loss that divides by counts of all ranks itself says so (``counts_over_ranks``).

    ``batch.soft_label`` is the label of mixed images [B, C], and of others ``batch.label``.
    ``batch.labelled`` is where a label is known, as bools, for a loss that takes a mask itself.

    Args:
        loss: any module (torch's own, too) that maps the tensors named below to a scalar; one that needs more derives
            from :class:`~tutelage.losses.base.Loss`.
        inputs: argument name → ``"<source>.<signal>"``, or a list of them (several stages); gradients flow.
        targets: the same, detached.
        weight: the term's factor in the objective; a term of weight 0 is dropped and its sources never run.
        schedule: (epoch, epochs) → a further factor (:mod:`tutelage.losses.schedules`), such as a warm-up.
        where: ``"<source>.<signal>"`` of a mask of bools, such as ``batch.mask`` (tokens that are no padding);
            ``batch.label`` stands for the rows with a label.

    Examples:
        >>> import torch, tutelage as tt
        >>> term = tt.Term(torch.nn.CrossEntropyLoss(), {"input": "student.logits", "target": "batch.label"})
        >>> term.paths()
        ['student.logits', 'batch.label']
    """

    weight: Tensor
    factor: Tensor

    def __init__(
        self,
        loss: nn.Module,
        inputs: Mapping[str, Path],
        targets: Mapping[str, Path] | None = None,
        weight: float = 1.0,
        schedule: Callable[[int, int], float] | None = None,
        where: str | None = None,
    ):
        super().__init__()
        self.loss, self.schedule, self.where, self.labelled_only = loss, schedule, where, False
        self.inputs, self.targets = plain(inputs), plain(targets or {})
        self.step_rows: Tensor | None = None  # of an accumulated step: rows a batch and rank, on average
        self._weighs_rows = not contract(loss).counts_over_ranks
        self.register_buffer("weight", torch.tensor(float(weight)), persistent=False)
        self.register_buffer("factor", torch.ones(()), persistent=False)
        for path in self.paths():
            if "." not in str(path):
                raise TutelageError(f"a term reads '<source>.<signal>', such as 'student.logits'; found {path!r}")

    def paths(self, bound: Mapping[str, Path] | None = None) -> list[str]:
        """Returns every ``"<source>.<signal>"`` that this term reads, or only those in ``bound``."""
        if bound is None:
            bound = self.inputs | self.targets | ({} if self.where is None else {"where": self.where})
        return [path for paths in bound.values() for path in (paths if isinstance(paths, list) else [paths])]

    def on_epoch_start(self, epoch: int, epochs: int) -> None:
        """Sets the schedule's factor; counts epochs from 0.

        The graph stays as it is: a term of factor 0 is computed.
        """
        if self.schedule is not None:
            self.factor.fill_(self.schedule(epoch, epochs))

    @property
    def scale(self) -> Tensor:
        """Returns the weight times the schedule's factor, a scalar."""
        return self.weight if self.schedule is None else self.factor * self.weight

    def bind(self, keys: Tensor, labels: Tensor) -> None:
        """Notes whether some of what is trained on has no label, or many, so that rows must be chosen.

        Args:
            keys: [n] integers.
            labels: [n, …] integers, ``NO_LABEL`` for none, or floats, NaN for none.
        """
        read = _LABELS & {*self.paths(self.inputs | self.targets)}
        reads = bool(read) and not contract(self.loss).takes_unlabelled
        known = is_known(labels)
        self.labelled_only = reads and (known.dim() > 1 or not bool(known.all()))

    @property
    def chooses_rows(self) -> bool:
        """Checks whether the number of rows that the loss gets differs from batch to batch."""
        return self.labelled_only or self.where is not None

    def look_ahead(self, batches: Sequence[Batch], device: torch.device) -> None:
        """Counts the rows of all batches of an accumulated step, on all ranks; needs a mask of the batch.

        Args:
            batches: of this rank; none of them: steps are single batches again.
            device: where counts of ranks are added.
        """
        self.step_rows = None
        if batches and self.chooses_rows and self._weighs_rows and (self.where or "batch.").startswith("batch."):
            rows = sum(int(self._mask({"batch": batch}).sum()) for batch in batches)
            self.step_rows = mean_over_ranks(torch.tensor(float(rows), device=device)) / len(batches)

    def forward(self, signals: Mapping[str, Signals]) -> Tensor:
        """Returns the unweighted loss on the bound tensors, a scalar in float32 or better."""
        if not self.chooses_rows:
            return self._checked(self._loss(**self._arguments(signals)))
        kept, share = self._restricted(signals)
        return self._checked(self._loss(**self._arguments(kept))) * share

    def _checked(self, loss: Any) -> Tensor:
        if isinstance(loss, Tensor) and loss.numel() == 1:
            return loss
        found = f"a tensor {list(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise TutelageError(
            f"{type(self.loss).__name__} must return a tensor of one number, such as a mean; found {found}"
        )

    def _arguments(self, signals: Mapping[str, Signals]) -> dict[str, Any]:
        return {name: read(signals, paths) for name, paths in self.inputs.items()} | self.read_targets(signals)

    def _restricted(self, signals: Mapping[str, Signals]) -> tuple[Mapping[str, Signals], float | Tensor]:
        """Returns the signals that the term reads, restricted to its rows, and the factor of the loss on them."""
        mask = self._mask(signals)
        rows = mask.flatten().nonzero()[:, 0]
        share: float | Tensor = 1.0
        if self._weighs_rows:
            share = _share(len(rows), mask.device) if self.step_rows is None else len(rows) / self.step_rows
        if empty := self._weighs_rows and not len(rows):
            mask, rows = torch.ones_like(mask), torch.arange(mask.numel(), device=mask.device)
        kept: dict[str, Signals] = defaultdict(dict)
        fits = False
        for path in self.paths(self.inputs | self.targets):
            source, name = path.split(".", 1)
            signal = read(signals, path)
            if empty and path in _LABELS:
                signal = signal.where(is_known(signal, each=True), 0)
            whole = is_shared(name) or signal.shape[: mask.dim()] != mask.shape
            kept[source][name] = signal if whole else signal.flatten(0, mask.dim() - 1).index_select(0, rows)
            fits |= not whole
        if not fits:
            shapes = {f"{source}.{name}": list(x.shape) for source, own in kept.items() for name, x in own.items()}
            raise TutelageError(
                f"where={self.where} is a mask {list(mask.shape)}, with which no signal begins: {shapes}"
            )
        return kept, share

    def _mask(self, signals: Mapping[str, Signals]) -> Tensor:
        if self.where is None or self.where == "batch.label":
            return is_known(read(signals, "batch.label"))
        mask: Tensor = read(signals, self.where)
        if mask.dtype != torch.bool:
            raise TutelageError(f"where={self.where} must be a mask of bools; found {mask.dtype} {list(mask.shape)}")
        if not self.labelled_only:
            return mask
        known = is_known(read(signals, "batch.label"))
        axes = max(mask.dim(), known.dim())
        wide, other = (one.reshape(*one.shape, *[1] * (axes - one.dim())) for one in (mask, known))
        return wide & other

    def read_targets(self, signals: Mapping[str, Signals]) -> dict[str, Any]:
        """Returns the arguments that come from ``targets``, detached."""
        return {name: detached(read(signals, paths)) for name, paths in self.targets.items()}

    @in_float32
    def _loss(self, **arguments: Any) -> Tensor:
        return self.loss(**arguments)


def _share(rows: int, device: torch.device) -> float | Tensor:
    """Returns the factor that makes the mean over ranks of means over ``rows`` the mean over all rows; 0 if none.

    One process makes no tensor for it, which would be copied to the device in every step.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return float(rows > 0)
    return rows / mean_over_ranks(torch.tensor(float(rows), device=device))


class Objective(KeepsPrecision):
    """The weighted sum of the terms whose weight is not 0.

    Losses compute in float32 or better, so their layers stay in it when the module is converted to half precision.

    Args:
        terms: name → term; the name is what the logs call it.

    Raises:
        TutelageError: no term has a weight.

    Examples:
        >>> import torch, tutelage as tt
        >>> soft = tt.Term(tt.losses.SoftTarget(), {"student": "student.logits"}, {"teacher": "teacher.logits"}, 0.9)
        >>> hard = tt.Term(torch.nn.CrossEntropyLoss(), {"input": "student.logits", "target": "batch.label"}, None, 0.1)
        >>> {source: sorted(names) for source, names in tt.Objective({"soft": soft, "hard": hard}).needs().items()}
        {'student': ['logits'], 'teacher': ['logits'], 'batch': ['label']}
    """

    def __init__(self, terms: Mapping[str, Term]):
        super().__init__()
        self.terms = nn.ModuleDict({name: term for name, term in terms.items() if float(term.weight)})
        if not self.terms:
            raise TutelageError(f"every term of the objective has weight 0: {sorted(terms) or 'there is none'}")

    def _named(self) -> Iterable[tuple[str, Term]]:
        return self.terms.items()  # type: ignore[return-value]

    def needs(self) -> dict[str, set[str]]:
        """Returns the signals that are read of each source.

        They determine the hooked taps, the content of caches and the sources to run.
        """
        needs: dict[str, set[str]] = defaultdict(set)
        for _, term in self._named():
            for path in term.paths():
                source, name = path.split(".", 1)
                needs[source].add(name)
        return dict(needs)

    @property
    def chooses_rows(self) -> bool:
        """Checks whether the number of rows that a loss gets differs from batch to batch."""
        return any(term.chooses_rows for _, term in self._named())

    def losses(self) -> Iterator[tuple[str, nn.Module]]:
        """Yields every loss and every part of one, each after its path in this module."""
        for path, part in self.named_modules():
            if part is not self and part is not self.terms and not isinstance(part, Term):
                yield path, part

    def bind(self, keys: Tensor, labels: Tensor) -> None:
        """Tells terms and losses of the examples that are trained on, once.

        Args:
            keys: [n] integers.
            labels: [n] integers, ``NO_LABEL`` for none.
        """
        for _, term in self._named():
            term.bind(keys, labels)
        for _, loss in self.losses():
            contract(loss).bind(keys, labels)

    def check_needs_no_list(self) -> None:
        """Refuses losses that store something for each training example, of data that are read as a stream.

        Raises:
            TutelageError: names the loss.
        """
        for path, loss in self.losses():
            if "bind" in hooks(loss):
                raise TutelageError(
                    f"loss.{path}: {type(loss).__name__} needs the keys and labels of all training examples before the "
                    "first, which a stream doesn't have: use data that have a length, or another loss"
                )

    def look_ahead(self, batches: Sequence[Batch], device: torch.device) -> None:
        """Tells terms of all batches of an accumulated step (:meth:`Term.look_ahead`)."""
        for _, term in self._named():
            term.look_ahead(batches, device)

    def on_epoch_start(self, epoch: int, epochs: int) -> list[str]:
        """Tells terms and losses which epoch it is, counted from 0; returns the paths of those that listen."""
        listening = []
        for name, term in self._named():
            term.on_epoch_start(epoch, epochs)
            listening.append(f"terms.{name}")
        for path, loss in self.losses():
            if "on_epoch_start" in hooks(loss):
                contract(loss).on_epoch_start(epoch, epochs)
                listening.append(path)
        return listening

    def forward(self, signals: Mapping[str, Signals]) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the total and the unweighted loss of each term, all scalars."""
        parts = {name: term(signals) for name, term in self._named()}
        first, *rest = (term.scale * parts[name] for name, term in self._named())
        return sum(rest, start=first), parts
