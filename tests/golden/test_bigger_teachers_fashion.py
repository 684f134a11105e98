"""Short versions of the experiments that vary the teacher, on scikit-learn's digits as MNIST files.

``make golden`` writes the figures on file anew; a commit that does so says why.
"""

import runpy
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import on_file
import pytest
import small_mnist
from runs import artifacts

HERE = Path(__file__).parent
SCRIPT = HERE.parents[1] / "docs" / "results" / "bigger_teachers_fashion.py"
SHORT = (
    "data.dataset=MNIST", "data.val_size=200", "data.batch_size=50", "trainer.max_epochs=2", "student.net.widths=[8]",
    "stages.teacher.trainer.max_epochs=2", "logger=none",
    "stages.teacher.trainer.precision=32-true",  # CPUs differ in more than the last bits of bfloat16
)  # fmt: skip
SMALL = "teacher.net={convolutions: [1, 1, 1, 1, 1], widths: [2, 2, 2, 2, 2]}"
FILES = {
    "assistants": "assistant_fashion.json",
    "epochs": "early_teacher_fashion.json",
    "sizes": "bigger_teachers_fashion.json",
}
JOBS = {
    "assistants": {
        "none": ("assistant_fashion", SMALL),
        "24": ("assistant_fashion_one", SMALL, "assistants.first.net.widths=[24]"),
        "32 → 16": (
            "assistant_fashion_two",
            SMALL,
            "assistants.first.net.widths=[32]",
            "assistants.second.net.widths=[16]",
        ),
    },
    "epochs": {str(epoch + 1): ("early_teacher_fashion", f"stages.teacher.weights={epoch}") for epoch in range(2)},
    "sizes": {str(width): ("bigger_teachers_fashion", f"teacher.net.widths=[{width}]") for width in (4, 32)},
}


@pytest.mark.filterwarnings("ignore:.*(LeafSpec|in eval mode|lr_scheduler.step).*")
@pytest.mark.parametrize("kind", JOBS)
@pytest.mark.long
def test_a_short_version_gives_the_figures_on_file(main, tmp_path, request, monkeypatch, capsys, kind):
    digits = small_mnist.write(tmp_path)
    found = {}
    for number, (cell, (experiment, *more)) in enumerate(JOBS[kind].items()):
        found[cell] = small_mnist.distilled(main, digits, tmp_path / "sweep" / str(number), experiment, *SHORT, *more)
    made = {what: len(artifacts(tmp_path / "outputs" / "artifacts", what)) for what in ("teacher", "control")}
    assert made == {"teacher": 2 if kind == "sizes" else 1, "control": 1}  # one student alone for all teachers
    lines = _drawn(tmp_path, kind, monkeypatch, capsys)
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("|")]
    for cell, document in found.items():
        gain = 100 * document["gain"]["last"]["accuracy"]
        assert [row[5] for row in rows if row[0] == cell and len(row) == 11] == [f"{gain:+.2f}"]
    if kind == "assistants":
        _chains({row[0]: row for row in rows if len(row) == 4}, found)
    chained = tuple(f"{cell} {role}" for cell in ("24", "32 → 16") for role in ("teacher", "student"))
    cells = {cell: on_file.losses(one) for cell, one in found.items()}
    on_file.compare(request, HERE / FILES[kind], cells, chained=chained if kind == "assistants" else ())


def _drawn(folder, kind, monkeypatch, capsys):
    """Checks what the script of the pages prints, and its figure."""
    out = folder / "gain.svg"
    monkeypatch.setattr(sys, "argv", ["bigger_teachers", kind, str(folder / "sweep"), str(out)])
    capsys.readouterr()
    runpy.run_path(str(SCRIPT), run_name="__main__")
    assert ET.parse(out).getroot().tag.endswith("svg")
    return capsys.readouterr().out.splitlines()


def _chains(rows, found):
    """Directly taught, the first teacher is the teacher; with assistants it is another one."""
    for cell, document in found.items():
        own = f"{100 * document['student']['last']['test']['agreement']:.2f}"
        assert (rows[cell][2] == own) == (cell == "none")
        assert rows[cell][1].count("→") == len(document.get("chain", {}))
    assert len({rows[cell][1].split(" → ")[0] for cell in found}) == 1
