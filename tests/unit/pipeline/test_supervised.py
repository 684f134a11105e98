"""Networks that are trained on labels: where they begin, and when several processes train them."""

from types import SimpleNamespace

import pytest
import torch
from command import TINY
from omegaconf import OmegaConf

from tutelage.config import factory
from tutelage.pipeline import artifacts, fit, supervised, workers


@pytest.mark.parametrize("given", [True, False])
def test_first_weights_are_those_of_the_file_that_is_given(compose, tmp_path, monkeypatch, given):
    stage = factory.stage_config(compose(*TINY, "logger=none"), "control")
    file, made = tmp_path / "start.pth", []
    drawn = factory.supervised_module(stage, "control", factory.data(stage), None).student.net.net.state_dict()
    torch.save({name: value + 1 for name, value in drawn.items()}, file)
    monkeypatch.setattr(fit, "run", lambda stage, name, folder, board, data, module: made.append(module()))
    monkeypatch.setattr(artifacts, "make", lambda root, name, recipe, train, since: (train(tmp_path), recipe))
    monkeypatch.setattr(supervised.Trained, "read", lambda _, recipe: recipe)
    recipe = supervised.Training(stage, "control", tmp_path, str(file) if given else None)()
    for name, value in made[0].student.net.net.state_dict().items():
        assert torch.equal(value, drawn[name] + 1 if given else drawn[name])
    assert ("start" in recipe) == given
    assert recipe["version"] == 2  # another one makes every artifact anew


@pytest.mark.parametrize(
    ("processes", "done", "ran"), [(1, [0, 0], 0), (2, [0, 0], 2), (2, [1, 0], 0), (3, [1, 0, 0], 2)]
)
def test_processes_are_for_several_networks_that_are_missing(monkeypatch, processes, done, ran):
    trainings, asked = [SimpleNamespace(is_done=lambda own=own: bool(own)) for own in done], []
    cfg = OmegaConf.create({"stages": {"teacher": {"workers": processes}}, "trainer": {"devices": 1}})
    monkeypatch.setattr(workers, "gpus", lambda trainer: 5)
    monkeypatch.setattr(workers, "run", lambda *given: asked.append(given))
    supervised.train_in_parallel(trainings, cfg)
    missing = [one for one in trainings if not one.is_done()]
    assert asked == ([(missing, processes, 5)] if ran else [])
    assert not ran or len(missing) == ran


@pytest.mark.parametrize("option", [*factory.SPEED])
def test_an_option_of_speed_is_in_the_recipe_where_it_is_on(compose, option):
    stage = factory.stage_config(compose(*TINY, "logger=none"), "control")
    data = factory.data(stage)
    assert option not in supervised.recipe(stage, "control", data)
    stage[option] = {"compile": True, "graph": "auto"}[option]
    assert supervised.recipe(stage, "control", data)[option] == stage[option]


def test_a_recipe_names_the_parts_and_teachers_that_it_is_asked_for(compose):
    stage = factory.stage_config(compose(*TINY, "logger=none"), "control")
    data = factory.data(stage)
    whole = supervised.recipe(stage, "control", data, sources={})
    assert {"seed", "network", "data", "task", "loss", "optimizer", "scheduler", "trainer", "callbacks"} < whole.keys()
    assert whole["sources"] == {}
    stage.graph = "auto"
    part = supervised.recipe(stage, "control", data, ("seed", "network"))  # not of a training, so without its speed
    assert part["network"] == whole["network"]
    assert not {"sources", "loss", "trainer", "graph"} & part.keys()
    assert (part["stage"], part["content"]) == ("control", data.fingerprint())
