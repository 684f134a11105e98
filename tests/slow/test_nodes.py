"""A job whose ranks torchrun or SLURM started on two machines; both of them are this one."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from command import TINY
from runs import artifacts

pytestmark = pytest.mark.slow


def two_nodes(folders: list[Path], *overrides: str) -> list[tuple[int, str]]:
    """Exit code and output of the rank on each machine; a rank's working directory is its of ``folders``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    common |= {"OMP_NUM_THREADS": "1"}
    command = [
        sys.executable, "-m", "tutelage", "distill", *TINY, "trainer=ddp", "trainer.devices=1",
        "+trainer.num_nodes=2", "trainer.accelerator=cpu", *overrides,
    ]  # fmt: skip
    running = [
        subprocess.Popen(
            command, cwd=folder, env=os.environ | common | {"RANK": str(node), "NODE_RANK": str(node)},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for node, folder in enumerate(folders)
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=1200)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    return [(process.returncode, text) for process, text in zip(running, said, strict=True)]


@pytest.mark.long
def test_two_machines_make_one_run_and_each_artifact_once(tmp_path):
    said = two_nodes([tmp_path, tmp_path], f"paths.artifacts={tmp_path}/artifacts", "hydra.run.dir=run")
    assert [code for code, _ in said] == [0, 0], said
    assert "Distilled" in said[0][1]
    assert "Distilled" not in said[1][1]
    assert len(list(tmp_path.rglob("metrics.json"))) == 1
    assert [len(artifacts(tmp_path / "artifacts", kind)) for kind in ("teacher", "control", "signals")] == [1, 1, 1]
    assert not list((tmp_path / "artifacts").glob(".ranks-*"))


@pytest.mark.long
def test_machines_without_a_common_file_system_are_refused(tmp_path):
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    for code, text in two_nodes(folders, "hydra.run.dir=outputs/run"):
        assert code == 1
        assert "paths.artifacts must be one folder for all ranks" in text
        assert f"{folders[1]}/outputs/artifacts on" in text
        assert "Traceback" not in text
