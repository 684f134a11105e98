"""The students that `tutelage budget` tries: overrides of `tutelage distill`, and the networks that they make."""

import fnmatch
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from hydra import compose
from hydra.errors import CompactHydraException
from omegaconf import DictConfig, OmegaConf

from tutelage.config.composed import choices
from tutelage.config.preprocessing import settle_adapters
from tutelage.errors import TutelageError, explain, nearest

TIMM = "timm"
_MODEL = "model@student="
_READ = ["data", "task", "teacher", "seed"]  # sections that configs of networks refer to


@dataclass(frozen=True)
class Candidate:
    """A student that may meet a budget.

    Attributes:
        family: that it is one of.
        model: what all students are called that can take the same data.
        words: overrides of ``tutelage distill`` that choose it, the one that varies most last.
    """

    family: str
    model: str
    words: tuple[str, ...]

    @property
    def name(self) -> str:
        """Returns what it is called: its model, and the settings that differ from the model's."""
        model, *settings = (word.lstrip("+").removeprefix("student.").removeprefix("net.") for word in self.words)
        return " ".join([model.removeprefix(_MODEL), *settings])

    def node(self, stage: DictConfig) -> DictConfig:
        """Returns the resolved config of the network.

        Args:
            stage: resolved config of a student's training, in whose place it is.

        Raises:
            TutelageError: the overrides name a model or a key that is not there.
        """
        try:
            made = compose(overrides=[f"+{word}" if word.startswith(_MODEL) else word for word in self.words])
        except CompactHydraException as error:
            raise TutelageError(f"students.{self.family}: {explain(error)}") from error
        whole = OmegaConf.create({**OmegaConf.masked_copy(stage, _READ), "student": made.student})
        settle_adapters(whole)
        return whole.student


def candidates(cfg: DictConfig) -> list[Candidate]:
    """Returns the students that a config asks for.

    Args:
        cfg: of the verb.

    Raises:
        TutelageError: a family is unknown or has no model, timm is not installed or has no such network; or nothing is
            asked for.
    """
    known: dict[str, Any] = {str(name): cfg.students[name] for name in cfg.students}
    names = [*known] if cfg.families is None else _listed(cfg.families)
    for name in names:
        if name not in known:
            raise TutelageError(f"families: there is no {name!r}; {nearest(name, known)}")
    found = [one for name in names for one in _of_family(name, known[name])]
    if cfg.timm is not None:
        found += [Candidate(TIMM, name, (f"{_MODEL}timm", f"student.net.name={name}")) for name in _of_timm(cfg.timm)]
    if not found:
        raise TutelageError("families=[] leaves no student to try: name some families, or networks of timm by timm=…")
    return found


def _listed(node: Any) -> list[str]:
    return [node] if isinstance(node, str) else [str(one) for one in node]


def _of_family(name: str, text: Any) -> Iterator[Candidate]:
    if not isinstance(text, str) or not text.startswith(_MODEL):
        raise TutelageError(f"students.{name} must be overrides of distill that begin with {_MODEL}…; found {text!r}")
    try:
        for words in choices(shlex.split(text)):
            yield Candidate(name, words[0].removeprefix(_MODEL), tuple(words))
    except (CompactHydraException, ValueError) as error:
        raise TutelageError(f"students.{name}: {explain(error)}") from error


def _of_timm(patterns: Any) -> list[str]:
    try:
        import timm
    except ImportError:
        raise TutelageError("timm=… needs the vision extra: pip install 'tutelage[vision]'") from None
    known, found = timm.list_models(), dict[str, None]()
    for pattern in _listed(patterns):
        matching = fnmatch.filter(known, pattern)
        if not matching:
            raise TutelageError(f"timm {timm.__version__} has no network {pattern!r}; {nearest(pattern, known)}")
        found.update(dict.fromkeys(matching))
    return [*found]


def commands(words: Sequence[str], chosen: Iterable[Candidate], folder: str, seed: int = 0) -> list[str]:
    """Returns the commands that train students over three seeds: one for those that differ in their last override.

    Args:
        words: overrides that all of them share, but for one of the seed.
        chosen: the students.
        folder: the sweeps' are below it, one each.
        seed: the first of the three.
    """
    made, of_family = list[str](), Counter[str]()
    words = [word for word in words if word.partition("=")[0] != "seed"]  # a key is given once
    for (family, *first, key), group in groupby(sorted(chosen, key=_shared), key=_shared):
        of_family[family] += 1
        values = ",".join(one.words[-1].partition("=")[2] for one in group)
        place = f"{folder}/{family}" + (f"-{of_family[family]}" if of_family[family] > 1 else "")
        line = [*words, *first, f"{key}={values}", f"seed=range({seed},{seed + 3})", f"hydra.sweep.dir={place}"]
        made.append(shlex.join(["tutelage", "distill", "-m", *line]))
    return made


def _shared(one: Candidate) -> tuple[str, ...]:
    *first, last = one.words
    return (one.family, *first, last.partition("=")[0])
