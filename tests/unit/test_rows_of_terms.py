"""Terms whose loss gets some rows: those with a label, or those of a mask."""

import pytest
import torch
from torch import nn

from tutelage.errors import TutelageError
from tutelage.losses.logit.dkd import DKD
from tutelage.losses.logit.nkd import NKD
from tutelage.losses.logit.pskd import PSKD
from tutelage.losses.logit.soft_target import SoftTarget
from tutelage.losses.logit.tfkd import TfKDReg
from tutelage.losses.logit.wsld import WSLD
from tutelage.objective import Objective, Term
from tutelage.signal_paths import is_known
from tutelage.types import NO_LABEL

LABEL = torch.tensor([2, NO_LABEL, 0, 1, NO_LABEL, NO_LABEL, 2])
KEY = torch.arange(7)
KNOWN = LABEL >= 0
STUDENT, TEACHER = {"student": "student.logits"}, {"teacher": "teacher.logits"}
CROSS_ENTROPY = {"input": "student.logits", "target": "batch.label"}
READING = {
    "cross-entropy": (nn.CrossEntropyLoss, CROSS_ENTROPY, {}),
    "smoothed": (lambda: nn.CrossEntropyLoss(label_smoothing=0.1), CROSS_ENTROPY, {}),
    "dkd": (DKD, STUDENT | {"label": "batch.label"}, TEACHER),
    "nkd": (NKD, STUDENT | {"label": "batch.label"}, TEACHER),
    "wsld": (WSLD, STUDENT | {"label": "batch.label"}, TEACHER),
    "tfkd": (TfKDReg, STUDENT | {"label": "batch.label"}, {}),
    "pskd": (PSKD, STUDENT | {"label": "batch.label", "key": "batch.key"}, {}),
    "label as a target": (nn.CrossEntropyLoss, {"input": "student.logits"}, {"target": "batch.label"}),
}


def mixed(label=LABEL, rows=slice(None)):
    g = torch.Generator().manual_seed(3)
    found = {name: {"logits": torch.randn(7, 3, generator=g)[rows]} for name in ("student", "teacher")}
    found["student"]["logits"].requires_grad_()
    return found | {"batch": {"label": label[rows], "key": KEY[rows]}}


def test_which_rows_have_a_label_is_a_signal_of_the_batch():
    class Look(nn.Module):
        def forward(self, x, labelled):
            return (x.sum(1) * labelled).sum()

    given = mixed()
    term = Term(Look(), {"x": "student.logits"}, {"labelled": "batch.labelled"})
    rows = given["student"]["logits"].sum(1)
    torch.testing.assert_close(term(given), rows[KNOWN].sum())
    given["batch"]["labelled"] = KEY < 2  # where the data say so themselves
    torch.testing.assert_close(term(given), rows[:2].sum())


@pytest.mark.parametrize("name", READING)
def test_a_term_that_reads_labels_sees_the_labelled_rows_alone(name):
    make, inputs, targets = READING[name]
    term, by_hand = Term(make(), inputs, targets), Term(make(), inputs, targets)
    term.bind(KEY, LABEL)
    whole, part = mixed(), mixed(rows=KNOWN)
    value, expected = term(whole), by_hand(part)
    assert torch.equal(value, expected)
    value.backward()
    expected.backward()
    gradient = whole["student"]["logits"].grad
    assert torch.equal(gradient[KNOWN], part["student"]["logits"].grad)
    assert not gradient[~KNOWN].any()


@pytest.mark.parametrize("name", READING)
def test_a_batch_without_a_label_is_worth_0_and_moves_nothing(name):
    make, inputs, targets = READING[name]
    term = Term(make(), inputs, targets)
    term.bind(KEY, LABEL)
    given = mixed(torch.full((7,), NO_LABEL))
    value = term(given)
    value.backward()
    assert value.item() == 0
    assert torch.equal(given["student"]["logits"].grad, torch.zeros(7, 3))


def test_a_batch_without_a_label_is_worth_0_for_one_class_and_for_rows_of_numbers():
    """What stands for a label that is not there must be one for any number of classes, and for each number of a row."""
    one = Term(nn.CrossEntropyLoss(), CROSS_ENTROPY)
    numbers = Term(nn.MSELoss(), CROSS_ENTROPY)
    for term, label, width in ((one, torch.full((2,), NO_LABEL), 1), (numbers, torch.full((2, 3), torch.nan), 3)):
        term.bind(torch.arange(2), label)
        logits = torch.ones(2, width, requires_grad=True)
        value = term({"student": {"logits": logits}, "batch": {"label": label}})
        value.backward()
        assert value.item() == 0
        assert torch.equal(logits.grad, torch.zeros(2, width))


