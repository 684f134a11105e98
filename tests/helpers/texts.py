"""Small sets of texts that can be learned, in files."""

import random
from collections.abc import Sequence
from pathlib import Path

GOOD, BAD = ("good", "great", "fine", "nice"), ("bad", "awful", "poor", "dull")
FILL = ("the", "film", "was", "a", "plot", "of", "its", "own", "with", "some", "actors", "in", "it")


def reviews(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Returns texts of 4 to 21 words with the label that one of their words decides."""
    chance, found = random.Random(seed), []
    for number in range(count):
        words = [chance.choice(FILL) for _ in range(chance.randint(3, 20))]
        label, known = (("neg", BAD), ("pos", GOOD))[number % 2]
        words.insert(chance.randrange(len(words)), chance.choice(known))
        found.append((" ".join(words), label))
    return found


def tsv(path: Path, rows: Sequence[Sequence[object]], header: Sequence[str] = ("text", "label")) -> Path:
    """Writes a table of tab-separated values."""
    path.write_text("".join("\t".join(map(str, row)) + "\n" for row in [header, *rows]))
    return path
