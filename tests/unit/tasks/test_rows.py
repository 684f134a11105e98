"""``loss.where``: losses of logits on tasks with a label for each position, on all of them or on answers alone."""

import pytest
import torch
from hydra.utils import instantiate

from tutelage.objective import Objective

ROWWISE = (
    "soft_target", "reverse_kl", "jsd", "skew_kl", "skew_reverse_kl", "akl", "total_variation", "dkd", "nkd", "dist",
    "lskd", "ttm", "wttm", "logit_mse", "dtkd", "wsld", "tfkd_reg", "mlkd", "ctkd",
)  # fmt: skip


def draw(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def signals():
    label = torch.tensor([[1, 2, -100, -100], [0, 4, 3, -100]])
    answer = torch.tensor([[False, True, False, False], [False, False, True, False]])
    return {
        "student": {"logits": draw(2, 4, 5, seed=0)},
        "teacher": {"logits": 3 * draw(2, 4, 5, seed=1)},
        "batch": {"label": label, "answer": answer, "mask": label >= 0, "key": torch.arange(2)},
    }


def objective(compose, *overrides):
    torch.manual_seed(0)
    made = Objective(instantiate(compose(*overrides).loss.terms)).double()
    made.bind(torch.arange(2), signals()["batch"]["label"])
    made.on_epoch_start(30, 60)
    return made


def only(kept):
    """The kept positions as a batch of examples with one class."""
    found = signals()
    for source in ("student", "teacher"):
        found[source]["logits"] = found[source]["logits"][kept]
    found["batch"] = {"label": found["batch"]["label"][kept], "key": torch.arange(int(kept.sum()))}
    return found


@pytest.mark.parametrize("where", [None, "batch.answer"])
@pytest.mark.parametrize("loss", ROWWISE)
def test_every_loss_over_classes_is_one_of_tokens(compose, loss, where):
    more = [] if where is None else [f"loss.where={where}"]
    value, parts = objective(compose, "task=language_model", f"loss={loss}", *more)(signals())
    batch = signals()["batch"]
    expected, plain = objective(compose, f"loss={loss}")(only(batch["mask"] if where is None else batch["answer"]))
    assert parts.keys() == plain.keys()
    torch.testing.assert_close(value, expected)


@pytest.mark.parametrize("task", ["language_model", "token_classification", "segmentation"])
def test_tasks_with_a_label_for_each_position_take_those_with_a_label(compose, task):
    assert compose(f"task={task}").loss.where == "batch.label"


def test_images_are_as_they_were(compose):
    cfg = compose()
    assert cfg.loss.where is None
    assert {term.where for term in cfg.loss.terms.values()} == {None}
    made = Objective(instantiate(cfg.loss.terms))
    made.bind(torch.arange(4), torch.zeros(4, dtype=torch.long))
    assert not any(term.chooses_rows for term in made.terms.values())
