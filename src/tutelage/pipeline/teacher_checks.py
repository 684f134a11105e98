"""Checks whether a given teacher fits the data: its preprocessing, classes and accuracy.

A teacher with the wrong preprocessing or order of classes trains a bad student without an error. The header of a
Tutelage checkpoint is compared with the data. The accuracy of any given teacher on labelled examples is logged before
the first training step, with a warning if it is no better than chance.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from tutelage.checkpoints.weights import about
from tutelage.data.module import Data
from tutelage.errors import TutelageError
from tutelage.evaluation.predictions import Predictions, Stored
from tutelage.tasks.base import Task
from tutelage.tasks.predictions import as_saved

log = logging.getLogger(__name__)

_DEVIATIONS = 3  # of the binomial distribution, above the most frequent class
_TOLERANCE = 0.01  # relative tolerance, for rounded mean and std
_NOT_MEANT = "Check its weights, its preprocessing and the order of its classes"
_LEARNT_NOTHING = "Its training failed: see stages.teacher"
_ADAPTERS = "tutelage.models.adapter"


def check_file(checkpoint: str, network: DictConfig, data: Data, statistics: Mapping[str, Any]) -> None:
    """Compares a Tutelage checkpoint's header with the student's data; other files have no such header.

    For a network with an adapter only the classes are compared.

    Args:
        checkpoint: the file.
        network: config of the network that it is loaded into.
        data: the student's.
        statistics: config of the data, for ``mean`` and ``std``.

    Raises:
        TutelageError: images of another normalisation or shape, with the adapter that fixes it; another tokenizer;
            classes in another order.
    """
    try:
        header = about(checkpoint)
    except TutelageError:  # not from Tutelage, or damaged, which loading reports
        return
    theirs = header.get("data")
    if not isinstance(theirs, dict):
        return
    own_adapter = isinstance(header.get("network"), dict) and header["network"].get("adapter")
    alike = not network.get("adapter") or network.get("adapter") == own_adapter
    if alike and len(data.input_shape) == 3:
        _check_images(checkpoint, theirs, data, statistics)
    _check_tokenizer(checkpoint, theirs.get("tokenizer_digest"), theirs.get("tokenizer"), data)
    _check_classes(checkpoint, header.get("class_names") or theirs.get("class_names"), data)


def _check_tokenizer(checkpoint: str, digest: Any, name: Any, data: Data) -> None:
    if None not in (digest, data.tokenizer_digest) and digest != data.tokenizer_digest:
        raise TutelageError(
            f"{checkpoint} was trained with another tokenizer ({name}, digest {str(digest)[:12]}) than data.tokenizer "
            f"(digest {data.tokenizer_digest[:12]}): its token ids mean other words"  # type: ignore[index]
        )


def _check_images(checkpoint: str, theirs: Mapping[str, Any], data: Data, statistics: Mapping[str, Any]) -> None:
    own = {key: _numbers(list(statistics.get(key) or ())) for key in ("mean", "std")}
    noted = {key: _numbers(theirs.get(key)) for key in ("mean", "std")}
    if bool(own["mean"]) != bool(noted["mean"]):
        log.warning(
            "%s was trained with mean %s and std %s, and data.mean is %s (null: not normalised here): unless "
            "data.transform makes up for it, the teacher needs +teacher.adapter (tutelage.models.adapter.Renormalise)",
            checkpoint, noted["mean"] or "null", noted["std"] or "null", own["mean"] or "null",
        )  # fmt: skip
    plain = {"mean": [0.0] * data.input_shape[0], "std": [1.0] * data.input_shape[0]}
    here = {key: own[key] or noted[key] or plain[key] for key in plain}
    there = {key: noted[key] or here[key] for key in plain}
    shape, wanted = list(data.input_shape), _numbers(theirs.get("input_shape")) or list(data.input_shape)
    wanted = [int(x) for x in wanted]
    if len(there["mean"]) != len(here["mean"]) or wanted[0] != shape[0]:
        raise TutelageError(
            f"{checkpoint} was trained on images {wanted}, the data's are {shape}: grey and colour images can't be "
            "converted"
        )
    steps, found = [], []
    if wanted != shape:
        steps.append(f"{{_target_: {_ADAPTERS}.Resize, size: {wanted[1:]}}}")
        found.append(f"images {wanted}, the data's are {shape}")
    if not _same_statistics(here, there):
        steps.append(
            f"{{_target_: {_ADAPTERS}.Renormalise, mean: {here['mean']}, std: {here['std']}, "
            f"to_mean: {there['mean']}, to_std: {there['std']}}}"
        )
        found.append(
            f"mean {there['mean']} and std {there['std']}, the data have data.mean={here['mean']} and "
            f"data.std={here['std']}"
        )
    if not steps:
        return
    adapter = steps[0] if len(steps) == 1 else f"{{_target_: torch.nn.Sequential, _args_: [{', '.join(steps)}]}}"
    size = f" 'teacher.net.input_shape={wanted}'" if wanted != shape else ""
    raise TutelageError(
        f"{checkpoint} was trained with {'; and with '.join(found)}. To convert the images for the teacher, add\n"
        f"  '+teacher.adapter={adapter}'{size}\n"
        "or, to use it as it is,\n"
        "  '+teacher.adapter={_target_: torch.nn.Identity}'"
    )


def _numbers(value: Any) -> list[float] | None:
    good = isinstance(value, list) and value and all(isinstance(x, int | float) for x in value)
    return [float(x) for x in value] if good else None


def _same_statistics(here: Mapping[str, Sequence[float]], there: Mapping[str, Sequence[float]]) -> bool:
    pairs = zip(here["mean"], here["std"], there["mean"], there["std"], strict=True)
    return all(
        abs(std / to_std - 1) <= _TOLERANCE and abs(mean - to_mean) / to_std <= _TOLERANCE
        for mean, std, to_mean, to_std in pairs
    )


def _check_classes(checkpoint: str, theirs: Any, data: Data) -> None:
    names = data.class_names
    if not isinstance(theirs, list) or theirs == names or _only_numbers(names) or _only_numbers(theirs):
        return
    if sorted(map(str, theirs)) == sorted(names):
        index = next(i for i, (mine, its) in enumerate(zip(names, theirs, strict=True)) if mine != its)
        raise TutelageError(
            f"{checkpoint} has the data's classes in another order: class {index} is {theirs[index]!r} there and "
            f"{names[index]!r} in the data"
        )
    odd = [name for name in map(str, theirs) if name not in names]
    log.warning(
        "%s was trained on other classes: %s are not among the data's, which begin with %s; classes are matched by "
        "position",
        checkpoint, odd[:5], names[:5],
    )  # fmt: skip


def _only_numbers(names: Sequence[Any]) -> bool:
    return all(str(name).isdigit() for name in names)


def report_stored(who: str, split: str, found: Stored, task: Task, trained_here: bool = False) -> None:
    """Logs how good a teacher is on a split; warns if a constant answer is as good.

    Args:
        who: the teacher, for the log.
        split: name of the examples' split.
        found: what was stored of its answers.
        task: whose headline is logged.
        trained_here: whether its training has logged it already; then this only warns.
    """
    if isinstance(found, Predictions) and not found.label.is_floating_point():
        report_accuracy(who, split, found.logits, found.label, trained_here)
        return
    own, kind = as_saved(found), task.figure_kinds.main
    if (value := task.figures(own).get(task.headline)) is None:
        return
    if not trained_here:
        log.info("%s: %s %s on %d %s examples", who, kind.title, kind.text(value), len(found.key), split)
    if (baseline := task.baseline(own)) is not None and kind.sign * value <= kind.sign * baseline[0]:
        log.warning(
            "NO BETTER THAN CHANCE: %s has %s %s on %d %s examples; %s has %s. %s",
            who, kind.title, kind.text(value), len(found.key), split, baseline[1], kind.text(baseline[0]),
            _LEARNT_NOTHING if trained_here else _NOT_MEANT,
        )  # fmt: skip


def report_quality(who: str, split: str, logits: Tensor, labels: Tensor, task: Task) -> None:
    """Logs how good a source is on labelled examples (:meth:`~tutelage.sources.base.Source.graded`)."""
    if len(labels):
        report_stored(who, split, Predictions(logits.float(), labels, torch.arange(len(labels))), task)


def report_accuracy(who: str, split: str, logits: Tensor, labels: Tensor, trained_here: bool = False) -> None:
    """Logs a teacher's accuracy on labelled examples; warns if it is no better than chance, or cannot be told from it.

    Chance is the share of the most frequent class; up to three standard deviations above it may be chance.

    Args:
        who: the teacher, for the log.
        split: name of the examples' split.
        logits: [N, C].
        labels: [N], each at least 0.
        trained_here: whether its training has logged its accuracy already; then this only warns.
    """
    predicted, count = logits.argmax(1), len(labels)
    if not count:
        return
    right = int((predicted == labels).sum())
    if not trained_here:
        log.info("%s: accuracy %.2f %% on %d %s examples", who, 100 * right / count, count, split)
    chance = float(labels.bincount().max()) / count
    most = count * chance + _DEVIATIONS * math.sqrt(count * chance * (1 - chance))
    if chance == 1 or right > most:
        return
    above = right > count * chance
    limit = f", of so few examples by chance up to {100 * most / count:.2f} %" if above else ""
    advice = "" if above and trained_here else f". {_LEARNT_NOTHING if trained_here else _NOT_MEANT}"
    log.warning(
        "%sNO BETTER THAN CHANCE: %s has accuracy %.2f %% on %d %s examples; always predicting the most frequent class "
        "has %.2f %%%s%s%s",
        "PERHAPS " if above else "", who, 100 * right / count, count, split, 100 * chance, limit, advice,
        _renamed(predicted, labels, logits.shape[1]),
    )  # fmt: skip


def _renamed(predicted: Tensor, labels: Tensor, classes: int) -> str:
    """Returns a hint at an order of classes that would make most predictions right; empty if there is none."""
    confusion = torch.bincount(predicted * classes + labels, minlength=classes**2).view(classes, classes)
    likely = confusion.argmax(1).tolist()
    right = float(confusion.amax(1).sum()) / len(labels)
    if len({*likely}) < classes or right < 0.5:
        return ""
    moves = ", ".join(f"{here} is {there}" for here, there in enumerate(likely) if here != there)
    return f". With its classes reordered {100 * right:.1f} % would be right: {moves[:200]}"
