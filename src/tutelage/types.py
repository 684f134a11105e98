"""Types of batches and signals."""

from torch import Tensor

NO_LABEL = -100  # of an example without one: what torch.nn.CrossEntropyLoss ignores
Batch = dict[str, Tensor]  # "input", "label" (NO_LABEL where there is none), "key": which example
Signals = dict[str, Tensor]  # "logits", and any tapped activation: "stage3", "embedding" …
