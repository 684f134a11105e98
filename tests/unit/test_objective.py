import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from tutelage.errors import TutelageError
from tutelage.losses.base import Loss
from tutelage.losses.logit.pskd import PSKD
from tutelage.objective import Objective, Term
from tutelage.types import NO_LABEL


class Difference(nn.Module):
    def forward(self, student, teacher):
        if isinstance(student, list):
            return sum(((s - t) ** 2).mean() for s, t in zip(student, teacher, strict=True))
        return ((student - teacher) ** 2).mean()


class DType(nn.Module):
    """Remembers what it was given."""

    def forward(self, x):
        self.seen = x.dtype, torch.is_autocast_enabled("cpu")
        return x.sum()


def signals(dtype=torch.float32):
    torch.manual_seed(0)
    return {
        "batch": {"label": torch.tensor([0, 1]), "key": torch.tensor([7, 9])},
        "student": {"logits": torch.randn(2, 3, dtype=dtype, requires_grad=True), "stage1": torch.randn(2, 4)},
        "teacher": {"logits": torch.randn(2, 3, dtype=dtype, requires_grad=True), "stage1": torch.randn(2, 4)},
    }


def hard(weight=1.0):
    return Term(nn.CrossEntropyLoss(), {"input": "student.logits", "target": "batch.label"}, weight=weight)


def soft(weight=1.0, **more):
    return Term(Difference(), {"student": "student.logits"}, {"teacher": "teacher.logits"}, weight, **more)


def test_a_term_has_a_weight_of_1_and_no_targets_schedule_or_mask_unless_they_are_given():
    term = Term(Listening(), {"student": "student.logits"})
    assert (float(term.weight), term.targets, term.schedule, term.where) == (1.0, {}, None, None)
    assert float(term.scale) == 1.0
    assert not term.chooses_rows


def test_total_is_the_weighted_sum_and_parts_are_unweighted():
    given = signals()
    total, parts = Objective({"hard": hard(0.25), "soft": soft(3.0)})(given)
    logits, teacher = given["student"]["logits"], given["teacher"]["logits"]
    expected = {
        "hard": nn.functional.cross_entropy(logits, given["batch"]["label"]),
        "soft": ((logits - teacher) ** 2).mean(),
    }
    assert parts.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(parts[name], value)
    torch.testing.assert_close(total, 0.25 * expected["hard"] + 3.0 * expected["soft"])


def test_gradients_flow_to_inputs_and_not_to_targets():
    given = signals()
    total, _ = Objective({"soft": soft()})(given)
    total.backward()
    assert given["student"]["logits"].grad.abs().sum() > 0
    assert given["teacher"]["logits"].grad is None


def test_a_list_of_signals_is_detached_as_well():
    given = signals()
    given["teacher"]["stage1"].requires_grad_()
    paths = {who: [f"{who}.logits", f"{who}.stage1"] for who in ("student", "teacher")}
    term = Term(Difference(), {"student": paths["student"]}, {"teacher": paths["teacher"]})
    term(given).backward()
    assert given["student"]["logits"].grad is not None
    assert given["teacher"]["stage1"].grad is None
    assert Objective({"x": term}).needs() == {who: {"logits", "stage1"} for who in ("student", "teacher")}


def test_needs_is_what_the_terms_with_a_weight_read():
    parameter = Term(Difference(), {"student": "student.embedding"}, {"teacher": "teacher.classifier.weight"})
    objective = Objective({"hard": hard(), "soft": soft(0.0), "other": parameter})
    assert objective.needs() == {
        "student": {"logits", "embedding"}, "batch": {"label"}, "teacher": {"classifier.weight"},
    }  # fmt: skip


def test_a_term_of_weight_0_is_dropped_with_its_source():
    objective = Objective({"hard": hard(), "soft": soft(0.0)})
    given = signals()
    del given["teacher"]
    total, parts = objective(given)
    assert list(parts) == ["hard"]
    assert torch.equal(total, parts["hard"])
    assert "teacher" not in objective.needs()
    with pytest.raises(TutelageError, match=r"every term of the objective has weight 0: \['hard'\]"):
        Objective({"hard": hard(0.0)})
    with pytest.raises(TutelageError, match="there is none"):
        Objective({})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_half_precision_reaches_no_loss(dtype):
    loss = DType()
    with torch.autocast("cpu", torch.bfloat16):
        Term(loss, {"x": "student.logits"})(signals(dtype))
    assert loss.seen == (torch.float64 if dtype == torch.float64 else torch.float32, False)


def test_a_schedule_is_a_further_factor():
    term = soft(2.0, schedule=lambda epoch, epochs: (epoch + 1) / epochs)
    objective, given = Objective({"soft": term}), signals()
    for epoch in range(4):
        term.on_epoch_start(epoch, 4)
        total, parts = objective(given)
        torch.testing.assert_close(total, parts["soft"] * 2.0 * (epoch + 1) / 4)


class Listening(Loss):
    def on_epoch_start(self, epoch, epochs):
        self.heard = epoch, epochs

    def forward(self, student):
        return student.mean()


def test_losses_that_listen_are_told_the_epoch():
    loss = Listening()
    objective = Objective({"hard": hard(), "own": Term(loss, {"student": "student.logits"})})
    assert objective.on_epoch_start(2, 7) == ["terms.hard", "terms.own", "terms.own.loss"]
    assert loss.heard == (2, 7)


