import copy
import io

import pytest
from rich.console import Console

from tutelage.errors import TutelageError
from tutelage.evaluation.table import comparison, gain_sentence, multirun_table, short_line


def figures(accuracy, nll, ece, **fidelity):
    errors = round((1 - accuracy) * 10_000)
    return {"accuracy": accuracy, "errors": errors, "nll": nll, "ece": ece, "count": 10_000, **fidelity}


def entry(cost, seconds, reused, epochs, last, best):
    elsewhere = figures(0.5, 0.5, 0.5)  # validation figures must not appear
    return {
        "model": "mlp",
        "parameters": cost[0],
        "multiply_adds": cost[1],
        "epochs": epochs[0],
        "seconds": seconds,
        "reused": reused,
        "made": "2026-05-04 03:02:01+0000",
        "digest": "0123abcd0123abcd0123",
        "last": {"epoch": epochs[0], "val": elsewhere, "test": last},
        "best": {"epoch": epochs[1], "val": elsewhere, "test": best},
    }


METRICS = {
    "schema": 1,
    "seed": 3,
    "teacher": entry(
        (2_395_210, 2_392_800), 341.24, True, (20, 17), figures(0.9882, 0.0412, 0.0062), figures(0.9885, 0.0404, 0.0058)
    ),
    "control": entry(
        (25_450, 25_408),
        21.44,
        False,
        (20, 14),
        figures(0.9601, 0.1392, 0.0121, agreement=0.9622, kl_teacher=0.1301),
        figures(0.9604, 0.1377, 0.0101, agreement=0.9623, kl_teacher=0.1296),
    ),
    "student": entry(
        (25_450, 25_408),
        1025.9,
        False,
        (20, 19),
        figures(0.9657, 0.1192, 0.0081, agreement=0.9688, kl_teacher=0.0901),
        figures(0.9655, 0.1177, 0.0109, agreement=0.9683, kl_teacher=0.0896),
    ),
    "gain": {"last": {"accuracy": 0.0056}, "best": {"accuracy": 0.0051}},
}


def without(*roles):
    return {k: v for k, v in METRICS.items() if k not in roles}


def text(metrics, width):
    console = Console(width=width, file=io.StringIO(), force_terminal=False, legacy_windows=False)
    console.print(comparison(metrics))
    return console.file.getvalue()


def row(metrics, name, width=100):
    """The two lines of a row, without its name and with single spaces."""
    lines = text(metrics, width).splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith(name))
    return " ".join(lines[at].removeprefix(name).split()), " ".join(lines[at + 1].split())


def test_the_teachers_row():
    assert row(METRICS, "Teacher") == (
        "2.395M 2.393M last 20 98.82 118 0.0412 0.0062 – – 341.2",
        "best 17 98.85 115 0.0404 0.0058 – – reused",
    )


def test_the_row_of_the_student_alone():
    assert row(METRICS, "Student alone") == (
        "25.45k 25.41k last 20 96.01 399 0.1392 0.0121 96.22 0.1301 21.4",
        "94.1× 94.2× best 14 96.04 396 0.1377 0.0101 96.23 0.1296",
    )


def test_the_row_of_the_distilled_student():
    assert row(METRICS, "Distilled student") == (
        "25.45k 25.41k last 20 96.57 343 0.1192 0.0081 96.88 0.0901 1026",
        "94.1× 94.2× best 19 96.55 345 0.1177 0.0109 96.83 0.0896",
    )


def test_rows_come_in_the_order_of_the_story():
    shown = text(METRICS, 100)
    assert shown.index("Teacher ") < shown.index("Student alone") < shown.index("Distilled student")


@pytest.mark.parametrize("width", [80, 90, 99, 100, 200])
def test_no_line_is_wider_than_the_terminal_or_a_hundred(width):
    assert max(map(len, text(METRICS, width).splitlines())) <= min(width, 100)


def extreme():
    worst = copy.deepcopy(METRICS)
    for role in ("teacher", "control", "student"):
        worst[role]["parameters"], worst[role]["multiply_adds"] = 999_949_999, 123_456_789_000
        worst[role]["seconds"] = 999_999.4
        for weights in ("last", "best"):
            worst[role][weights]["epoch"] = 1234
            worst[role][weights]["test"] |= {
                "accuracy": 1.0, "errors": 49_999, "nll": 123_456.7, "ece": 0.99999, "agreement": 0.99999,
                "kl_teacher": 9.87654,
            }  # fmt: skip
    worst["control"]["parameters"] = 100_123
    return worst


