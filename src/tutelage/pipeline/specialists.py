"""Trains specialists: copies of the generalist, trained further for classes that it confuses.

Hinton et al. 2015, section 5.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from sklearn.cluster import KMeans
from torch import Tensor

from tutelage.config import factory
from tutelage.config.plan import JobPlan, read_only
from tutelage.errors import TutelageError
from tutelage.evaluation import results
from tutelage.evaluation.cost import ADDED, total
from tutelage.evaluation.predictions import Predictions
from tutelage.evaluation.results import SPLITS, WEIGHTS, Trained
from tutelage.pipeline import artifacts
from tutelage.pipeline.supervised import Training, train_in_parallel
from tutelage.runtime import distributed
from tutelage.runtime.identity import made_with
from tutelage.sources.specialists import activity, combine_experts, membership, warn

_ROWS = 1024  # examples that are combined at a time


def specialise(
    plan: JobPlan, stage: DictConfig, node: DictConfig, generalist: Trained
) -> tuple[list[list[int]], list[Trained], Trained]:
    """Trains or finds the specialists and combines their predictions with the generalist's.

    A specialist has the generalist's architecture and starts from its weights. It teaches with its last weights, since
    accuracy on all classes is not its purpose.

    Args:
        plan: of the job.
        stage: the config of a specialist's training, before its group is known.
        node: of ``sources``, with a ``generalist``.
        generalist: trained.

    Returns:
        The group of classes of each specialist, the specialists, and all of them as one teacher.

    Raises:
        TutelageError: invalid groups.
    """
    weights = plan.weights
    groups = distributed.broadcast(find_or_take_groups(node, generalist.logits_on(weights, "val").logits, stage.seed))
    trainings, shares = trainings_of(plan, stage, groups, generalist.folder)
    train_in_parallel(trainings, plan.config)
    trained = [training() for training in trainings]
    since = artifacts.oldest(plan.config)
    together = _combine(groups, shares, [generalist, *trained], weights, node.get("top", 1), plan.artifacts, since)
    return groups, trained, together


def trainings_of(
    plan: JobPlan, stage: DictConfig, groups: list[list[int]], generalist: Path
) -> tuple[list[Training], list[float]]:
    """Returns the training of each specialist, and the share of its classes in the training data.

    Args:
        plan: of the job.
        stage: the config of a specialist's training, before its group is known.
        groups: of classes.
        generalist: its folder.
    """
    labels = factory.data(stage).splits["train"].labels
    shares = [float(torch.isin(labels[labels >= 0], torch.tensor(group)).double().mean()) for group in groups]
    start, since = str(generalist / f"{plan.weights}.safetensors"), artifacts.oldest(plan.config)
    trainings = [
        Training(_for_group(stage, group, share), "specialist", plan.artifacts, start, since)
        for group, share in zip(groups, shares, strict=True)
    ]
    return trainings, shares


def find_or_take_groups(node: DictConfig, logits: Tensor, seed: int) -> list[list[int]]:
    """Returns the user's groups, or finds them."""
    if node.get("groups") is None:
        return find_groups(logits, node.get("count", 3), seed)
    membership(node.groups, logits.shape[1])
    return [list(group) for group in node.groups]


def check_groups(sources: DictConfig, classes: int) -> None:
    """Checks before training how many groups are to be found.

    Args:
        sources: of the student's stage.
        classes: of the data.

    Raises:
        TutelageError: not 2 to ``classes``.
    """
    for source in sources.values():
        node = (source and source.get("source")) or source
        if node is not None and "generalist" in node and node.get("groups") is None:
            _check_count(node.get("count", 3), classes)


def _check_count(count: int, classes: int) -> None:
    if type(count) is not int or not 2 <= count <= classes:
        raise TutelageError(f"specialists: count must be 2 to {classes}, the number of classes; found {count!r}")


