"""The published CIFAR-100 recipe, end to end on a small archive of the published format."""

import pytest
from cifar_writer import write
from runs import figures

pytestmark = [pytest.mark.slow, pytest.mark.long]


def test_the_recipe_runs_from_its_files_to_the_comparison(main, tmp_path):
    write(tmp_path)
    write(tmp_path, "CIFAR100")
    answer = main(
        "distill", "experiment=cifar100/resnet32x4_resnet8x4/dkd", f"data.root={tmp_path}", "data.verify=false",
        "data.val_size=2", "data.batch_size=3", "trainer.max_epochs=1", "scheduler.scheduler.milestones=[]",
        "teacher.net.widths=[8,16,32]", "logger=none", "hydra.run.dir=run",
    )  # fmt: skip
    assert answer.code == 0, answer.message
    found = figures(tmp_path / "run")
    assert found["student"]["parameters"] == 1_233_540
    assert found["student"]["last"]["test"]["count"] == 8
