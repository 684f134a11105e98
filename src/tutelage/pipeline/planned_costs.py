"""Estimates what a training takes before it begins: epochs, steps, multiply-adds and bytes on disk."""

from collections.abc import Iterable
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn

from tutelage.config import factory
from tutelage.config.source_nodes import copies, networks, trained_beside
from tutelage.config.trainer_arguments import accumulation
from tutelage.config.turns import training_data, turns
from tutelage.data.module import Data
from tutelage.evaluation.cost import multiply_adds, parameters, total
from tutelage.evaluation.results import SPLITS
from tutelage.pipeline.teacher_cache import to_cache
from tutelage.training.schedule_length import steps_and_batches

_SAMPLE = 10_000  # training examples of which predictions are kept
_BACKWARD = 3  # forward and backward of a step are three forward passes


def cost_of_training(
    stage: DictConfig, data: Data, learn: Iterable[DictConfig] = (), answer: Iterable[DictConfig] = ()
) -> dict[str, Any]:
    """Returns ``epochs``, ``steps``, ``macs`` and ``bytes`` of a training.

    Args:
        stage: the training's.
        data: that it reads.
        learn: networks that are trained in the same steps.
        answer: networks that answer in each step.
    """
    batches_of = len(training_data(stage, data).train_dataloader())
    steps, batches = steps_and_batches(stage.trainer, batches_of, accumulation(stage.callbacks))
    trained = [stage.network, *learn]
    forward = total(macs(network, data) for network in trained)
    asked = total(macs(network, data) for network in answer)
    examples = batches * data.batch_size
    known = None
    if forward is not None and asked is not None:
        rounds = "turns" in stage
        known = _of_rounds(stage, examples, forward, asked) if rounds else examples * (_BACKWARD * forward + asked)
    return {
        "epochs": int(stage.trainer.max_epochs),
        "steps": steps,
        "macs": known,
        "bytes": sum(bytes_of_network(factory.network(network, 0).net, data) for network in trained),
    }


def cost_beside_sources(stage: DictConfig, data: Data) -> dict[str, Any]:
    """Returns the cost of a training with the networks of its sources that learn or answer in its steps."""
    read = {*stage.sources} if "turns" in stage else {*stage.sources} & factory.objective(stage).needs().keys()
    sources = {name: stage.sources[name] for name in stage.sources if name in read}
    learn = trained_beside(sources)
    of_source: dict[str, list[DictConfig]] = {"student": [stage.network]}
    for place, network in learn.items():
        of_source.setdefault(place.partition("/")[0], []).append(network)
    written = to_cache(stage, data)
    live = [node for name, node in sources.items() if name not in written]
    answer = [one.net for node in live for one in networks(node)]
    answer += [network for name in copies(sources) for network in of_source.get(name, [])]
    return cost_of_training(stage, data, learn.values(), answer)


def macs(network: DictConfig, data: Data) -> float | None:
    """Returns the multiply-adds of a network's forward pass for one example; None if they are not known."""
    return multiply_adds(factory.network(network, 0).net, data.sample(1))


def bytes_of_network(net: nn.Module, data: Data) -> int:
    """Returns the size on disk of a network's last and best weights and of their predictions."""
    rows = sum(len(data.splits[split]) for split in SPLITS) + min(_SAMPLE, len(data.splits["train"]))
    buffers = sum(buffer.numel() * buffer.element_size() for buffer in net.buffers())
    return 2 * (4 * parameters(net) + buffers + rows * (4 * data.num_outputs + 16))


def _of_rounds(stage: DictConfig, images: int, student: float, teacher: float) -> float | None:
    made = turns(stage)
    drawn = made.generator.draw(1, torch.device("cpu"))
    if (generator := multiply_adds(made.generator, drawn.shape[1:])) is None:
        return None
    of_each = {"generator": generator, "student": student, "teacher": teacher}
    return images * sum(count * of_each[name] for name, count in made.passes(stage.data.batch_size).items())
