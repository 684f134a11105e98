"""The Python interface: ``import tutelage as tt``."""

import json
import re
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path

import lightning as L
import pytest
import torch
from command import PAIR, SPLITS, environment
from made_runs import run
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import tutelage as tt
from tutelage.config.saved import data_of
from tutelage.report.runs import read_runs
from tutelage.tasks.figure_kinds import FigureKind, TaskFigures

README = Path(__file__).parents[2] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text().split("### From Python")[1].split("\n### ")[0], re.S)
QUICK = ("trainer.max_epochs=1", *PAIR, *SPLITS, "logger=none", "callbacks.progress=null")


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    folder = tmp_path_factory.mktemp("api")
    return tt.distill(*QUICK, f"paths.outputs={folder}", seed=3)


def test_importing_changes_nothing_and_is_light():
    code = "import os, sys; before = dict(os.environ); import tutelage; assert dict(os.environ) == before; "
    code += "assert not {'torch', 'lightning', 'hydra'} & sys.modules.keys(); assert tutelage.losses.__doc__"
    subprocess.run([sys.executable, "-c", code], check=True, env=environment())


def test_every_exported_name_is_there():
    assert all(getattr(tt, name) is not None for name in tt.__all__)
    assert set(tt.__all__) <= set(dir(tt))
    with pytest.raises(AttributeError, match="no attribute 'distil'"):
        tt.distil  # noqa: B018


def test_every_loss_is_an_attribute():
    made = [getattr(tt.losses, name) for name in tt.losses.__all__]
    assert all(
        issubclass(one, nn.Module) and one.__name__ == name for one, name in zip(made, tt.losses.__all__, strict=True)
    )
    with pytest.raises(AttributeError, match="no attribute 'KD'"):
        tt.losses.KD  # noqa: B018


def test_a_loss_in_a_loop_of_ones_own():
    student, teacher = torch.randn(4, 10, requires_grad=True), torch.randn(4, 10)
    tt.losses.DKD(temperature=4.0)(student, teacher, torch.arange(4)).backward()
    assert student.grad is not None


def test_distill_is_the_command_line_s_job(result):
    assert json.loads((result.folder / "metrics.json").read_text()) == result.metrics
    assert json.loads((result.folder / "status.json").read_text())["state"] == "COMPLETE"
    test = {role: result.metrics[role]["last"]["test"]["accuracy"] for role in ("student", "control")}
    assert result.gain == test["student"] - test["control"]
    assert result.report().is_file()


def test_the_loaded_student_has_the_figures_of_its_run(result):
    net = result.student
    loader = data_of(net.about, {}, "the student").whole("test")
    right = torch.cat([net(batch["input"]).argmax(1) == batch["label"] for batch in loader])
    assert float(right.float().mean()) == pytest.approx(result.metrics["student"]["last"]["test"]["accuracy"])
    assert not net.training
    assert net.classes == [str(digit) for digit in range(10)]
    images = torch.rand(2, 1, 8, 8)
    assert torch.allclose(net.preprocess(images), (images - 0.3053) / 0.3760)


@pytest.mark.long
@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_readme_s_examples_run(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(block, {})


def test_without_pandas_a_frame_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(tt.TutelageError, match="pip install pandas"):
        tt.Comparison(tmp_path, []).frame()


def test_a_wrong_override_is_a_sentence(tmp_path):
    with pytest.raises(tt.TutelageError, match="dkdd"):
        tt.distill("loss=dkdd")
    with pytest.raises(tt.TutelageError, match="temprature"):
        tt.distill(*QUICK, "loss.temprature=3", f"paths.outputs={tmp_path}")


@pytest.mark.long
def test_compare_pairs_settings_by_seed(tmp_path):
    settings, runs = ["loss.alpha=0.5", "loss.alpha=0.9"], tmp_path / "runs"
    quick = [*(one for one in QUICK if one != "logger=none"), f"paths.outputs={tmp_path}"]
    results = tt.compare(settings, *quick, seeds=[0, 1], folder=runs)
    rows = results.rows()
    assert [row["loss.alpha"] for row in rows] == [0.5, 0.9]
    assert all(row["seeds"] == 2 and row["gain_low"] <= row["gain"] <= row["gain_high"] for row in rows)
    assert "α = 0.9" in str(results)
    assert results.report().is_file()
    assert (runs / "tensorboard" / "student alpha=0.5 seed=1").is_dir()


def test_a_comparison_is_in_the_figure_of_its_task(tmp_path):
    nats = TaskFigures("regression", "nll", {"nll": FigureKind("NLL", "min")})
    for seed in (0, 1):
        file = run(tmp_path, seed) / "metrics.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"task": nats.document()}))
    results = tt.Comparison(tmp_path, read_runs([tmp_path]))
    lines, [row] = str(results).splitlines(), results.rows()
    assert f"{row['student']:.4f}" in lines[1]
    assert f"{abs(row['gain']):.4f}" in lines[1]
    assert lines[2] == "test NLL, lower is better; gain: distilled − alone"


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: tt.distill(["loss=dkd"]), r"an override is a text.*\['loss=dkd'\]"),
        (lambda: tt.distill({"loss": "dkd"}), "an override is a text"),
        (lambda: tt.distill(None), "found None"),
        (lambda: tt.plan(3), "found 3"),
        (lambda: tt.budget(3, parameters=100), "found 3"),
        (lambda: tt.compare("loss=dkd"), "a list of settings"),
        (lambda: tt.compare(["loss=dkd"], seeds=2), "a list of settings and of seeds"),
        (lambda: tt.load(None), "load takes the path"),
        (lambda: tt.export(None), "checkpoint=None: expected the path of a file of weights"),
        (lambda: tt.predict(None, "a.csv"), "checkpoint=None: expected the path of a file of weights"),
    ],
)
def test_a_value_of_another_type_is_a_sentence(call, said):
    with pytest.raises(tt.TutelageError, match=said):
        call()


