"""A source that reads another field of the batch through another source's network."""

import pytest
import torch
from torch import nn

from tutelage.errors import TutelageError
from tutelage.models.tapped import Tapped
from tutelage.sources.frozen import Frozen
from tutelage.sources.other_view import OtherView

BATCH = {"input": torch.randn(4, 2), "input2": torch.randn(4, 2)}


def pair() -> tuple[OtherView, Frozen]:
    view, teacher = OtherView("input2"), Frozen(Tapped(nn.Linear(2, 3)))
    view.attach({"logits"}, {"view": view, "teacher": teacher})
    return view, teacher


def test_it_is_the_source_on_the_other_field():
    view, teacher = pair()
    assert torch.equal(view(BATCH)["logits"], teacher({"input": BATCH["input2"]})["logits"])
    assert not torch.equal(view(BATCH)["logits"], teacher(BATCH)["logits"])


def test_it_holds_nothing_and_has_no_signals_of_validation():
    view, _ = pair()
    assert not list(view.parameters())
    assert not view.state_dict()
    assert view.supports_validation is False  # whose batches have no such field


def test_what_is_missing_is_named():
    view, teacher = pair()
    with pytest.raises(TutelageError, match="another view is of 'teacher', which is not there; known: student"):
        view.attach({"logits"}, {"view": view, "student": teacher})
    own = OtherView("input2", of="own")
    with pytest.raises(TutelageError, match="another view is of 'own', which is not there; known: teacher"):
        own.attach({"logits"}, {"own": own, "teacher": teacher})
    with pytest.raises(TutelageError, match="input2"):
        view({"input": BATCH["input"]})
