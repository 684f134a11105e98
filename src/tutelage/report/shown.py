"""Shows test examples of a run, as images or texts, with what networks say of them.

Only this needs the data and therefore PyTorch, which is imported here only.
"""

import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from tutelage.config.trust import vetted
from tutelage.errors import TutelageError
from tutelage.report.cells import select
from tutelage.report.document import Figure
from tutelage.report.runs import Run
from tutelage.report.svg import data_uri
from tutelage.runtime.text import html_text

if TYPE_CHECKING:
    from tutelage.data.module import Data
    from tutelage.types import Batch

MOST = 8  # examples of each kind
_SIDE = 160  # pixels; larger images are scaled down
_LETTERS = 400  # of a text; longer ones are cut
_NUMBERS = 12  # of a vector; longer ones are cut


def run_data(run: Run, trusted: Iterable[str]) -> "Data":
    """Returns the run's data, read from disk without downloading."""
    root = select(run.config, "data.root")
    changes = {"root": str(run.cwd / root)} if isinstance(root, str) else {}
    vetted(run.config.get("data"), f"{run.folder / 'config.yaml'}, data", trusted)  # before the imports
    from tutelage.config.saved import data_of

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return data_of(run.config, changes, run.folder / "config.yaml", trusted)


def test_batch(data: "Data", keys: np.ndarray) -> "Batch":
    """Returns the test examples of these keys, in their order."""
    import torch

    test = data.splits["test"]
    places = {int(key): place for place, key in enumerate(test.keys.tolist())}
    return test[0, torch.tensor([places[int(key)] for key in keys])]


def gallery(
    name: str,
    title: str,
    caption: str,
    keys: np.ndarray,
    lines: Sequence[Sequence[str]],
    shown: Sequence["str | np.ndarray"],
) -> Figure:
    """Returns a figure of examples.

    Args:
        name: of the figure.
        title: above it.
        caption: below it.
        keys: of the examples, [n].
        lines: what is said of each.
        shown: each as a text or as pixels (:func:`contents`).
    """
    items = []
    for key, about, content in zip(keys.tolist(), lines, shown, strict=True):
        said = f"<span>{'<br>'.join(map(html_text, about))}</span>"
        if isinstance(content, str):
            items.append(f"<li><blockquote>{html_text(_shortened(content))}</blockquote>{said}</li>")
            continue
        alt = html_text(f"Test image {key}; {'; '.join(about)}")
        picture = f'<img src="{_picture(content)}" alt="{alt}" title="{alt}" width="96" height="96">'
        items.append(f"<li>{picture}{said}</li>")
    kind = "texts" if isinstance(shown[0], str) else "pictures"
    return Figure(name, title, f'<ul class="{kind}">{"".join(items)}</ul>', caption, wide=True)


def contents(data: "Data", batch: "Batch", keys: np.ndarray) -> Sequence[str | np.ndarray]:
    """Returns what test examples are: texts, pixels [H, W, C], or the first numbers of a vector as text.

    Raises:
        TutelageError: they are none of these.
    """
    if (texts := data.shown("test", keys.tolist())) is not None:
        return texts
    if (images := data.pictures(batch["input"])) is not None:
        return list((images * 255).round().byte().permute(0, 2, 3, 1).numpy())
    if batch["input"].ndim != 2 or not batch["input"].is_floating_point():
        raise TutelageError("they are neither images, texts nor vectors of numbers")
    cut = " …" if batch["input"].shape[1] > _NUMBERS else ""
    return [", ".join(f"{x:.3g}" for x in row[:_NUMBERS]) + cut for row in batch["input"].tolist()]


def _shortened(text: str) -> str:
    return text if len(text) <= _LETTERS else f"{text[: _LETTERS - 2]} …"


def _picture(pixels: np.ndarray) -> str:
    made = Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)
    made.thumbnail((_SIDE, _SIDE))
    return data_uri(made)
