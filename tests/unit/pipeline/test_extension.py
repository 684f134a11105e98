"""Configs under which a longer training would have differed in its first epochs."""

import pytest
from command import TINY
from omegaconf import OmegaConf

from tutelage.errors import TutelageError
from tutelage.pipeline.extension import extends

KEPT = "stages.teacher.trainer.max_epochs=2"


@pytest.fixture
def asked(compose, tmp_path):
    """``asked(before, now)`` → whether a run of the overrides ``before``, not begun, may go on as ``now``."""

    def ask(before, now):
        written = OmegaConf.to_container(compose(*TINY, KEPT, *before), resolve=True)
        (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(written)))
        return extends(tmp_path, compose(*TINY, KEPT, *now))

    return ask


MULTISTEP = ("scheduler=multistep", "scheduler.scheduler.milestones=[1]")
LINEAR = "+loss.terms.soft.schedule={_target_: tutelage.losses.schedules.linear, _partial_: true, start: 1, end: 0}"
WARMUP = "+loss.terms.soft.schedule={_target_: tutelage.losses.schedules.warmup, _partial_: true, length: 3}"


@pytest.mark.parametrize(
    "same",
    [
        (), MULTISTEP, ("scheduler=plateau",), ("scheduler=cosine", "scheduler.scheduler.T_max=9"), (WARMUP,),
        ("loss=ctkd",), ("callbacks=ema",), ("sources=ema_teacher",),
    ],
)  # fmt: skip
def test_a_course_that_does_not_depend_on_the_length_goes_on(asked, same):
    assert asked(same, (*same, "trainer.max_epochs=4"))
    assert asked(same, (*same, "stages.student.trainer.max_epochs=4"))


@pytest.mark.parametrize(
    ("same", "why"),
    [
        (("scheduler=cosine",), "scheduler.scheduler.T_max follows the length"),
        (("scheduler.interval=step", "scheduler.scheduler={_target_: torch.optim.lr_scheduler.OneCycleLR, "
          "_partial_: true, max_lr: 0.1, total_steps: null}"), "scheduler.scheduler.total_steps follows the length"),
        ((LINEAR,), "the schedule of loss.terms.soft follows the length"),
        (("loss=ps_kd",), "the schedule of loss.terms.ps_kd.loss follows the length"),
        (("+trainer.max_steps=20",), "trainer.max_steps=20 says how long it is"),
        (("generations=1",), r"those that teach it \(generation1\) would be trained longer as well"),
        (("+callbacks.own={_target_: own_module.Fades}",), "callbacks.own reads the trainer's max_epochs"),
    ],
)  # fmt: skip
def test_one_that_does_is_refused_with_the_reason(asked, same, why, tmp_path, monkeypatch):
    (tmp_path / "own_module.py").write_text(
        "import lightning as L\n\n\nclass Fades(L.Callback):\n"
        "    def on_train_epoch_start(self, trainer, module):\n        trainer.current_epoch / trainer.max_epochs\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(TutelageError, match=rf"holds a run of 2 epochs, which can't go on to 4: {why}"):
        asked(same, (*same, "trainer.max_epochs=4"))


def test_a_teacher_that_would_be_trained_longer_is_another(asked):
    with pytest.raises(TutelageError, match=r"keep it with stages\.teacher\.trainer\.max_epochs=2"):
        asked((), ("trainer.max_epochs=4", "stages.teacher.trainer.max_epochs=4"))


def test_a_teacher_that_is_not_trained_may_be_said_to_be_longer(asked):
    momentum = ("sources=ema_teacher",)
    assert asked(momentum, (*momentum, "trainer.max_epochs=4", "stages.teacher.trainer.max_epochs=4"))


def test_a_shorter_one_is_refused_and_any_other_difference_left_to_be_named(asked, tmp_path):
    with pytest.raises(TutelageError, match="can be made longer, not shorter"):
        asked(("trainer.max_epochs=4",), ())
    assert not asked((), ("trainer.max_epochs=4", "seed=1"))
    assert not asked((), ("scheduler=cosine", "trainer.max_epochs=4"))
    (tmp_path / "config.yaml").write_text("- 1")
    assert not extends(tmp_path, OmegaConf.create({"seed": 0}))
