import copy
import io
import math
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.losses import oracles_relation as oracle
from torch import Tensor

from tutelage.errors import TutelageError
from tutelage.losses.relation.crd import CRD

LABELS = torch.tensor([2, 0, 1, 0, 2, 2, 1, 0, 0, 2])  # of the keys 0 … 9
KEY = torch.tensor([7, 2, 4])


def signals(size: int = 3, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(size, w, generator=generator, dtype=dtype) for w in (5, 7))


def made(negatives: int = 6, **options: float) -> CRD:
    """Ten examples with labels, layers shaped, nothing remembered yet."""
    torch.manual_seed(1)
    loss = CRD(examples=10, dim=4, negatives=negatives, **options).double().eval()
    loss.bind(torch.arange(10), LABELS)
    loss(*signals(), KEY)
    return loss


def views(loss: CRD, student: Tensor, teacher: Tensor) -> list[list[list[float]]]:
    """The two embeddings as the oracle sees them."""
    layers = loss.student_embedding.linear, loss.teacher_embedding.linear
    seen = [x @ layer.weight.T + layer.bias for x, layer in zip((student, teacher), layers, strict=True)]
    return [[oracle.unit(row) for row in x.tolist()] for x in seen]


def drawn(loss: CRD, key: Tensor, label: Tensor | None, seed: int = 0) -> list[list[int]]:
    torch.manual_seed(seed)
    return torch.cat([key[:, None], loss.draw(key, label)], 1).tolist()


def expected(loss: CRD, student: Tensor, teacher: Tensor, keys: list, z: tuple = (None, None)) -> float:
    s, t = views(loss, student, teacher)
    bank_s, bank_t = loss.bank.tolist()
    tau = loss.temperature.item()
    return oracle.crd_side(s, bank_t, keys, tau, z[1]) + oracle.crd_side(t, bank_s, keys, tau, z[0])


