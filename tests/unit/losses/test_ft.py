import pytest
import torch

from tutelage.errors import TutelageError
from tutelage.losses.ft import FT

from . import oracles_feature as oracle


def built(rate: float = 0.5) -> tuple[FT, torch.Tensor, torch.Tensor]:
    student, teacher = torch.randn(3, 4, 5, 5), torch.randn(3, 6, 5, 5)
    loss = FT(rate)
    with torch.no_grad():
        loss(student, teacher)
    return loss, student, teacher


def test_the_reconstruction_is_the_oracle_s() -> None:
    loss, _, teacher = built()
    state = {k: v.double().numpy() for k, v in loss.state_dict().items() if k != "_extra_state"}
    expected = oracle.ft_reconstruction(state, teacher.double().numpy())
    assert loss.pretrain_loss(teacher).item() == pytest.approx(expected, rel=1e-5)
    half = loss.pretrain_loss(teacher.bfloat16())
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(oracle.ft_reconstruction(state, teacher.bfloat16().double().numpy()), rel=1e-5)


def test_the_first_phase_trains_the_paraphraser_alone_and_the_second_all_but_it() -> None:
    loss, student, teacher = built()
    loss.pretrain_loss(teacher).backward()
    trained = {name.split(".")[0] for name, p in loss.named_parameters() if p.grad is not None}
    assert trained == {"encoder", "decoder"}
    loss.zero_grad()
    loss.freeze()
    loss(student, teacher).backward()
    trained = {name.split(".")[0] for name, p in loss.named_parameters() if p.grad is not None}
    assert trained == {"translator"}


def test_the_paraphraser_learns_to_reconstruct() -> None:
    torch.manual_seed(0)
    loss, _, teacher = built(rate=1.0)
    first = loss.pretrain_loss(teacher).item()
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        loss.pretrain_loss(teacher).backward()
        optimizer.step()
    assert loss.pretrain_loss(teacher).item() < 0.7 * first


def test_equal_factors_cost_nothing_whatever_their_scale() -> None:
    x = torch.randn(3, 6, 5, 5)
    loss = FT()
    with torch.no_grad():
        loss(x, x)
    loss.freeze()
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


def test_the_phase_is_part_of_the_state() -> None:
    loss, student, teacher = built()
    resumed, _, _ = built()
    loss.freeze()
    resumed.load_state_dict(loss.state_dict())
    assert resumed.frozen
    assert not any(p.requires_grad for p in resumed.encoder.parameters())
    assert torch.equal(resumed(student, teacher), loss(student, teacher))
    early, _, _ = built()
    resumed.load_state_dict(early.state_dict())
    assert not resumed.frozen
    assert all(p.requires_grad for p in resumed.parameters())


def test_a_phase_out_of_turn_is_refused() -> None:
    loss, student, teacher = built()
    with pytest.raises(TutelageError, match="must be trained by pretrain_loss and then frozen"):
        loss(student, teacher)
    loss.freeze()
    with pytest.raises(TutelageError, match="paraphraser is frozen"):
        loss.pretrain_loss(teacher)
    with pytest.raises(TutelageError, match="has no shape before the first call"):
        FT().pretrain_loss(teacher)
    with pytest.raises(TutelageError, match="no paraphraser to freeze before the first call"):
        FT().freeze()


@pytest.mark.parametrize("rate", [0.0, -0.5, 1.5, float("nan")])
def test_a_rate_outside_its_range_is_refused(rate: float) -> None:
    with pytest.raises(TutelageError, match=f"FT's rate .* found {rate}"):
        FT(rate)
