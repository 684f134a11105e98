"""Gathering over ranks; two real ranks are in tests/slow/test_ranks.py."""

import pytest
import torch
import torch.distributed as dist

from tutelage.losses.ranks import all_ranks, mean_over_ranks


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
@pytest.mark.parametrize("lengths", [(2, 2), (2, 5), (5, 2), (1, 3, 2), (0, 2)])
@pytest.mark.parametrize("after", [(), (3,), (2, 2)])
def test_rows_of_all_ranks_are_joined_in_rank_order_whatever_their_number(monkeypatch, dtype, lengths, after):
    given = [torch.randint(1, 99, (2, length, *after)).to(dtype) for length in lengths]
    longest = max(lengths)
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: len(given))
    for rank, own in enumerate(given):

        def gather(into, mine, rank=rank, own=own):
            """As gloo and NCCL: every rank's tensor has the same shape."""
            if mine.shape == (1,):
                assert mine.item() == own.shape[1]
                for one, length in zip(into, lengths, strict=True):
                    one.fill_(length)
                return
            assert mine.shape == (2, longest, *after)
            assert mine.dtype == dtype
            assert torch.equal(mine[:, : own.shape[1]], own)
            for one, theirs in zip(into, given, strict=True):
                assert one.shape == mine.shape
                one[:, : theirs.shape[1]] = theirs
                one[:, theirs.shape[1] :] = -1

        monkeypatch.setattr(dist, "all_gather", gather)
        assert torch.equal(all_ranks(own), torch.cat(given, 1))


def test_one_process_has_its_own():
    x = torch.ones(1, 2, requires_grad=True)
    assert all_ranks(x) is x


@pytest.mark.parametrize(("total", "ranks", "expected"), [(0.0, 1, 1.0), (0.0, 4, 0.25), (6.0, 4, 1.5), (6.0, 1, 6.0)])
def test_a_mean_over_ranks_is_of_one_at_least(monkeypatch, total, ranks, expected):
    monkeypatch.setattr(dist, "is_initialized", lambda: ranks > 1)
    monkeypatch.setattr(dist, "get_world_size", lambda: ranks)
    monkeypatch.setattr(dist, "all_reduce", lambda count: count.fill_(total))
    own = torch.tensor(total / ranks)
    assert mean_over_ranks(own).item() == expected
    assert own.item() == total / ranks
