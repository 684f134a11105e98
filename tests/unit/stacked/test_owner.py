"""One process trains the stacks of a sweep's folder, and none in the folder of a job that another process runs."""

from contextlib import ExitStack

import pytest
from omegaconf import OmegaConf

from tutelage.errors import TutelageError
from tutelage.runtime.job import job
from tutelage.stacked import owner
from tutelage.stacked.plan import Job


def test_a_second_process_is_refused_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(owner, "PATIENCE", 0.0)
    with (
        owner.only_owner(tmp_path / "s"),
        pytest.raises(TutelageError, match=r"another process trains the stacked sweep in .*/s "),
        owner.only_owner(tmp_path / "s"),
    ):
        raise AssertionError("two owners")
    with owner.only_owner(tmp_path / "s"):
        pass


def test_jobs_that_run_elsewhere_are_left_out_of_a_stack(tmp_path):
    cfg = OmegaConf.create({"paths": {}})
    jobs = [Job(cfg, tmp_path / name, []) for name in "abc"]
    with job(cfg, tmp_path / "b", []), owner.free(jobs) as found:
        assert [one.folder.name for one in found] == ["a", "c"]
    with ExitStack() as held:
        assert len(held.enter_context(owner.free(jobs))) == 3
    with job(cfg, tmp_path / "a", []):  # the stack has let go of it
        pass
