"""Reading and comparing runs needs no PyTorch: with it and Lightning a report takes four times the memory."""

import subprocess
import sys

import made_runs
import pytest

HEAVY = ("torch", "lightning", "torchmetrics", "sklearn")
PROGRAM = """
import sys
from tutelage.cli.main import main
try:
    main()
finally:
    print("imported:", *(name for name in HEAVY if name in sys.modules))
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        made_runs.run(root, seed)
    return root


@pytest.mark.parametrize("words", [["report", "-o", "page"], ["report", "--no-images", "-o", "page"], ["status"]])
def test_finished_runs_are_read_without_torch_and_lightning(runs, tmp_path, words):
    program = f"HEAVY = {HEAVY}\n{PROGRAM}"
    command = [sys.executable, "-c", program, *words[:1], str(runs), *words[1:]]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].strip() == "imported:"
    if words[0] == "report":
        text = (tmp_path / "page" / "report.md").read_text()
        assert "Accuracy, calibration and fidelity by split" in text
        assert ("no.such.Data" in text) == ("--no-images" not in words)  # the images' data, which alone may need torch
