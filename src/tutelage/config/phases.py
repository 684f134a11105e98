"""A student's training as phases, one after the other, each with terms, optimizer and epochs of its own.

``stages.student.phases`` maps names to settings that are merged over the student's, as ``stages.<name>`` over the
job's: ``{intermediate: {terms: [attention], optimizer: {lr: 5e-5}, trainer: {max_epochs: 10}}, prediction: {…}}``. A
phase begins with the last weights of the one before it and a new optimizer; the last phase is the student's training.
"""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from tutelage.config.unknown_keys import STAGE_GROUPS
from tutelage.errors import TutelageError, nearest


def deep_merge(above: Any, below: Any) -> None:
    """Merges a plain dictionary into a config; a node with a ``_target_`` replaces the one of its name."""
    for key, node in above.items():
        if isinstance(node, dict) and "_target_" not in node and isinstance(below.get(key), DictConfig):
            deep_merge(node, below[key])
        else:
            below[key] = node


def earlier_phases(cfg: DictConfig) -> list[str]:
    """Returns the names of the phases before the student's last one; none of a student without a teacher."""
    return [] if cfg.loss.get("alpha") == 0.0 else [str(name) for name in _given(cfg)][:-1]


def _given(cfg: DictConfig) -> DictConfig:
    given = cfg.stages.student.get("phases")
    if given is not None and not isinstance(given, DictConfig):
        raise TutelageError(
            "stages.student.phases: expected names with settings, such as {first: {terms: [soft]}}; "
            f"found {given!r}"
        )
    return given or DictConfig({})


def settle_phases(cfg: DictConfig, stage: DictConfig, name: str, phase: str | None) -> None:
    """Merges a phase of the student's into its stage.

    The control, and a student at alpha = 0, train without phases, for as many epochs as these have together.

    Args:
        cfg: the composed config.
        stage: as merged so far; changed.
        name: of the stage.
        phase: which one; None: the last.

    Raises:
        TutelageError: a phase is no mapping, has an unknown key, or names a term that the loss does not have.
    """
    stage.pop("phases", None)
    given = _given(cfg)
    if not given or name not in ("student", "control"):
        return
    own: Any = OmegaConf.to_container(given, resolve=True)
    for title, node in own.items():
        _check(title, node)
    if name == "control" or stage.loss.get("alpha") == 0.0:
        if cfg.stages[name].trainer.max_epochs == cfg.stages.student.trainer.max_epochs:
            epochs = stage.trainer.max_epochs
            stage.trainer.max_epochs = sum(
                (node.get("trainer") or {}).get("max_epochs", epochs) for node in own.values()
            )
        return
    title = phase or list(own)[-1]
    deep_merge({key: node for key, node in own[title].items() if key in STAGE_GROUPS}, stage)
    if (terms := own[title].get("terms")) is not None:
        for term in terms:
            if term not in stage.loss.terms:
                raise TutelageError(f"{_path(title)}.terms: {nearest(term, map(str, stage.loss.terms))}")
        stage.loss.terms = {term: node for term, node in stage.loss.terms.items() if term in terms}


def _path(title: object) -> str:
    return f"stages.student.phases.{title}"


def _check(title: object, node: Any) -> None:
    if not isinstance(node, Mapping):
        raise TutelageError(f"{_path(title)}: expected settings of a phase, such as {{terms: [soft]}}; found {node!r}")
    if unknown := [key for key in node if key not in (*STAGE_GROUPS, "terms")]:
        raise TutelageError(f"{_path(title)}.{unknown[0]}: {nearest(str(unknown[0]), (*STAGE_GROUPS, 'terms'))}")
