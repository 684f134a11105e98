"""Plain modules and losses with hooks in the same objective: the training calls what is there, and needs nothing."""

import lightning as L
import pytest
import torch
from torch import Tensor, nn

from tutelage.config import factory
from tutelage.errors import TutelageError
from tutelage.losses.base import HOOKS, Loss, contract, hooks
from tutelage.objective import Objective, Term
from tutelage.stacked.plan import unfit
from tutelage.training.replicas import graph_arguments, leave_out_buffers
from tutelage.types import NO_LABEL

PAIR = {"student": "student.logits"}, {"teacher": "teacher.logits"}


class Everything(Loss):
    """Notes every call, and keeps a number for each example."""

    takes_unlabelled = True
    same_on_ranks = True

    def __init__(self):
        super().__init__()
        self.calls = []
        self.register_buffer("seen", torch.zeros(0))
        self.scale = nn.Parameter(torch.ones(()))

    def bind(self, keys, labels):
        self.calls.append(("bind", len(keys), int((labels == NO_LABEL).sum())))
        self.seen = torch.zeros(int(keys.max()) + 1)

    def prepare(self, examples):
        batches = list(examples(0))
        assert all(batch.keys() == {"teacher"} and not batch["teacher"].requires_grad for batch in batches)
        self.calls.append(("prepare", len(batches)))

    def on_epoch_start(self, epoch, epochs):
        self.calls.append(("on_epoch_start", epoch, epochs))

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return self.scale * nn.functional.mse_loss(student, teacher)


class WithoutTheBase(nn.Module):
    """The same names in a module of one's own."""

    least_rows = 3

    def __init__(self):
        super().__init__()
        self.calls = []

    def bind(self, keys, labels):
        self.calls.append("bind")

    def on_epoch_start(self, epoch, epochs):
        self.calls.append("on_epoch_start")

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return (student - teacher).abs().mean()


class Named(nn.Module):
    """A plain loss whose children happen to have the hooks' names."""

    def __init__(self):
        super().__init__()
        self.bind = nn.Linear(10, 10)
        self.prepare = nn.ModuleDict({"on_epoch_start": nn.ReLU()})

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return nn.functional.mse_loss(self.bind(student), teacher)


@pytest.fixture
def training(compose):
    """``training(terms, *overrides)`` → a module with these terms, and its data."""

    def make(terms, *overrides):
        stage = factory.stage_config(compose("model@teacher=mlp", "model@student=mlp", *overrides), "student")
        data = factory.data(stage)
        module = factory.distillation_module(stage, data, factory.sources(stage), None)
        module.objective = Objective(terms)
        return module, data

    return make


def fit(module, data, epochs=2):
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=epochs, limit_train_batches=2, limit_val_batches=1, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, datamodule=data)


def test_a_loss_with_every_hook_is_called_in_its_order(training):
    loss = Everything()
    module, data = training({"own": Term(loss, *PAIR)}, "data.labelled=100")
    fit(module, data)
    examples, unlabelled = len(data.splits["train"].keys), int((data.splits["train"].labels < 0).sum())
    assert [call for call in loss.calls if call[0] == "bind"] == [("bind", examples, unlabelled)]
    names = [call[0] for call in loss.calls]
    assert names[:2] == ["bind", "prepare"]
    assert names.count("prepare") == 1
    assert [call for call in loss.calls if call[0] == "on_epoch_start"][-1] == ("on_epoch_start", 1, 2)
    assert float(loss.scale.detach()) != 1  # its parameter learned
    assert hooks(loss) == set(HOOKS)
    assert "objective.terms.own.loss.seen" not in leave_out_buffers(module)


def test_hooks_without_the_base_class_are_called_as_well(training):
    loss = WithoutTheBase()
    module, data = training({"own": Term(loss, *PAIR)})
    fit(module, data)
    assert loss.calls[0] == "bind"
    assert set(loss.calls) == {"bind", "on_epoch_start"}
    assert graph_arguments(module, data) == {"find_unused_parameters": True}
    assert "WithoutTheBase stores something by example" in unfit(module, {"teacher": module.sources()["teacher"]}, data)


@pytest.mark.parametrize("loss", [nn.MSELoss(), Named()], ids=["torch's", "children with the hooks' names"])
def test_a_plain_module_is_a_loss(training, loss):
    names = {"input": "student.logits"}, {"target": "teacher.logits"}
    module, data = training({"bind": Term(loss, *(names if isinstance(loss, nn.MSELoss) else PAIR))})
    fit(module, data, epochs=1)
    assert not hooks(loss)
    assert graph_arguments(module, data) == {}
    view = contract(loss)
    assert (view.least_rows, view.takes_unlabelled, view.same_on_ranks) == (1, False, False)
    view.bind(torch.arange(2), torch.arange(2))
    view.prepare(lambda epoch: [])
    view.on_epoch_start(0, 1)


@pytest.mark.parametrize("loss", [WithoutTheBase(), nn.Sequential(WithoutTheBase())], ids=["alone", "as a part"])
def test_too_small_a_batch_is_refused_by_the_losss_name(training, loss):
    module, data = training({"own": Term(loss, *PAIR)}, "data.batch_size=2")
    with pytest.raises(TutelageError, match="WithoutTheBase compares examples and needs at least 3"):
        module.dry_run(data)


def test_the_view_of_a_plain_module_leaves_its_state_alone():
    loss = WithoutTheBase()
    term = Term(loss, *PAIR)
    contract(loss)
    assert term.loss is loss
    assert not term.loss.state_dict()
    assert contract(everything := Everything()) is everything
