"""Sentences of movie reviews with the mean score of twenty raters (Hutto and Gilbert 2014)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch

from tutelage.data.text.base import TextData, chosen_rows
from tutelage.data.text.labels import Labels, labels_of
from tutelage.data.text.rows import Columns, Rows, read_table
from tutelage.errors import TutelageError

FOLDER = "text/hutto2014"
FILE = "movieReviewSnippets_GroundTruth.txt"
OTHERS = ("amazonReviewSnippets_GroundTruth.txt", "nytEditorialSnippets_GroundTruth.txt", "tweets_GroundTruth.txt")
_COLUMNS = Columns(text="text", label="score", header=("id", "score", "text"))
_NAMES = ["negative", "positive"]


class MovieReviews(TextData):
    """Hutto and Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text" (2014).

    10,605 sentences of ``<root>/text/hutto2014/movieReviewSnippets_GroundTruth.txt``, each with a score from −4 to 4.
    As classes, their signs (37 sentences of score 0 left out): 7,568 to train on, 1,000 to validate, 2,000 to test.

    Args:
        root: folder of all data.
        label: ``sign``: negative or positive; ``score``: the number, for a regression.
        num_classes: 2, or None of scores; found.
        num_outputs: 2, or 1 of scores; found.
        input_shape: ``[max_length]``; found.
        **common: arguments of :class:`~tutelage.data.text.base.TextData`.

    Raises:
        TutelageError: the file is missing or damaged, or ``label`` is none of these.
    """

    seen_through: ClassVar[tuple[str, ...]] = ("label", *TextData.seen_through)

    def __init__(
        self,
        *,
        root: str | Path,
        label: str = "sign",
        num_classes: int | None = None,
        num_outputs: int | None = None,
        input_shape: Sequence[int] | None = None,
        **common: Any,
    ):
        if label not in ("sign", "score"):
            raise TutelageError(f"data.label must be sign or score; found {label!r}")
        rows = _read(root, FILE)
        scores = labels_of({"train": rows}, None, None, "float")
        if label == "sign":
            kept = scores.tables["train"][:, 0].nonzero().flatten()
            rows, table = chosen_rows(rows, kept.tolist()), scores.tables["train"][kept, 0]
            scores = Labels({"train": (table > 0).to(torch.int64)}, 2, 2, _NAMES)
        super().__init__(parts={"train": rows}, labels=scores, **common)


class OtherSentences:
    """The other sentences of the same authors, without labels, for ``data.unlabelled``.

    3,708 of reviews of products, 5,190 of newspapers' opinions, 4,200 tweets.

    Args:
        root: folder of all data.
        files: which of the three files.
    """

    def __init__(self, *, root: str | Path, files: Sequence[str] = OTHERS):
        self.root, self.files = root, list(files)

    def rows(self) -> Rows:
        """Returns the sentences of all files.

        Raises:
            TutelageError: a file is missing or damaged.
        """
        return _read(self.root, *self.files)


def _read(root: str | Path, *files: str) -> Rows:
    paths = [Path(root).expanduser() / FOLDER / name for name in files]
    for path in paths:
        if not path.is_file():
            raise TutelageError(
                f"data=movie_reviews: there is no {path}; data.root is {root} (the file is in the source of "
                "vaderSentiment 0.5 on PyPI, additional_resources/hutto_ICWSM_2014.tar.gz)"
            )
    return read_table(paths, _COLUMNS, "latin-1")
