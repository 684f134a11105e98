"""Networks and losses that change in place what others read, and networks that draw at random."""

import logging

import pytest
import torch
from torch import nn

from tutelage.config import factory
from tutelage.errors import TutelageError
from tutelage.training.protocol_checks import check_unchanged, copied, warn_of_answers

JOB = ("logger=none", "model@teacher=mlp", "model@student=mlp", "student.net.widths=[8]", "teacher.net.widths=[8]")


class Overwrites(nn.Module):
    def forward(self, student, teacher):
        teacher.sub_(teacher.mean())
        return (student - teacher).square().mean()


def module(compose):
    stage = factory.stage_config(compose(*JOB), "student")
    data = factory.data(stage)
    return factory.distillation_module(stage, data, factory.sources(stage), None), data


def test_a_network_that_changes_its_input_is_refused(compose):
    made, data = module(compose)
    made.student.net.net.register_forward_pre_hook(lambda _, given: (given[0].zero_(),))
    with pytest.raises(TutelageError, match=r"a network changes batch\.input in place, .* such as x\.clone\(\)"):
        made.dry_run(data)


def test_a_loss_that_changes_the_teachers_logits_is_refused(compose):
    made, data = module(compose)
    made.objective.terms["soft"].loss = Overwrites()
    with pytest.raises(TutelageError, match=r"a loss changes teacher\.logits in place"):
        made.dry_run(data)


def test_what_stays_as_it_is_passes(compose):
    made, data = module(compose)
    made.dry_run(data)
    signals = {"batch": {"a": torch.tensor([1.0, float("nan")]), "b": torch.arange(3)}}
    before = copied(signals)
    check_unchanged(before, signals, "nobody")
    for name, row in (("b", 0), ("a", 1)):
        changed = copied(signals)
        changed["batch"][name][row] = 7
        with pytest.raises(TutelageError, match=rf"one changes batch\.{name}"):
            check_unchanged(before, changed, "one")


def test_a_student_that_is_random_in_eval_mode_is_named(compose, caplog):
    made, data = module(compose)
    with caplog.at_level(logging.WARNING):
        made.dry_run(data)
        assert not caplog.text
        made.student.net.net.register_forward_hook(lambda _, given, answer: answer + torch.randn_like(answer))
        made.dry_run(data)
    assert "the student's answers in eval mode are random: the same examples twice differ by" in caplog.text


def test_a_student_whose_answers_depend_on_the_batch_is_named_once(compose, caplog):
    made, data = module(compose)
    hook = made.student.net.net.register_forward_hook(lambda _, given, answer: answer - answer.mean(0))
    with caplog.at_level(logging.WARNING):
        made.dry_run(data)
    assert "depends on the others of its batch: 4 of 8 examples alone differ by" in caplog.text
    assert "random" not in caplog.text
    hook.remove()
    made.student.net.net.register_forward_hook(lambda _, given, answer: answer + torch.randn_like(answer).mean(0))
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        made.dry_run(data)
    assert "random" in caplog.text
    assert "depends" not in caplog.text


def test_a_batch_of_one_and_shared_fields_are_no_reason_for_a_warning(caplog):
    def answer(batch):
        assert len(batch["graph.edges"]) == 4
        return {"logits": batch["input"] @ torch.ones(3, 2)}

    for rows in (1, 4):
        batch = {"input": torch.rand(rows, 3), "graph.edges": torch.zeros(4, 2)}
        with caplog.at_level(logging.WARNING):
            warn_of_answers(answer, batch, answer(batch)["logits"])
    assert not caplog.text
