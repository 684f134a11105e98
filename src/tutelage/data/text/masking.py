"""Masked language modelling: some tokens are hidden, and their ids are the labels."""

import torch
from torch import Tensor

from tutelage.data.text.tokenizer import Tokenizer
from tutelage.errors import TutelageError
from tutelage.types import NO_LABEL, Batch


class MaskTokens:
    """Hides tokens and sets ``label`` [B, L] to their ids, ``NO_LABEL`` elsewhere.

    Each token that stands for text is chosen with ``probability``, at least one of a text; of those chosen, ``random``
    become another token, ``keep`` stay, and the others become [MASK] (Devlin et al., "BERT", 2019: 80, 10 and 10 %).

    Args:
        probability: of a token to be chosen.
        random: share of the chosen ones that become any token of the vocabulary but the special ones.
        keep: share of the chosen ones that stay.

    Raises:
        TutelageError: a number is outside [0, 1], ``probability`` is 0, or ``random`` and ``keep`` are more than all.
    """

    draws = 3  # chosen or not, what becomes of it, which other token

    def __init__(self, probability: float = 0.15, random: float = 0.1, keep: float = 0.1):
        for name, value in (("probability", probability), ("random", random), ("keep", keep), ("both", random + keep)):
            if not 0 <= value <= 1 or (name == "probability" and value == 0):
                what = "random + keep" if name == "both" else name
                bounds = "(0, 1]" if name == "probability" else "[0, 1]"
                raise TutelageError(f"MaskTokens: {what} must be in {bounds}; found {value}")
        self.probability, self.random, self.keep = probability, random, keep
        self.mask, self.special, self.ordinary = 0, torch.zeros(0), torch.zeros(0)

    def prepare(self, tokenizer: Tokenizer) -> None:
        """Learns which id hides a token, and which stand for no text.

        Raises:
            TutelageError: the tokenizer has no [MASK] or <mask>.
        """
        if tokenizer.mask is None:
            raise TutelageError(f"MaskTokens: {tokenizer.name} has no token [MASK] or <mask>")
        self.mask, self.special = tokenizer.mask, torch.tensor(tokenizer.special, dtype=torch.long)
        everything = torch.arange(tokenizer.size)
        self.ordinary = everything[~torch.isin(everything, self.special)]

    def __call__(self, batch: Batch, chance: Tensor) -> Batch:
        """Returns the batch with hidden tokens and their labels, from random numbers [B, L, 3]."""
        ids = batch["input"]
        text = batch["mask"] & ~torch.isin(ids, self.special)
        draw = chance[..., 0].masked_fill(~text, 2.0)
        chosen = (draw < self.probability) | (draw == draw.amin(1, keepdim=True)) & text
        other = self.ordinary[(chance[..., 2] * len(self.ordinary)).long()]
        fate = chance[..., 1]
        hidden = torch.where(fate < self.random, other, torch.where(fate < self.random + self.keep, ids, self.mask))
        return {
            **batch,
            "input": torch.where(chosen, hidden, ids),
            "label": torch.where(chosen, ids, NO_LABEL),
        }
