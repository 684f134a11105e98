"""Composes a job's config outside of a Hydra application: from Python, and for a plan of what a command would do."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import CompactHydraException
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from tutelage.compat.hydra import compose_quickly
from tutelage.config import resolvers
from tutelage.config.overrides import as_hydra_takes_them, repeated
from tutelage.config.paths import conf_dir
from tutelage.errors import TutelageError, explain, is_users


@contextmanager
def composed(
    words: Sequence[str], folder: str | Path | None = None, verb: str = "distill", number: int | None = None
) -> Iterator[tuple[DictConfig, Path]]:
    """Context manager that yields a job's config and folder, with Hydra's state set to that job; makes no folder.

    Args:
        words: overrides, as on the command line.
        folder: the job's; by default the one that its config says.
        verb: whose config is composed.
        number: of the job in a multirun; None of a single one.

    Raises:
        TutelageError: the config can't be composed; the same sentence as on the command line.
    """
    if GlobalHydra.instance().is_initialized():
        raise TutelageError("this was called inside a Hydra application: use its command line, or another process")
    check_words(words)
    resolvers.register()
    compose_quickly()
    try:
        with initialize_config_dir(conf_dir(), version_base="1.3"):
            whole = compose(verb, overrides=as_hydra_takes_them(words), return_hydra_config=True)
            with open_dict(whole):
                whole.hydra.job.name = whole.hydra.job.config_name = verb
                whole.hydra.mode = RunMode.RUN if number is None else RunMode.MULTIRUN
                if number is not None:
                    whole.hydra.job.num, whole.hydra.job.id = number, str(number)
                    folder = Path(whole.hydra.sweep.dir) / whole.hydra.sweep.subdir
                place = Path(folder if folder is not None else whole.hydra.run.dir)
                whole.hydra.runtime.output_dir = str(place.absolute())
            HydraConfig.instance().set_config(whole)
            cfg = OmegaConf.masked_copy(whole, [str(key) for key in whole if key != "hydra"])
            yield cfg, place
    except TutelageError:
        raise
    except (CompactHydraException, OmegaConfBaseException, ValueError) as error:
        if not is_users(error):
            raise
        raise TutelageError(explain(error)) from error
    finally:
        HydraConfig.instance().cfg = None


def check_words(words: Sequence[Any]) -> None:
    """Refuses overrides that are no texts, and a key that is given twice.

    Raises:
        TutelageError: names the override.
    """
    for word in words:
        if not isinstance(word, str):
            raise TutelageError(f'an override is a text, such as "loss=dkd"; found {word!r}: give several one by one')
    if problem := repeated(words):
        raise TutelageError(problem)


def jobs_of_sweep(words: Sequence[str], verb: str = "distill") -> list[list[str]]:
    """Returns the overrides of each job of a multirun, in the order of Hydra's basic sweeper.

    Args:
        words: overrides, as on the command line, with values to sweep over.
        verb: whose config is composed; its ``hydra.sweeper.params`` come before ``words``.

    Raises:
        TutelageError: an override can't be read, or is an interval, from which values are drawn while a sweep runs.
    """
    words = as_hydra_takes_them(words)
    try:
        with composed(_of_the_sweeper(words), verb=verb):
            sweeper = HydraConfig.get().sweeper
        if "rungs" in sweeper:
            raise TutelageError("sweeper=halving chooses its jobs while it runs; plan one of them, without -m")
        params = sweeper.get("params") or {}
        named = {word.partition("=")[0] for word in words}
        words = [*(f"{key}={value}" for key, value in params.items() if key not in named), *words]
        return list(choices(words))
    except CompactHydraException as error:
        raise TutelageError(explain(error)) from error


def choices(words: Sequence[str]) -> Iterator[list[str]]:
    """Yields the combinations of overrides with values to sweep over, the last one's varying fastest.

    Raises:
        CompactHydraException: an override can't be read.
        TutelageError: its values are an interval.
    """
    found: list[list[str]] = []
    for word, one in zip(words, OverridesParser.create().parse_overrides([*words]), strict=True):
        if one.is_sweep_override() and not one.is_discrete_sweep():
            raise TutelageError(f"{word}: its values are drawn while a sweep runs; plan a sweep over given values")
        values = one.sweep_string_iterator() if one.is_sweep_override() else ()
        found.append([f"{one.get_key_element()}={value}" for value in values] or [word])
    yield from map(list, product(*found))


def _of_the_sweeper(words: Sequence[str]) -> list[str]:
    """Returns the overrides with one value that may choose the sweeper."""
    parsed = OverridesParser.create().parse_overrides([*words])
    groups = ("hydra/sweeper", "sweeper", "experiment")
    return [
        word
        for word, one in zip(words, parsed, strict=True)
        if one.key_or_group in groups and not one.is_sweep_override()
    ]


def as_word(value: Any) -> str:
    """Returns a value as Hydra's override grammar reads it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping | DictConfig):
        return "{" + ",".join(f"{key}:{as_word(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list | tuple | ListConfig):
        return "[" + ",".join(map(as_word, value)) + "]"
    if isinstance(value, str | Path):
        return "'" + str(value).replace("\\", "\\\\").replace("'", "\\'") + "'"
    return str(value)
