"""Short versions of ``experiment=few_labels…`` on scikit-learn's digits as MNIST files, against the figures on file.

``make golden`` writes them anew; a commit that does so says why.
"""

import json
import runpy
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import on_file
import pytest
import small_mnist
from omegaconf import OmegaConf

from tutelage.config.paths import conf_dir

PATH = Path(__file__).parent / "few_labels.json"
SCRIPT = Path(__file__).parents[2] / "docs" / "results" / "few_labels.py"
SHORT = (
    "data.val_size=200", "data.labelled=40", "data.batch_size=50", "trainer.max_epochs=3", "student.net.widths=[32]",
    "logger=none",
)  # fmt: skip
SAME = ("stages.teacher.data.labelled=${data.labelled}", "stages.teacher.data.repeat_labelled=${data.repeat_labelled}")
TEACHERS = {"all": (), "same": SAME}


@pytest.mark.filterwarnings("ignore:.*(LeafSpec|in eval mode|lr_scheduler.step).*")
@pytest.mark.long
def test_a_short_version_gives_the_figures_on_file(main, tmp_path, request, monkeypatch, capsys):
    digits = small_mnist.write(tmp_path)
    found = {}
    for name, more in TEACHERS.items():
        document = small_mnist.distilled(main, digits, tmp_path / name / "job", "few_labels", *SHORT, *more)
        found[name] = on_file.losses(document)
    _drawn(tmp_path, {name: 100 * _gain(tmp_path / name / "job") for name in TEACHERS}, monkeypatch, capsys)
    _evaluated(main, tmp_path / "all" / "job")
    assert found["all"]["control"] == found["same"]["control"]
    assert found["all"]["teacher"]["test"] < found["same"]["teacher"]["test"]
    on_file.compare(request, PATH, found)


def _gain(run):
    return json.loads((run / "metrics.json").read_text())["gain"]["last"]["accuracy"]


def _evaluated(main, run):
    """Of the training images those with a label, by the verb as by the run."""
    answer = main("evaluate", f"checkpoint={run}/checkpoints/last.safetensors", "split=train", "hydra.run.dir=again")
    assert answer.code == 0, answer.message
    found = json.loads((run.parents[1] / "again" / "metrics.json").read_text())["figures"]
    expected = json.loads((run / "metrics.json").read_text())["student"]["last"]["train"]
    assert found == {name: pytest.approx(expected[name]) for name in found}
    assert found["count"] == 40


def _drawn(folder, gains, monkeypatch, capsys):
    """The page's table and figure of both runs."""
    out = folder / "few.svg"
    monkeypatch.setattr(sys, "argv", ["few_labels", *(str(folder / name) for name in TEACHERS), str(out)])
    capsys.readouterr()
    runpy.run_path(str(SCRIPT), run_name="__main__")
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| 40 | 1 |")]
    assert [row.split(" | ")[-1] for row in rows] == [f"{gain:+.2f} |" for gain in gains.values()]
    assert ET.parse(out).getroot().tag.endswith("svg")


def test_an_epoch_has_labelled_examples_as_often_whatever_their_number():
    paths = sorted(Path(conf_dir(), "experiment").glob("few_labels*.yaml"))
    assert len(paths) == 4
    for path in paths:
        data = OmegaConf.load(path).data
        assert data.labelled * data.repeat_labelled == 10_000, path.stem
