"""Distillation on other data than the teacher's, from the command line."""

import numpy as np
import pytest
from command import TINY
from runs import artifacts, figures, scalars

pytestmark = pytest.mark.slow

FEW = ("loss=[soft_target,dkd,ps_kd]", "loss.alpha=0.5", "data.labelled=30", "data.repeat_labelled=4")
LOSSES = ("train/loss", "train/hard", "train/dkd", "train/ps_kd", "val/nll")


@pytest.mark.long
def test_two_ranks_with_few_labels_are_one_process_and_one_teacher_serves_all(cli, tmp_path):
    np.savez(tmp_path / "more.npz", x=np.random.default_rng(0).random((100, 8, 8)))
    more = f"data.unlabelled=[{{_target_: tutelage.data.unlabelled.Npz, path: {tmp_path / 'more.npz'}, array: x}}]"
    mixture = (*TINY, *FEW, more, "trainer.log_every_n_steps=2")
    cli("distill", *TINY, "hydra.run.dir=plain")
    cli("distill", *mixture, "hydra.run.dir=one")
    ranks = ("trainer=ddp", "trainer.accelerator=cpu", "paths.artifacts=other")  # lest the control be found
    cli("distill", *mixture, *ranks, "hydra.run.dir=two")
    one, two = (scalars(tmp_path / name / "tensorboard") for name in ("one", "two"))
    for tag in [f"student/{name}" for name in LOSSES] + ["control/train/loss"]:
        values = [[value for _, value in sorted(found[tag])] for found in (one, two)]
        assert len(values[0]) >= 2
        assert values[0] == pytest.approx(values[1], rel=1e-4), tag
    assert figures(tmp_path / "one")["teacher"] == figures(tmp_path / "plain")["teacher"]
    assert len(artifacts(tmp_path / "outputs" / "artifacts", "teacher")) == 1
    assert len(artifacts(tmp_path / "outputs" / "artifacts", "control")) == 2
