import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import torch

from tutelage.evaluation.predictions import Predictions
from tutelage.report.answers import per_class, reliability_bins
from tutelage.report.charts import Point, Row, against_cost, epoch_chart, forest
from tutelage.report.curves import band
from tutelage.report.document import Table, number, percent, points, probability, text
from tutelage.report.matrices import Tile, confusion, heat_map
from tutelage.report.statistics import paired
from tutelage.report.svg import Scale, around, linear_ticks, short
from tutelage.tasks.figure_kinds import CLASSIFICATION
from tutelage.tasks.metrics.classification import expected_calibration_error

ACCURACY = CLASSIFICATION.main


def elements(drawing, tag):
    return list(ElementTree.fromstring(drawing).iter(tag))


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (-0.11, 0.02, [-0.1, -0.05, 0]), (95.2, 97.9, [95.5, 96, 96.5, 97, 97.5])],
)  # fmt: skip
def test_ticks_are_round(low, high, expected):
    assert linear_ticks(low, high) == pytest.approx(expected)


def test_logarithmic_scales():
    scale = Scale(10, 1000, 0, 100, log=True)
    assert scale(100) == pytest.approx(50)
    assert scale.ticks() == pytest.approx([10, 100, 1000])
    assert len(Scale(4000, 60000, 0, 1, log=True).ticks()) >= 3
    low, high = around([5.0, 5.0], log=True)
    assert low < 5 < high
    assert [short(x) for x in (12, 4810, 53002, 2.5e9)] == ["12", "4.81k", "53k", "2.5G"]


def test_values_are_written_as_people_do():
    assert (points(0.01234), points(-0.01234), points(-1e-9)) == ("+1.23", "−1.23", "+0.00")
    assert (percent(0.98765), number(0.12345), number(1234.5), number(-0.5)) == ("98.77", "0.1235", "1234", "−0.5000")
    assert [probability(p) for p in (0.5, 0.04999, 1e-6)] == ["0.50", "0.0500", "< 0.0001"]


def test_a_table_shows_some_rows_and_its_csv_all():
    table = Table("t", "T", {"a": text, "b": percent}, [["x", 0.5], ["y", None], ["z", 1.0]], shown=2)
    assert table.written() == [["x", "50.00"], ["y", "–"]]
    assert table.left_out == "1 more row in tables/t.csv."
    assert table.csv() == "a,b\nx,0.5\ny,\nz,1.0\n"
    assert table.words() == [True, False]


def test_a_heat_map_says_every_field_and_hatches_losses():
    tiles = [[Tile(0.01, "+1.00", significant=True), None], [Tile(-0.02, "−2.00"), Tile(0.0, "+0.00", chosen=True)]]
    drawn = heat_map("h", "Gain", "T", "α", ["1", "<4>"], ["0.5", "0.9"], tiles)
    texts = [element.text for element in elements(drawn, "text")]
    assert {"+1.00 *", "−2.00", "+0.00", "<4>"} <= set(texts)
    classes = [element.get("class") for element in elements(drawn, "rect")]
    assert classes.count("absent") == classes.count("frame") == 1
    assert classes.count("tile loss") == 1
    assert any(element.get("class") == "hatch" for element in elements(drawn, "line"))


def test_a_long_name_of_a_cell_leaves_room_for_its_gain():
    found = paired([0.1, 0.2, 0.4])
    drawn = forest("f", "F", ACCURACY, [Row("x" * 99, found, True, True), Row("y" * 99, found, False, False)])
    for label in [element.text for element in elements(drawn, "text")][-2:]:
        assert label.split("…")[1].strip() in (": +23.33 *", ": +23.33")
        assert len(label) <= 55


def test_a_forest_draws_whiskers_where_there_is_an_interval():
    rows = [
        Row("a", paired([0.1, 0.2, 0.4]), True, True),
        Row("b", paired([0.1]), False, False),
        Row("c", paired([]), False, False),
    ]
    drawn = forest("f", "F", ACCURACY, rows)
    assert len([line for line in elements(drawn, "line") if "whisker" in line.get("class")]) == 3
    assert [element.text for element in elements(drawn, "text")][-3:] == ["a: +23.33 *", "b: +10.00", "c: no pair"]
    parts = [elements(forest("g", "G", ACCURACY, part, rows), "line") for part in (rows[:1], rows[1:])]
    same = {line.get("x1") for lines in parts for line in lines if line.get("class") == "zero"}
    assert len(same) == 1


def test_a_chart_of_one_epoch_and_of_equal_values_is_drawn():
    drawn = epoch_chart("e", "E", {"student": band([{0: 0.5}])}, [], "accuracy", percent)
    assert len(elements(drawn, "circle")) == 2  # one point, one in the legend
    drawn = against_cost(
        "c", "C", "parameters", ACCURACY, [Point("teacher", "t", 100.0, 0.5), Point("other", "o", 100.0, 0.5)]
    )
    assert len(elements(drawn, "polygon")) == 4


def test_a_difference_of_confusions_is_good_on_the_diagonal_and_bad_beside_it():
    drawn = confusion("d", "D", np.array([[2.0, -2.0], [1.0, -1.0]]), ["cat", "dog"], difference=True)
    kinds = [element.get("class") for element in elements(drawn, "rect")]
    assert kinds == ["tile gain", "tile gain", "tile loss", "tile loss"]
    assert [element.text for element in elements(drawn, "text")].count("−2") == 1
    assert "cat taken for dog: −2" in next(iter(elements(drawn, "desc"))).text


def test_per_class_by_hand():
    precision, recall, f1 = per_class(np.array([[8.0, 2.0, 0.0], [4.0, 6.0, 0.0], [0.0, 0.0, 0.0]]))
    assert precision.tolist() == pytest.approx([8 / 12, 6 / 8, 0])
    assert recall.tolist() == pytest.approx([0.8, 0.6, 0])
    assert f1.tolist() == pytest.approx([16 / 22, 12 / 18, 0])


def test_reliability_bins_are_those_of_the_ece():
    logits = torch.randn(500, 5, generator=torch.Generator().manual_seed(0)) * 2
    p = Predictions(logits, torch.arange(500) % 5, torch.arange(500))
    bins = reliability_bins([p])
    ece = sum(one.share * abs(one.accuracy - one.confidence) for one in bins if one)
    assert ece == pytest.approx(expected_calibration_error(p))
    assert bins[0] is None  # five classes: never surer than 1/15 alone
    assert sum(one.share for one in reliability_bins([p, p]) if one) == pytest.approx(1)
    assert all(one.few == (one.share * 500 < 10) for one in bins if one)


def test_the_scale_of_curves_is_that_of_the_later_epochs_where_they_differ():
    accuracy = {0: 0.1, **{epoch: 0.9 + 0.001 * epoch for epoch in range(1, 20)}}
    drawn = epoch_chart("e", "E", {"student": band([accuracy])}, [], "accuracy", percent)
    ticks = [element.text for element in elements(drawn, "text") if (element.text or "").startswith("9")]
    assert len(ticks) >= 3  # all between 90 and 92 %
    places = [float(element.get("cy")) for element in elements(drawn, "circle")]
    assert max(places) <= 300  # the first point is held at the edge, within the drawing
