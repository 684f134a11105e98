"""Configs of the same choices are composed once, and are what Hydra composes; a changed yaml counts."""

import os
import time

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal import config_loader_impl
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.errors import HydraException
from omegaconf import OmegaConf

from tutelage.compat.compositions import SETTLED, compose_choices_once
from tutelage.config.paths import conf_dir

CASES = [
    [],
    ["seed=3", "loss.temperature=8", "~logger"],
    ["seed=4", "loss.temperature=2", "+data.limit=5"],
    ["model@teacher=vgg8", "model@student=vgg4", "loss=[soft_target,at]", "loss.alpha=0.3"],
    ["model@teacher=vgg8", "model@student=vgg4", "loss=[soft_target,at]", "loss.alpha=0.4"],
    ["experiment=hinton_mnist", "trainer.max_epochs=2"],
    ["+model@assistants.first=cnn", "hydra.run.dir=there", "++seed=7"],
    ["scheduler@stages.student.scheduler=cosine", "sources=ensemble", "hydra/launcher=basic"],
    ["loss={alpha: 0.2}"],
]


@pytest.fixture
def hydra_s_own(monkeypatch):
    """Composes as Hydra does, without a memory."""
    compose_choices_once()

    def compose(folder, overrides):
        own = config_loader_impl.create_defaults_list, ConfigLoaderImpl._compose_config_from_defaults_list
        with monkeypatch.context() as patch:
            patch.setattr(config_loader_impl, "create_defaults_list", own[0].__wrapped__)
            patch.setattr(ConfigLoaderImpl, "_compose_config_from_defaults_list", own[1].__wrapped__)
            return composed(folder, overrides)

    return compose


def composed(folder, overrides, name="distill"):
    with initialize_config_dir(str(folder), version_base="1.3"):
        return OmegaConf.to_yaml(hydra_compose(name, overrides, return_hydra_config=True))


@pytest.mark.parametrize("overrides", CASES, ids=" ".join)
def test_what_is_kept_is_what_hydra_composes(hydra_s_own, overrides):
    expected = hydra_s_own(conf_dir(), overrides)
    assert [composed(conf_dir(), overrides) for _ in range(2)] == [expected] * 2


def test_jobs_with_other_values_are_composed_from_what_is_kept(monkeypatch):
    compose_choices_once()
    composed(conf_dir(), ["loss=dkd", "seed=1"])
    monkeypatch.setattr(ConfigLoaderImpl, "_load_single_config", None)  # with which each file is read and merged
    assert "seed: 2" in composed(conf_dir(), ["loss=dkd", "seed=2"])


@pytest.fixture
def written(tmp_path):
    """``written(main="a: 1")`` writes yaml files, and lets them look old."""

    def write(**texts):
        for name, text in texts.items():
            path = tmp_path / f"{name.replace('__', '/')}.yaml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            then = time.time() - 10 * SETTLED - written_times.pop()
            os.utime(path, (then, then))
        return tmp_path

    written_times = [float(one) for one in range(20)]
    return write


def values(folder, *overrides):
    with initialize_config_dir(str(folder), version_base="1.3"):
        return OmegaConf.to_container(hydra_compose("main", [*overrides]))


def test_a_yaml_that_changes_comes_or_goes_counts(written):
    compose_choices_once()
    folder = written(main="defaults: [net: small, optional more: own, _self_]", net__small="a: 1", net__large="a: 2")
    for _ in range(2):
        assert values(folder) == {"net": {"a": 1}}
    written(net__small="a: 3")
    assert values(folder) == {"net": {"a": 3}}
    written(more__own="b: 4")
    assert values(folder) == {"net": {"a": 3}, "more": {"b": 4}}
    (folder / "more/own.yaml").unlink()
    assert values(folder) == {"net": {"a": 3}}
    written(main="defaults: [net: large, _self_]")
    assert values(folder) == {"net": {"a": 2}}


def test_a_yaml_that_was_changed_a_moment_ago_is_read_again(tmp_path):
    compose_choices_once()
    path = tmp_path / "main.yaml"
    for number in range(3):
        path.write_text(f"a: {number}")
        os.utime(path, (time.time(),) * 2)
        assert values(tmp_path) == {"a": number}


def test_a_yaml_before_another_on_the_search_path_counts(written, tmp_path):
    compose_choices_once()
    folder, mine = written(main="defaults: [net: small]", net__small="a: 1"), tmp_path / "mine"
    mine.mkdir()
    where = f"hydra.searchpath=[file://{mine}]"
    assert values(folder, where) == {"net": {"a": 1}}
    written(mine__net__large="a: 2")
    assert values(folder, where, "net=large") == {"net": {"a": 2}}


def test_a_choice_that_the_environment_makes_is_made_each_time(written, monkeypatch):
    compose_choices_once()
    folder = written(main="defaults: [net: '${oc.env:CHOSEN}']", net__small="a: 1", net__large="a: 2")
    for name, value in (("small", 1), ("large", 2), ("small", 1)):
        monkeypatch.setenv("CHOSEN", name)
        assert values(folder) == {"net": {"a": value}}


def test_a_change_of_a_config_stays_with_its_caller(written):
    compose_choices_once()
    folder = written(main="a: {b: 1}")
    for _ in range(3):
        with initialize_config_dir(str(folder), version_base="1.3"):
            config = hydra_compose("main")
        assert config.a.b == 1
        config.a.b = 2


def test_what_can_t_be_composed_is_refused_each_time(written):
    compose_choices_once()
    folder = written(main="defaults: [net: small, _self_]", net__small="a: 1")
    for overrides in (["net=larg"], ["no=1"], ["~more"], ["net=small", "net.b=1"]):
        for _ in range(2):
            with pytest.raises(HydraException):
                values(folder, *overrides)
    assert values(folder) == {"net": {"a": 1}}
