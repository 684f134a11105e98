"""A loss that learns, used without Tutelage's training loop: optimizer first, shapes later."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tutelage import losses
from tutelage.errors import TutelageError
from tutelage.losses.feature.ab import AB
from tutelage.losses.feature.fitnet import FitNet
from tutelage.losses.feature.ft import FT
from tutelage.losses.feature.mgd import MGD
from tutelage.losses.feature.ofd import OFD
from tutelage.losses.feature.reviewkd import ReviewKD
from tutelage.losses.feature.srrl import SRRL
from tutelage.losses.feature.vid import VID
from tutelage.losses.logit.ctkd import CTKD
from tutelage.losses.relation.cc import CC
from tutelage.losses.relation.crd import CRD

Signals = dict[str, Any]
BATCH = 4


def maps(channels: int, side: int = 4) -> Tensor:
    return torch.randn(BATCH, channels, side, side)


def pair() -> Signals:
    return {"student": maps(3), "teacher": maps(5)}


def stages() -> Signals:
    return {"student": [maps(3), maps(4, 2)], "teacher": [maps(5), maps(6, 2)]}


def overhaul() -> Signals:
    return stages() | {"bn_weight": [torch.ones(5), torch.ones(6)], "bn_bias": [torch.zeros(5), torch.zeros(6)]}


def regression() -> Signals:
    shapes = {"student": (BATCH, 3), "teacher": (BATCH, 5), "classifier_weight": (7, 5), "teacher_logits": (BATCH, 7)}
    return {name: torch.randn(shape) for name, shape in shapes.items()}


def vectors() -> Signals:
    return {"student": torch.randn(BATCH, 3), "teacher": torch.randn(BATCH, 5)}


def prepared() -> FT:
    loss = FT()
    loss.set_extra_state({"prepared": True})
    return loss


LOSSES: dict[str, tuple[Callable[[], nn.Module], Callable[[], Signals]]] = {
    "AB": (AB, stages),
    "CC": (CC, vectors),
    "CRD": (lambda: CRD(examples=9, dim=2, negatives=3), lambda: vectors() | {"key": torch.arange(BATCH)}),
    "CTKD": (CTKD, lambda: {"student": torch.randn(BATCH, 3), "teacher": torch.randn(BATCH, 3)}),
    "FitNet of maps": (FitNet, pair),
    "FitNet of vectors": (FitNet, vectors),
    "FitNet, rectified": (lambda: FitNet(rectify=True), pair),
    "FT": (prepared, pair),
    "MGD": (MGD, pair),
    "OFD": (OFD, overhaul),
    "ReviewKD": (ReviewKD, stages),
    "SRRL": (SRRL, regression),
    "VID": (VID, stages),
    "VID of its own stages": (lambda: VID(stages=2), stages),
}
every = pytest.mark.parametrize(("make", "draw"), LOSSES.values(), ids=LOSSES)


def learned(loss: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in loss.named_parameters() if p.requires_grad}


@every
def test_an_optimizer_made_before_the_first_call_trains_every_parameter(
    make: Callable[[], nn.Module], draw: Callable[[], Signals]
) -> None:
    torch.manual_seed(0)
    loss = make()
    optimizer = torch.optim.Adam(loss.parameters(), 0.1)  # as everybody writes it
    first = loss(**draw())
    before = {name: p.detach().clone() for name, p in learned(loss).items()}
    assert before
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert all(id(p) in held for p in learned(loss).values())
    first.backward()
    optimizer.step()
    loss(**draw()).backward()
    assert all(not torch.equal(p, before[name]) for name, p in learned(loss).items())


@every
def test_a_state_that_is_loaded_before_the_first_call_counts(
    make: Callable[[], nn.Module], draw: Callable[[], Signals]
) -> None:
    torch.manual_seed(0)
    trained, signals = make(), draw()
    trained(**signals)
    state = copy.deepcopy(trained.state_dict())
    torch.manual_seed(1)
    fresh = make()
    fresh.load_state_dict(state)
    assert fresh.state_dict().keys() == state.keys()  # nothing is lost if it is saved again at once
    with torch.no_grad():
        fresh.eval()(**signals)
    for name, value in state.items():
        found = fresh.state_dict()[name]
        assert torch.equal(found, value) if isinstance(value, Tensor) else found == value, name
    assert fresh.state_dict().keys() == state.keys()


def test_a_state_inside_another_module_finds_its_loss() -> None:
    torch.manual_seed(0)
    signals, trained = pair(), nn.ModuleDict({"hint": FitNet(), "net": nn.Linear(2, 2)})
    trained["hint"](**signals)
    fresh = nn.ModuleDict({"hint": FitNet(), "net": nn.Linear(2, 2)})
    fresh.load_state_dict(trained.state_dict())
    assert torch.equal(fresh["hint"](**signals), trained["hint"](**signals))


def test_a_state_of_other_shapes_is_refused_at_the_first_call() -> None:
    trained, fresh = FitNet(), FitNet()
    trained(**pair())
    fresh.load_state_dict(trained.state_dict())
    with pytest.raises(RuntimeError, match="size mismatch"):
        fresh(**vectors())


def test_an_unmet_loss_moves_and_is_saved() -> None:
    loss = FitNet().double().to("cpu")
    assert not loss.state_dict()
    assert not nn.ModuleList([loss]).state_dict()
    loss(maps(3), maps(5))
    assert loss.state_dict().keys() == {"regressor.weight", "regressor.bias"}


@pytest.mark.parametrize("make", [AB, VID, OFD, ReviewKD])
def test_more_stages_than_were_said_are_refused(make: Callable[..., nn.Module]) -> None:
    signals = overhaul() if make is OFD else stages()
    with pytest.raises(TutelageError, match=rf"expects at most 1 stages, found 2; use {make.__name__}\(stages=2\)"):
        make(stages=1)(**signals)
    with pytest.raises(TutelageError, match=r"stages: expected 1 or more, found 0"):
        make(stages=0)


def test_shapes_do_not_change_what_chance_gives() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    VID()
    FitNet(rectify=True)
    assert torch.equal(torch.rand(2), expected)


def tokens(width: int) -> list[Tensor]:
    return [torch.randn(BATCH, 4, width) for _ in range(3)]


def views() -> Signals:
    return {name: [maps(3), torch.randn(BATCH, 2)] for name in ("part", "whole")}


def staged() -> Signals:
    others = {"embedding": torch.randn(BATCH, 5), "teacher": torch.randn(BATCH, 7), "label": torch.arange(BATCH)}
    return {"student": [maps(2, 8), maps(3), maps(4, 2)], **others}


def middle() -> Signals:
    return {"student": torch.randn(BATCH, 4), "middle": maps(5), "label": torch.arange(BATCH)}


MORE: dict[str, tuple[Callable[[], nn.Module], Callable[[], Signals]]] = {
    "Adversarial": (lambda: losses.Adversarial(hidden=7), stages),
    "CWD": (losses.CWD, pair),
    "DiffKD of maps": (losses.DiffKD, lambda: {"student": maps(3), "teacher": maps(8)}),
    "DiffKD of vectors": (losses.DiffKD, lambda: {"student": torch.randn(BATCH, 3), "teacher": torch.randn(BATCH, 8)}),
    "InstanceContrast": (lambda: losses.InstanceContrast(dim=2), views),
    "ITRD": (losses.ITRD, vectors),
    "MHGD": (lambda: losses.MHGD(heads=2).eval(), lambda: {"student": tokens(3), "teacher": tokens(3)}),
    "NormDirection": (lambda: losses.NormDirection(4), lambda: vectors() | {"label": torch.arange(BATCH)}),
    "OFAStages": (lambda: losses.OFAStages(7), staged),
    "SemCKD": (lambda: losses.SemCKD(BATCH), stages),
    "SRD": (losses.SRD, vectors),
    "TinyBERTStates": (losses.TinyBERTStates, lambda: {"student": tokens(2), "teacher": tokens(5)}),
    "USKD": (lambda: losses.USKD(4), middle),
    "ViTKD": (losses.ViTKD, lambda: {"student": tokens(3), "teacher": tokens(5)}),
}
SIZES = {  # tensors, and numbers in all; SemCKD: four embeddings of 13, regressors of 1020, 1030, 1452 and 1464
    "AB": (6, 61), "Adversarial": (16, 269), "CC": (4, 1280), "CRD": (4, 20), "CTKD": (1, 1), "CWD": (2, 20),
    "DiffKD of maps": (53, 4263), "DiffKD of vectors": (35, 4598), "FitNet of maps": (2, 20),
    "FitNet of vectors": (2, 20), "FitNet, rectified": (3, 25), "FT": (18, 901), "InstanceContrast": (4, 42),
    "ITRD": (2, 20), "MGD": (6, 480), "MHGD": (22, 192), "NormDirection": (4, 26), "OFAStages": (32, 431),
    "OFD": (6, 61), "ReviewKD": (14, 480), "SemCKD": (44, 5018), "SRD": (2, 20), "SRRL": (3, 25),
    "TinyBERTStates": (2, 15), "USKD": (2, 24), "VID": (8, 172), "VID of its own stages": (8, 172), "ViTKD": (11, 525),
}  # fmt: skip


@pytest.mark.parametrize("name", LOSSES | MORE)
def test_what_a_loss_learns_has_the_size_of_its_layers(name: str) -> None:
    make, draw = (LOSSES | MORE)[name]
    loss = make()
    loss(**draw())
    parts = [p.numel() for p in loss.parameters()]
    assert (len(parts), sum(parts)) == SIZES[name]