@pytest.mark.parametrize("metrics", [METRICS, extreme(), without("control", "gain"), without("teacher")])
def test_eighty_columns_lose_no_figure(metrics):
    def words(width):
        table = text(metrics, width).split("examples")[0]
        return sorted(table.replace("─", "").split())

    assert words(80) == words(100)
    assert max(map(len, text(metrics, 80).splitlines())) <= 80


def test_extremes_stay_true_to_the_figures():
    first, second = row(extreme(), "Student alone")
    assert first == "100.1k 123.5G last 1234 100 49999 1e+05 1.0000 99.99 9.8765 999999"
    assert second.startswith("9987× 1× best 1234 100 ")


def test_without_a_teacher_the_student_is_not_called_distilled():
    metrics = {
        "schema": 1,
        "seed": 0,
        "student": entry((25_450, 25_408), 9.0, False, (2, 1), *[figures(0.9, 1.0, 0.1)] * 2),
    }
    shown = text(metrics, 80)
    assert "Distilled" not in shown
    assert "×" not in shown
    assert row(metrics, "Student", 80)[0] == "25.45k 25.41k last 2 90.00 1000 1.0000 0.1000 – – 9.0"


def test_the_legend_says_only_what_the_table_needs():
    assert "Teacher: reused, made 2026-05-04 03:02, digest 0123abcd; trained in these seconds." in " ".join(
        text(METRICS, 100).split()
    )
    fresh = copy.deepcopy(METRICS)
    fresh["teacher"]["reused"] = False
    assert "reused" not in text(fresh, 100)
    assert "10,000 test examples" in text(fresh, 100)


def test_the_gain_in_one_sentence():
    assert gain_sentence(METRICS) == (
        "distilled − alone: +0.56 points of test accuracy (last weights), +0.51 (best on validation). "
        "One pair of runs with one seed: not evidence by itself; sweep seeds to learn more."
    )
    assert gain_sentence(METRICS) in " ".join(text(METRICS, 80).split())


@pytest.mark.parametrize(
    ("gain", "words"),
    [(-0.0123, "−1.23 points"), (0.0, "+0.00 points"), (-1e-9, "+0.00 points"), (1.0, "+100.00 points")],
)
def test_the_sign_of_a_gain(gain, words):
    metrics = {**METRICS, "gain": {"last": {"accuracy": gain}, "best": {"accuracy": 0.1}}}
    assert f"alone: {words} of test accuracy (last weights), +10.00 (best" in gain_sentence(metrics)


def test_without_a_control_no_gain_is_claimed():
    shown = " ".join(text(without("control", "gain"), 80).split())
    assert "can't say what distillation gains" in shown
    assert "points" not in shown


@pytest.mark.parametrize("function", [comparison, gain_sentence])
def test_another_schema_or_no_student_is_refused(function):
    with pytest.raises(TutelageError, match="expected schema 1, found 2"):
        function({**METRICS, "schema": 2})
    with pytest.raises(TutelageError, match="expected schema 1, found None"):
        function({})
    with pytest.raises(TutelageError, match="expected a student, found"):
        function(without("student"))


def test_a_job_of_a_multirun_is_one_line():
    assert short_line(METRICS) == "teacher 98.82 %, alone 96.01 %, distilled 96.57 %: +0.56 points"
    assert short_line(without("control", "teacher")) == "distilled 96.57 %"


def test_a_multirun_is_one_table_with_one_explanation():
    console = Console(width=100, file=io.StringIO(), force_terminal=False, legacy_windows=False)
    console.print(multirun_table({"seed=0": METRICS, "[b]seed=1": without("control")}))
    lines = [" ".join(line.split()) for line in console.file.getvalue().splitlines()]
    assert "seed=0 98.82 96.01 96.57 +0.56" in lines
    assert "[b]seed=1 98.82 – 96.57 –" in lines
    assert sum("gain: distilled − alone" in line for line in lines) == 1
