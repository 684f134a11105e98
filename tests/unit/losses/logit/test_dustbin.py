import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tutelage.errors import TutelageError
from tutelage.losses.logit.dustbin import Dustbin

G = torch.Generator().manual_seed(0)
LOGITS = 3 * torch.randn(8, 6, generator=G, dtype=torch.float64)
LABEL = torch.tensor([0, 1, 2, 3, 4, 5, 4, 1])
CLASSES = [4, 1]


def by_hand(logits: np.ndarray, label: np.ndarray, classes: list[int], share: float, smoothing: float = 0.0) -> float:
    """Sums of probabilities in float64, no logsumexp; the dustbin's weight divided by (1 − r) / r."""
    losses = []
    for z, y in zip(np.exp(logits), label, strict=True):
        others = sum(z[c] for c in range(len(z)) if c not in classes)
        weight = np.array([*(z[c] for c in classes), others * share / (1 - share)])
        target = np.full(len(weight), smoothing / len(weight))
        target[classes.index(y) if y in classes else -1] += 1 - smoothing
        losses.append(-(target * np.log(weight / weight.sum())).sum())
    return float(np.mean(losses))


@pytest.mark.parametrize("share", [0.5, 0.2, 0.9])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_value_is_the_formulas(share: float, smoothing: float, dtype: torch.dtype) -> None:
    logits = LOGITS.to(dtype)
    expected = by_hand(logits.double().numpy(), LABEL.numpy(), CLASSES, share, smoothing)
    found = Dustbin(CLASSES, share, smoothing)(logits, LABEL)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_gradients_are_the_finite_differences() -> None:
    loss, free = Dustbin(CLASSES, 0.3, 0.1).double(), LOGITS.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: loss(z, LABEL), [free])


def test_where_half_are_its_classes_it_is_the_networks_own_distribution_summed() -> None:
    p = LOGITS.softmax(1)
    grouped = torch.cat([p[:, CLASSES], p[:, [0, 2, 3, 5]].sum(1, keepdim=True)], 1)
    place = torch.tensor([2, 1, 2, 2, 0, 2, 0, 1])
    assert Dustbin(CLASSES)(LOGITS, LABEL).item() == pytest.approx(F.nll_loss(grouped.log(), place).item(), rel=1e-6)


def test_the_best_on_biased_data_is_the_truth_on_unbiased_data() -> None:
    """Bayes: 9 in 100 are of class 0 and 1 of class 1 by nature; in the data 45, 5 and 50 others."""
    label = torch.tensor([0] * 45 + [1] * 5 + [2] * 50)
    logits = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    loss = Dustbin([0, 1], share=0.1)
    optimizer = torch.optim.LBFGS([logits], max_iter=200, line_search_fn="strong_wolfe", tolerance_grad=1e-12)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss(logits.expand(100, 3), label)
        value.backward()
        return value

    optimizer.step(closure)
    torch.testing.assert_close(
        logits.detach().softmax(0), torch.tensor([0.09, 0.01, 0.9]).double(), rtol=1e-4, atol=1e-6
    )


def test_only_the_dustbin_hears_of_masked_others() -> None:
    masked = LOGITS.clone()
    masked[:, [0, 2]] = -math.inf
    free = masked.requires_grad_()
    loss = Dustbin(CLASSES)(free, LABEL)
    loss.backward()
    assert loss.isfinite()
    assert free.grad is not None
    assert free.grad.isfinite().all()
    expected = by_hand(masked.detach()[:, [1, 3, 4, 5]].numpy(), np.array([1, 0, 1, 1, 2, 3, 2, 0]), [2, 0], 0.5)
    assert loss.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("classes", [[], [1, 1], [-1], [0, 6], [0, 1, 2, 3, 4, 5]])
def test_what_leaves_no_dustbin_or_names_no_class_is_refused(classes: list[int]) -> None:
    with pytest.raises(TutelageError, match=r"Dustbin\.classes: expected .*found"):
        Dustbin(classes)(LOGITS, LABEL)


def test_bad_shares_and_shapes_are_refused() -> None:
    for share in (0.0, 1.0, math.nan):
        with pytest.raises(TutelageError, match=r"Dustbin\.share"):
            Dustbin([0], share)
    with pytest.raises(TutelageError, match=r"Dustbin\.label_smoothing"):
        Dustbin([0], label_smoothing=2.0)
    with pytest.raises(TutelageError, match=r"Dustbin: expected integers \[8\]"):
        Dustbin([0])(LOGITS, LABEL[:4])