@settings(max_examples=20, deadline=None)
@given(
    size=st.integers(1, 6),
    negatives=st.integers(1, 20),
    temperature=st.floats(0.05, 2),
    labelled=st.booleans(),
    training=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_equals_the_oracle(size: int, negatives: int, temperature: float, labelled: bool, training: bool, seed: int):
    loss = made(negatives, temperature=temperature).train(training)
    student, teacher = signals(size, seed)
    key = torch.randperm(10, generator=torch.Generator().manual_seed(seed))[:size]
    label = LABELS[key] if labelled else None
    exact = expected(loss, student, teacher, drawn(loss, key, label, seed))
    torch.manual_seed(seed)
    assert loss(student, teacher, key, label).item() == pytest.approx(exact, rel=1e-6)


def test_z_is_that_of_the_first_training_batch():
    loss, (student, teacher) = made(), signals()
    loss(student, teacher, KEY)  # in eval mode: no trace
    assert not loss.started
    s, t = views(loss, student, teacher)
    bank_s, bank_t = loss.bank.tolist()
    keys = drawn(loss, KEY, None)
    torch.manual_seed(0)
    loss.train()(student, teacher, KEY)
    z = []
    for view, bank in ((t, bank_s), (s, bank_t)):
        scores = [
            math.exp(oracle.dot(v, bank[k]) / loss.temperature.item())
            for v, row in zip(view, keys, strict=True)
            for k in row
        ]
        z.append(10 * sum(scores) / len(scores))
    assert (10 * loss.log_mean.exp()).flatten().tolist() == pytest.approx(z, rel=1e-6)
    before = loss.log_mean.clone()
    student, teacher = signals(seed=5)
    for training in (True, False):
        exact = expected(loss.train(training), student, teacher, drawn(loss, KEY, None), tuple(z))
        torch.manual_seed(0)
        assert loss(student, teacher, KEY).item() == pytest.approx(exact, rel=1e-6)
    assert torch.equal(loss.log_mean, before)


def test_momentum_by_hand():
    loss = CRD(examples=3, dim=2, negatives=1, momentum=0.75)
    signal = torch.tensor([[3.0, 4.0]])
    loss.eval()(signal, signal, torch.tensor([1]))
    for layer in (loss.student_embedding.linear, loss.teacher_embedding.linear):
        layer.weight.data, layer.bias.data = torch.eye(2), torch.zeros(2)
    loss.bank[:, 1] = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    before = loss.bank.clone()
    loss.train()(signal, torch.tensor([[5.0, 0.0]]), torch.tensor([1]))
    # student: ¾(1, 0) + ¼(0.6, 0.8) = (0.9, 0.2); teacher: ¾(0, 1) + ¼(1, 0) = (0.25, 0.75); then to length 1
    rows = torch.tensor([[0.9, 0.2], [0.25, 0.75]])
    assert torch.allclose(loss.bank[:, 1], rows / rows.norm(dim=1, keepdim=True))
    assert torch.equal(loss.bank[:, [0, 2]], before[:, [0, 2]])


def test_eval_mode_writes_nothing():
    loss = made()
    before = copy.deepcopy(loss.state_dict())
    loss(*signals(seed=3), KEY, LABELS[KEY])
    assert all(torch.equal(value, before[name]) for name, value in loss.state_dict().items())


def test_the_gradient_is_that_of_the_banks_at_scoring():
    """In training mode the banks move before backward runs."""
    loss = made().train()
    student, teacher = signals()
    loss(student, teacher, KEY)  # sets Z, which is a constant to the gradient
    bank = loss.bank.clone()

    def value(s: Tensor, t: Tensor) -> Tensor:
        loss.bank.copy_(bank)
        torch.manual_seed(0)
        return loss(s, t, KEY, LABELS[KEY])

    assert torch.autograd.gradcheck(value, (student.requires_grad_(), teacher.requires_grad_()))
    assert not torch.equal(loss.bank, bank)


def test_the_second_derivative_is_refused_and_not_wrong():
    student, teacher = signals()
    loss = made()
    value = loss(student.requires_grad_(), teacher, KEY)
    with pytest.raises(TutelageError, match="create_graph"):
        torch.autograd.grad(value, student, create_graph=True)


def test_parameters_learn_and_banks_do_not():
    loss = made()
    loss(*signals(), KEY).backward()
    assert {name for name, p in loss.named_parameters() if p.grad.abs().sum() > 0} == {
        f"{side}_embedding.linear.{part}" for side in ("student", "teacher") for part in ("weight", "bias")
    }
    assert not loss.bank.requires_grad


def test_training_brings_an_example_nearer_to_itself():
    torch.manual_seed(0)
    teacher = torch.randn(10, 7)
    student = torch.nn.Parameter(torch.randn(10, 5))
    loss, keys = CRD(examples=10, dim=8, negatives=32), torch.arange(10)
    loss.eval()(student, teacher, keys)
    optimizer = torch.optim.Adam([student, *loss.train().parameters()], 1e-2)
    values = []
    for _ in range(150):
        optimizer.zero_grad()
        value = loss(student, teacher, keys)
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert sum(values[-10:]) < 0.5 * sum(values[:10])
    picked = (loss.bank[0] @ loss.bank[1].T).argmax(1)
    assert torch.equal(picked, keys)


def test_negatives_are_of_other_classes_and_uniform():
    loss = made(negatives=20000)
    torch.manual_seed(0)
    draws = loss.draw(KEY, LABELS[KEY])
    for key, row in zip(KEY, draws, strict=True):
        others = (LABELS[key] != LABELS).nonzero().flatten().tolist()
        counts = torch.bincount(row, minlength=10)
        assert counts.nonzero().flatten().tolist() == others
        mean = 20000 / len(others)
        assert (counts[others] - mean).abs().max() < 5 * math.sqrt(mean)


@pytest.mark.parametrize(("negatives", "distinct"), [(6, [True, True, True]), (8, [False, True, True])])
def test_negatives_come_once_where_there_are_enough(negatives: int, distinct: list[bool]):
    """RepDistiller: ``replace=True`` for a class of whose negatives there are fewer than K alone."""
    labels = torch.tensor([0] * 5 + [1] * 3 + [2] * 3)  # 6, 8 and 8 negatives
    loss = CRD(examples=11, dim=2, negatives=negatives)
    loss.bind(torch.arange(11), labels)
    torch.manual_seed(0)
    key = torch.tensor([0, 5, 10]).repeat(50)
    drawn = loss.draw(key, labels[key])
    assert (labels[drawn] != labels[key][:, None]).all()
    once = torch.tensor([len(set(row.tolist())) == negatives for row in drawn]).view(50, 3)
    assert [bool(once[:, i].all()) for i in range(3)] == distinct
    without_labels = loss.draw(key)
    assert all(len({*row.tolist()}) == negatives for row in without_labels)
    assert (without_labels != key[:, None]).all()


def test_negatives_that_come_once_are_uniform():
    labels = torch.tensor([0] * 4 + [1] * 8)
    loss = CRD(examples=12, dim=2, negatives=3)
    loss.bind(torch.arange(12), labels)
    torch.manual_seed(0)
    drawn = loss.draw(torch.zeros(4000, dtype=torch.int64), torch.zeros(4000, dtype=torch.int64))
    share = drawn.flatten().bincount(minlength=12) / 4000
    assert not share[:4].any()
    assert (share[4:] - 3 / 8).abs().max() < 5 * (3 / 8 * 5 / 8 / 4000) ** 0.5


def test_without_labels_negatives_are_all_but_the_own():
    loss = made(negatives=20000)
    torch.manual_seed(0)
    for key, row in zip(KEY.tolist(), loss.draw(KEY), strict=True):
        counts = torch.bincount(row, minlength=10)
        assert counts[key] == 0
        rest = counts[[k for k in range(10) if k != key]]
        assert (rest - 20000 / 9).abs().max() < 5 * math.sqrt(20000 / 9)


def test_an_example_without_a_label_has_all_others_for_negatives_and_is_one_to_every_class():
    """Keys 2 (label 1), 4 (2) and 7 (0); of these 7 loses its label, as do 0 and 9."""
    labels = LABELS.clone()
    labels[[7, 0, 9]] = -100
    loss = made(negatives=20000)
    loss.bind(torch.arange(10), labels)
    torch.manual_seed(0)
    for key, row in zip(KEY.tolist(), loss.draw(KEY, labels[KEY]), strict=True):
        others = [k for k in range(10) if (k != key if labels[key] < 0 else labels[k] != labels[key])]
        counts = torch.bincount(row, minlength=10)
        assert counts.nonzero().flatten().tolist() == others
        mean = 20000 / len(others)
        assert (counts[others] - mean).abs().max() < 5 * math.sqrt(mean)
    exact = expected(loss, *signals(), drawn(loss, KEY, labels[KEY]))
    torch.manual_seed(0)
    assert loss(*signals(), KEY, labels[KEY]).item() == pytest.approx(exact, rel=1e-6)
    assert loss(*signals(), KEY, torch.full((3,), -100)).isfinite()  # a batch without any
    with pytest.raises(TutelageError, match=r"label must be in 0 … 2; found -1"):
        loss(*signals(), KEY, torch.tensor([-1, 2, -100]))


def test_examples_held_out_are_never_drawn():
    """Keys count the training set before validation is split off."""
    loss, training = made(negatives=500), torch.tensor([9, 0, 7, 2, 4, 6])
    loss.bind(training, LABELS[training])
    for label in (None, LABELS[KEY]):
        draws = loss.draw(KEY, label)
        assert set(draws.flatten().tolist()) <= set(training.tolist())
        assert (draws != KEY[:, None]).all()
    assert set(loss.draw(KEY)[0].tolist()) == set(training.tolist()) - {7}
    with pytest.raises(TutelageError, match=r"passed to bind\(\), found \[8\]"):
        loss(*signals(), torch.tensor([7, 8, 4]))


def test_draws_are_a_function_of_the_seed():
    loss = made()
    assert drawn(loss, KEY, LABELS[KEY], seed=3) == drawn(loss, KEY, LABELS[KEY], seed=3)
    assert drawn(loss, KEY, LABELS[KEY], seed=3) != drawn(loss, KEY, LABELS[KEY], seed=4)


def test_a_resumed_run_goes_on_in_the_same_bits():
    def steps(loss: CRD, start: int, stop: int) -> list[float]:
        values = []
        for step in range(start, stop):
            torch.manual_seed(step)
            values.append(loss(*signals(seed=step, dtype=torch.float32), KEY, LABELS[KEY]).item())
        return values

    torch.manual_seed(0)
    loss = CRD(examples=10, dim=4, negatives=6)
    loss.bind(torch.arange(10), LABELS)
    steps(loss, 0, 3)
    file = io.BytesIO()
    torch.save(loss.state_dict(), file)
    file.seek(0)
    torch.manual_seed(99)
    other = CRD(examples=10, dim=4, negatives=6)  # other banks, layers without shapes
    other.bind(torch.arange(10), LABELS)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert steps(other, 3, 6) == steps(loss, 3, 6)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in loss.state_dict().items())


