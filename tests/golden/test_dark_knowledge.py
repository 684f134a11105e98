"""A short version of ``experiment=dark_knowledge`` on scikit-learn's digits as MNIST files, against figures on file.

``make golden`` writes them anew; a commit that does so says why.
"""

import dataclasses
import json
from pathlib import Path

import pytest
import small_mnist
from runs import artifacts

from tutelage.report import dark_knowledge

PATH = Path(__file__).parent / "dark_knowledge.json"
SHORT = ("data.val_size=200", "data.batch_size=50", "trainer.max_epochs=2", "logger=none")


@pytest.mark.filterwarnings("ignore:.*(LeafSpec|in eval mode|lr_scheduler.step).*")
def test_a_short_version_gives_the_figures_on_file(main, tmp_path, request):
    digits = small_mnist.write(tmp_path)
    answer = main("cache", "experiment=dark_knowledge", f"data.root={digits}", *SHORT, "hydra.run.dir=run")
    assert answer.code == 0, answer.message
    [teacher] = artifacts(tmp_path / "outputs" / "artifacts", "teacher")
    drawn, measured = dark_knowledge.draw(teacher, "val", 3, [1, 4, 20], [])
    assert drawn.count("<image") == 3
    found = [dataclasses.asdict(one) for one in measured]
    if request.config.getoption("--write-golden"):
        PATH.write_text(json.dumps(found, indent=1) + "\n")
    expected = json.loads(PATH.read_text())
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, rel=1e-3)  # CPUs differ in the last bits
