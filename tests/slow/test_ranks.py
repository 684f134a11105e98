"""Two gloo ranks are one process; in a multirun every rank has the job's own hyperparameters (faults 20 and 22)."""

import json
import socket
import subprocess
import sys

import pytest
from command import TINY, environment, tutelage
from runs import artifacts, figures, scalars, status

from tutelage.training.callbacks.recovery import newest_intact

pytestmark = pytest.mark.slow

TWO = ("trainer=ddp", "trainer.accelerator=cpu")


def values(folder, tag):
    return [value for _, value in sorted(scalars(folder / "tensorboard")[tag])]


@pytest.mark.long
def test_two_ranks_give_the_curve_and_figures_of_one_process(cli, tmp_path):
    # Without the regressor's batch norm, whose statistics are those of a rank's share.
    loss = ("loss=[soft_target,fitnet]", "loss.terms.hint.loss.rectify=false", "trainer.log_every_n_steps=3")
    recipe = (
        *loss, "callbacks=[ema,average_best]", "data.augment=[{_target_: tutelage.data.augment.Flip}]",
        "data.mix={_target_: tutelage.data.mix.Mix}", "data.sampler={_target_: tutelage.data.samplers.Repeated}",
    )  # fmt: skip
    cli("distill", *TINY, *recipe, "hydra.run.dir=one")
    done = cli("distill", *TINY, *recipe, *TWO, "hydra.run.dir=two")
    one, two = figures(tmp_path / "one"), figures(tmp_path / "two")
    assert status(tmp_path / "two")["state"] == "COMPLETE"
    assert "Distilled" in done.stdout
    assert done.stdout.count("Distilled") == 1  # one rank speaks
    for role in ("teacher", "control", "student"):
        for split in ("val", "test"):
            for weights in ("last", "average"):
                assert one[role][weights][split] == pytest.approx(two[role][weights][split], rel=1e-4)
    for tag in ("student/train/loss", "student/train/hint", "teacher/train/loss", "student/val/nll", "control/val/nll"):
        assert len(values(tmp_path / "one", tag)) >= 2
        assert values(tmp_path / "one", tag) == pytest.approx(values(tmp_path / "two", tag), rel=1e-4), tag


@pytest.mark.long
def test_a_multirun_on_two_ranks_is_one_sweep(cli, tmp_path):
    look = f"+callbacks.look={{_target_: watchers.WriteRank, folder: {tmp_path / 'said'}}}"
    cli(
        "distill",
        "-m",
        *TINY,
        *TWO,
        "loss.temperature=2,6",
        look,
        "hydra.sweep.dir=sweep",
        "hydra.sweep.subdir=${hydra.job.num}",
    )
    assert sorted(path.name for path in (tmp_path / "sweep").iterdir() if path.is_dir()) == ["0", "1", "tensorboard"]
    assert [status(tmp_path / "sweep" / job)["state"] for job in "01"] == ["COMPLETE"] * 2
    said = [
        [json.loads(line) for line in (tmp_path / "said" / f"{rank}.jsonl").read_text().splitlines()] for rank in (0, 1)
    ]
    assert said[0] == said[1]
    assert [line["temperature"] for line in said[0] if line["stage"] == "student"] == [2.0, 6.0]
    assert {line["ranks"] for line in said[0]} == {2}
    assert len(artifacts(tmp_path / "outputs" / "artifacts", "teacher")) == 1
    assert len(artifacts(tmp_path / "outputs" / "artifacts", "control")) == 1


@pytest.mark.long
def test_ctrl_c_in_a_terminal_saves_once_and_without_a_traceback_and_the_run_goes_on(tmp_path):
    """A terminal sends it to every process of its group."""
    harm = f"+callbacks.harm={{_target_: faults.InterruptGroupAt, stage: student, step: 22, marker: {tmp_path / 'm'}}}"
    quick = ("logger=none", "callbacks.progress=null", "trainer.log_every_n_steps=5", "hydra.run.dir=run")
    program = "import signal, runpy; signal.signal(signal.SIGINT, signal.default_int_handler); "
    program += "runpy.run_module('tutelage', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", program, "distill", *TINY, *TWO, *quick, harm],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, start_new_session=True,
    )  # fmt: skip
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("Ctrl-C: saving the state") == 1
    assert status(tmp_path / "run")["state"] == "PREEMPTED"
    assert list((tmp_path / "run/checkpoints/states").glob("step=000000*.ckpt"))
    again = tutelage("distill", *TINY, *TWO, *quick, harm, cwd=tmp_path)
    assert status(tmp_path / "run")["state"] == "COMPLETE"
    assert "sync_dist" not in again.stderr


@pytest.mark.long
@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_a_run_does_not_go_on_with_another_number_of_ranks(cli, tmp_path, before, after):
    """And nothing of it is lost."""
    harm = f"+callbacks.harm={{_target_: faults.KillAt, stage: student, step: 8, marker: {tmp_path / 'm'}}}"
    quick = ("logger=none", "callbacks.recovery.every_n_steps=6", "hydra.run.dir=run")
    ranks = {number: ("distill", *TINY, *TWO, f"trainer.devices={number}", *quick, harm) for number in (1, 2)}
    cli(*ranks[before], check=False)
    assert (tmp_path / "m").exists()
    [state] = (tmp_path / "run" / "checkpoints" / "states").glob("step=*.ckpt")
    done = cli(*ranks[after], check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert f"trainer.devices: {before} there, {after} here" in done.stderr
    assert newest_intact(state.parent) == state
    if before == 1:
        cli(*ranks[before])
        assert status(tmp_path / "run")["state"] == "COMPLETE"


@pytest.mark.long
def test_ranks_of_torchrun_without_a_common_folder_are_told(tmp_path):
    env = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    both = [
        subprocess.Popen(
            [sys.executable, "-m", "tutelage", "distill", *TINY, *TWO, "logger=none"],
            cwd=tmp_path, env=environment(**env, RANK=rank, LOCAL_RANK=rank), stderr=subprocess.PIPE, text=True,
        )
        for rank in "01"
    ]  # fmt: skip
    for one in both:
        said = one.communicate()[1]
        assert one.returncode == 1
        assert "the ranks have different folders" in said
        assert "hydra.run.dir=" in said


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.mark.long
def test_a_rank_that_fails_ends_the_job(cli, tmp_path):
    harm = f"+callbacks.harm={{_target_: faults.KillAt, stage: control, step: 5, marker: {tmp_path / 'm'}, rank: 1}}"
    done = cli("distill", *TINY, *TWO, harm, "hydra.run.dir=run", check=False, timeout=1200)
    assert (tmp_path / "m").exists()
    assert done.returncode != 0
    assert status(tmp_path / "run")["state"] == "FAILED"
