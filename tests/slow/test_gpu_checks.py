"""``make gpu`` without a GPU: the script itself works, and each of its checks passes on a CPU."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command import environment, tutelage

pytestmark = pytest.mark.long

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SCRIPT = BENCHMARKS / "gpu_checks.py"


@pytest.mark.timeout(1800)
def test_a_short_pass_on_a_cpu(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    checks = importlib.import_module("gpu_checks")

    def process(bench, name, *arguments):
        done = tutelage(*arguments, cwd=bench.work, check=False, PYTHONPATH=os.pathsep.join(checks.PATHS))
        return checks.Job(bench.work / name, done.returncode, done.stdout + done.stderr)

    monkeypatch.setattr(checks.Bench, "process", process)  # without importing torch anew for each of its jobs
    monkeypatch.setattr(sys, "argv", ["gpu_checks", "--device", "cpu", "--short", "--output", str(tmp_path)])
    code, said = checks.main(), capsys.readouterr().out
    assert code == 0, said
    table = (tmp_path / "table.md").read_text()
    for check in ("losses", "sources", "views", "bits", "CPU", "stacked", "ranks"):
        assert f"| {check} |" in table
    assert "18 passed, 0 failed" in said


def test_its_own_processes_on_a_cpu(tmp_path):
    command = [sys.executable, str(SCRIPT), "--device", "cpu", "--short", "--only", "views", "--output", str(tmp_path)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed, 0 failed" in done.stdout


def test_without_a_gpu_it_says_so(tmp_path):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--output", str(tmp_path)],
        env=environment(CUDA_VISIBLE_DEVICES=""), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert "sees no GPU" in done.stderr


def test_the_benchmark_on_a_cpu(tmp_path):
    words = ["--device", "cpu", "--examples", "700", "--pairs", "cnn_dense", "--rounds", "1", "--stacks", "2"]
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), *words]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split(" | ")[:3] for line in done.stdout.splitlines() if line.startswith("| cnn_dense")]
    assert rows == [["| cnn_dense", teacher, loop] for teacher in ("cached", "live") for loop in ("eager", "tutelage")]
    assert "2 together" in done.stdout
