"""Texts without labels for masked language modelling."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from tutelage.data.examples import Examples
from tutelage.data.text.base import TextData
from tutelage.data.text.files import Paths, listed, listed_parts
from tutelage.data.text.masking import MaskTokens
from tutelage.data.text.rewrites import Rewrite, Rewrites, WordRewrite
from tutelage.data.text.rows import Columns, read
from tutelage.data.text.tokens import TokenSet
from tutelage.errors import TutelageError


class Sentences(TextData):
    """Texts whose hidden tokens are to be found: ``label`` [B, L] has their ids, ``NO_LABEL`` elsewhere.

    Training texts have other tokens hidden in each view, a function of (seed, view, key); those of validation and test
    are the same in all runs. The classes are the ids of the tokenizer.

    Args:
        train: a file or folder, or several of them; a ``.txt`` file has a text a line.
        val: likewise; None: drawn from the training texts.
        test: likewise; None: drawn from the training texts.
        root: the folder that relative paths start from; None: the current one.
        text: column of the text.
        columns: names of all columns of a TSV or CSV file whose first line does not have them.
        encoding: of the files' characters.
        masking: which tokens are hidden.
        seed: of the order and the masks.
        views: number of differently hidden views of a text; None: no limit.
        augment: rewrites of training texts before tokens are hidden.
        num_classes: the tokenizer's ids; found.
        num_outputs: as ``num_classes``; found.
        input_shape: ``[max_length]``; found.
        **common: arguments of :class:`~tutelage.data.text.base.TextData`.

    Raises:
        TutelageError: a file is missing or damaged, or the tokenizer has no [MASK].
    """

    seen_through: ClassVar[tuple[str, ...]] = ("train", "masking", *TextData.seen_through)

    def __init__(
        self,
        *,
        train: Paths,
        masking: MaskTokens,
        seed: int,
        val: Paths | None = None,
        test: Paths | None = None,
        root: str | Path | None = None,
        text: str = "text",
        columns: Sequence[str] | None = None,
        encoding: str = "utf-8",
        views: int | None = None,
        augment: Sequence[Rewrite | WordRewrite] | None = None,
        num_classes: int | None = None,
        num_outputs: int | None = None,
        input_shape: Sequence[int] | None = None,
        **common: Any,
    ):
        if not isinstance(masking, MaskTokens):
            raise TutelageError(f"data.masking: {type(masking).__name__} is no tutelage.data.text.masking.MaskTokens")
        named = Columns(text, None, None, None, columns)
        given = listed_parts(root, train=train, val=val, test=test)
        parts = {part: read(paths, named, encoding) for part, paths in given.items()}
        steps = [*(augment or ()), masking]
        super().__init__(parts=parts, labels=None, augment=steps, views=views, seed=seed, **common)
        self.name = listed(root, train)[0].name
        self._fixed = Rewrites([masking], 0, 1, self.tokenizer)

    def as_set(self, examples: Examples, keys: Tensor) -> TokenSet:
        """Returns some of the texts, the same tokens of which are always hidden."""
        return TokenSet(examples, keys, self.tokenizer.pad, self.width, self._fixed)
