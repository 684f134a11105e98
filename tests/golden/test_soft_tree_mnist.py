"""A short version of ``experiment=soft_tree_mnist`` on scikit-learn's digits as MNIST files, against figures on file.

``make golden`` writes them anew; a commit that does so says why.
"""

from pathlib import Path

import on_file
import pytest
import small_mnist

from tutelage.report import tree

PATH = Path(__file__).parent / "soft_tree_mnist" / "soft_tree_mnist.json"
SHORT = (
    "data.val_size=200", "data.batch_size=50", "trainer.max_epochs=6", "stages.teacher.trainer.max_epochs=2",
    "teacher.net.widths=[8,16]", "teacher.net.hidden=32", "student.net.depth=4", "logger=none",
)  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*(LeafSpec|in eval mode|lr_scheduler.step).*")
def test_a_short_version_gives_the_figures_on_file(main, tmp_path, request):
    digits = small_mnist.write(tmp_path)
    document = small_mnist.distilled(main, digits, tmp_path / "run", "soft_tree_mnist", *SHORT)
    on_file.compare(request, PATH, on_file.losses(document))
    drawn, seen = tree.draw(tmp_path / "run", "test", 0, [])
    assert drawn.count("<image") == 15 + 1 + 4
    assert seen.accuracy[1] == pytest.approx(document["student"]["last"]["test"]["accuracy"], abs=1e-6)
