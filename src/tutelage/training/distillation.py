"""The LightningModule of a student that learns from other sources."""

from collections.abc import Mapping
from typing import Any

from tutelage.sources.base import Source
from tutelage.training.module import SupervisedModule


class DistillationModule(SupervisedModule):
    """A student, other sources (a frozen teacher, a moving average, a peer …) and an objective over their signals.

    No branch on the method: every way of teaching is a choice of sources and terms. A source that no term reads is
    dropped and never runs, so that alpha = 0 is the control to the bit.

    Args:
        sources: name → source, without the student.
        **supervised: as for :class:`SupervisedModule`.
    """

    def __init__(self, sources: Mapping[str, Source], **supervised: Any):
        super().__init__(teaching=sources, **supervised)
