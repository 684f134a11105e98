"""The classes of a specialist, and its training."""

import pytest
import torch
from omegaconf import OmegaConf

from tutelage.config import factory
from tutelage.errors import TutelageError
from tutelage.pipeline.specialists import _for_group, find_groups, find_or_take_groups


def confused(blocks: list[list[int]], frequency: list[int], classes: int = 8) -> torch.Tensor:
    """Logits of a network that is sure of the block and unsure within it; class c comes ``frequency[c]`` times."""
    g = torch.Generator().manual_seed(0)
    label = torch.arange(classes).repeat_interleave(torch.tensor(frequency))
    logits = torch.zeros(len(label), classes)
    for block in blocks:
        rows = torch.isin(label, torch.tensor(block))
        logits[rows[:, None] & torch.isin(torch.arange(classes), torch.tensor(block))] = 6.0
    logits[torch.arange(len(label)), label] += 1.0
    return logits + torch.randn(logits.shape, generator=g)


@pytest.mark.parametrize("frequency", [[100] * 8, [400, 50, 100, 100, 30, 200, 100, 20]])
def test_planted_blocks_are_found(frequency):
    blocks = [[0, 3, 5], [1, 6], [2, 4, 7]]
    assert find_groups(confused(blocks, frequency), 3, 0) == blocks
    assert find_groups(confused(blocks, frequency), 3, 1) == blocks


def test_a_group_of_one_class_is_dropped():
    assert find_groups(confused([[0, 3, 5], [1, 6, 2, 4], [7]], [100] * 8), 3, 0) == [[0, 3, 5], [1, 2, 4, 6]]


def test_a_class_that_is_never_in_doubt_does_no_harm():
    logits = torch.cat([confused([[0, 3, 5], [1, 2, 4, 6, 7]], [100] * 8), torch.full((800, 1), -torch.inf)], 1)
    assert [0, 3, 5] in find_groups(logits, 3, 0)


def test_counts_that_find_nothing_are_refused():
    logits = confused([[0, 1], [2, 3]], [100] * 4, classes=4)
    with pytest.raises(TutelageError, match="none of 4 groups has more than one class: use a smaller count"):
        find_groups(logits, 4, 0)
    for count in (1, 5):
        with pytest.raises(TutelageError, match=f"count must be 2 to 4, the number of classes; found {count}"):
            find_groups(logits, count, 0)


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        ([], r"lists of classes, such as .*; found \[\]"),
        ([1, 2], r"lists of classes, such as .*; found \[1, 2\]"),
        ([[0, 1], [2, 9]], r"classes of 0 to 7, some but not all; found \[2, 9\]"),
        ([[0, 0]], r"distinct classes of 0 to 7.*; found \[0, 0\]"),
        ([list(range(8))], "some but not all"),
    ],
)
def test_groups_of_a_users_that_can_be_none(groups, said):
    with pytest.raises(TutelageError, match=said):
        find_or_take_groups(OmegaConf.create({"groups": groups}), torch.zeros(5, 8), 0)


def test_a_specialists_stage_is_the_teachers_with_its_own_laid_over(compose):
    cfg = compose(
        "sources=specialists", "optimizer@stages.teacher.optimizer=sgd", "stages.teacher.label_smoothing=0.1",
        "stages.teacher.seed=3", "data.labelled=100", "trainer.max_epochs=50",
    )  # fmt: skip
    teacher, specialist = factory.stage_config(cfg, "teacher"), factory.stage_config(cfg, "specialist")
    assert (teacher.trainer.max_epochs, specialist.trainer.max_epochs) == (50, 5)
    assert specialist.optimizer == {**teacher.optimizer, "lr": pytest.approx(0.1 * teacher.optimizer.lr)}
    assert specialist.seed == specialist.data.seed == teacher.seed == 3
    assert specialist.network == teacher.network
    assert specialist.data == teacher.data
    own = _for_group(specialist, [1, 7], 0.2)
    assert own.data.focus == [1, 7]
    assert own.loss.terms.keys() == {"dustbin"}
    assert own.loss.terms.dustbin.loss == {
        "_target_": "tutelage.losses.logit.dustbin.Dustbin", "classes": [1, 7], "share": 0.2, "label_smoothing": 0.1,
    }  # fmt: skip
    assert "focus" not in specialist.data


def test_its_loss_starts_as_the_generalists_own(compose):
    stage = _for_group(factory.stage_config(compose("sources=specialists"), "specialist"), [1, 7], 0.5)
    data = factory.data(stage)
    batch = data.sample(64)
    logits = factory.network(stage.network, 0).eval()(batch["input"])["logits"]
    found, _ = factory.objective(stage)({"student": {"logits": logits}, "batch": batch})
    p = logits.softmax(1)
    own = torch.isin(batch["label"], torch.tensor([1, 7]))
    rest = 1 - p[:, 1] - p[:, 7]
    expected = -torch.where(own, p[torch.arange(64), batch["label"]], rest).log().mean()
    torch.testing.assert_close(found, expected)
