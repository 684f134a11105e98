"""Signals of another source, for another view of the examples."""

from collections.abc import Iterable, Mapping

from tutelage.errors import TutelageError, nearest
from tutelage.sources.base import Source
from tutelage.types import Batch, Signals


class OtherView(Source):
    """Signals of another source, computed from another field of the batch in place of ``input``.

    The networks are that source's: nothing is copied and nothing else is trained.

    Args:
        reads: the field, such as a view that :class:`~tutelage.training.synthesis.Synthesis` makes.
        of: name of the source.

    Raises:
        TutelageError: there is no such source.
    """

    supports_validation = False

    def __init__(self, reads: str, of: str = "teacher"):
        super().__init__()
        self.reads, self.of = reads, of
        self._source: Source

    def attach(self, needs: Iterable[str], sources: Mapping[str, Source]) -> None:
        """Finds the source and asks it for the signals.

        Raises:
            TutelageError: it is not there.
        """
        if self.of not in sources or sources[self.of] is self:
            others = [name for name, source in sources.items() if source is not self]
            raise TutelageError(
                f"sources: another view is of {self.of!r}, which is not there; {nearest(self.of, others)}"
            )
        object.__setattr__(self, "_source", sources[self.of])  # not a submodule: it is saved where it belongs
        self._source.attach(needs, sources)

    def forward(self, batch: Batch) -> Signals:
        """Returns the source's signals of the view.

        Raises:
            TutelageError: the batch has no such view.
        """
        if self.reads not in batch:
            raise TutelageError(f"sources: a batch has no view {self.reads!r}; {nearest(self.reads, batch)}")
        return self._source({**batch, "input": batch[self.reads]})
