"""stages.student.phases: a student's trainings one after the other, as configs."""

import pytest

from tutelage.config.plan import phases_of, plan_job, stages_of
from tutelage.errors import TutelageError
from tutelage.stacked.plan import refusal

MAPS = "maps: {terms: [at], optimizer: {lr: 0.5}, trainer: {max_epochs: 2}}"
ANSWERS = "answers: {terms: [hard, soft], trainer: {max_epochs: 3}}"
PAIR = ("model@teacher=vgg4", "model@student=vgg4", "loss=[soft_target,at]")


def composed(compose, phases=f"{MAPS}, {ANSWERS}", *more):
    return compose(*PAIR, f"stages.student.phases={{{phases}}}", *more)


def test_each_phase_has_its_own_terms_rate_and_epochs_and_the_last_one_is_the_student(compose):
    plan = plan_job(composed(compose))
    assert list(plan.phases) == ["maps"]
    maps, student = plan.phases["maps"], plan.student
    assert (list(maps.loss.terms), maps.optimizer.lr, maps.trainer.max_epochs) == (["at"], 0.5, 2)
    assert list(student.loss.terms) == ["hard", "soft"]
    assert (student.optimizer.lr, student.trainer.max_epochs) == (plan.config.optimizer.lr, 3)
    assert maps.network == student.network
    assert "phases" in refusal(plan)


def test_the_control_trains_for_all_epochs_together_and_has_no_phases(compose):
    stages = stages_of(composed(compose))
    assert stages["control"].trainer.max_epochs == 5
    assert list(stages["control"].loss.terms) == ["hard"]
    given = composed(compose, f"{MAPS}, {ANSWERS}", "stages.control.trainer.max_epochs=7")
    assert stages_of(given)["control"].trainer.max_epochs == 7


def test_at_alpha_0_the_student_is_the_control(compose):
    cfg = composed(compose, f"{MAPS}, {ANSWERS}", "loss.alpha=0")
    stages = stages_of(cfg)
    assert not phases_of(cfg)
    assert stages["student"].trainer == stages["control"].trainer
    assert stages["student"].optimizer == stages["control"].optimizer


def test_tinyberts_are_its_published_ones(compose):
    plan = plan_job(compose("data=digits", "model@teacher=text_transformer", "model@student=text_transformer",
                            "loss=text/tinybert", "+data.vocab_size=9"))  # fmt: skip
    first, second = plan.phases["intermediate"], plan.student
    assert (list(first.loss.terms), first.optimizer.lr, first.trainer.max_epochs) == (["attention", "states"], 5e-5, 10)
    assert (list(second.loss.terms), second.optimizer.lr, second.trainer.max_epochs) == (["hard", "soft"], 3e-5, 3)
    assert first.scheduler.scheduler is None
    assert second.scheduler.scheduler.shape == "linear"
    assert plan.control.trainer.max_epochs == 13


@pytest.mark.parametrize(
    ("phases", "more", "message"),
    [
        ("maps: {terms: [attention]}", [], r"stages\.student\.phases\.maps\.terms: "),
        ("maps: {epochs: 3}", [], r"stages\.student\.phases\.maps\.epochs: "),
        ("maps: 3", [], "expected settings of a phase"),
        (f"{MAPS}, {ANSWERS}", ["generations=1"], "can't be combined with assistants or generations"),
    ],
)
def test_what_is_no_phase_is_one_sentence(compose, phases, more, message):
    with pytest.raises(TutelageError, match=message):
        plan_job(composed(compose, phases, *more))
