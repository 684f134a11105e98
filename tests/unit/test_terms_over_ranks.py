"""Terms whose rows are spread unequally over ranks."""

import subprocess
import sys

import pytest

RANK = """
import sys, torch, torch.distributed as dist
from torch import nn
from tutelage.losses.logit.pskd import PSKD
from tutelage.objective import Objective, Term
rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
values = []
for loss in (nn.CrossEntropyLoss(), PSKD()):
    name = "input" if isinstance(loss, nn.CrossEntropyLoss) else "student"
    inputs = {name: "student.logits", "target" if name == "input" else "label": "batch.label"}
    term = Term(loss, inputs | ({} if name == "input" else {"key": "batch.key"}))
    for label in ([2, -100, 0, 1, -100, -100, 2, -100], [-100] * 4 + [1, 0, 1, 2], [-100] * 8):
        label = torch.tensor(label)
        term.bind(torch.arange(8), torch.tensor([-100, 0]))
        logits = torch.randn(8, 3, generator=torch.Generator().manual_seed(3)).requires_grad_()
        mine = slice(4 * rank, 4 * rank + 4)
        value = term({"student": {"logits": logits[mine]},
                      "batch": {"label": label[mine], "key": torch.arange(8)[mine]}})
        value.backward()
        for x in (value.data, logits.grad):
            dist.all_reduce(x)
            x /= 2                                            # as DDP does
        known = label >= 0
        whole = logits.detach().requires_grad_()
        expected = nn.functional.cross_entropy(whole[known], label[known]) if known.any() else 0 * whole.sum()
        expected.backward()
        torch.testing.assert_close(value.detach(), expected.detach())
        torch.testing.assert_close(logits.grad, whole.grad)
masked = Term(nn.MSELoss(), {"input": "student.states"}, {"target": "teacher.states"}, where="batch.mask")
for mask in ([[1, 1, 1], [1, 0, 0], [0, 0, 0], [1, 0, 0]], [[0] * 3] * 2 + [[1] * 3] * 2, [[0] * 3] * 4):
    mask, g = torch.tensor(mask).bool(), torch.Generator().manual_seed(4)
    states, target = torch.randn(4, 3, 5, generator=g).requires_grad_(), torch.randn(4, 3, 5, generator=g)
    mine = slice(2 * rank, 2 * rank + 2)
    value = masked({"student": {"states": states[mine]}, "teacher": {"states": target[mine]},
                    "batch": {"mask": mask[mine]}})
    value.backward()
    for x in (value.data, states.grad):
        dist.all_reduce(x)
        x /= 2
    whole = states.detach().requires_grad_()
    expected = nn.functional.mse_loss(whole[mask], target[mask]) if mask.any() else 0 * whole.sum()
    expected.backward()
    torch.testing.assert_close(value.detach(), expected.detach())
    torch.testing.assert_close(states.grad, whole.grad)
dist.destroy_process_group()                                  # its threads abort an interpreter that ends before them
"""


@pytest.mark.slow
def test_ranks_with_unequal_labels_and_masks_have_the_mean_of_one_process(tmp_path):
    ranks = [subprocess.Popen([sys.executable, "-c", RANK, str(rank), str(tmp_path)]) for rank in range(2)]
    assert [rank.wait(timeout=1200) for rank in ranks] == [0, 0]
