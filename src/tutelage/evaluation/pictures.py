"""Draws confusion matrices and a teacher's softened predictions ("dark knowledge")."""

from collections import Counter
from collections.abc import Sequence
from functools import cache

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from tutelage.errors import TutelageError
from tutelage.evaluation.confusion import WRITTEN_CLASSES, shading

Colour = tuple[int, int, int]

PAPER: Colour = (255, 255, 255)
INK: Colour = (31, 41, 55)
MUTED: Colour = (107, 114, 128)
FAINT: Colour = (203, 208, 215)
TRACK: Colour = (241, 243, 246)  # behind a bar: probability 1
TRUE: Colour = (24, 62, 116)  # also dark in black and white
OTHER: Colour = (146, 178, 216)  # also light in black and white

_MARGIN, _GAP, _TEXT = 40, 36, 20
_CELL = 62  # of a confusion matrix with text
_THUMBNAIL, _ROW, _BAR, _VALUE, _MOST_BARS = 196, 26, 200, 84, 10
_SURE = 0.99
_HEAD = 40  # the titles of the bars
_NAME = 150  # a longer class name is cut


def confusion_picture(matrix: Tensor, class_names: Sequence[str]) -> Image.Image:
    """Draws a confusion matrix, each cell shaded by the square root of its share of the row, so that rare errors show.

    Args:
        matrix: [C, C] counts, rows true and columns predicted (as of :mod:`tutelage.tasks.metrics.classification`).
        class_names: C names; they and the counts are written where C is at most 20.

    Returns:
        An RGB image.

    Raises:
        TutelageError: the matrix is not square, or the names are not C.
    """
    classes = len(matrix)
    if matrix.shape != (classes, classes) or len(class_names) != classes:
        raise TutelageError(
            f"a confusion picture takes counts [C, C] and C names; found {list(matrix.shape)} and {len(class_names)}"
        )
    shade = torch.from_numpy(shading(matrix.numpy()))
    ramp = torch.tensor(PAPER) + shade[:, :, None] * (torch.tensor(TRUE) - torch.tensor(PAPER))
    cell = _CELL if classes <= WRITTEN_CLASSES else max(2, 800 // classes)
    cells = Image.fromarray(ramp.round().byte().numpy()).resize(
        (classes * cell, classes * cell), Image.Resampling.NEAREST
    )
    return _annotated(cells, matrix, shade, class_names) if classes <= WRITTEN_CLASSES else cells


def _annotated(cells: Image.Image, matrix: Tensor, shade: Tensor, class_names: Sequence[str]) -> Image.Image:
    names = [_clip(name) for name in class_names]
    longest = max(map(_length, names))
    level = longest < _CELL  # else the names of the columns stand upright
    left, top = 64 + longest + 16, 126 + (24 if level else longest)
    title = f"{int(matrix.trace()):,} of {int(matrix.sum()):,} right"
    width = left + max(cells.width, _length(title, 26)) + _MARGIN
    picture = Image.new("RGB", (width, top + cells.height + _MARGIN), PAPER)
    picture.paste(cells, (left, top))
    _write(picture, title, (left, _MARGIN + 8), "lm", size=26)
    _write(picture, "predicted", (left + cells.width // 2, 86), "mm", MUTED)
    _write(picture, "true", (_MARGIN, top + cells.height // 2), "mm", MUTED, turned=True)
    draw = ImageDraw.Draw(picture)
    draw.rectangle((left - 1, top - 1, left + cells.width, top + cells.height), outline=FAINT)
    for i, name in enumerate(names):
        middle = i * _CELL + _CELL // 2
        _write(picture, name, (left - 16, top + middle), "rm")
        _write(picture, name, (left + middle, top - 16), "mb" if level else "lm", turned=not level)
        for j, value in enumerate(matrix[i].tolist()):
            colour = PAPER if shade[i, j] > 0.6 else INK if value else FAINT
            _write(picture, f"{value}", (left + j * _CELL + _CELL // 2, top + middle), "mm", colour)
    return picture


def interesting(logits: Tensor, labels: Tensor, n: int, temperature: float) -> Tensor:
    """Returns the examples whose softened teacher predictions are most informative beyond the label.

    First the example of each class that the teacher gets right with confidence (probability ≥ 0.99, so that T = 1
    hides the rest) whose second class has the highest probability at the temperature, then the next of each class,
    and so on. Within a class less confident ones come later; those that the teacher gets wrong come after all
    others. Choosing by entropy would select illegible examples.

    Args:
        logits: [N, C] of the teacher, C at least 2.
        labels: [N].
        n: number of examples.
        temperature: T of the softened predictions.

    Returns:
        [min(n, N)] indices, in the order of their labels; the earlier of equals comes first.
    """
    z = logits.double()
    sure = z.softmax(1).amax(1) >= _SURE
    second = (z / temperature).softmax(1).topk(2).values[:, 1]  # at most ½, so that confidence counts more
    wrong = logits.argmax(1) != labels
    seen: Counter[tuple[bool, int]] = Counter()
    ranked: list[tuple[bool, int, int, int]] = []
    for place, index in enumerate((second + sure).argsort(descending=True, stable=True).tolist()):
        group = bool(wrong[index]), int(labels[index])
        seen[group] += 1
        ranked.append((group[0], seen[group], place, index))
    chosen = torch.tensor([index for *_, index in sorted(ranked)[:n]], dtype=torch.int64, device=labels.device)
    return chosen[labels[chosen].argsort(stable=True)]


def dark_knowledge_picture(
    images: Tensor,
    labels: Tensor,
    teacher_logits: Tensor,
    temperature: float,
    class_names: Sequence[str],
    student_logits: Tensor | None = None,
) -> Image.Image:
    """Draws examples with bars of the teacher's probabilities, at T = 1 and softened by the temperature.

    At T = 1 almost all mass is on one class; softmax(z/T) shows which other classes the teacher finds similar: the
    "dark knowledge" that a student learns from (Hinton et al. 2015, arXiv:1503.02531). The true class is dark; the
    light track behind a bar is probability 1. Of more than 10 classes the teacher's first 10 are shown.

    Args:
        images: [n, 1 or 3, H, W] in [0, 1], not normalised.
        labels: [n].
        teacher_logits: [n, C].
        temperature: T of the softened bars.
        class_names: C names.
        student_logits: [n, C]; if given, another column shows the student at the same temperature.

    Returns:
        An RGB image.

    Raises:
        TutelageError: no example, shapes that don't fit, a label out of range, a logit that is not finite or a
            temperature that is not positive.
    """
    _check(images, labels, teacher_logits, temperature, class_names, student_logits)
    softened = {"teacher, T = 1": teacher_logits, f"teacher, T = {temperature:g}": teacher_logits / temperature}
    if student_logits is not None:
        softened[f"student, T = {temperature:g}"] = student_logits / temperature
    panels = {f"{title} (%)": z.double().softmax(1) for title, z in softened.items()}
    names = [_clip(name) for name in class_names]
    shown = [sorted(z.topk(min(_MOST_BARS, len(names))).indices.tolist()) for z in teacher_logits]
    name_width = max(_length(names[c]) for row in shown for c in row) + 12
    step_x = _THUMBNAIL + _GAP + name_width + len(panels) * (_BAR + _VALUE) + _GAP
    step_y = max(len(shown[0]) * _ROW, _THUMBNAIL + 34) + _GAP
    columns = min(2, len(images))
    rows = -(-len(images) // columns)
    size = 2 * _MARGIN + columns * step_x - _GAP, 2 * _MARGIN + _HEAD + rows * step_y - _GAP
    picture = Image.new("RGB", size, PAPER)
    for i, image in enumerate(images):
        x, y = _MARGIN + i % columns * step_x, _MARGIN + _HEAD + i // columns * step_y
        picture.paste(_thumbnail(image), (x, y))
        _write(picture, f"true: {names[int(labels[i])]}", (x + _THUMBNAIL // 2, y + _THUMBNAIL + 20), "mm")
        x += _THUMBNAIL + _GAP + name_width
        if i < columns:
            for k, title in enumerate(panels):
                _write(picture, title, (x + k * (_BAR + _VALUE), _MARGIN + 8), "lm", MUTED)
        for row, c in enumerate(shown[i]):
            true, middle = c == int(labels[i]), y + row * _ROW + _ROW // 2
            _write(picture, names[c], (x - 12, middle), "rm", INK if true else MUTED)
            for k, p in enumerate(panels.values()):
                _bar(picture, x + k * (_BAR + _VALUE), middle, float(p[i, c]), TRUE if true else OTHER)
    return picture


def _bar(picture: Image.Image, x: int, middle: int, p: float, colour: Colour) -> None:
    draw = ImageDraw.Draw(picture)
    top, bottom = middle - _ROW // 2 + 4, middle + _ROW // 2 - 4
    draw.rectangle((x, top, x + _BAR - 1, bottom), fill=TRACK)
    if length := round(p * _BAR):
        draw.rectangle((x, top, x + length - 1, bottom), fill=colour)
    if p >= 0.0005:
        _write(picture, f"{100 * p:.1f}", (x + _BAR + 8, middle), "lm", MUTED, size=17)


def _thumbnail(image: Tensor) -> Image.Image:
    pixels = (image.detach().cpu().clamp(0, 1) * 255).round().byte().permute(1, 2, 0)
    found = Image.fromarray(pixels.expand(-1, -1, 3).contiguous().numpy())
    enlarged = max(found.size) <= _THUMBNAIL
    scale = _THUMBNAIL / max(found.size)
    size = (max(1, round(found.width * scale)), max(1, round(found.height * scale)))
    found = found.resize(size, Image.Resampling.NEAREST if enlarged else Image.Resampling.LANCZOS)
    square = Image.new("RGB", (_THUMBNAIL, _THUMBNAIL), TRACK)
    square.paste(found, ((_THUMBNAIL - found.width) // 2, (_THUMBNAIL - found.height) // 2))
    return square


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)


def _length(text: str, size: int = _TEXT) -> int:
    return round(_font(size).getlength(text))


def _clip(name: str) -> str:
    """Cuts a class name to the available width."""
    if _length(name) <= _NAME:
        return name
    while _length(name + "…") > _NAME:
        name = name[:-1]
    return name + "…"


def _write(
    picture: Image.Image,
    text: str,
    at: tuple[int, int],
    anchor: str,
    colour: Colour = INK,
    size: int = _TEXT,
    turned: bool = False,
) -> None:
    """Writes ``text``, as PIL's ``anchor`` says; ``turned``: from below to above, from (or around) ``at``."""
    font = _font(size)
    if not turned:
        ImageDraw.Draw(picture).text(at, text, fill=colour, font=font, anchor=anchor)
        return
    width, height = _length(text, size) + 2, size + 8
    mask = Image.new("L", (width, height))
    ImageDraw.Draw(mask).text((0, height // 2), text, fill=255, font=font, anchor="lm")
    mask = mask.rotate(90, expand=True)
    top = at[1] - width if anchor == "lm" else at[1] - width // 2
    picture.paste(colour, (at[0] - height // 2, top), mask)


def _check(
    images: Tensor,
    labels: Tensor,
    teacher_logits: Tensor,
    temperature: float,
    class_names: Sequence[str],
    student_logits: Tensor | None,
) -> None:
    n, classes = len(images), len(class_names)
    if n == 0 or images.ndim != 4 or images.shape[1] not in (1, 3):
        raise TutelageError(f"images to show are [n, 1 or 3, H, W] with n at least 1; found {list(images.shape)}")
    for name, tensor in {"teacher_logits": teacher_logits, "student_logits": student_logits}.items():
        if tensor is not None and (tensor.shape != (n, classes) or not tensor.isfinite().all()):
            raise TutelageError(
                f"{name} of {n} images and {classes} class names: expected finite ones of {[n, classes]}, "
                f"found {list(tensor.shape)}, {int((~tensor.isfinite()).sum())} not finite"
            )
    if labels.shape != (n,) or not ((labels >= 0) & (labels < classes)).all():
        raise TutelageError(f"labels of {n} images: expected {n} in [0, {classes}), found {labels.tolist()}")
    if not temperature > 0:
        raise TutelageError(f"temperature must be positive, found {temperature}")
