"""Starts a student, and its control, from layers of the teacher: ``student.init={layers: [0, 2], from: teacher}``."""

from typing import Any, TypeVar

from omegaconf import DictConfig

from tutelage.checkpoints.weights import digest, read_state
from tutelage.config.plan import JobPlan
from tutelage.config.source_nodes import build, networks
from tutelage.errors import TutelageError, nearest
from tutelage.models.first_layers import FirstLayers
from tutelage.models.quantised.network import Quantised
from tutelage.training.module import SupervisedModule

Module = TypeVar("Module", bound=SupervisedModule)


def started(module: Module, sources: DictConfig) -> Module:
    """Returns the module of a student or control, with its first weights from the teacher if its network says so.

    Args:
        module: whose student has drawn weights.
        sources: of the job; in them every network has its file, or its drawn weights count.

    Raises:
        TutelageError: there is no such network, or it does not fit.
    """
    if (first := module.student.net.first_layers) is not None:
        teacher = build(_node(first, sources)).network()
        assert teacher is not None  # a node with a checkpoint is a network
        net = module.student.net.net
        plain = net.student if isinstance(net, Quantised) else net
        channels = module.student.net.channels
        first.copy(plain, teacher.net if channels is None else channels.as_in(plain, teacher.net))
        if isinstance(net, Quantised):
            net.on_new_weights()
    return module


def recipe_of_start(stage: DictConfig, sources: DictConfig) -> dict[str, Any]:
    """Returns what the first weights add to the recipe of a control: the digest of the teacher's weights.

    Args:
        stage: the control's.
        sources: of the job, in which every network has its file.
    """
    first = FirstLayers.of(stage.network.get("init"))
    return {} if first is None else {"start": digest(read_state(_node(first, sources).checkpoint))}


def check_start(plan: JobPlan) -> None:
    """Checks that a job with ``student.init`` has student and control start alike.

    Raises:
        TutelageError: there are assistants, or a loss trains another network in the student's place.
    """
    own, control = plan.student.network.get("init"), plan.control.network.get("init")
    if control is None:
        return
    if plan.assistants:
        raise TutelageError("student.init takes layers of the first teacher: it can't be combined with assistants")
    if own != control:
        raise TutelageError("student.init can't be combined with a loss that trains another network, such as simkd")


def _node(first: FirstLayers, sources: DictConfig) -> DictConfig:
    if first.source not in sources:
        raise TutelageError(f"student.init.from={first.source}: {nearest(first.source, map(str, sources))}")
    found = list(networks(sources[first.source]))
    if len(found) != 1:
        raise TutelageError(
            f"student.init.from={first.source}: expected one network with weights of its own, as sources=frozen has; "
            f"found {len(found)}"
        )
    return found[0]
