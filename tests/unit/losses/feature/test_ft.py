import pytest
import torch
from tests.unit.losses import oracles_feature as oracle

from tutelage.errors import TutelageError
from tutelage.losses.feature.ft import FT


def built(rate: float = 0.5, **phase: float) -> tuple[FT, torch.Tensor, torch.Tensor]:
    student, teacher = torch.randn(3, 4, 5, 5), torch.randn(3, 6, 5, 5)
    loss = FT(rate, **phase)
    with torch.no_grad():
        loss(student, teacher)
    return loss, student, teacher


def test_the_reconstruction_is_the_oracle_s() -> None:
    loss, _, teacher = built()
    state = {k: v.double().numpy() for k, v in loss.state_dict().items() if k != "_extra_state"}
    expected = oracle.ft_reconstruction(state, teacher.double().numpy())
    assert loss.reconstruction(teacher).item() == pytest.approx(expected, rel=1e-5)
    half = loss.reconstruction(teacher.bfloat16())
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(oracle.ft_reconstruction(state, teacher.bfloat16().double().numpy()), rel=1e-5)


def test_the_phases_move_what_is_theirs_alone() -> None:
    loss, student, teacher = built(epochs=2, lr=0.1)
    before = {name: p.clone() for name, p in loss.named_parameters()}
    seen = []
    loss.prepare(lambda epoch: [seen.append(epoch) or {"teacher": teacher}] * 3)
    moved = {name.split(".")[0] for name, p in loss.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"encoder", "decoder"}
    assert seen == [0, 1]
    loss(student, teacher).backward()
    assert {name.split(".")[0] for name, p in loss.named_parameters() if p.grad is not None and p.requires_grad} == {
        "translator"
    }
    assert {name.split(".")[0] for name, p in loss.named_parameters() if p.requires_grad} == {"translator"}


def test_the_paraphraser_learns_to_reconstruct() -> None:
    torch.manual_seed(0)
    loss, _, teacher = built(rate=1.0, epochs=40, lr=0.3)
    first = loss.reconstruction(teacher).item()
    loss.prepare(lambda epoch: [{"teacher": teacher}])
    assert loss.reconstruction(teacher).item() < 0.95 * first


def test_equal_factors_cost_nothing_whatever_their_scale() -> None:
    x = torch.randn(3, 6, 5, 5)
    loss = FT()
    with torch.no_grad():
        loss(x, x)
    loss.set_extra_state({"prepared": True})
    loss.translator.load_state_dict(loss.encoder.state_dict())
    assert loss(x, x).item() == 0
    with torch.no_grad():  # LeakyReLU is homogeneous: the last layer scales the factor
        for p in loss.translator[4].parameters():
            p.mul_(7)
    torch.testing.assert_close(loss(x, x), torch.tensor(0.0), rtol=0, atol=1e-7)


def test_the_rate_sets_the_factor_s_width() -> None:
    for rate, width in ((0.5, 3), (1.0, 6), (0.01, 1)):
        loss, student, teacher = built(rate)
        assert loss.encoder(teacher).shape == loss.translator(student).shape == (3, width, 5, 5)


def test_a_resumed_run_does_not_learn_it_again() -> None:
    loss, student, teacher = built(epochs=1)
    loss.prepare(lambda epoch: [{"teacher": teacher}])
    resumed, _, _ = built(epochs=1)
    resumed.load_state_dict(loss.state_dict())
    resumed.prepare(lambda epoch: pytest.fail("it has learned already"))
    assert torch.equal(resumed(student, teacher), loss(student, teacher))


def test_a_phase_out_of_turn_is_refused() -> None:
    loss, student, teacher = built()
    with pytest.raises(TutelageError, match="paraphraser is not trained"):
        loss(student, teacher)
    with pytest.raises(TutelageError, match="has no shape before the first call"):
        FT().prepare(lambda epoch: [{"teacher": teacher}])


def test_a_paraphraser_that_diverges_is_told() -> None:
    loss, _, teacher = built(epochs=200, lr=1e4)
    with pytest.raises(TutelageError, match=r"ended at a loss of (nan|inf); its lr is 10000"):
        loss.prepare(lambda epoch: [{"teacher": teacher}])


@pytest.mark.parametrize("arguments", [{"epochs": 0}, {"lr": 0.0}, {"lr": float("nan")}])
def test_a_phase_of_nothing_is_refused(arguments: dict) -> None:
    with pytest.raises(TutelageError, match="at least one epoch and lr > 0"):
        FT(**arguments)


@pytest.mark.parametrize("rate", [0.0, -0.5, 1.5, float("nan")])
def test_a_rate_outside_its_range_is_refused(rate: float) -> None:
    with pytest.raises(TutelageError, match=f"FT's rate .* found {rate}"):
        FT(rate)
