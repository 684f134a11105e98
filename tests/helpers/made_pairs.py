"""Small files of the layouts of Omniglot and of the spoken digits."""

import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

ALPHABETS = {"Greek": 2, "Latin": 1}  # characters of each
DRAWERS = 6


def strokes(character: int, drawer: int) -> list[np.ndarray]:
    """The strokes of a drawing, [P, 2] x and y downwards: a line down, and for every other character one across."""
    x = 20.0 + 5 * drawer
    down = np.stack([np.full(30, x), np.linspace(10, 80, 30)], 1)
    across = np.stack([np.linspace(10, 90, 25), np.full(25, 50.0)], 1)
    return [down, across] if character % 2 else [down]


def write_omniglot(folder: Path, drop: str = "", change: dict[str, bytes] | None = None) -> dict[str, Path]:
    """Writes both zips; ``drop`` is a path that is left out, ``change`` other contents of paths."""
    files = {"images": folder / "images.zip", "strokes": folder / "strokes.zip"}
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(files["images"], "w") as images, zipfile.ZipFile(files["strokes"], "w") as texts:
        texts.writestr("__MACOSX/strokes/Greek/character01/0001_01.txt", b"nothing")
        texts.writestr("strokes/Greek/.DS_Store", b"nothing")
        for alphabet, count in ALPHABETS.items():
            for character in range(1, count + 1):
                for drawer in range(1, DRAWERS + 1):
                    name = f"{alphabet}/character{character:02}/00{character:02}_{drawer:02}"
                    drawing, text = np.full((105, 105), 255, np.uint8), []
                    for stroke in strokes(character, drawer):
                        drawing[stroke[:, 1].astype(int), stroke[:, 0].astype(int)] = 0
                        text += (
                            ["START"] * (not text) + [f"{x},{-y},{t}" for t, (x, y) in enumerate(stroke)] + ["BREAK"]
                        )
                    file = io.BytesIO()
                    Image.fromarray(drawing).convert("1").save(file, "png")
                    for archive, path, content in (
                        (images, f"images/{name}.png", file.getvalue()),
                        (texts, f"strokes/{name}.txt", "\n".join(text).encode()),
                    ):
                        if path != drop:
                            archive.writestr(path, (change or {}).get(path, content))
    return files


def recordings(takes: int = 4) -> dict[str, np.ndarray]:
    """The arrays of the file of spoken digits: a tone for each digit, one speaker."""
    digit, take = np.divmod(np.arange(10 * takes), takes)
    lengths = 600 + 40 * take + digit
    tones = [np.sin(np.arange(n) * (0.1 + 0.2 * d)) * 9000 for n, d in zip(lengths, digit, strict=True)]
    return {
        "samples": np.concatenate(tones).astype(np.int16), "length": lengths.astype(np.int32),
        "digit": digit.astype(np.uint8), "speaker": np.array(["a"] * len(digit)), "take": take.astype(np.uint8),
        "rate": np.int32(8000),
    }  # fmt: skip