def test_no_temperature_overflows():
    """exp(1/0.005) is beyond float32; the scores stay logarithms."""
    loss = made(temperature=0.005).float().train()
    student, teacher = signals(dtype=torch.float32)
    value = loss(student.requires_grad_(), teacher, KEY)
    value.backward()
    assert value.isfinite()
    assert student.grad.isfinite().all()


@pytest.mark.parametrize(
    ("key", "label", "says"),
    [
        (torch.tensor([1, 2]), None, r"key must be \[3\].*found \[2\]"),
        (torch.tensor([[1], [2], [3]]), None, r"key must be \[3\].*found \[3, 1\]"),
        (KEY, torch.tensor([0, 1]), r"label must be \[3\].*found \[2\]"),
        (torch.tensor([1, 2, 10]), None, r"key must be in 0 … 9; found 1 … 10"),
        (torch.tensor([1, -1, 3]), None, r"key must be in 0 … 9; found -1 … 3"),
        (KEY, torch.tensor([0, 1, 3]), r"label must be in 0 … 2; found 0 … 3"),
        (KEY, torch.tensor([0, -1, 1]), r"label must be in 0 … 2; found -1 … 1"),
    ],
)
def test_keys_and_labels_that_do_not_fit_are_refused(key: Tensor, label: Tensor | None, says: str):
    with pytest.raises(TutelageError, match=says):
        made()(*signals(), key, label)


