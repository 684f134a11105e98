"""A finished run that is made longer ends in the bits of one that was so long from the start, or says why it can't."""

import shutil

import pytest
from command import PAIR, SPLITS
from runs import artifacts, figures, first_steps, scalars, status, weights

from tutelage.training.callbacks.recovery import states

pytestmark = [pytest.mark.slow, pytest.mark.long]

# All that has a state or draws from chance; 18 steps an epoch.
COMMAND = (
    "distill", *PAIR, *SPLITS, "teacher.net={widths: [24], dropout: 0.2}", "student.net={widths: [12], dropout: 0.3}",
    "loss=[soft_target,fitnet]", "stages.teacher.trainer.max_epochs=2", "optimizer.lr=0.01",
    "scheduler=multistep", "scheduler.scheduler.milestones=[1]",
    "data.augment=[{_target_: tutelage.data.augment.Shift, pixels: 1}]", "callbacks=ema",
    "trainer.log_every_n_steps=5", "paths.artifacts=shop",
)  # fmt: skip


@pytest.fixture
def short(main, tmp_path):
    """A finished run of two epochs."""
    assert main(*COMMAND, "trainer.max_epochs=2", "hydra.run.dir=run").code == 0
    return tmp_path / "run"


def test_a_finished_run_is_made_longer_to_the_bits_of_one_that_was_so_long_from_the_start(main, tmp_path, short):
    [kept] = states(short / "checkpoints" / "states")
    assert kept.name.startswith("step=00000036-")
    answer = main(*COMMAND, "trainer.max_epochs=4", "hydra.run.dir=run")
    assert answer.code == 0, answer.message
    assert main(*COMMAND, "trainer.max_epochs=4", "hydra.run.dir=long").code == 0
    long = tmp_path / "long"
    assert weights(short) == weights(long)
    assert figures(short) == figures(long)
    expected, found = scalars(long / "tensorboard"), scalars(short / "tensorboard")
    assert found.keys() == expected.keys()
    for name, points in expected.items():  # gradients are measured at the end of a training, of the shorter one, too
        more = found[name] - points if name.startswith("student/grad_") else set()
        assert found[name] - more == points, name
        assert {step for step, _ in more} <= {35}
    first, second = first_steps(short / "tensorboard" / "student")
    assert first < 6
    assert second > 36, "it began at the start again"
    assert len(artifacts(tmp_path / "shop", "control")) == 2
    assert len(artifacts(tmp_path / "shop", "teacher")) == 1
    again = main(*COMMAND, "trainer.max_epochs=4", "hydra.run.dir=run")
    assert again.code == 0
    assert "already complete, nothing to do" in again.out
    shorter = main(*COMMAND, "trainer.max_epochs=2", "hydra.run.dir=run")
    assert shorter.code == 1
    assert "holds a run with trainer.max_epochs=4; it can be made longer, not shorter (found 2)" in shorter.message


def test_and_when_it_is_struck_on_its_way(main, tmp_path):
    marker = tmp_path / "struck"
    harm = f"+callbacks.harm={{_target_: faults.CrashAt, stage: student, step: 50, marker: {marker}}}"
    command = (*COMMAND, harm, "callbacks.recovery.every_n_steps=6")
    assert main(*command, "trainer.max_epochs=2", "hydra.run.dir=run").code == 0
    assert "student at step 50" in main(*command, "trainer.max_epochs=4", "hydra.run.dir=run").message
    assert status(tmp_path / "run")["state"] == "FAILED"
    assert main(*command, "trainer.max_epochs=4", "hydra.run.dir=run").code == 0
    assert main(*command, "trainer.max_epochs=4", "hydra.run.dir=long").code == 0
    assert weights(tmp_path / "run") == weights(tmp_path / "long")
    assert figures(tmp_path / "run") == figures(tmp_path / "long")


def test_what_would_be_another_student_is_refused_and_the_finished_run_stays(main, tmp_path, short):
    found = (path for path in short.rglob("*") if path.is_file() and ".hydra" not in path.parts)
    before = {path: path.read_bytes() for path in found if path.name != "distill.log"}

    def refused(*overrides):
        keys = [one.partition("=")[0] for one in overrides]
        same = [one for one in COMMAND if one.partition("=")[0] not in keys]
        answer = main(*same, *overrides, "hydra.run.dir=run")
        assert answer.code == 1
        assert {path: path.read_bytes() for path in before} == before
        return answer.message

    longer = "trainer.max_epochs=3"
    assert "can't go on to 3: its teacher would be trained longer as well" in refused(
        longer, "stages.teacher.trainer.max_epochs=3"
    )
    said = refused(longer, "optimizer.lr=0.02")
    assert "holds a run with another config" in said
    assert "optimizer.lr: 0.01 there, 0.02 here;" in said
    state = states(short / "checkpoints" / "states")[0]
    content = before.pop(state)
    state.write_bytes(content[:-1])
    assert "its last state is not there, or damaged" in refused(longer)
    shutil.rmtree(state.parent)
    assert "its last state is not there, or damaged" in refused(longer)


def test_a_state_is_not_kept_where_it_is_not_wanted(main, tmp_path):
    quick = ("distill", *PAIR, *SPLITS, "trainer.max_epochs=1", "hydra.run.dir=run", "paths.artifacts=shop")
    assert main(*quick, "callbacks.recovery.extendable=false").code == 0
    assert not list(tmp_path.rglob("*.ckpt"))
