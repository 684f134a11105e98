"""Configs and checkpoints of the release before, whose targets had other names."""

import importlib
import logging

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from tutelage.config.moved import _MOVED, current_name, update_targets, warn_of_choices
from tutelage.config.paths import conf_dir
from tutelage.config.trust import vetted

RENAMED = {
    "tutelage.losses.dkd.DKD": "tutelage.losses.logit.dkd.DKD",
    "tutelage.callbacks.recovery.Recovery": "tutelage.training.callbacks.recovery.Recovery",
    "tutelage.callbacks.pulls.Pulls": "tutelage.training.callbacks.gradient_norms.GradientNorms",
    "tutelage.sources.momentum.Momentum": "tutelage.sources.ema_teacher.EMATeacher",
    "tutelage.sources.adapter.Resize": "tutelage.models.adapter.Resize",
    "tutelage.schedules.ramp_up": "tutelage.losses.schedules.ramp_up",
}


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_an_old_name_is_the_new_one_with_a_warning(old, new, caplog):
    with caplog.at_level(logging.WARNING):
        assert current_name(old) == new
    assert f"{old} is now {new}" in caplog.text


@pytest.mark.parametrize(
    "name", ["tutelage.losses.logit.dkd.DKD", "tutelage.data.digits.Digits", "torch.nn.Linear", "x"]
)
def test_other_names_stay(name, caplog):
    assert current_name(name) == name
    assert not caplog.text


@pytest.mark.parametrize("new", _MOVED.values())
def test_every_new_name_is_there(new):
    try:
        importlib.import_module(f"tutelage.{new}")
    except ModuleNotFoundError:
        module, _, name = new.rpartition(".")
        assert hasattr(importlib.import_module(f"tutelage.{module}"), name)


def test_a_config_s_targets_are_renamed_wherever_they_stand():
    cfg = OmegaConf.create({
        "a": {"_target_": "tutelage.losses.at.AT", "p": "${b}"},
        "b": [{"_target_": "tutelage.sources.asked.Asked"}, 1, None],
    })  # fmt: skip
    update_targets(cfg)
    assert cfg.a._target_ == "tutelage.losses.feature.at.AT"
    assert cfg.b[0]._target_ == "tutelage.sources.black_box.BlackBoxTeacher"
    assert OmegaConf.to_container(cfg)["a"]["p"] == "${b}"


def test_the_header_of_an_old_file_is_read(caplog):
    old = {"_target_": "tutelage.sources.tapped.Tapped", "net": {"_target_": "torch.nn.Identity"}}
    assert vetted(old, "old.safetensors")["_target_"] == "tutelage.models.tapped.Tapped"


@pytest.mark.parametrize(("old", "new"), [choice.split(" ") for choice in ("asked black_box", "momentum ema_teacher")])
def test_an_old_choice_of_sources_composes_to_the_present_one_with_a_warning(old, new, caplog):
    with initialize_config_dir(str(conf_dir()), version_base=None):
        configs = [OmegaConf.to_container(compose("distill", [f"sources={name}"])) for name in (old, new)]
    assert configs[0] == configs[1]
    with caplog.at_level(logging.WARNING):
        warn_of_choices(["loss=dkd", f"sources={old}"])
    assert caplog.messages == [f"sources={old} is now sources={new}; the old name works in this release only"]
