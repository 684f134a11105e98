import pytest
import torch
from torch import nn

from tutelage.errors import TutelageError
from tutelage.losses.simkd import SimKD

from . import oracles_feature as oracle

PAIRS = {
    "equal": ((4, 3, 6, 6), (4, 8, 6, 6)),
    "student larger": ((4, 3, 6, 6), (4, 8, 3, 3)),
    "student smaller": ((4, 3, 3, 3), (4, 8, 6, 6)),
    "vectors": ((4, 3), (4, 8)),
}
pairs = pytest.mark.parametrize(("student", "teacher"), PAIRS.values(), ids=PAIRS)


def test_the_projector_is_the_published_bottleneck() -> None:
    loss = SimKD(reduction=4)
    loss(torch.randn(2, 3, 4, 4), torch.randn(2, 8, 4, 4))
    kernels = [tuple(m.weight.shape) for m in loss.projector if isinstance(m, nn.Conv2d)]
    assert kernels == [(2, 3, 1, 1), (2, 2, 3, 3), (8, 2, 1, 1)]
    assert [type(m).__name__ for m in loss.projector] == ["Conv2d", "BatchNorm2d", "ReLU"] * 3


def test_equal_features_cost_nothing() -> None:
    x = torch.randn(4, 3, 5, 5)
    loss = SimKD()
    loss(x, x)
    loss.projector = nn.Identity()
    assert loss(x, x).item() == 0
    torch.testing.assert_close(loss(x, x + 2), torch.tensor(4.0))


@pairs
def test_the_exported_head_is_projector_mean_and_classifier(student: tuple, teacher: tuple) -> None:
    torch.manual_seed(0)
    x, t = torch.randn(student, dtype=torch.float64), torch.randn(teacher, dtype=torch.float64)
    weight, bias = torch.randn(5, 8, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    loss = SimKD()
    loss(x, t)
    head = loss.export_head(weight, bias)
    state = {k: v.double().numpy() for k, v in loss.state_dict().items()}
    feature = oracle.simkd_projected(state, oracle.match(x.numpy(), t.numpy())[0])
    pooled = feature.mean((2, 3)) if feature.ndim == 4 else feature
    expected = torch.from_numpy(pooled @ weight.numpy().T + bias.numpy())
    torch.testing.assert_close(head(x), expected)


@pairs
def test_a_student_that_learned_the_feature_gives_the_teacher_s_logits(student: tuple, teacher: tuple) -> None:
    """Where the projected feature is the teacher's, so are the logits: the sizes do not matter to the mean."""
    t = torch.randn(teacher).relu()
    x = t if len(teacher) == 2 else oracle_sized(t, student)
    weight, bias = torch.randn(5, 8), torch.randn(5)
    loss = SimKD()
    loss(x, t)
    loss.projector = nn.Identity()
    logits = (t.mean((2, 3)) if t.ndim == 4 else t) @ weight.T + bias
    torch.testing.assert_close(loss(x, t), torch.tensor(0.0), rtol=0, atol=1e-12)
    torch.testing.assert_close(loss.export_head(weight, bias)(x), logits)


def oracle_sized(teacher: torch.Tensor, student: tuple) -> torch.Tensor:
    """The teacher's map at the student's size: repeated where that is larger, averaged where it is smaller."""
    if student[2] <= teacher.shape[2]:
        return nn.functional.adaptive_avg_pool2d(teacher, student[2:])
    return nn.functional.interpolate(teacher, student[2:])


def test_the_head_is_a_copy_with_a_fixed_classifier() -> None:
    x, t = torch.randn(4, 3, 4, 4), torch.randn(4, 8, 4, 4)
    loss = SimKD()
    loss(x, t)
    weight = torch.randn(5, 8)
    head = loss.export_head(weight).eval()
    assert loss.projector.training
    before = {k: v.clone() for k, v in head.state_dict().items()}
    loss(2 * x, t)  # moves the running statistics of the loss's own batch normalisation
    with torch.no_grad():
        weight.zero_()
        for p in loss.parameters():
            p.zero_()
    assert all(torch.equal(v, before[k]) for k, v in head.state_dict().items())
    assert head.classifier.bias is None
    assert not head.classifier.weight.requires_grad
    assert head(torch.randn(2, 3, 7, 7)).shape == (2, 5)
    assert head(torch.randn(2, 3, 2, 2)).shape == (2, 5)


def test_a_head_of_nothing_or_of_another_width_is_refused() -> None:
    loss = SimKD()
    with pytest.raises(TutelageError, match="no projector to export before the first call"):
        loss.export_head(torch.randn(5, 8))
    loss(torch.randn(2, 3), torch.randn(2, 8))
    with pytest.raises(TutelageError, match=r"classifier_weight of shape \[K, 8\]; found \[5, 7\]"):
        loss.export_head(torch.randn(5, 7))


def test_a_reduction_of_nothing_is_refused() -> None:
    with pytest.raises(TutelageError, match="SimKD's reduction must be at least 1; found 0"):
        SimKD(reduction=0)
