"""A user's own folder of configs with a model of any kind, used by both verbs from any folder."""

import json

import pytest
from command import SPLITS
from runs import figures, status

from tutelage.checkpoints.weights import about

pytestmark = pytest.mark.slow
SHORT = ("trainer.max_epochs=1", "model@teacher=mlp", "teacher.net.widths=[16]", *SPLITS)

LOSS = """
alpha: 0.3
terms:
  mine:
    _target_: tutelage.objective.Term
    loss: {_target_: torch.nn.MSELoss}
    inputs: {input: student.logits}
    targets: {target: teacher.logits}
    weight: ${loss.alpha}
"""
STUDY = """# @package _global_
defaults: [{override /loss: mine}, {override /model@student: plain}]
seed: 5
"""


@pytest.fixture
def mine(tmp_path):
    plain = "_target_: odd_nets.Plain\nwidth: 5\n"
    for path, content in (("model/plain", plain), ("loss/mine", LOSS), ("experiment/study", STUDY)):
        file = tmp_path / "mine" / f"{path}.yaml"
        file.parent.mkdir(parents=True)
        file.write_text(content)
    return ("--config-dir", str(tmp_path / "mine"))


def test_any_module_by_target_is_a_student_and_is_evaluated(main, tmp_path, mine):
    answer = main("distill", *mine, *SHORT, "model@student=plain", "hydra.run.dir=run")
    assert answer.code == 0, answer.message
    metrics = figures(tmp_path / "run")
    assert metrics["student"]["parameters"] == 64 * 5 + 5 + 5 * 10 + 10
    path = tmp_path / "run" / "checkpoints" / "best.safetensors"
    assert about(path)["network"] == {"_target_": "odd_nets.Plain", "width": 5}
    given = ("evaluate", f"checkpoint={path}", "split=val", "hydra.run.dir=eval")
    refused = main(*given)
    assert refused.code == 1
    assert "names odd_nets.Plain" in refused.message
    assert main(*given, "trust=[odd_nets]").code == 0
    found = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    expected = {k: v for k, v in metrics["student"]["best"]["val"].items() if k not in ("agreement", "kl_teacher")}
    assert found["figures"] == expected


SEVERAL = """
_target_: tutelage.models.tapped.Tapped
net: {_target_: odd_nets.Several, width: 5}
reads: {pixels: input}
outputs: scores
taps: {"layer{}": "layers.{}[0]", before: head.input}
"""


def test_a_network_that_takes_names_and_returns_a_dataclass(main, tmp_path, mine):
    (tmp_path / "mine" / "model" / "several.yaml").write_text(SEVERAL)
    both = ("model@student=several", "model@teacher=several", "teacher.net.width=7")
    states = "loss.terms.mine.inputs={input: student.before}", "loss.terms.mine.targets={target: student.layer1}"
    answer = main("distill", *mine, *SHORT[:1], *SPLITS, *both, "loss=[soft_target,mine]", *states, "hydra.run.dir=run")
    assert answer.code == 0, answer.message
    metrics = figures(tmp_path / "run")
    assert metrics["student"]["multiply_adds"] == 64 * 5 + 5 * 5 + 5 * 10
    path = tmp_path / "run" / "checkpoints" / "best.safetensors"
    given = ("evaluate", f"checkpoint={path}", "split=test", "trust=[odd_nets]", "hydra.run.dir=eval")
    assert main(*given).code == 0
    found = json.loads((tmp_path / "eval" / "metrics.json").read_text())["figures"]
    assert found["nll"] == metrics["student"]["best"]["test"]["nll"]


FIELDS = "data.fields={input: image, label: fine_label, ink: ink}"
READS = "+teacher.reads.weights=ink", "+student.reads.weights=ink"


