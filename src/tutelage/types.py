"""Types of batches and signals."""

from torch import Tensor

NO_LABEL = -100  # of an example without one: what torch.nn.CrossEntropyLoss ignores
SOFT_LABEL = (
    "soft_label"  # of a batch of mixed images: [B, C], probabilities; where a batch has none the label stands for it
)
# "input", "label" (NO_LABEL where there is none), "key": which example; each begins with the axis of examples, but
# where the name has a dot, as "graph.edges", the field is of the whole batch
Batch = dict[str, Tensor]
Signals = dict[str, Tensor]  # "logits", and any tapped activation: "stage3", "embedding" …


def is_shared(name: str) -> bool:
    """Checks whether a field or signal is one for all examples of a batch: a parameter, or the graph of nodes."""
    return "." in name
