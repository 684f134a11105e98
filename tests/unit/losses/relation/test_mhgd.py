"""Multi-head graphs against NumPy's SVD and loops over heads, rows and columns."""

import copy

import numpy as np
import pytest
import torch

from tutelage.errors import TutelageError
from tutelage.losses.relation.mhgd import MHGD, principal


def signals(seed=0, batch=5, widths=(4, 6, 5), side=3):
    chance = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, width, side, side, generator=chance, dtype=torch.float64) for width in widths]


def built(given=None, **phase):
    torch.manual_seed(1)
    loss = MHGD(heads=2, **phase).double()
    with torch.no_grad():
        loss(given or signals(1), given or signals(2))
        for layer in (*loss.keys, *loss.queries):
            torch.nn.init.normal_(layer[0].weight)
        for name, buffer in loss.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.copy_(torch.rand_like(buffer) + 0.5)
    loss.set_extra_state({"prepared": True})
    return loss


def svd(feature):
    return [np.linalg.svd(one.reshape(one.shape[0], -1).T)[2] for one in feature.detach().numpy()]


def oracle_vectors(student, teacher):
    theirs, own = [], []
    for s, t in zip(svd(student), svd(teacher), strict=True):
        first = t[0] * np.sign(t[0][np.abs(t[0]).argmax()])
        cosines = s[:4] @ first
        best = np.abs(cosines).argmax()
        theirs.append(first)
        own.append(s[best] * np.sign(cosines[best]))
    return np.array(own), np.array(theirs)


def projected(layer, x):
    linear, norm = layer
    y = x @ linear.weight.detach().numpy().T
    mean, var = norm.running_mean.numpy(), norm.running_var.numpy()
    return (y - mean) / np.sqrt(var + norm.eps) * norm.weight.detach().numpy() + norm.bias.detach().numpy()


def softmax(x):
    return np.exp(x) / np.exp(x).sum()


def oracle(loss, student, teacher):
    vectors = [oracle_vectors(s, t) for s, t in zip(student, teacher, strict=True)]
    total = 0.0
    for number in range(len(vectors) - 1):
        graphs = []
        for role in (0, 1):
            key = projected(loss.keys[number], vectors[number + 1][role])
            query = projected(loss.queries[number], vectors[number][role])
            size = key.shape[1] // loss.heads
            graphs.append(
                [
                    np.tanh(key[:, h * size : (h + 1) * size] @ query[:, h * size : (h + 1) * size].T)
                    for h in range(loss.heads)
                ]
            )
        for own, theirs in zip(*graphs, strict=True):
            for p, q in zip(map(softmax, own), map(softmax, theirs), strict=True):
                total += float((p * np.log(p / q)).sum())
    return total


def test_equals_the_oracle():
    loss = built()
    assert loss(signals(1), signals(2)).item() == pytest.approx(oracle(loss, signals(1), signals(2)), rel=1e-6)
    single = copy.deepcopy(loss).float()
    student, teacher = ([x.float() for x in signals(seed)] for seed in (1, 2))
    assert single(student, teacher).item() == pytest.approx(oracle(loss, signals(1), signals(2)), rel=1e-3)


def test_tokens_are_maps_with_positions_first():
    loss = built()
    tokens = [[x.flatten(2).mT for x in signals(seed)] for seed in (1, 2)]
    assert loss(*tokens).item() == pytest.approx(loss(signals(1), signals(2)).item())


def test_gradient():
    shape = {"batch": 3, "widths": (2, 3), "side": 2}
    loss, teacher = built(signals(1, **shape)), signals(2, **shape)
    student = [x.requires_grad_() for x in signals(1, **shape)]
    assert torch.autograd.gradcheck(lambda *maps: loss(list(maps), teacher), student, fast_mode=True)


def test_half_precision():
    loss = built().float()
    for dtype in (torch.bfloat16, torch.float16):
        student, teacher = ([x.to(dtype) for x in signals(seed)] for seed in (1, 2))
        found = loss(student, teacher)
        assert found.dtype == torch.float32
        assert found.item() == pytest.approx(
            oracle(loss.double(), *[[x.double() for x in y] for y in (student, teacher)]), rel=1e-3
        )
        loss.float()


def test_equal_maps_are_the_minimum_at_any_scale_and_sign():
    loss, teacher = built(), signals(2)
    assert loss(teacher, teacher).item() == pytest.approx(0, abs=1e-12)
    assert loss([-3 * x for x in teacher], teacher).item() == pytest.approx(0, abs=1e-9)
    assert loss(signals(1), teacher).item() > 1e-3


def test_dead_and_equal_maps_give_a_finite_gradient():
    loss, teacher = built(), signals(2)
    student = signals(1)
    for stage in student:
        stage[0] = 0
        stage[1] = 1
        stage[2] = stage[3]
        stage.requires_grad_()
    loss(student, teacher).backward()
    assert all(bool(stage.grad.isfinite().all()) for stage in student)
    assert all(bool(stage.grad[4].any()) for stage in student)


def test_a_vector_is_of_length_one_and_the_first():
    feature = signals(3)[0]
    found = principal(feature)
    for own, vectors in zip(found, svd(feature), strict=True):
        assert abs(float(own @ torch.from_numpy(vectors[0].copy()))) == pytest.approx(1)


def prepare(loss, seen=None):
    loss.set_extra_state({"prepared": False})
    loss.prepare(lambda epoch: [seen.append(epoch) if seen is not None else None, {"teacher": signals(2)}][1:])


def test_the_attention_learns_first_and_then_stays():
    loss = built(epochs=15, lr=0.02)
    vectors = [principal(x) for x in signals(2)]
    first, seen = loss.reconstruction(vectors).item(), []
    prepare(loss, seen)
    assert seen == list(range(15))
    assert loss.reconstruction(vectors).item() < 0.8 * first
    loss.train()
    state = copy.deepcopy(loss.state_dict())
    student = [x.requires_grad_() for x in signals(1)]
    loss(student, signals(2)).backward()
    assert not any(parameter.requires_grad for parameter in loss.parameters())
    assert all(torch.equal(value, state[name]) for name, value in loss.state_dict().items() if name != "_extra_state")


def test_the_phase_is_the_same_whatever_was_drawn_before_and_is_not_repeated():
    loss, other = built(epochs=2), built(epochs=2)
    prepare(loss)
    torch.rand(3)
    prepare(other)
    assert loss(signals(1), signals(2)).item() == other(signals(1), signals(2)).item()
    resumed = built(epochs=2)
    resumed.load_state_dict(loss.state_dict())
    resumed.prepare(lambda epoch: pytest.fail("it has learned already"))
    assert resumed(signals(1), signals(2)).item() == loss(signals(1), signals(2)).item()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: MHGD(heads=0), "MHGD needs heads ≥ 1"),
        (lambda: MHGD(lr=0.0), "MHGD needs heads ≥ 1, epochs ≥ 1 and lr > 0"),
        (lambda: MHGD()(signals(1)[:1], signals(2)[:1]), "MHGD takes two or more stages of equal widths"),
        (lambda: MHGD()(signals(1), signals(2, widths=(4, 6, 7))), r"found student \[4, 6, 5\], teacher \[4, 6, 7\]"),
        (lambda: MHGD().prepare(lambda epoch: []), "has no shape before the first call"),
        (lambda: MHGD().double()(signals(1), signals(2)), "MHGD's attention is not trained"),
        (lambda: prepare(built(epochs=3, lr=1e300)), "attention ended at a loss of"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(make, said):
    with pytest.raises(TutelageError, match=said):
        make()
