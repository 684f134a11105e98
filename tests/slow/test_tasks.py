"""Tasks from the command line: figures, headline, best weights, evaluation and report follow the task."""

import json

import pytest
from command import TINY

from tutelage.report.runs import read_runs
from tutelage.report.write import make_report

FAST = ["trainer.max_epochs=2", "+trainer.limit_train_batches=4", "trainer.log_every_n_steps=2"]
OWN = ["data=dataset", "data.val_size=100", "data.test_size=100", "data.check=32", "data.input_shape=[1,8,8]"]
MLP = ["model@teacher=mlp"]
CASES = {
    "regression": ["data=diabetes", *MLP, "+task.metrics.ev={_target_: torchmetrics.regression.ExplainedVariance}"],
    "multilabel": [
        *OWN, *MLP, "data.train={_target_: own_data.answers}", "task=multilabel", "loss=multilabel/bernoulli_kl",
        "data.num_classes=null", "data.num_outputs=2",
    ],
    "segmentation": [
        "--config-dir", "conf", *OWN, "data.train={_target_: own_data.ink}", "data.num_classes=3", "task=segmentation",
        "model@teacher=pixels", "model@student=pixels", "student.width=4", "loss=segmentation/pixelwise",
    ],
}  # fmt: skip


@pytest.fixture(params=CASES)
def run(request, main, tmp_path):
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "pixels.yaml").write_text("_target_: own_data.PixelNet\nwidth: 8\n")
    answer = main("distill", *CASES[request.param], *FAST, "hydra.run.dir=run", "logger=csv")
    assert answer.code == 0, answer.message
    return request.param, answer


def test_a_job_of_every_task_ends_in_its_figures(run, main, tmp_path):
    name, answer = run
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    figures = {"regression": "rmse", "multilabel": "map", "segmentation": "miou"}
    headline = figures[name]
    assert metrics["task"]["name"] == name
    assert metrics["task"]["headline"] == headline
    own, alone = (metrics[role]["last"]["test"] for role in ("student", "control"))
    assert metrics["gain"]["last"][headline] == pytest.approx(own[headline] - alone[headline])
    assert {"mse_teacher", "kl_teacher"} & own.keys()
    if name == "regression":
        assert "ev" in own
    assert "distilled − alone" in answer.out
    again = main("evaluate", "checkpoint=run/checkpoints/last.safetensors", "hydra.run.dir=again", "trust=[own_data]")
    assert again.code == 0, again.message
    found = json.loads((tmp_path / "again" / "metrics.json").read_text())["figures"]
    assert {key: found[key] for key in found} == pytest.approx({key: own[key] for key in found})
    report = make_report(read_runs([tmp_path / "run"]), "last", images=False)
    assert any(section.name == "figures" for section in report.sections)


def test_a_loss_over_classes_is_refused_where_there_are_none(main):
    answer = main("distill", "data=diabetes", *MLP, "loss=soft_target", *FAST)
    assert answer.code == 1
    assert "SoftTarget compares distributions over classes, and outputs of task=regression are none" in answer.message


@pytest.mark.long
def test_class_weights_change_the_student_and_its_teacher(main, tmp_path):
    for name, more in (("plain", []), ("weighted", ["loss.class_weights=balanced"])):
        answer = main("distill", *TINY, "loss=hard", *more, f"hydra.run.dir={name}")
        assert answer.code == 0, answer.message
    plain, weighted = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("plain", "weighted"))
    assert plain["control"]["digest"] != weighted["control"]["digest"]
    assert plain["student"]["last"]["val"]["nll"] != weighted["student"]["last"]["val"]["nll"]
