"""A loss with a mask of its own gives the same on two ranks as in one process with all examples."""

import pytest
import torch
import torch.multiprocessing
from masked_losses import CASES, gradient, rank

pytestmark = pytest.mark.slow
BY_ELEMENT = (
    "BernoulliKL", "BinaryCrossEntropy", "TinyBERTAttention", "TinyBERTStates", "SquaredError", "WeightedCrossEntropy",
)  # fmt: skip


@pytest.mark.long
def test_padding_is_spread_over_ranks_without_a_trace(tmp_path):
    torch.multiprocessing.spawn(rank, (str(tmp_path),), nprocs=2)
    found = torch.load(tmp_path / "found.pt", weights_only=True)
    for name in CASES:
        expected = gradient(name, slice(0, 4))
        assert (expected != 0).all(), name
        near = 1e-6 if "rows" in name else 1e-10  # a term weighs rows in float32
        torch.testing.assert_close(found[name], expected, rtol=near, atol=0, msg=lambda m, name=name: f"{name}: {m}")
        halves = (gradient(name, slice(0, 2)) + gradient(name, slice(2, 4))) / 2
        by_element = name in BY_ELEMENT or "rows" in name
        assert torch.allclose(halves, expected) != by_element, name