def test_banks_end_at_the_greatest_key():
    loss = CRD(dim=2, negatives=1)
    loss.bind(torch.tensor([9, 0, 3]), torch.tensor([0, 1, 1]))
    assert (loss.examples, loss.bank.shape) == (10, (2, 10, 2))


def test_labels_need_to_be_bound():
    with pytest.raises(TutelageError, match="bind"):
        CRD(examples=10)(*signals(), KEY, LABELS[KEY])


@pytest.mark.parametrize(
    ("keys", "labels", "says"),
    [
        (torch.arange(10), LABELS[:9], r"\[10\].*\[9\]"),
        (torch.arange(10), LABELS.float(), "float32"),
        (torch.arange(0), torch.arange(0), "n ≥ 1.*\\[0\\]"),
        (torch.arange(11), torch.arange(11), "0 … 9; found 0 … 10"),
        (torch.tensor([1, 2, 1]), torch.tensor([0, 1, 0]), "each key once; found 1 repeated"),
        (torch.arange(3), torch.tensor([0, -1, 1]), "≥ 0.*found -1 … 1"),
        (torch.arange(3), torch.tensor([2, 2, 2]), "two classes; found 2 … 2"),
        (torch.arange(3), torch.tensor([-100, -100, -100]), "two classes; found -100 … -100"),
        (torch.arange(3), torch.tensor([-100, -1, 2]), "none.*found -100 … 2"),
    ],
)
def test_bindings_that_do_not_fit_are_refused(keys: Tensor, labels: Tensor, says: str):
    with pytest.raises(TutelageError, match=says):
        CRD(examples=10).bind(keys, labels)


RANK = """
    import sys, torch, torch.distributed as dist
    from tutelage.losses.relation.crd import CRD
    rank, folder = int(sys.argv[1]), sys.argv[2]
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.manual_seed(0)
    loss = CRD(examples=10, dim=4, negatives=6)
    key = [torch.tensor([7, 2, 4]), torch.tensor([1, 9])][rank]      # slices of different sizes
    for step in range(2):
        torch.manual_seed(100 * step)                                # the layers are born equal, as DDP makes them
        if not step:
            loss.eval()(torch.randn(1, 5), torch.randn(1, 7), torch.tensor([0])); loss.train()
            before = loss.bank.clone()
        torch.manual_seed(100 * step + rank)
        loss(torch.randn(len(key), 5), torch.randn(len(key), 7), key)
    torch.save({"bank": loss.bank, "log_mean": loss.log_mean, "before": before}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()
"""


@pytest.mark.long
def test_two_ranks_hold_the_same_banks(tmp_path: Path):
    command = [sys.executable, "-c", textwrap.dedent(RANK)]
    ranks = [subprocess.Popen([*command, str(rank), str(tmp_path)]) for rank in range(2)]
    assert [rank.wait(timeout=1200) for rank in ranks] == [0, 0]
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    moved = (first["bank"] != first["before"]).any(2).all(0).nonzero().flatten().tolist()
    assert moved == [1, 2, 4, 7, 9]  # the keys of both
