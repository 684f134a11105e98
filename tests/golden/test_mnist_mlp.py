"""A short version of ``experiment=mnist_mlp`` on scikit-learn's digits as MNIST files, and the two traps of its source.

``make golden`` writes the figures on file anew; a commit that does so says why.
"""

import runpy
import sys
from itertools import islice
from pathlib import Path

import on_file
import pytest
import small_mnist
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from tutelage.checkpoints.weights import about
from tutelage.config import factory
from tutelage.config.saved import network_of
from tutelage.losses.logit.soft_target import SoftTarget

PATH = Path(__file__).parent / "mnist_mlp.json"
SCRIPT = Path(__file__).parents[2] / "docs" / "results" / "mnist_mlp.py"
SHORT = (
    "data.val_size=200", "data.batch_size=50", "trainer.max_epochs=4", "teacher.net.widths=[48,48]",
    "student.net.widths=[32,32]", "logger=none",
)  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*(LeafSpec|in eval mode|lr_scheduler.step|divides the total loss).*")
def test_a_short_version_gives_the_figures_on_file_and_shows_the_traps(main, tmp_path, request, monkeypatch, capsys):
    digits = small_mnist.write(tmp_path)
    document = small_mnist.distilled(main, digits, tmp_path / "run", "mnist_mlp", *SHORT)
    on_file.compare(request, PATH, on_file.losses(document))
    _traps(tmp_path / "run")
    monkeypatch.setattr(sys, "argv", ["mnist_mlp", str(tmp_path / "run")])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    assert "| kl_mean |" in capsys.readouterr().out


def _traps(run: Path) -> None:
    script = runpy.run_path(str(SCRIPT))
    path = run / "checkpoints" / "last.safetensors"
    given = script["find"](run)
    (teacher, _), (student, _) = network_of(given), network_of(path)
    data = factory.data(OmegaConf.create({"data": about(path)["data"]}))
    batches = list(islice(data.unaugmented_train_loader(0), 5))
    found = script["traps"](teacher, student, iter(batches))
    # "mean" divides by the classes too: the teacher's weight is a tenth of what alpha says.
    assert found["kl_mean"] == pytest.approx(found["kl_batchmean"] / 10, rel=1e-5)
    # With its dropout on the teacher gives two answers to one image, which lie further apart than student and teacher.
    assert found["kl_between_dropouts"] > found["kl_batchmean"]
    assert found["teacher_right_dropout"] < found["teacher_right"]
    # The framework does neither: T² of the mean over rows, and a teacher that nothing can put into train mode.
    net = OmegaConf.create(about(given)["network"])
    frozen = instantiate({"_target_": "tutelage.sources.frozen.Frozen", "net": net, "checkpoint": str(given)}).train()
    with torch.no_grad():
        said = [(student(batch["input"]), frozen(batch)["logits"]) for batch in batches]
        assert all(
            torch.equal(answer, frozen(batch)["logits"]) for (_, answer), batch in zip(said, batches, strict=True)
        )
    loss = SoftTarget(20.0)
    ours = sum(float(loss(*pair)) for pair in said) / len(said)
    assert ours == pytest.approx(400 * found["kl_batchmean"], rel=1e-4)
