"""The first sentences of the page, for figures that are put in by hand."""

import pytest

from tutelage.report.cells import Cell, Sweep
from tutelage.report.gains import CellStatistics, Mean
from tutelage.report.sections.answer import how_sure, sentence
from tutelage.report.statistics import paired

CELL = Cell({"loss.temperature": 4}, {})
CHOSEN = "T = 4, chosen on validation among 2 cells,"
GAIN = "the student is 1.10 points of test accuracy"
OTHER = Cell({"loss.temperature": 1}, {})


def standing(gains, holm=None):
    found = paired(gains)
    return CellStatistics(
        CELL, Mean(0.9, 0.01, len(gains)), found, found, True, [], found.p_t if holm is None else holm
    )


@pytest.mark.parametrize(
    ("gains", "holm", "expected"),
    [
        ([0.010, 0.012, 0.011], None, f"Distillation helps: with {CHOSEN} {GAIN} above"),
        ([-0.010, -0.012, -0.011], None, f"Distillation harms: with {CHOSEN} {GAIN} below"),
        ([0.010, 0.012, 0.011], 0.2, "These runs do not show that distillation makes a difference: with T = 4"),
        ([0.01, -0.02, 0.03], None, "These runs do not show that distillation makes a difference"),
        ([0.02], None, f"One seed is no evidence: with {CHOSEN} it shows +2.00 points"),
        ([0.02, 0.02], None, "No test is possible without spread"),
        ([], None, "No gain can be told"),
    ],
)  # fmt: skip
def test_the_sentence(gains, holm, expected):
    assert sentence(Sweep([CELL, OTHER], ["loss.temperature"]), standing(gains, holm)).startswith(expected)


def test_a_single_cell_was_not_chosen():
    said = sentence(Sweep([Cell({}, {})], []), standing([0.010, 0.012, 0.011]))
    assert said.startswith("Distillation helps: in the only setting that was run, the student is 1.10 points")
    assert "+0.85 to +1.35; 3 seeds, paired" in said  # 1.1 ± 4.303·0.1/√3


def test_how_sure():
    said = how_sure(standing([0.01, 0.03, -0.01, 0.02]))
    assert "never below 0.12" in said
    assert "The gain's sd over seeds is 1.71 points; 17 seeds resolve" in said
    assert "more than 10,000 seeds" in how_sure(standing([0.01, -0.01, 0.0001]))
    assert how_sure(standing([0.02])).startswith("No interval and no test")
