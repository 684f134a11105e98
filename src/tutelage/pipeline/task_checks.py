"""Checks whether losses and sources fit the task, before anything is trained."""

from tutelage.config.plan import JobPlan
from tutelage.config.source_nodes import networks
from tutelage.errors import TutelageError
from tutelage.losses.base import contract
from tutelage.sources.ensemble import LEARNED
from tutelage.tasks.base import Task
from tutelage.tasks.classification import Classification
from tutelage.training.module import SupervisedModule


def check_fits_task(plan: JobPlan, task: Task) -> None:
    """Checks the sources of the student against its task.

    Raises:
        TutelageError: names the source and what to use instead.
    """
    classes = isinstance(task, Classification)
    for name, node in plan.student.sources.items():
        node = node.get("source") or node  # of a cache
        if "generalist" in node and not classes:
            raise TutelageError(f"sources.{name}: specialists know a part of the classes, so task={task.name} has none")
        if "members" not in node or not any(True for _ in networks(node)):
            continue
        if not task.has_classes and node.get("combine", "probability") != "logit":
            raise TutelageError(
                f"sources.{name}.combine={node.get('combine', 'probability')}: outputs of task={task.name} are no "
                f"distribution over classes; use sources.{name}.combine=logit, the mean of the outputs"
            )
        if node.get("weights") == LEARNED and not classes:
            raise TutelageError(f"sources.{name}.weights={LEARNED} needs task=classification; give one number a member")


def check_losses_fit_task(module: SupervisedModule) -> None:
    """Checks the losses of a training against its task.

    Raises:
        TutelageError: names the term whose loss takes outputs as logits of classes.
    """
    if module.task.has_classes:
        return
    for path, loss in module.objective.losses():
        if contract(loss).over_classes:
            raise TutelageError(
                f"loss.{path}: {type(loss).__name__} compares distributions over classes, and outputs of "
                f"task={module.task.name} are none; see docs/tasks.md for losses of this task"
            )