@pytest.mark.long
def test_a_student_of_a_script_s_own_class_is_loaded(tmp_path):
    script = """
import sys
import torch
import tutelage as tt

class Net(torch.nn.Sequential):
    def __init__(self):
        super().__init__(torch.nn.Flatten(), torch.nn.Linear(64, 10))

own = ["~student", "+student={_target_: tutelage.models.tapped.Tapped, net: {_target_: __main__.Net}}"]
result = tt.distill(*own, "trainer.max_epochs=1", "logger=none", "callbacks.progress=null")
print(type(result.student).__name__)
try:
    tt.load(result.folder / "checkpoints" / "last.safetensors")
except tt.TutelageError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-"], input=script, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-2] == "Net"
    assert "trust=[__main__]" in done.stdout.splitlines()[-1]


@pytest.mark.parametrize(("arguments", "said"), [({"seeds": []}, "one seed"), ({"weights": "first"}, "last or best")])
def test_compare_without_seeds_or_with_unknown_weights(arguments, said):
    with pytest.raises(tt.TutelageError, match=said):
        tt.compare(["loss=dkd"], **arguments)


def networks():
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), nn.Sequential(nn.Flatten(), nn.Linear(16, 3))


def objective(alpha=0.5):
    soft = tt.Term(
        tt.losses.SoftTarget(temperature=2.0),
        inputs={"student": "student.logits"}, targets={"teacher": "teacher.logits"}, weight=alpha,
    )  # fmt: skip
    hard = tt.Term(nn.CrossEntropyLoss(), inputs={"input": "student.logits", "target": "batch.label"}, weight=1 - alpha)
    return tt.Objective({"soft": soft, "hard": hard})


def loader():
    return DataLoader(TensorDataset(torch.randn(32, 1, 4, 4), torch.arange(32) % 3), batch_size=8)


def trainer(folder):
    return L.Trainer(
        max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu",
        enable_model_summary=False, default_root_dir=folder, log_every_n_steps=1,
    )  # fmt: skip


def test_distillation_under_a_plain_trainer_is_the_loop_written_by_hand(tmp_path):
    student, teacher = networks()
    by_hand, frozen = networks()
    by_hand.load_state_dict(student.state_dict())
    frozen.load_state_dict(teacher.state_dict())
    batches = loader()
    module = tt.Distillation(student, teacher, objective(), partial(torch.optim.SGD, lr=0.1))
    trainer(tmp_path).fit(module, batches, batches)
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=0.1)
    for _ in range(2):
        for x, y in batches:
            z, t = by_hand(x), frozen(x).detach()
            soft = nn.functional.kl_div((z / 2).log_softmax(1), (t / 2).softmax(1), reduction="batchmean") * 4
            optimizer.zero_grad()
            (0.5 * soft + 0.5 * nn.functional.cross_entropy(z, y)).backward()
            optimizer.step()
    for ours, theirs in zip(student.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert "val/agreement" in module.trainer.callback_metrics
    assert torch.equal(module(batches.dataset[0][0][None]), student(batches.dataset[0][0][None]))


def test_a_loss_with_parameters_of_its_own_needs_an_example():
    def taps(net):
        return tt.Tapped(net, {"hidden": "1"})

    hint = tt.Objective(
        {"hint": tt.Term(tt.losses.FitNet(), {"student": "student.hidden"}, {"teacher": "teacher.hidden"})}
    )
    student, teacher = networks()
    with pytest.raises(tt.TutelageError, match="example="):
        tt.Distillation(taps(student), taps(teacher), hint)
    module = tt.Distillation(taps(student), taps(teacher), hint, example=next(iter(loader())))
    assert any(name.startswith("objective") for name, _ in module.named_parameters())


def test_a_batch_of_another_form_is_named(tmp_path):
    student, teacher = networks()
    batches = DataLoader(torch.randn(8, 1, 4, 4))
    with pytest.raises(tt.TutelageError, match="a batch must be"):
        trainer(tmp_path).fit(tt.Distillation(student, teacher, objective()), batches, batches)
