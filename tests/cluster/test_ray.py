"""A sweep on a real Ray cluster, which is started on this machine for it."""

import importlib.util

import pytest
from command import TINY
from runs import artifacts, status

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(300),
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs pip install 'tutelage[ray]'"),
]


def test_four_jobs_with_one_teacher(cli, tmp_path):
    quick = ("logger=none", "callbacks.progress=null", "hydra.sweep.dir=sweep")
    answer = cli("distill", "-m", "launcher=ray", *TINY, *quick, "seed=0,1", "loss.temperature=1,-1", check=False)
    assert answer.returncode == 1
    folders = [tmp_path / "sweep" / f"loss.temperature={t},seed={seed}" for t in (1, -1) for seed in (0, 1)]
    assert [status(folder)["state"] for folder in folders] == ["COMPLETE", "COMPLETE", "FAILED", "FAILED"]
    assert "2 of 4 jobs did not complete" in answer.stderr
    assert len(artifacts(tmp_path / "outputs" / "artifacts", "teacher")) == 1
