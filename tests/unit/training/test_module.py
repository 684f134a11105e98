"""What a learner logs, compares, tells files and hands to its optimizer, asked of it alone."""

import inspect
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.plugins.precision import Precision
from torch import nn

from tutelage.losses.base import Loss
from tutelage.objective import Objective, Term
from tutelage.training import module
from tutelage.training.module import SupervisedModule


def test_a_default_changes_only_if_this_does():
    parameters = inspect.signature(SupervisedModule).parameters.values()
    given = {one.name: one.default for one in parameters if one.default is not one.empty}
    empty = {name: given.pop(name) for name in ("teaching", "networks_beside", "also_read")}
    assert all(value == {} for value in empty.values())
    assert {name for name, value in given.items() if value is None} == {
        "scheduler", "task", "reference", "about", "monitor", "rules",
    }  # fmt: skip
    assert {name: value for name, value in given.items() if value is not None} == {
        "interval": "epoch", "outputs": 10, "seed": 0,
    }  # fmt: skip


@pytest.mark.parametrize(("every", "steps"), [(1, [0, 1, 2, 3, 4, 5, 6]), (3, [2, 5])])
def test_terms_and_the_rate_are_logged_as_often_as_it_is_said(every, steps):
    logged, watched = [], []
    part, optimizer = torch.tensor(3.0, requires_grad=True), torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.5)
    for step in range(7):
        loss = part * 2
        learner = SimpleNamespace(
            objective=lambda signals, loss=loss: (loss, {"hard": part}), signals=lambda batch: {}, global_step=step,
            watch=lambda parts, number: watched.append((list(parts), number)),
            trainer=SimpleNamespace(log_every_n_steps=every, optimizers=[optimizer]),
            log_dict=lambda named, step=step, **how: logged.append((step, named, how)),
            log=lambda name, value, step=step: logged.append((step, {name: value}, {})),
        )  # fmt: skip
        assert SupervisedModule.training_step(learner, {"input": torch.zeros(5, 2)}, 10 + step) is loss
    assert watched == [(["hard"], 10 + step) for step in range(7)]
    assert [(step, list(named)) for step, named, _ in logged] == [
        (step, names) for step in steps for names in (["train/loss", "train/hard"], ["train/learning_rate"])
    ]
    terms, rate = logged[:2]
    assert terms[2] == {"prog_bar": True, "sync_dist": True, "batch_size": 5}
    assert {name: (float(value), value.requires_grad) for name, value in terms[1].items()} == {
        "train/loss": (6.0, False), "train/hard": (3.0, False),
    }  # fmt: skip
    assert rate[1] == {"train/learning_rate": 0.5}


def test_figures_of_validation_are_the_student_s_and_of_each_network_beside_it():
    logged, given = {}, []
    batch = {"input": torch.ones(4, 2), "label": torch.zeros(4)}

    def figures(factor):
        def update(logits, label, teacher):
            given.append((float(logits.mean()), label is batch["label"], teacher is not None and float(teacher.mean())))
            return {"accuracy": factor, "nll": factor + 1}

        return SimpleNamespace(update=update)

    def net(value):
        return lambda batch: {"logits": torch.full((4, 3), value, dtype=torch.float64)}

    learner = SimpleNamespace(
        shown=net(1.0), teacher_on_validation=lambda: net(2.0), validation=figures(10),
        trained_beside=lambda: {"peers/0": net(3.0)}, validation_beside={"peers/0": figures(20)},
        task=SimpleNamespace(headline="accuracy"), log=lambda name, value, **how: logged.update({name: (value, how)}),
    )  # fmt: skip
    SupervisedModule.validation_step(learner, batch, 0)
    assert given == [(1.0, True, 2.0), (3.0, True, False)]
    assert logged == {
        "val/accuracy": (10, {"prog_bar": True, "batch_size": 4}),
        "val/nll": (11, {"prog_bar": False, "batch_size": 4}),
        "val/peers/0/accuracy": (20, {"batch_size": 4}),
        "val/peers/0/nll": (21, {"batch_size": 4}),
    }


def test_validation_compares_with_the_reference_or_the_teacher_if_it_knows_these_examples():
    knows, knows_not = SimpleNamespace(supports_validation=True), SimpleNamespace(supports_validation=False)
    for reference, teacher, expected in (
        (None, None, None), (None, knows, knows), (None, knows_not, None), (knows, knows_not, knows),
        (knows_not, knows, None),
    ):  # fmt: skip
        sources = {} if teacher is None else {"teacher": teacher}
        learner = SimpleNamespace(reference=reference, sources=lambda sources=sources: sources)
        assert SupervisedModule.teacher_on_validation(learner) is expected


def test_files_of_a_network_beside_the_student_name_it_and_its_own_config():
    learner = SimpleNamespace(_networks_beside={"peers/0": {"width": 3}}, about={"seed": 5, "stage": "student"})
    about = {"seed": 5, "stage": "peers/0"}
    assert SupervisedModule.about_beside(learner, "peers/0") == {**about, "network": {"width": 3}}
    assert SupervisedModule.about_beside(learner, "peers/1") == {**about, "stage": "peers/1"}  # the student's


class Prepared(Loss):
    def prepare(self, examples):
        self.seen = [(own["teacher"].tolist(), own["teacher"].requires_grad) for n in (0, 3) for own in examples(n)]

    def forward(self, student, teacher):
        return (student - teacher).mean()


def test_losses_that_prepare_themselves_are_given_what_teachers_say_of_an_epoch():
    term = Term(Prepared(), {"student": "student.logits"}, {"teacher": "teacher.logits"})
    plain = Term(nn.MSELoss(), {"input": "student.logits"}, {"target": "teacher.logits"})
    weight = torch.ones((), requires_grad=True)
    data = SimpleNamespace(
        unaugmented_train_loader=lambda epoch: [{"input": torch.full((2,), epoch + number)} for number in (0.0, 0.5)]
    )
    learner = SimpleNamespace(
        objective=Objective({"plain": plain, "own": term}), device="cpu",
        trainer=SimpleNamespace(datamodule=data, precision_plugin=Precision()),
        transfer_batch_to_device=lambda batch, device, _: {name: value.to(device) for name, value in batch.items()},
        sources=lambda: {"student": None, "teacher": lambda batch: {"logits": batch["input"] * weight}},
    )  # fmt: skip
    learner._targets = partial(SupervisedModule._targets, learner)
    SupervisedModule._prepare(learner)
    assert term.loss.seen == [([value] * 2, False) for value in (0.0, 0.5, 3.0, 3.5)]


def test_shards_and_whole_parameters_are_groups_of_their_own(monkeypatch):
    """An optimizer that updates many tensors at once takes no mixture of both."""
    parameters = {name: nn.Parameter(torch.zeros(1)) for name in "abc"}
    learner = SimpleNamespace(rules=None, learning=lambda: parameters)
    for shards, expected in (("ac", [["a", "c"], ["b"]]), ("abc", "abc"), ("", "abc")):
        monkeypatch.setattr(module, "is_shard", lambda one, own=shards: any(one is parameters[name] for name in own))
        found = SupervisedModule.parameter_groups(learner)
        if expected == "abc":
            assert found == [*parameters.values()]
            continue
        own = [[name for p in group["params"] for name, one in parameters.items() if one is p] for group in found]
        assert own == expected
