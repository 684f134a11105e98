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


def movie_reviews(root: Path, count: int = 120) -> Path:
    """Writes ``count`` sentences for ``data=movie_reviews``, a tenth with score 0, and two of each other file."""
    folder = root / "text" / "hutto2014"
    folder.mkdir(parents=True)
    scores = {"pos": 1.5, "neg": -0.75}
    lines = [
        f"{number}\t{0 if number % 10 == 0 else scores[label]}\t{text} caf\xe9"
        for number, (text, label) in enumerate(reviews(count))
    ]
    files = {"movieReview": lines}
    files |= {
        name: [f"1_{i}\t0.5\ta film of {name} {i}" for i in range(2)] for name in ("amazonReview", "nytEditorial")
    }
    for name, content in files.items():
        (folder / f"{name}Snippets_GroundTruth.txt").write_text("\n".join(content) + "\n", encoding="latin-1")
    (folder / "tweets_GroundTruth.txt").write_text("".join(f"{i}\t0.5\ta film of tweets {i}\n" for i in range(2)))
    return root


def conll(path: Path, count: int, seed: int = 0) -> Path:
    """Writes ``count`` sentences in the format of CoNLL; names of persons, of one or two words, have labels."""
    chance, lines = random.Random(seed), []
    for _ in range(count):
        words = [(chance.choice(FILL), "O") for _ in range(chance.randint(2, 8))]
        name = [(chance.choice(("anna", "boris", "clara")), "B-PER"), (chance.choice(("meier", "novak")), "I-PER")]
        at = chance.randrange(len(words) + 1)
        words[at:at] = name[: chance.randint(1, 2)]
        lines += [f"{word} {tag}" for word, tag in words] + [""]
    path.write_text("\n".join(lines))
    return path


def glue(root: Path) -> Path:
    """Writes 40 training and 12 dev examples of each task of GLUE in its published layout."""
    headers = {
        "CoLA": None, "SST-2": ("sentence", "label"),
        "MRPC": ("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"),
        "QQP": ("id", "qid1", "qid2", "question1", "question2", "is_duplicate"),
        "STS-B": ("index", "genre", "sentence1", "sentence2", "score"),
        "MNLI": ("index", "pairID", "sentence1", "sentence2", "label1", "gold_label"),
        "QNLI": ("index", "question", "sentence", "label"), "RTE": ("index", "sentence1", "sentence2", "label"),
        "WNLI": ("index", "sentence1", "sentence2", "label"),
    }  # fmt: skip
    names = {"MNLI": ("neutral", "entailment", "contradiction")}
    names |= dict.fromkeys(("QNLI", "RTE"), ("entailment", "not_entailment"))
    for folder, header in headers.items():
        (root / folder).mkdir()
        dev = ("dev_matched", "dev_mismatched") if folder == "MNLI" else ("dev",)
        for name, count in (("train", 40), *((one, 12) for one in dev)):
            lines = [] if header is None else [header]
            for i in range(count):
                known = names.get(folder, ("0", "1"))
                label = str(i % 6 - 0.5 * (i % 2)) if folder == "STS-B" else known[i % len(known)]
                texts = iter((f'first {i} "film', f"second {i} plot"))
                wanted = header or ("source", "label", "mark", "sentence")
                textual = ("sentence", "sentence1", "sentence2", "question", "question1", "question2")
                labels = ("label", "Quality", "is_duplicate", "score", "gold_label")
                lines.append(tuple(
                    next(texts) if one in textual or one.endswith("String") else label if one in labels else str(i)
                    for one in wanted
                ))  # fmt: skip
            (root / folder / f"{name}.tsv").write_text("".join("\t".join(line) + "\n" for line in lines))
    return root