class Learns(nn.Module):
    """With a parameter, which a DDP rank must not leave without a gradient, and another's parameter."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, stages, label, weight):
        assert weight.shape == (4, 3)
        return sum(nn.functional.cross_entropy(self.layer(stage), label) for stage in stages)


def test_lists_are_cut_and_parameters_are_not_and_what_learns_has_its_gradient():
    paths = {"stages": ["student.logits", "teacher.logits"], "label": "batch.label"}
    term = Term(Learns(), paths, {"weight": "teacher.classifier.weight"})
    term.bind(KEY, LABEL)
    for label in (LABEL, torch.full((7,), NO_LABEL)):
        given = mixed(label)
        given["teacher"]["classifier.weight"] = torch.zeros(4, 3)
        term(given).backward()
        assert term.loss.layer.weight.grad is not None
        assert bool(term.loss.layer.weight.grad.any()) == bool((label >= 0).any())
        term.zero_grad()


def test_terms_that_read_no_label_or_say_that_they_can_see_all_rows():
    seen = nn.CrossEntropyLoss()
    seen.takes_unlabelled = True  # torch's own leaves NO_LABEL out by itself
    for term in (Term(SoftTarget(2.0), STUDENT, TEACHER), Term(seen, CROSS_ENTROPY)):
        term.bind(KEY, LABEL)
        assert not term.labelled_only
    value = term(mixed())
    torch.testing.assert_close(value, Term(nn.CrossEntropyLoss(), CROSS_ENTROPY)(mixed(rows=KNOWN)))


def test_only_data_with_rows_without_a_label_cost_anything():
    term = Term(nn.CrossEntropyLoss(), CROSS_ENTROPY)
    for labels, expected in ((LABEL[KNOWN], False), (LABEL, True), (LABEL[KNOWN], False)):
        term.bind(torch.arange(len(labels)), labels)
        assert term.labelled_only == expected


# -- masks -------------------------------------------------------------------------------------------------------------

MASK = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0]], dtype=torch.bool)
TOKENS = torch.tensor([[1, NO_LABEL, 2, 2], [0, 2, NO_LABEL, 1], [NO_LABEL, 1, 1, 0]])


def sequences(mask=MASK, label=TOKENS):
    g = torch.Generator().manual_seed(3)
    found = {name: {"logits": torch.randn(3, 4, 3, generator=g)} for name in ("student", "teacher")}
    found["student"] |= {"hidden": torch.randn(3, 4, 5, generator=g), "pooled": torch.randn(3, 5, generator=g)}
    found["student"]["logits"].requires_grad_()
    return found | {"batch": {"label": label, "mask": mask, "key": torch.arange(3)}}


def test_a_term_with_a_mask_sees_its_rows_alone():
    term = Term(SoftTarget(2.0), STUDENT, TEACHER, where="batch.mask")
    given = sequences()
    p, q = (given[name]["logits"].detach()[MASK].double() / 2 for name in ("student", "teacher"))
    expected = 4 * (q.softmax(-1) * (q.log_softmax(-1) - p.log_softmax(-1))).sum(-1).mean()
    value = term(given)
    torch.testing.assert_close(value.double(), expected)
    value.backward()
    gradient = given["student"]["logits"].grad
    assert torch.equal(gradient.any(-1), MASK), "exactly 0 where the mask is false, and nowhere else"


def test_padding_changes_neither_value_nor_gradient():
    found = []
    for noise in (0.0, 1e4):
        given = sequences()
        with torch.no_grad():
            for name in ("student", "teacher"):
                given[name]["logits"][~MASK] += noise
        value = Term(SoftTarget(2.0), STUDENT, TEACHER, where="batch.mask")(given)
        value.backward()
        found.append((value, given["student"]["logits"].grad))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


def test_a_mask_that_fits_no_signal_is_refused():
    signals = {
        "student": {"logits": torch.zeros(2, 4)}, "teacher": {"logits": torch.zeros(2, 4)},
        "batch": {"mask": torch.ones(2, 3, dtype=torch.bool)},
    }  # fmt: skip
    with pytest.raises(
        TutelageError, match=r"where=batch.mask is a mask \[2, 3\], with which no signal begins: .*\[2, 4\]"
    ):
        Term(SoftTarget(2.0), STUDENT, TEACHER, where="batch.mask")(signals)


@pytest.mark.parametrize(("where", "kept"), [(None, TOKENS >= 0), ("batch.mask", MASK & (TOKENS >= 0))])
def test_labels_of_elements_are_read_where_they_are_known(where, kept):
    term = Term(nn.CrossEntropyLoss(), CROSS_ENTROPY, where=where)
    term.bind(torch.arange(3), TOKENS)
    given = sequences()
    value = term(given)
    torch.testing.assert_close(value, nn.functional.cross_entropy(given["student"]["logits"][kept], TOKENS[kept]))
    value.backward()
    assert torch.equal(given["student"]["logits"].grad.any(-1), kept)


def test_elements_that_all_have_a_label_are_rows_as_well():
    label = TOKENS.clamp(min=0)
    term = Term(nn.CrossEntropyLoss(), CROSS_ENTROPY)
    term.bind(torch.arange(3), label)
    given = sequences(label=label)
    expected = nn.functional.cross_entropy(given["student"]["logits"].flatten(0, 1), label.flatten())
    torch.testing.assert_close(term(given), expected)


def test_a_mask_of_examples_goes_with_labels_of_elements():
    mask = torch.tensor([True, False, True])
    term = Term(nn.CrossEntropyLoss(), CROSS_ENTROPY, where="batch.mask")
    term.bind(torch.arange(3), TOKENS)
    given, kept = sequences(mask=mask), mask[:, None] & (TOKENS >= 0)
    torch.testing.assert_close(term(given), nn.functional.cross_entropy(given["student"]["logits"][kept], TOKENS[kept]))


def test_the_rows_with_a_label_as_a_mask():
    term = Term(SoftTarget(1.0), STUDENT, TEACHER, where="batch.label")
    given, whole = mixed(), mixed(rows=KNOWN)
    torch.testing.assert_close(term(given), Term(SoftTarget(1.0), STUDENT, TEACHER)(whole))


def test_a_loss_that_sees_rows_without_a_label_sees_them_in_its_mask_as_they_are():
    seen = nn.CrossEntropyLoss()
    seen.takes_unlabelled = True
    term = Term(seen, CROSS_ENTROPY, where="batch.mask")
    term.bind(torch.arange(3), TOKENS)
    given = sequences()
    expected = nn.functional.cross_entropy(given["student"]["logits"][MASK], TOKENS[MASK])
    torch.testing.assert_close(term(given), expected)


def test_a_loss_on_some_rows_is_weighed_by_this_rank_s_share_of_them(monkeypatch):
    """So that the mean over ranks is that over all rows; ranks themselves: below."""
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr("tutelage.objective.mean_over_ranks", lambda rows: (rows + 2) / 2)  # two on the other rank
    term, alone = Term(nn.CrossEntropyLoss(), CROSS_ENTROPY), Term(nn.CrossEntropyLoss(), CROSS_ENTROPY)
    term.bind(KEY, LABEL)
    torch.testing.assert_close(term(mixed()), alone(mixed(rows=KNOWN)) * 4 / 3)
    term.loss.counts_over_ranks = True  # by itself
    itself = Term(term.loss, CROSS_ENTROPY, where="batch.label")
    torch.testing.assert_close(itself(mixed()), alone(mixed(rows=KNOWN)))


def test_labels_that_are_numbers_are_known_unless_nan():
    label = torch.tensor([[1.0, 0.0], [torch.nan, torch.nan], [torch.nan, 2.0]])
    assert is_known(label).tolist() == [True, False, True]
    assert is_known(label[:, 0]).tolist() == [True, False, False]
    term = Term(nn.MSELoss(), {"input": "student.logits", "target": "batch.label"})
    term.bind(torch.arange(3), label[:2])
    assert term.labelled_only
    given = {"student": {"logits": torch.ones(2, 2, requires_grad=True)}, "batch": {"label": label[:2]}}
    assert term(given).item() == 0.5


def test_what_has_other_axes_than_the_mask_stays_whole():
    seen = {}

    class Look(nn.Module):
        def forward(self, states, pooled):
            seen.update(states=[list(one.shape) for one in states], pooled=list(pooled.shape))
            return states[0].sum()

    Term(
        Look(),
        {"states": ["student.logits", "student.hidden"], "pooled": "student.pooled"},
        where="batch.mask",
    )(sequences())
    assert seen == {"states": [[5, 3], [5, 5]], "pooled": [3, 5]}


def test_a_mask_without_a_row_is_worth_0_and_moves_nothing():
    given = sequences(mask=torch.zeros(3, 4, dtype=torch.bool))
    value = Term(SoftTarget(2.0), STUDENT, TEACHER, where="batch.mask")(given)
    value.backward()
    assert value.item() == 0
    assert torch.equal(given["student"]["logits"].grad, torch.zeros(3, 4, 3))


def test_a_mask_is_a_signal_that_is_needed_and_must_be_of_bools():
    term = Term(SoftTarget(2.0), STUDENT, TEACHER, where="teacher.kept")
    assert Objective({"soft": term}).needs() == {"student": {"logits"}, "teacher": {"logits", "kept"}}
    with pytest.raises(TutelageError, match=r"no signal 'teacher\.kept'"):
        term(sequences())
    whole = Term(SoftTarget(2.0), STUDENT, TEACHER, where="batch.key")
    with pytest.raises(TutelageError, match=r"where=batch.key must be a mask of bools; found torch.int64 \[3\]"):
        whole(sequences())
    with pytest.raises(TutelageError, match=r"a term reads '<source>\.<signal>'"):
        Term(SoftTarget(2.0), STUDENT, TEACHER, where="mask")
