"""Nodes of ``sources``: what the pipeline reads of them, and what a source is built with."""

import inspect

import pytest
from omegaconf import OmegaConf

from tutelage.config import factory
from tutelage.config.source_nodes import OPTIONS, build, options
from tutelage.config.validate import check
from tutelage.errors import TutelageError
from tutelage.sources.base import Source
from tutelage.sources.ema_teacher import EMATeacher
from tutelage.sources.frozen import Frozen

GIVEN = {
    "frozen": ("seed=3", "cache=false", "train=true"),
    "specialists": ("count=4", "cache=false", "generalist.seed=3"),
}


def test_no_source_takes_what_only_the_pipeline_reads():
    for kind, keys in OPTIONS.items():
        assert keys
        assert not keys & set(inspect.signature(kind).parameters), kind


@pytest.mark.parametrize("name", ["frozen", "specialists", "ensemble", "cached", "cached_ensemble"])
def test_yamls_with_the_pipeline_s_keys_go_on_working(compose, name):
    cfg = compose(f"sources={name}", *(f"++sources.teacher.{one}" for one in GIVEN.get(name, ())))
    plan = check(cfg)
    before = OmegaConf.to_container(plan.student.sources)
    assert isinstance(factory.sources(plan.student)["teacher"], Source)
    assert OmegaConf.to_container(plan.student.sources) == before  # a plan is only read


def test_a_key_that_a_source_does_not_have_is_refused_as_before(compose):
    with pytest.raises(TutelageError, match=r"sources.teacher.cache: .*EMATeacher takes no 'cache'"):
        check(compose("sources=ema_teacher", "+sources.teacher.cache=true"))
    with pytest.raises(TutelageError, match=r"sources.teacher.count: .*Frozen takes no 'count'"):
        check(compose("+sources.teacher.count=2"))


class Mine(Frozen):
    """A user's, which takes a ``seed`` itself."""

    def __init__(self, net, seed, **rest):
        super().__init__(net, **rest)
        self.seed = seed


def test_a_user_s_source_gets_its_own_arguments(compose, monkeypatch):
    assert options(Mine) == {"cache", "train"}
    assert not options(EMATeacher)
    monkeypatch.setattr("tutelage.config.source_nodes.get_object", {"mine.Mine": Mine}.get)
    monkeypatch.setattr("tutelage.config.source_nodes.instantiate", lambda node: dict(node))
    node = OmegaConf.create({"_target_": "mine.Mine", "net": None, "seed": 5, "cache": True, "train": True})
    assert build(node) == {"_target_": "mine.Mine", "net": None, "seed": 5}
