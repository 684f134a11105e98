import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from tests.unit.losses import oracles_logit as oracle
from torch import Tensor

from tutelage.errors import TutelageError
from tutelage.losses.logit.pskd import PSKD
from tutelage.runtime import devices

CLASSES, EXAMPLES, EPOCHS = 4, 6, 5
LABEL = torch.tensor([0, 1, 2, 3, 0, 1])


def logits(epoch: int) -> Tensor:
    """Of all examples by key, as a student that changes from epoch to epoch."""
    g = torch.Generator().manual_seed(epoch)
    return 2 * torch.randn(EXAMPLES, CLASSES, generator=g, dtype=torch.float64)


def batches(epoch: int) -> tuple[Tensor, ...]:
    return torch.randperm(EXAMPLES, generator=torch.Generator().manual_seed(100 + epoch)).split(2)


def run(loss: PSKD, epoch: int, keys: tuple[Tensor, ...]) -> list[float]:
    return [loss(logits(epoch)[k], LABEL[k], k).item() for k in keys]


def test_epochs_follow_the_formula() -> None:
    loss = PSKD(0.8)
    for epoch in range(EPOCHS):
        loss.on_epoch_start(epoch, EPOCHS)
        share = 0.8 * (epoch + 1) / EPOCHS
        for keys in batches(epoch):
            now, before = logits(epoch)[keys], logits(epoch - 1)[keys]
            previous = np.stack([oracle.softmax(z) for z in before.numpy()])
            expected = (
                oracle.pskd(now.numpy(), LABEL[keys].numpy(), previous, share)
                if epoch
                else F.cross_entropy(now, LABEL[keys]).item()  # never seen before
            )
            assert loss(now, LABEL[keys], keys).item() == pytest.approx(expected, rel=1e-6)


def test_gradients_are_the_finite_differences_and_spare_the_past() -> None:
    loss = PSKD()
    keys = torch.arange(EXAMPLES)
    loss(logits(0), LABEL, keys)
    loss.on_epoch_start(1, 2)
    student = logits(1).requires_grad_()

    def once(student: Tensor) -> Tensor:
        result: Tensor = copy.deepcopy(loss)(student, LABEL, keys)
        return result

    assert torch.autograd.gradcheck(once, student)
    assert not loss.previous.requires_grad


@pytest.mark.parametrize("how", ["mixing is 0", "no epoch was started", "eval"])
def test_the_baseline_is_cross_entropy(how: str) -> None:
    loss = PSKD(0.0 if how == "mixing is 0" else 0.8)
    keys = torch.arange(EXAMPLES)
    loss(logits(0), LABEL, keys)
    if how != "no epoch was started":
        loss.on_epoch_start(4, EPOCHS)
    if how == "eval":
        loss.eval()
    before = loss.previous.clone()
    assert loss(logits(1), LABEL, keys).item() == pytest.approx(F.cross_entropy(logits(1), LABEL).item(), rel=1e-7)
    assert torch.equal(loss.previous, before) == (how == "eval")


def test_an_interrupted_run_goes_on_as_if_it_had_not_been() -> None:
    whole = PSKD()
    expected = []
    for epoch in range(3):
        whole.on_epoch_start(epoch, EPOCHS)
        expected.append(run(whole, epoch, batches(epoch)))
    first = PSKD()
    for epoch in range(2):
        first.on_epoch_start(epoch, EPOCHS)
        run(first, epoch, batches(epoch))
    first.on_epoch_start(2, EPOCHS)
    run(first, 2, batches(2)[:1])
    second = PSKD()
    second.load_state_dict(first.state_dict())  # without on_epoch_start, as in a resume within an epoch
    assert run(second, 2, batches(2)[1:]) == expected[2][1:]


def test_the_table_grows_with_the_keys_and_keeps_what_it_has() -> None:
    loss = PSKD()
    for key in (0, 5, 6, 40, 3):
        loss(logits(0)[:1], LABEL[:1], torch.tensor([key]))
    seen = loss.previous.sum(1) > 0
    assert seen.nonzero().flatten().tolist() == [0, 3, 5, 6, 40]
    assert loss.previous.dtype == torch.float32


def test_the_table_grows_where_the_number_of_examples_was_not_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also on a device for which the host would have to wait."""
    monkeypatch.setattr(devices, "waits", lambda device: True)
    loss = PSKD()
    loss(torch.zeros(2, 3), torch.tensor([0, 1]), torch.tensor([4, 7]))
    assert len(loss.previous) == 8


def test_a_half_precision_student_and_table() -> None:
    loss = PSKD().to(torch.bfloat16)
    keys = torch.arange(EXAMPLES)
    loss(logits(0).bfloat16(), LABEL, keys)
    loss.on_epoch_start(0, 1)
    student = logits(1).bfloat16()
    previous = loss.previous.double().numpy()
    expected = oracle.pskd(student.double().numpy(), LABEL.numpy(), previous, loss.share.item())
    with torch.autocast("cpu", torch.bfloat16):
        assert loss(student, LABEL, keys).item() == pytest.approx(expected, rel=1e-2)
    assert loss.previous.dtype == torch.bfloat16


def test_bad_keys_and_classes_are_refused() -> None:
    loss = PSKD()
    loss(logits(0), LABEL, torch.arange(EXAMPLES))
    with pytest.raises(TutelageError, match="found key -3"):
        loss(logits(0), LABEL, torch.tensor([0, 1, 2, -3, 4, 5]))
    with pytest.raises(TutelageError, match=r"4 classes.*3 classes"):
        loss(logits(0)[:, :3], LABEL % 3, torch.arange(EXAMPLES))
    with pytest.raises(TutelageError, match="PSKD: expected integers"):
        loss(logits(0), LABEL, torch.arange(5))


@pytest.mark.parametrize("mixing", [-0.1, 1.1, math.nan])
def test_a_share_outside_0_and_1_is_refused(mixing: float) -> None:
    with pytest.raises(TutelageError, match=r"PSKD\.mixing"):
        PSKD(mixing)


def rank(index: int, store: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=index, world_size=2)
    loss = PSKD()
    for epoch in range(3):
        loss.on_epoch_start(epoch, 3)
        keys = torch.arange(EXAMPLES).roll(3 * epoch)[3 * index : 3 * index + 3]  # the ranks swap examples each epoch
        found = run(loss, epoch, (keys,))[0]
        previous = np.stack([oracle.softmax(z) for z in logits(epoch - 1)[keys].numpy()])
        expected = oracle.pskd(logits(epoch)[keys].numpy(), LABEL[keys].numpy(), previous, 0.8 * (epoch + 1) / 3)
        assert epoch == 0 or found == pytest.approx(expected, rel=1e-6)
    dist.destroy_process_group()


@pytest.mark.long
def test_ranks_share_what_they_predicted(tmp_path: Path) -> None:
    mp.spawn(rank, (str(tmp_path / "store"),), nprocs=2)


def test_the_table_ends_at_the_greatest_key() -> None:
    loss = PSKD()
    loss.bind(torch.tensor([9, 0, 3]), LABEL[:3])
    loss(logits(0)[:2], LABEL[:2], torch.tensor([3, 0]))
    assert (loss.examples, len(loss.previous)) == (10, 10)
