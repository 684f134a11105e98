"""Parts of speech of words: a lexicon, a word's most frequent tag whatever stands beside it."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from tutelage.data.text.found_files import only_file
from tutelage.errors import TutelageError


class Lexicon:
    """Tags words by a file.

    Args:
        source: a text file, a word and its tags a line, separated by spaces or tabs, the first tag being the most
            frequent one; lines that begin with ``;;;`` are comments. Or a folder or an installed package with one file
            ``*lexicon.txt``, such as textblob (MIT; Brill's 94,000 words of English, ``pip install textblob``).

    Raises:
        TutelageError: there is no such file, or a word has no tag.
    """

    def __init__(self, source: str):
        self.source = source

    @cached_property
    def table(self) -> dict[str, str]:
        """Returns the tag of each word."""
        path: Path = only_file(self.source, "*lexicon.txt", "tagger.source")
        lines = path.read_text(encoding="utf-8").splitlines()
        table = {}
        for number, line in enumerate(lines, 1):
            match line.split()[:2]:
                case [word, tag] if not line.startswith(";;;"):
                    table[word] = tag
                case [word] if not line.startswith(";;;"):
                    raise TutelageError(f"tagger.source: {path}, line {number}: no tag for {word!r}")
        if not table:
            raise TutelageError(f"tagger.source: {path} has no line with a word and a tag")
        return table

    def __call__(self, words: Sequence[str]) -> list[str | None]:
        """Returns the tag of each word as it is written, or in lower case; None of one that is not there."""
        return [self.table.get(word, self.table.get(word.lower())) for word in words]