def find_groups(logits: Tensor, count: int, seed: int) -> list[list[int]]:
    """Groups classes that a network often predicts together on validation examples.

    k-means (k = ``count``, 10 starts from ``seed``) over the columns of the correlation matrix [C, C] of its
    probabilities. The paper, with 15,000 classes, uses their covariance. With few classes its diagonal, the frequency
    of each class, dominates: with k = 3 it gave groups of eight, one and one classes on digits and Fashion-MNIST, where
    the correlation finds tops, shoes and the rest. Groups of one class are dropped.

    Args:
        logits: [N, C].
        count: 2 to C.
        seed: of the starts.

    Raises:
        TutelageError: ``count`` is out of range, or no group has two classes.
    """
    classes = logits.shape[1]
    _check_count(count, classes)
    related = torch.corrcoef(logits.double().softmax(1).T).nan_to_num()  # a class of constant probability has none
    found = KMeans(count, n_init=10, random_state=seed).fit_predict(related.numpy()).tolist()
    groups = [[c for c in range(classes) if found[c] == number] for number in range(count)]
    if not (groups := sorted(group for group in groups if 1 < len(group) < classes)):
        raise TutelageError(f"specialists: none of {count} groups has more than one class: use a smaller count")
    return groups


def _for_group(stage: DictConfig, group: list[int], share: float) -> DictConfig:
    """Returns the stage with half of its data from the group, and the dustbin's loss as the hard term."""
    own = factory.writable(stage)
    own.data.focus = group
    smoothing = own.loss.terms.pop("hard").loss.get("label_smoothing", 0.0)
    loss = {"_target_": "tutelage.losses.logit.dustbin.Dustbin", "classes": group, "share": share}
    own.loss.terms.dustbin = {
        "_target_": "tutelage.objective.Term",
        "loss": {**loss, "label_smoothing": smoothing},
        "inputs": {"student": "student.logits", "label": "batch.label"},
    }
    return read_only(own)


def recipe_of_all(groups: list[list[int]], trained: Iterable[Path], weights: str, top: int) -> dict[str, Any]:
    """Returns the recipe of the combined predictions.

    Args:
        groups: of classes, one a specialist.
        trained: the folders of the generalist and its specialists, which are named by their content.
        weights: which weights of the generalist teach.
        top: specialists of so many classes are asked.
    """
    members = [f"{folder.parent.name}/{folder.name}" for folder in trained]
    return {"members": members, "groups": groups, "top": top, "weights": weights, **made_with({}), "version": 2}


def _combine(
    groups: list[list[int]],
    shares: list[float],
    trained: list[Trained],
    weights: str,
    top: int,
    root: Path,
    since: float,
) -> Trained:
    """Returns the artifact of the combined predictions. ``trained`` is the generalist and its specialists."""
    found = recipe_of_all(groups, [one.folder for one in trained], weights, top)

    def combine(work: Path) -> None:
        if not distributed.is_main():
            return
        facts: dict[str, Any] = {key: total(one.facts[key] for one in trained) for key in ADDED}
        facts |= {"epochs": trained[0].facts["epochs"], "epoch": dict.fromkeys(WEIGHTS)}
        facts["specialists"] = [{"classes": group, "share": share} for group, share in zip(groups, shares, strict=True)]
        predictions = {}
        for split in SPLITS:
            special = torch.stack([one.logits_on("last", split).logits for one in trained[1:]])
            predictions[split], counts = _together(trained[0].logits_on(weights, split), special, groups, top)
            for entry, count in zip(facts["specialists"], counts, strict=True):
                entry[split] = count
        both = {(kind, split): one for kind in WEIGHTS for split, one in predictions.items()}
        results.write_results(work, both, facts)

    return Trained.read(*artifacts.make(root, "specialists", found, combine, since))


def _together(
    generalist: Predictions, special: Tensor, groups: list[list[int]], top: int
) -> tuple[Predictions, list[dict[str, int]]]:
    """Returns a split's combined predictions, and each specialist's number of active examples and of errors."""
    inside = membership(groups, generalist.logits.shape[1])
    parts = zip(generalist.logits.split(_ROWS), special.split(_ROWS, 1), strict=True)
    logits, gaps = zip(*(combine_experts(first, others, inside, top) for first, others in parts), strict=True)
    warn(float(torch.cat(gaps).max()))
    combined = replace(generalist, logits=torch.cat(logits).float())
    wrong = {"errors_generalist": generalist.choice != combined.label, "errors": combined.choice != combined.label}
    asked = activity(generalist.logits, inside, top).T
    return combined, [
        {"asked": int(rows.sum()), **{name: int(which[rows].sum()) for name, which in wrong.items()}} for rows in asked
    ]
