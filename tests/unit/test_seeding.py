import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tutelage.seeding import derive_seed, generator, reseed, seeded, uniform

PARTS = st.lists(st.one_of(st.integers(-(2**63), 2**63), st.text(max_size=5)), min_size=1, max_size=4)


@given(PARTS, PARTS)
def test_a_seed_is_a_function_of_its_parts_alone(one, other):
    assert 0 <= derive_seed(*one) < 2**63
    assert (derive_seed(*one) == derive_seed(*other)) == (one == other)


def test_order_and_type_count():
    assert (
        len(
            {
                derive_seed(1, 2),
                derive_seed(2, 1),
                derive_seed("1", 2),
                derive_seed(12),
                derive_seed("12"),
                derive_seed(1, 2, 0),
            }
        )
        == 6
    )


def test_seeds_stay_what_they_are():
    """A change here changes every run there ever was."""
    assert derive_seed(0, "order", 0) == 4819849257279361181
    assert torch.randperm(5, generator=generator(0, "order", 0)).tolist() == [0, 3, 1, 4, 2]
    found = uniform(derive_seed(1, "augment", 2), torch.tensor([0, 7]), 2) * 2**24
    assert found.tolist() == [[15631241, 15701965], [14149104, 1717398]]


def test_reseed_sets_the_default_generator():
    reseed(torch.device("cpu"), 3, "step", 4)
    first = torch.rand(3)
    torch.rand(100)
    reseed(torch.device("cpu"), 3, "step", 4)
    assert torch.equal(torch.rand(3), first)
    reseed(torch.device("cpu"), 3, "step", 5)
    assert not torch.equal(torch.rand(3), first)


@pytest.mark.parametrize(("device", "seeded_one"), [("cuda:1", 1), ("cuda:0", 0), ("cuda", 2)])
def test_reseed_seeds_one_gpu_and_no_other(monkeypatch, device, seeded_one):
    """Without an index it is the current one: rank 2's, not the first of the machine."""
    generators = [torch.Generator().manual_seed(0) for _ in range(3)]
    monkeypatch.setattr(torch.cuda, "default_generators", generators)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 2)
    reseed(torch.device(device), 3, "step", 4)
    seeds = [generator.initial_seed() for generator in generators]
    assert seeds == [derive_seed(3, "step", 4) if i == seeded_one else 0 for i in range(3)]


@pytest.mark.parametrize("kind", ["mps", "xpu"])
def test_reseed_seeds_other_accelerators(monkeypatch, kind):
    seeds = []
    monkeypatch.setattr(getattr(torch, kind), "manual_seed", seeds.append)
    reseed(torch.device(kind), 3, "step", 4)
    assert seeds == [derive_seed(3, "step", 4)]


def test_seeded_gives_the_state_back_also_after_an_error():
    torch.manual_seed(5)
    expected = torch.rand(4)[2:]
    torch.manual_seed(5)
    torch.rand(2)
    with seeded("init", 0):
        inside = torch.rand(2)
    with pytest.raises(KeyError), seeded("init", 1):
        raise KeyError
    assert torch.equal(torch.rand(2), expected)
    with seeded("init", 0):
        assert torch.equal(torch.rand(2), inside)


def test_uniform_is_a_function_of_seed_and_key_whatever_the_batch():
    keys = torch.tensor([5, 0, 2**40, 5])
    rows = uniform(11, keys, 3)
    assert torch.equal(rows[0], rows[3])
    assert torch.equal(uniform(11, keys[2:3], 3), rows[2:3])
    assert torch.equal(uniform(11, keys, 2), rows[:, :2])
    assert not torch.equal(uniform(12, keys, 3), rows)


def test_uniform_is_uniform_and_its_columns_are_independent():
    x = uniform(derive_seed("test"), torch.arange(40_000), 3)
    assert x.dtype == torch.float32
    assert float(x.min()) >= 0
    assert float(x.max()) < 1
    counts = torch.histc(x, bins=20, min=0, max=1)
    expected = x.numel() / 20
    assert float(((counts - expected) ** 2 / expected).sum()) < 50  # χ² with 19 degrees: P < 0.0002
    assert float((torch.corrcoef(x.T) - torch.eye(3)).abs().max()) < 0.02
    steps = torch.corrcoef(torch.stack([x[:-1, 0], x[1:, 0]]))[0, 1]  # neighbouring keys
    assert abs(float(steps)) < 0.02
