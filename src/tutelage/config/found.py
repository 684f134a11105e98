"""Facts of data that a config does not say but the data do, such as ``${found:num_classes}``."""

import json
from typing import Any, cast

from omegaconf import DictConfig, ListConfig, OmegaConf

from tutelage.config.data_keys import FACTS, OF_THE_RUN
from tutelage.errors import TutelageError

_KEPT = 4
_found: dict[str, dict[str, Any]] = {}  # a config is resolved some twenty times a job


def found(fact: str, *, _parent_: DictConfig) -> Any:
    """Returns a fact of the data whose config it stands in; they are made and looked at for it once.

    Args:
        fact: ``num_classes``, ``num_outputs`` or ``input_shape``; of texts ``vocab_size`` or ``tokenizer_digest``, and
            these of ``student_tokenizer``, null without one.

    Raises:
        TutelageError: it is none of these, a value is missing, or the data can't be made.
    """
    if fact not in FACTS:
        raise TutelageError(f"${{found:{fact}}}: expected {', '.join(FACTS)}")
    if fact.startswith("student_") and _parent_.get("student_tokenizer") is None:
        return None
    for key in _parent_:
        if OmegaConf.is_missing(_parent_, key):
            raise TutelageError(f"data.{key!s}=… is needed")
    raw: Any = OmegaConf.to_container(_parent_, resolve=False)
    asks = {str(key) for key, value in raw.items() if str(value).startswith("${found:")}
    if fact == "num_outputs" and "num_classes" not in asks and _parent_.get("num_classes"):
        return _parent_["num_classes"]  # nothing has to be looked at
    node = {str(key): _plain(_parent_[key]) for key in _parent_ if str(key) not in asks | OF_THE_RUN}
    value = _facts(node)[fact]
    return OmegaConf.create(value) if isinstance(value, list) else value


def _facts(node: dict[str, Any]) -> dict[str, Any]:
    """Returns the facts of data, which are looked at once, whether or not a config holds some of them already."""
    held = {key: node[key] for key in FACTS if key in node}
    known = _found.get(_name({key: value for key, value in node.items() if key not in held}))
    if known is not None and all(known[key] == value for key, value in held.items()):
        return known
    given = _name(node)
    if given not in _found:
        while len(_found) >= _KEPT:
            del _found[next(iter(_found))]
        _found[given] = _look(node)
    return _found[given]


def _name(node: dict[str, Any]) -> str:
    """Returns the same text for the same examples; of a sampler it counts that there is one (a loader's own rests)."""
    return json.dumps(node | {"sampler": node.get("sampler") is not None}, sort_keys=True, default=str)


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if isinstance(value, DictConfig | ListConfig) else value


def _look(node: dict[str, Any]) -> dict[str, Any]:
    from hydra.errors import InstantiationException

    from tutelage.config.arguments import check_arguments, targets  # slow, as torch is, which data need
    from tutelage.config.own_datasets import job_datasets

    for path, part in targets(OmegaConf.create({"data": node})):
        check_arguments(path, part)
    try:
        made = job_datasets.make(OmegaConf.create(node), seed=0, batch_size=1, drop_last=False)
    except InstantiationException as error:
        cause = error.__cause__ or error
        if isinstance(cause, TutelageError):
            raise cause from error
        where = str(error).partition("'")[2].partition("'")[0] or "data"  # Hydra names the target
        raise TutelageError(f"data can't be made: {where} raises {type(cause).__name__}: {cause}") from error
    made.setup()
    known = cast(Any, made)
    facts = {fact: getattr(known, fact) for fact in FACTS}
    return facts | {"input_shape": list(known.input_shape)}