@pytest.mark.long
def test_a_network_reads_further_fields_of_data_of_one_s_own(main, tmp_path, mine):
    (tmp_path / "mine" / "model" / "several.yaml").write_text(SEVERAL)
    both = ("model@student=several", "model@teacher=several", "teacher.net.width=7")
    sets = "data=dataset", "data.train={_target_: own_data.Dicts}", "data.test={_target_: own_data.Dicts, part: test}"
    given = (*mine, SHORT[0], *both, *sets, *READS, "data.val_size=100")
    answer = main("distill", *given, FIELDS, "hydra.run.dir=run")
    assert answer.code == 0, answer.message
    metrics = figures(tmp_path / "run")
    assert metrics["student"]["multiply_adds"] == 64 * 5 + 5 * 5 + 5 * 10
    path = tmp_path / "run" / "checkpoints" / "best.safetensors"
    trust = "trust=[odd_nets,own_data]"
    assert main("evaluate", f"checkpoint={path}", "split=test", trust, "hydra.run.dir=eval").code == 0
    found = json.loads((tmp_path / "eval" / "metrics.json").read_text())["figures"]
    assert found["nll"] == metrics["student"]["best"]["test"]["nll"]
    refused = main("distill", *given, FIELDS.replace(", ink: ink", ""), "hydra.run.dir=without")
    assert refused.code == 1
    assert "Several reads the field 'ink', which a batch does not have" in refused.message


def test_a_network_that_returns_several_things_is_told_how_to_name_its_logits(main, tmp_path, mine):
    (tmp_path / "mine" / "model" / "several.yaml").write_text(SEVERAL.replace("outputs: scores\n", ""))
    answer = main("distill", *mine, *SHORT, "model@student=several", "hydra.run.dir=run")
    assert answer.code == 1
    assert "Several returns a Output with scores, states; set where its logits are by outputs" in answer.message


def test_an_experiment_of_loss_and_model(main, tmp_path, mine):
    answer = main("distill", *mine, *SHORT, "experiment=study", "hydra.run.dir=run")
    assert answer.code == 0, answer.message
    assert status(tmp_path / "run")["state"] == "COMPLETE"
    assert figures(tmp_path / "run")["seed"] == 5
    assert "mine " in answer.out


def test_a_tap_that_a_user_s_module_has_not_is_refused_before_training(main, tmp_path, mine):
    answer = main("distill", *mine, *SHORT, "model@student=plain", "loss=fitnet", "hydra.run.dir=run")
    assert answer.code == 1
    assert "no tap 'embedding' in Plain" in answer.message
    assert not list(tmp_path.rglob("*.safetensors"))


def test_the_last_line_is_the_folder_whole_and_as_it_is(main, tmp_path):
    folder = tmp_path / ("a[b]" + "x" * 100)
    answer = main("distill", *SHORT, "model@student=mlp", f"hydra.run.dir='{folder}'", "paths.outputs=out")
    assert answer.code == 0, answer.message
    assert answer.out.splitlines()[-1] == str(folder)


def test_a_network_whose_cost_can_t_be_counted_trains_and_is_reported(main, tmp_path):
    """A figure of cost never ends a run: it is null everywhere, and one line says so before anything is trained."""
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "odd.yaml").write_text("_target_: odd_nets.NeedsValues")
    overrides = ("--config-dir", "mine", "trainer.max_epochs=1", "model@teacher=odd", "model@student=odd", *SPLITS)
    answer = main("distill", *overrides, "hydra.run.dir=run")
    assert answer.code == 0, answer.message
    said = "multiply-adds of NeedsValues are not known: it does not run on shapes alone"
    assert answer.out.count(said) == 1
    assert "epoch" not in answer.out.partition(said)[0]
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert [metrics[role]["multiply_adds"] for role in ("teacher", "control", "student")] == [None] * 3
    assert main("report", "run").code == 0
    assert "| – |" in (tmp_path / "run" / "report" / "report.md").read_text()
    answer = main(
        "evaluate", "checkpoint=run/checkpoints/last.safetensors", "trust=[odd_nets]", "hydra.run.dir=measured"
    )
    assert answer.code == 0, answer.message
    assert json.loads((tmp_path / "measured" / "metrics.json").read_text())["multiply_adds"] is None
