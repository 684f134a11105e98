"""A full disk, a read-only folder, no locks: a sentence with the path, and a status that is right."""

import errno
import json
import os
from pathlib import Path

import pytest
from command import TINY
from omegaconf import OmegaConf

from tutelage.runtime import files, json_files
from tutelage.runtime.job import job

FAULTS = [
    (errno.ENOSPC, "the disk is full"), (errno.EROFS, "the file system is read-only"), (errno.EACCES, "no permission"),
]  # fmt: skip


def _status(folder):
    return json.loads((folder / "status.json").read_text())


@pytest.mark.parametrize(("code", "said"), FAULTS)
def test_a_folder_that_can_not_be_written_is_a_sentence(main, tmp_path, monkeypatch, code, said):
    real = os.replace

    def replace(source, target):
        if str(target).endswith("provenance.json"):
            raise OSError(code, os.strerror(code), str(source), None, str(target))
        return real(source, target)

    monkeypatch.setattr(files.os, "replace", replace)
    answer = main("distill", *TINY, "hydra.run.dir=r")
    assert answer.code == 1
    assert f"r/provenance.json: {said}" in answer.message
    assert "Traceback" not in answer.message


def test_a_job_on_a_disk_that_is_full_says_so_in_its_status(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    def train():
        with job(OmegaConf.create({"paths": {}}), tmp_path / "r", []):
            monkeypatch.setattr(files.os, "replace", full)
            json_files.write_json(tmp_path / "r" / "metrics.json", {})

    with pytest.raises(OSError, match="No space left"):
        train()
    assert _status(tmp_path / "r")["state"] == "FAILED"
    assert _status(tmp_path / "r")["why"] == f"{tmp_path}/r/metrics.json: the disk is full"


def test_a_job_whose_last_status_meets_a_full_disk_is_complete(tmp_path, monkeypatch):
    real = os.replace

    def full(source, target):
        if Path(target).name == "status.json":
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(source, target)

    with job(OmegaConf.create({"paths": {}}), tmp_path / "r", []):
        monkeypatch.setattr(files.os, "replace", full)
    assert _status(tmp_path / "r")["state"] == "COMPLETE"


def test_a_job_whose_checksums_do_not_fit_the_disk_is_not_complete(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    def train():
        with job(OmegaConf.create({"paths": {}}), tmp_path / "r", []):
            monkeypatch.setattr(files.os, "replace", full)

    with pytest.raises(OSError, match="No space left"):
        train()
    assert _status(tmp_path / "r")["why"] == f"{tmp_path}/r/manifest.json: the disk is full"


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_a_sentence(main, tmp_path, monkeypatch, code):
    def flock(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("fcntl.flock", flock)
    answer = main("distill", *TINY, "hydra.run.dir=r")
    assert answer.code == 1
    assert "lock" in answer.message
    assert "Traceback" not in answer.message
