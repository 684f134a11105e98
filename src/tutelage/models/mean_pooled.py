"""A classifier of sentences on any encoder of transformers: the mean of the last states, then a linear layer."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from tutelage.errors import TutelageError, nearest
from tutelage.models import hugging_face
from tutelage.models.tapped import Tapped
from tutelage.models.tokens import mean_over_tokens

_READS = {"input": "input", "mask": "mask?", "segment": "segment?"}


def tapped(
    pretrained: str | bool | None = None,
    config: Mapping[str, Any] | None = None,
    num_classes: int = 2,
    layers: Sequence[int] | None = None,
    frozen: Sequence[str] = (),
    dropout: float = 0.1,
    local_files_only: bool = False,
    taps: Mapping[str, str] | None = None,
    init: Mapping[str, Any] | None = None,
    revision: str | None = None,
) -> Tapped:
    """Returns a :class:`MeanPooled` encoder with taps ``layer0``, ``layer1``, …, ``embedding`` and ``classifier``.

    Args:
        pretrained: as of :func:`tutelage.models.hugging_face.tapped`.
        config: likewise.
        num_classes: number of logits.
        layers: as of :func:`tutelage.models.hugging_face.tapped`.
        frozen: submodules of the encoder that are not trained.
        dropout: chance that an element of the mean is dropped.
        local_files_only: as of :func:`tutelage.models.hugging_face.tapped`.
        taps: further ones, as of :class:`~tutelage.models.tapped.Tapped`; paths begin with ``encoder.``.
        init: as of :class:`~tutelage.models.tapped.Tapped`.
        revision: as of :func:`tutelage.models.hugging_face.tapped`.

    Raises:
        TutelageError: the encoder can't be had, or has no such submodule.
    """
    own = hugging_face.tapped(
        "AutoModel", pretrained, config, layers=layers, local_files_only=local_files_only, outputs="last_hidden_state",
        revision=revision,
    )  # fmt: skip
    for path in frozen:
        try:
            own.net.get_submodule(path).requires_grad_(False)
        except AttributeError:
            known = [name for name, _ in own.net.named_modules() if name]
            raise TutelageError(f"frozen: the encoder has no {path!r}; {nearest(path, known)}") from None
    encoder: Any = own.net
    encoder.pooler = None  # the mean takes its place
    found = {name: f"encoder.{path}" for name, path in own.taps.items()}
    found |= {"embedding": "embedding", "classifier": "classifier"}
    net = MeanPooled(encoder, num_classes, dropout)
    return Tapped(net, {**found, **(taps or {})}, reads=_READS, init=init)


class MeanPooled(nn.Module):
    """``W · dropout(mean over real tokens of the encoder's last states) + b``.

    Args:
        encoder: a network of transformers that returns its last states.
        num_classes: number of logits.
        dropout: chance that an element of the mean is dropped.

    Shape:
        input [B, L] integers, mask [B, L] bools, true for real tokens (absent: all are), segment [B, L] integers →
        logits [B, C].
    """

    def __init__(self, encoder: Any, num_classes: int, dropout: float = 0.1):
        super().__init__()
        self.encoder = encoder
        self.embedding = nn.Dropout(dropout)
        self.classifier = nn.Linear(encoder.config.hidden_size, num_classes)
        nn.init.normal_(self.classifier.weight, std=0.02)
        nn.init.zeros_(self.classifier.bias)
        self._takes_segments = hugging_face.takes(encoder, "token_type_ids")

    def forward(self, input: Tensor, mask: Tensor | None = None, segment: Tensor | None = None) -> Tensor:
        """Returns logits [B, C]."""
        more = {"token_type_ids": segment} if self._takes_segments else {}
        states = self.encoder(input_ids=input, attention_mask=mask, **more)
        logits: Tensor = self.classifier(self.embedding(mean_over_tokens(states, mask)))
        return logits
