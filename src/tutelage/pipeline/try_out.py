"""Tries out a job's networks, losses and optimizers on a few examples before anything is trained."""

import logging

import torch
from omegaconf import DictConfig

from tutelage.config import factory, optimizers
from tutelage.config.plan import JobPlan
from tutelage.config.turns import training_data
from tutelage.data.module import Data
from tutelage.errors import TutelageError, tried_out
from tutelage.evaluation.cost import multiply_adds
from tutelage.evaluation.results import SPLITS
from tutelage.pipeline import fit
from tutelage.pipeline.class_checks import warn_of_classes, warn_of_unmeasured_classes
from tutelage.pipeline.specialists import check_groups
from tutelage.pipeline.student_start import check_start, started
from tutelage.pipeline.task_checks import check_fits_task, check_losses_fit_task
from tutelage.pipeline.teacher_cache import check_views
from tutelage.pipeline.teacher_checks import report_quality
from tutelage.pipeline.teachers import check_given
from tutelage.pipeline.text_checks import check_ids, check_tokens_correspond
from tutelage.runtime import distributed
from tutelage.tasks.base import Task
from tutelage.types import Batch

log = logging.getLogger(__name__)


def try_out(plan: JobPlan, data: Data) -> None:
    """Runs networks, taps and losses on a few images before training, with untrained weights.

    Raises:
        TutelageError: a network rejects the images, its number of logits is not that of the classes, a loss does not
            fit the pair, or an optimizer rejects its arguments.
    """
    stage = plan.student
    fit.check_stages(plan, data)
    task = factory.task(stage, data)
    for split in ("train", *SPLITS):
        task.check_labels(split, data.splits[split].labels)
    check_fits_task(plan, task)
    warn_of_classes(data)
    warn_of_unmeasured_classes(data)
    _try_networks(plan, data, task)
    check_given(plan, data)
    check_groups(stage.sources, data.num_outputs)
    teaching = factory.sources(stage)
    check_start(plan)
    module = started(factory.distillation_module(stage, data, teaching, None), stage.sources)
    check_losses_fit_task(module)
    check_tokens_correspond(module, data)
    module.dry_run(training_data(stage, data))
    for own in plan.phases.values():
        factory.distillation_module(own, data, factory.sources(own), None).dry_run(data)
    for one in [plan.control, *(teacher.training for teacher in plan.teachers if not teacher.is_given)]:
        if optimizers.group_rules(one) is not None:  # patterns fit one network and not another
            name = "control" if one is plan.control else "teacher"
            factory.supervised_module(one, name, data, None).dry_run(data)
    check_views(stage, data)
    for name, source in teaching.items():
        for split, (logits, labels) in source.graded(data).items():
            if distributed.is_main():
                report_quality(f"sources.{name}", split, logits, labels, task)


def _try_networks(plan: JobPlan, data: Data, task: Task) -> None:
    """Checks each network's logits on a few examples."""
    nets = {"student": plan.student.student}
    nets |= {f"assistant {name}": own.student for name, own in plan.assistants.items()}
    for number, teacher in enumerate(plan.teachers):
        nets[f"teacher {number}" if number else "teacher"] = teacher.training.network
    batch = data.sample(8)
    for role, node in nets.items():
        net = factory.network(node, 0).eval()
        if net.loaded and distributed.is_main():
            log.info("%s: %s", role, net.loaded)
        check_ids(role, net, data)
        shape = _shape(role, net, batch)
        if role == "student" and not any(parameter.requires_grad for parameter in net.parameters()):
            raise TutelageError("the student has no weights to train")
        if shape != (expected := task.logits_shape(batch["label"], data.num_outputs)):
            advice = _of_classes(node, shape, expected) if task.has_classes else ""
            raise TutelageError(
                f"the {role} returns logits {shape} for inputs {list(batch['input'].shape)}; the data's labels "
                f"{list(batch['label'].shape)} need {expected}{advice}"
            )
        if role == "student":
            with torch.no_grad():
                task.try_metrics(net(batch)["logits"].float(), batch["label"])
        multiply_adds(net.net, data.sample(1))  # warns now if the cost can't be counted


def _of_classes(node: DictConfig, shape: list[int], expected: list[int]) -> str:
    """Returns advice where a network has other classes than the data; empty where more than these differ."""
    if shape[:-1] != expected[:-1]:
        return ""
    if (given := node.get("classes")) is not None:
        count = given if isinstance(given, int) else len(given)
        return f": its `classes` name {count} of the data's {expected[-1]} classes"
    if len(shape) > 2 and shape[-1] > expected[-1]:
        return f": if its vocabulary is padded, `classes: {expected[-1]}` takes the first so many"
    return ": its `classes` can list, for each class of the data, the network's own (docs/teachers.md)"


def _shape(role: str, net: torch.nn.Module, batch: Batch) -> list[int]:
    """Returns the shape of a network's logits; a mistake in the user's own code is named with its line."""
    try:
        with torch.no_grad():
            return list(net(batch)["logits"].shape)
    except TutelageError:
        raise
    except Exception as error:
        if (why := tried_out(error)) is None:
            raise
        raise TutelageError(f"the {role} can't take images {list(batch['input'].shape)}: {why}") from error