def test_losses_that_keep_something_of_each_example_are_refused_for_streams():
    Objective({"hard": hard(), "soft": soft()}).check_needs_no_list()
    kept = Term(PSKD(), {"student": "student.logits", "label": "batch.label", "key": "batch.key"})
    with pytest.raises(TutelageError, match=r"loss\.terms\.own\.loss: PSKD needs the keys and labels of all"):
        Objective({"hard": hard(), "own": kept}).check_needs_no_list()


class Each(nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, student):
        return self.answer(student)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda x: x.mean(1), r"Each must return a tensor of one number, such as a mean; found a tensor \[2\]"),
        (lambda x: float(x.detach().mean()), "Each must return a tensor of one number, such as a mean; found float"),
    ],
)
def test_what_is_no_number_is_said(answer, said):
    with pytest.raises(TutelageError, match=said):
        Term(Each(answer), {"student": "student.logits"})(signals())


def test_the_rows_of_all_batches_of_a_step_count():
    term = Term(Difference(), {"student": "student.logits"}, {"teacher": "teacher.logits"}, where="batch.mask")
    masks = [torch.tensor([True, False]), torch.tensor([True, True])]
    batches = [{"mask": mask} for mask in masks]
    term.look_ahead(batches, torch.device("cpu"))
    given = signals()
    total = sum(term({**given, "batch": batch}) for batch in batches) / 2
    rows = (given["student"]["logits"] - given["teacher"]["logits"]).square().mean(1)
    torch.testing.assert_close(total, (rows[0] + rows[0] + rows[1]) / 3)


def test_rows_with_a_label_count_over_a_step_and_those_of_another_source_are_not_known_before():
    labels = [torch.tensor([0, NO_LABEL]), torch.tensor([1, 2])]
    known = hard()
    known.bind(torch.arange(4), torch.cat(labels))
    known.look_ahead([{"label": own} for own in labels], torch.device("cpu"))
    assert float(known.step_rows) == 1.5
    said = Term(Difference(), {"student": "student.logits"}, {"teacher": "teacher.logits"}, where="teacher.sure")
    said.look_ahead([{"label": own} for own in labels], torch.device("cpu"))
    assert said.step_rows is None
    known.look_ahead([], torch.device("cpu"))
    assert known.step_rows is None


def test_the_label_of_mixed_images_is_soft_and_of_others_their_own():
    given, shares = signals(), torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.2, 0.8]])
    term = Term(nn.CrossEntropyLoss(), {"input": "student.logits", "target": "batch.soft_label"})
    logits = given["student"]["logits"]
    torch.testing.assert_close(term(given), nn.functional.cross_entropy(logits, given["batch"]["label"]))
    given["batch"]["soft_label"] = shares
    torch.testing.assert_close(term(given), nn.functional.cross_entropy(logits, shares))


def test_weights_are_buffers_that_are_not_saved():
    objective = Objective({"hard": hard(0.3)})
    assert not objective.state_dict()
    assert {name.rpartition(".")[2] for name, _ in objective.named_buffers()} >= {"weight"}


def test_configs_are_taken_as_plain_values():
    inputs = OmegaConf.create({"student": ["student.logits"], "teacher": ["teacher.logits"]})
    term = Term(Difference(), inputs)
    assert all(type(paths) is list for paths in term.inputs.values())
    assert term.paths() == ["student.logits", "teacher.logits"]


def test_paths_that_read_nothing_are_named():
    with pytest.raises(TutelageError, match=r"a term reads '<source>.<signal>'.*found 'logits'"):
        Term(Difference(), {"student": "logits"})
    with pytest.raises(TutelageError, match=r"no signal 'student\.logit'; did you mean 'student\.logits'"):
        Term(Difference(), {"student": "student.logit"})(signals())
    with pytest.raises(TutelageError, match=r"no signal 'techer\.logits'; did you mean 'teacher\.logits'"):
        Term(Difference(), {"student": "techer.logits"})(signals())


class Layered(nn.Module):
    """A loss with a layer, a float buffer and a counter."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.register_buffer("mean", torch.full((2,), 1 / 3))
        self.register_buffer("count", torch.tensor(3))

    def forward(self, student):
        return (self.layer(student) - self.mean).square().mean()


def test_layers_of_losses_are_not_converted_to_less_than_what_losses_compute_in():
    loss = Layered()
    objective = Objective({"it": Term(loss, {"student": "student.logits"})})
    before = {name: x.clone() for name, x in loss.state_dict().items()}
    objective.to(torch.bfloat16)
    objective(signals(torch.bfloat16))[0].backward()
    objective.half()
    assert all(torch.equal(x, before[name]) for name, x in loss.state_dict().items())
    assert loss.layer.weight.grad.dtype == torch.float32
    assert {name: x.dtype for name, x in objective.double().terms["it"].loss.state_dict().items()} == {
        "layer.weight": torch.float64, "layer.bias": torch.float64, "mean": torch.float64, "count": torch.int64
    }  # fmt: skip
    assert objective.float().terms["it"].loss.mean.dtype == torch.float32
    assert {x.device.type for x in objective.to("meta").state_dict().values()} == {"meta"}
