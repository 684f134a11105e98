"""Base of losses that remember images of earlier rounds."""

from tutelage.losses.base import Loss


class RoundLoss(Loss):
    """Base of a loss that remembers something of the images which earlier rounds have made for a pool.

    It is computed at each step of a round and told which step's images are kept
    (:class:`~tutelage.training.synthesis.Synthesis`); what it remembers is part of its state.
    """

    def on_best(self) -> None:
        """Called after a step whose images are the best of their round so far."""

    def on_round_end(self) -> None:
        """Called when a round has ended."""
