"""A short version of ``experiment=mnist_cnn_dense``, stacked as its page runs it, against the figures on file."""

from pathlib import Path

import on_file
import pytest
import small_mnist
from runs import figures

PATH = Path(__file__).parent / "mnist_cnn_dense.json"
SHORT = ("data.val_size=200", "data.batch_size=50", "trainer.max_epochs=2", "logger=none", "callbacks.progress=null")


@pytest.mark.filterwarnings("ignore:.*(LeafSpec|in eval mode|lr_scheduler.step).*")
@pytest.mark.long
def test_a_short_version_gives_the_figures_on_file(main, tmp_path, request):
    digits = small_mnist.write(tmp_path / "digits")
    grid = ("loss.temperature=1,10", "loss.alpha=.1,.9", "hydra.sweep.dir=sweep")
    answer = main(
        "distill", "-m", "experiment=mnist_cnn_dense", "launcher=stacked", f"data.root={digits}", *SHORT, *grid
    )
    assert answer.code == 0, answer.message
    assert "training 4 students, 1 control as one" in answer.out
    found = {}
    for folder in sorted(path for path in (tmp_path / "sweep").iterdir() if path.is_dir()):
        document = figures(folder)
        found[folder.name] = {role: document[role]["last"]["val"]["nll"] for role in ("teacher", "control", "student")}
    on_file.compare(request, PATH, found)
