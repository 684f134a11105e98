"""Short versions of ``experiment=hinton_mnist…`` on scikit-learn's digits as MNIST files, against the figures on file.

``make golden`` writes them anew; a commit that does so says why.
"""

import json
from pathlib import Path
from typing import Any

import on_file
import pytest
import small_mnist

HERE = Path(__file__).parent / "hinton_mnist"
EXPERIMENTS = ("hinton_mnist", "hinton_mnist_without_3", "hinton_mnist_only_7_8")
SHORT = (
    "data.val_size=200", "data.batch_size=50", "trainer.max_epochs=4", "stages.teacher.trainer.max_epochs=4",
    "teacher.net.widths=[48,48]", "student.net.widths=[32,32]", "trainer.precision=32-true", "logger=none",
)  # fmt: skip


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return small_mnist.write(tmp_path_factory.mktemp("digits"))


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.*(LeafSpec|in eval mode|lr_scheduler.step).*")
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_short_version_gives_the_figures_on_file(main, digits, tmp_path, request, name):
    document = small_mnist.distilled(main, digits, tmp_path / "run", name, *SHORT)
    found: dict[str, Any] = on_file.losses(document)
    found["kl_teacher"] = document["student"]["last"]["val"]["kl_teacher"]
    if name != "hinton_mnist":
        alone, taught = (document[role]["last"]["absent"] for role in ("control", "student"))
        assert taught["corrected"]["test"]["accuracy_absent"] > alone["test"]["accuracy_absent"]
    on_file.compare(request, HERE / f"{name}.json", found)


def test_the_two_transfer_sets_have_the_first_experiments_teacher():
    teachers = [json.loads((HERE / f"{name}.json").read_text())["teacher"] for name in EXPERIMENTS]
    assert teachers[0] == teachers[1] == teachers[2]
