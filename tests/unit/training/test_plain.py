"""Distillation under a plain trainer: batches, shapes learned from an example, a schedule by epochs."""

from functools import partial
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import tutelage as tt
from tutelage.sources.frozen import Frozen
from tutelage.training.plain import as_batch

X, Y = torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, 3))


def hint(loss: nn.Module | None = None) -> tt.Objective:
    term = tt.Term(loss or tt.losses.FitNet(), {"student": "student.hidden"}, {"teacher": "teacher.hidden"})
    return tt.Objective({"hint": term})


def made(objective: tt.Objective | None = None, **arguments: Any) -> tt.Distillation:
    student, teacher = (tt.Tapped(net(), {"hidden": "2"}) for _ in range(2))
    return tt.Distillation(student, teacher, objective or hint(), **arguments)


def test_pairs_get_names_and_mappings_stay():
    batch = {"input": X, "label": Y, "key": Y}
    assert as_batch(batch) is batch
    for pair in ((X, Y), [X, Y]):
        named = as_batch(pair)
        assert named.keys() == {"input", "label"}
        assert named["input"] is X
        assert named["label"] is Y


@pytest.mark.parametrize(
    ("batch", "found"),
    [
        ({"input": X}, r"\['input'\]"),
        ({"label": Y, "image": X}, r"\['image', 'label'\]"),
        ((X, Y, Y), "tuple"),
        ((X,), "tuple"),
        ((X, [0, 1]), "tuple"),
        (X[:2], "Tensor"),
    ],
)
def test_other_batches_are_refused(batch, found):
    with pytest.raises(tt.TutelageError, match=f"found {found}"):
        as_batch(batch)


def test_an_example_gives_shapes_and_changes_nothing_else():
    torch.manual_seed(0)
    module, before = made(example=(X, Y), seed=3), torch.get_rng_state()
    assert module.training
    assert module.objective.training
    [term] = module.objective.terms.values()
    assert term.loss.regressor.weight.shape == (5, 5)
    assert not module.student.net.net[1].num_batches_tracked
    torch.manual_seed(1)
    again = made(example=(X, Y), seed=3)
    assert torch.equal(again.objective.terms["hint"].loss.regressor.weight, term.loss.regressor.weight)
    assert not torch.equal(torch.get_rng_state(), before)  # the second networks' own draws


def test_an_example_that_does_not_fit_is_said_and_so_is_a_missing_one():
    with pytest.raises(tt.TutelageError, match=r"can't take a batch of \[6, 2\]: .*mat1 and mat2"):
        made(example=(X[:, :2], Y))
    with pytest.raises(tt.TutelageError, match=r"^AT takes maps"):
        made(hint(tt.losses.AT()), example=(X, Y))
    with pytest.raises(tt.TutelageError, match="example=next"):
        made()
    made(hint(tt.losses.SP()))  # nothing to learn, no example needed


def test_a_teacher_may_be_a_source_and_the_rate_falls_by_epochs():
    student, rates = net(), list[float]()

    class Rates(L.Callback):
        def on_train_batch_start(self, trainer: L.Trainer, *others: Any) -> None:
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    soft = tt.Term(tt.losses.SoftTarget(), {"student": "student.logits"}, {"teacher": "teacher.logits"})
    source = Frozen(net())
    module = tt.Distillation(
        student, source, tt.Objective({"soft": soft}), partial(torch.optim.SGD, lr=1.0),
        partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5),
    )  # fmt: skip
    assert module.teaching["teacher"] is source
    trainer = L.Trainer(
        max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu",
        enable_model_summary=False, callbacks=[Rates()],
    )  # fmt: skip
    batches = DataLoader(TensorDataset(X, Y), 3)
    trainer.fit(module, batches, batches)
    assert rates == [1.0, 1.0, 0.5, 0.5]
    answer: Tensor = module.eval()(X)
    assert torch.equal(answer, student.eval()(X))
