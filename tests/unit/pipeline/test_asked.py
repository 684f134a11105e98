"""Tables of numbers that `tutelage predict` reads or refuses."""

import pytest

from tutelage.errors import TutelageError
from tutelage.pipeline.asked import numbers

ABOUT = {"input_shape": (2,), "mean": None, "std": None}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "a,b\n1,2\n1,nan\n", "row 1: column 'b' is 'nan'; expected a finite number"),
        ("a.csv", "a,b\n1e39,2\n", "row 0: column 'a' is '1e39'; expected a finite number"),
        ("a.csv", "a,b\n1,2,3\n", "row 0 has more values than the header has names"),
        ("a.jsonl", '{"a": 1, "b": 2}\n[1, 2]\n', "row 1: expected an object with a value for each column"),
        ("a.jsonl", "3\n", "row 0: expected an object with a value for each column"),
    ],
)
def test_rows_that_are_no_numbers_are_refused_by_number(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(TutelageError, match=message):
        numbers(path, None, ABOUT)


def test_one_column_may_be_named_without_brackets(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("age,weight\n3,4\n")
    asked = numbers(path, "age", ABOUT | {"input_shape": (1,)})
    assert [batch["input"].tolist() for batch in asked.batches(8)] == [[[3.0]]]
