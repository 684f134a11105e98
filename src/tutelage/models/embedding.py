"""A name for the input of a classifier, for taps: networks of libraries often compute it in their ``forward``."""

from torch import Tensor, nn


def name_embedding(classifier: nn.Linear) -> None:
    """Adds an identity ``embedding`` to a Linear, applied to its input; names of weights stay as they are."""
    classifier.add_module("embedding", nn.Identity())
    classifier.register_forward_pre_hook(_through_embedding)


def _through_embedding(classifier: nn.Linear, inputs: tuple[Tensor]) -> tuple[Tensor]:
    """Applies the embedding to a classifier's input; a stateless module-level hook survives copies and pickles."""
    return (classifier.embedding(*inputs),)  # type: ignore[operator]
