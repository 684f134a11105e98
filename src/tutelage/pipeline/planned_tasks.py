"""The units of work of a job that `tutelage plan` shows."""

from dataclasses import dataclass

TRAIN, GO_ON, REUSE, WRITE = "train", "go on", "reuse", "write"


@dataclass(frozen=True)
class PlannedTask:
    """One training of a job, or another artifact that it makes.

    Attributes:
        name: such as ``teacher``, ``control``, ``signals of teacher``.
        kind: of artifact; ``student`` for the job's own.
        action: ``train``; ``go on`` with a training that was stopped; ``reuse``; ``write`` signals, or predictions of
            networks that are there.
        key: names the work in a multirun, so that jobs which share it count it once.
        digest: of the artifact, its folder's name; None where it depends on a training that is still to come.
        made: when it was made; empty unless it is reused.
        after: the names of the tasks that it waits for.
        epochs: of a training; None of others.
        steps: of a training's optimizer; None of others.
        macs: multiply-adds, estimated: for each example that is learned from three times the forward pass of each
            network that learns, once that of each which only answers in a step; None where they are not known.
        bytes: on disk in the end, estimated: weights, predictions or signals.
    """

    name: str
    kind: str
    action: str
    key: str
    digest: str | None = None
    made: str = ""
    after: tuple[str, ...] = ()
    epochs: int | None = None
    steps: int | None = None
    macs: float | None = None
    bytes: int = 0

    @property
    def is_there(self) -> bool:
        """Checks whether nothing is left to do."""
        return self.action == REUSE
