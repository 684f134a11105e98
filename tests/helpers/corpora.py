"""Small corpora on disk, and jobs of language models on them."""

import json
from pathlib import Path

WORDS = (
    "the",
    "teacher",
    "shows",
    "a",
    "student",
    "how",
    "long",
    "each",
    "river",
    "runs",
    "until",
    "it",
    "meets",
    "sea",
)
TINY = (
    "data=corpus", "data.max_vocab_size=280", "data.block=16", "data.batch_size=4",
    "data.val_size=4", "data.test_size=4",
    "teacher.net.width=16", "teacher.net.depth=1", "teacher.net.heads=2",
    "student.net.width=8", "student.net.depth=1", "student.net.heads=2",
    "trainer.max_epochs=2", "trainer.log_every_n_steps=2",
)  # fmt: skip


def sentence(number: int, words: int) -> str:
    return " ".join(WORDS[(number * 5 + i * (number % 3 + 1)) % len(WORDS)] for i in range(words))


def write_texts(folder: Path, count: int = 24) -> Path:
    """Writes text files of different lengths, one in a subfolder."""
    (folder / "deep").mkdir(parents=True)
    for number in range(count):
        place = folder / "deep" if number == count - 1 else folder
        (place / f"{number:02d}.txt").write_text(sentence(number, 8 + number % 7 * 3))
    return folder


def write_answers(path: Path, count: int = 24, prompt: str = "prompt", completion: str = "completion") -> Path:
    """Writes JSON lines with prompts and completions of different lengths."""
    lines = [
        json.dumps(
            {prompt: sentence(number, 3 + number % 4) + ":", completion: " " + sentence(number + 7, 2 + number % 5)}
        )
        for number in range(count)
    ]
    path.write_text("\n".join(lines) + "\n")
    return path
