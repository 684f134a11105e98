import numpy as np
import pytest
import torch
from tests.unit.losses import reference
from tests.unit.losses.properties import check_gradients, check_half_precision, check_padding, value
from torch import Tensor

from tutelage.errors import TutelageError
from tutelage.losses.language.uld import ULD


def signals(**others: Tensor) -> dict[str, Tensor]:
    student, teacher = reference.logits()
    masks = {"student_mask": reference.ANSWER, "teacher_mask": reference.ANSWER}
    return {"student": student, "teacher": teacher, **masks} | others


def other_tokenizer() -> dict[str, Tensor]:
    """A teacher with 9 tokens in its vocabulary, 6 places, and answers of 3 and 2 tokens elsewhere."""
    logits = 2 * torch.randn(2, 6, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mask = torch.tensor([[0, 0, 1, 1, 1, 0], [1, 0, 0, 0, 1, 0]], dtype=torch.bool)
    return signals(teacher=logits, teacher_mask=mask)


def oracle(student: Tensor, teacher: Tensor, student_mask: Tensor, teacher_mask: Tensor) -> float:
    found = []
    for b in range(len(student)):
        pairs = zip(student[b][student_mask[b]].numpy(), teacher[b][teacher_mask[b]].numpy(), strict=False)
        tokens = []
        for s, t in pairs:
            p, q = (sorted(np.exp(z) / np.exp(z).sum(), reverse=True) for z in (s, t))
            longest = max(len(p), len(q))
            p, q = (one + [0.0] * (longest - len(one)) for one in (p, q))
            tokens.append(sum(abs(x - y) for x, y in zip(p, q, strict=True)))
        found.append(np.mean(tokens) if tokens else 0.0)
    return float(np.mean(found))


def test_the_value_of_the_reference() -> None:
    assert value(ULD(), signals()) == pytest.approx(0.3155697813, abs=1e-9)


def test_the_value_is_the_formulas_whatever_the_tokenizers() -> None:
    for case in (signals(), other_tokenizer()):
        assert value(ULD(), case) == pytest.approx(oracle(**case), rel=1e-12)
    found = other_tokenizer()
    exchanged = {name: found[{"s": "teacher", "t": "student"}[name[0]] + name[7:]] for name in found}
    assert value(ULD(), exchanged) == pytest.approx(value(ULD(), found), rel=1e-12)


def test_gradients_are_the_finite_differences() -> None:
    check_gradients(ULD(), other_tokenizer(), ("student", "teacher"))


def test_the_order_of_the_vocabulary_and_agreement_mean_nothing() -> None:
    found = signals()
    moved = found | {"student": found["teacher"][..., [5, 2, 0, 1, 4, 3]] + 7}
    assert value(ULD(), moved) == pytest.approx(0, abs=1e-14)


def test_what_is_no_answer_changes_nothing() -> None:
    found = signals()
    masks = {"student": "student_mask", "teacher": "teacher_mask"}
    check_padding(ULD(), found, masks)
    padded = other_tokenizer()
    loss = value(ULD(), padded)
    spoilt = {n: padded[n].where(padded[f"{n}_mask"][..., None], torch.nan) for n in ("student", "teacher")}
    assert value(ULD(), padded | spoilt) == loss
    longer = {n: torch.cat([padded[n], padded[n]], 1) for n in ("student", "teacher")}
    longer |= {f"{n}_mask": torch.cat([padded[f"{n}_mask"], torch.zeros_like(padded[f"{n}_mask"])], 1) for n in longer}
    assert value(ULD(), longer) == pytest.approx(loss, rel=1e-12)


def test_the_rest_of_the_longer_answer_is_left_out() -> None:
    found = signals(student_mask=torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0]], dtype=torch.bool))
    assert value(ULD(), found) == pytest.approx(oracle(**found), rel=1e-12)
    teacher = found["teacher"].clone()
    teacher[0, 1:] = 5.0
    assert value(ULD(), found | {"teacher": teacher}) == value(ULD(), found)


def test_an_example_without_an_answer_adds_0() -> None:
    none = torch.zeros_like(reference.ANSWER)
    student = reference.logits()[0].requires_grad_()
    loss = ULD()(**signals(student=student, student_mask=none))
    assert loss == 0
    assert not torch.autograd.grad(loss, student)[0].any()


def test_half_precision() -> None:
    check_half_precision(ULD(), signals(), "student")


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(TutelageError, match=r"logits \[B, L, V\] with one B; found student \[2, 6\]"):
        ULD()(**signals(student=torch.ones(2, 6)))
    with pytest.raises(TutelageError, match=r"ULD, of the teacher: expected a mask of bools \[2, 4\]"):
        ULD()(**signals(teacher_mask=torch.ones(2, 3, dtype=torch.bool)))
