"""A term that nothing learns from is refused before anything is trained."""

import pytest
import torch
from command import TINY
from torch import nn
from torch.utils.checkpoint import checkpoint

from tutelage.config import factory
from tutelage.errors import TutelageError
from tutelage.training.gradient_checks import leaves, reaches

MINE = (
    "+loss.terms.mine={{_target_: tutelage.objective.Term, loss: {{_target_: {loss}}}, "
    "inputs: {inputs}, targets: {targets}, weight: 0.5}}"
)
ENDS = "by detach(), argmax, .item(), NumPy or torch.no_grad()"


def mine(loss, inputs="{student: student.logits}", targets="{teacher: teacher.logits}"):
    return MINE.format(loss=loss, inputs=inputs, targets=targets)


@pytest.fixture
def dry_run(compose):
    def go(*overrides, hook=None):
        stage = factory.stage_config(compose(*TINY, *overrides), "student")
        module = factory.distillation_module(stage, factory.data(stage), factory.sources(stage), None)
        if hook is not None:
            module.student.net.net.register_forward_hook(hook)
        module.dry_run(factory.data(stage))

    return go


@pytest.mark.parametrize(
    ("term", "said"),
    [
        (mine("odd_losses.Detached"), f"of Detached has no gradient: it loses that of student.logits, {ENDS}"),
        (mine("odd_losses.Disagreement"), "of Disagreement has no gradient: it loses that of student.logits"),
        (mine("odd_losses.ByNumPy"), "of ByNumPy has no gradient: it loses that of student.logits"),
        (
            mine("torch.nn.MSELoss", "{input: teacher.logits}", "{target: student.logits}"),
            "of MSELoss has no gradient: student.logits belongs to its inputs, as targets are detached",
        ),
    ],
)
def test_a_term_without_a_gradient_is_named(dry_run, term, said):
    with pytest.raises(TutelageError, match="term 'mine': nothing would learn from it") as error:
        dry_run(term)
    assert said in str(error.value)


@pytest.mark.parametrize("loss", ["AdapterOnly", "Late"])
def test_a_term_that_trains_an_adapter_or_begins_later_is_taken(dry_run, loss):
    dry_run(mine(f"odd_losses.{loss}"))


def test_a_term_whose_weight_begins_at_0_is_taken(dry_run):
    warm_up = "{_target_: tutelage.losses.schedules.warmup, _partial_: true, length: 3}"
    dry_run(f"+loss.terms.soft.schedule={warm_up}")


@pytest.mark.parametrize("loss", ["AdapterOnly", "Late"])
def test_an_objective_that_never_reaches_the_student_is_refused(dry_run, loss):
    with pytest.raises(TutelageError, match="the student would learn nothing: no gradient of 'mine' reaches"):
        dry_run("~loss.terms.soft", "~loss.terms.hard", mine(f"odd_losses.{loss}"))


def test_a_network_that_detaches_its_logits_is_refused(dry_run):
    with pytest.raises(TutelageError, match=r"term '\w+': .*its inputs \(student.logits.*\) have none"):
        dry_run(hook=lambda net, images, logits: logits.detach())


def test_nothing_is_trained_before(main, tmp_path):
    answer = main("distill", *TINY, mine("odd_losses.Detached"), "hydra.run.dir=run")
    assert answer.code == 1
    assert "term 'mine': nothing would learn from it" in answer.message
    assert not list(tmp_path.rglob("*.safetensors"))


def test_what_a_graph_does_not_show_counts_as_reached():
    """A reentrant checkpoint has a backward of its own, which finds the parameters."""
    net, other = nn.Linear(2, 1), nn.Linear(2, 1)
    x = torch.ones(1, 2, requires_grad=True)
    assert reaches([net(x).sum()], net.parameters())
    assert reaches([other.weight.detach().sum(), net(x).sum()], net.parameters())
    assert not reaches([net(x).sum()], other.parameters())
    assert not reaches([torch.zeros(())], net.parameters())
    assert reaches([net.weight], net.parameters())
    assert reaches([checkpoint(net, x, use_reentrant=True).sum()], net.parameters())


def test_leaves_are_what_a_backward_pass_gives_a_gradient():
    """Each once, however often it is used; constants and what learns elsewhere are none."""
    net, other = nn.Linear(2, 1), nn.Linear(2, 1)
    hidden = net(torch.ones(3, 2)) * torch.full((3, 1), 2.0)
    loss = (hidden + hidden * other.weight.detach().sum()).sum()
    found = leaves(loss)
    loss.backward()
    assert len(found) == 2
    assert {id(one) for one in found} == {id(one) for one in net.parameters() if one.grad is not None}
    assert leaves(torch.zeros(())) == []
