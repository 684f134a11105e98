"""One table, every format; and every way a file can be wrong."""

import contextlib
import pickle
import random
import sys

import numpy as np
import pytest

from tutelage.errors import TutelageError
from tutelage.sources.outputs_file import read_outputs

KEYS = np.array([4, 0, 2])
VALUES = np.array([[1.5, -2.0], [0.25, 3.0], [7.0, 1e-30]], np.float32)


def write(path, keys=KEYS, values=VALUES, names=("key", "zebra", "ant")):
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".npz":
        np.savez(path, key=keys, logits=values)
    elif path.suffix == ".csv":
        rows = [",".join([str(key), *map(repr, map(float, row))]) for key, row in zip(keys, values, strict=True)]
        path.write_text("\n".join([",".join(names), *rows]) + "\n")
    else:
        pa = pytest.importorskip("pyarrow", reason="needs the parquet extra")
        from pyarrow import parquet

        columns = [pa.array(column) for column in (keys, *values.T)]
        parquet.write_table(pa.Table.from_arrays(columns, names=list(names)), path)
    return path


@pytest.fixture(params=["npz", "csv", "parquet"])
def path(request, tmp_path):
    return tmp_path / f"teacher.{request.param}"


def test_keys_and_values_come_back(path):
    keys, values, names = read_outputs(write(path), "logits")
    np.testing.assert_array_equal(keys, KEYS)
    np.testing.assert_array_equal(values, VALUES)
    assert names == (None if path.suffix == ".npz" else ["zebra", "ant"])


def test_a_parquet_s_key_may_be_any_column(tmp_path):
    pa = pytest.importorskip("pyarrow", reason="needs the parquet extra")
    from pyarrow import parquet

    parquet.write_table(pa.table({"a": [0.5, 1], "b": [2.0, 3], "key": [4, 0], "c": [4.0, 5]}), tmp_path / "t.parquet")
    keys, values, names = read_outputs(tmp_path / "t.parquet", "logits")
    assert keys.tolist() == [4, 0]
    assert values.tolist() == [[0.5, 2, 4], [1, 3, 5]]
    assert names == ["a", "b", "c"]


def test_a_table_of_keys_alone_has_no_classes(tmp_path):
    for ending in ("csv", "parquet"):
        keys, values, names = read_outputs(write(tmp_path / f"t.{ending}", KEYS, VALUES[:, :0], ("key",)), "logits")
        assert (keys.tolist(), values.shape, names) == ([4, 0, 2], (3, 0), [])


def test_a_row_of_npy_is_its_key(tmp_path):
    keys, values, _ = read_outputs(write(tmp_path / "teacher.npy"), "logits")
    assert keys.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(values, VALUES)


def test_the_key_may_be_any_column_and_a_csv_be_a_spreadsheet_s(tmp_path):
    file = tmp_path / "teacher.csv"
    file.write_text('\ufeff"first class", key ,"b,c"\r\n1.5,"4",-2\r\n0.25,0,3\r\n', encoding="utf-8", newline="")
    keys, values, names = read_outputs(file, "logits")
    assert keys.tolist() == [4, 0]
    assert values.tolist() == [[1.5, -2], [0.25, 3]]
    assert names == ["first class", "b,c"]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ([1, 2, 2], "example 2 occurs 2 times, first in rows 1 and 2; 3 rows have 2 distinct keys"),
        ([4, -1, 2], r"integers of at least 0 as keys, found -1(\.0)? in row 1"),
        ([4, 0, 2.5], r"integers of at least 0 as keys, found 2\.5 in row 2"),
        ([4, float("nan"), 2], "integers of at least 0 as keys, found nan in row 1"),
    ],
)
def test_keys_that_are_none(path, keys, said):
    with pytest.raises(TutelageError, match=rf"teacher\.\w+: .*{said}"):
        read_outputs(write(path, np.array(keys)), "logits")


def test_keys_are_numbers_that_a_table_of_floats_holds_exactly(tmp_path):
    for largest in (2**53 - 1, 2**53):
        file = write(tmp_path / "teacher.npz", np.array([0, 1, largest]))
        if largest < 2**53:
            assert read_outputs(file, "logits")[0].tolist() == [0, 1, largest]
            continue
        with pytest.raises(TutelageError, match=f"integers of at least 0 as keys, found {largest} in row 2"):
            read_outputs(file, "logits")


def test_one_number_is_no_table(tmp_path):
    with pytest.raises(TutelageError, match=r"expected keys \[N\] and outputs \[N, C\], N ≥ 1; found \[0\] and \[\]"):
        read_outputs(write(tmp_path / "teacher.npy", values=np.float32(1)), "logits")


def test_no_example_at_all(path):
    with pytest.raises(TutelageError, match=r"expected keys \[N\] and outputs \[N, C\], N ≥ 1; found"):
        read_outputs(write(path, KEYS[:0], VALUES[:0]), "logits")


@pytest.mark.parametrize("names", [("kye", "a", "b"), ("key", "key", "b")])
def test_a_table_without_one_key(tmp_path, names):
    for ending in ("csv", "parquet"):
        with pytest.raises(TutelageError, match=rf"{ending}: expected one column 'key', found [02] among {names[0]}, "):
            read_outputs(write(tmp_path / f"teacher.{ending}", names=names), "logits")


def test_an_npz_that_holds_the_other_kind(tmp_path):
    with pytest.raises(TutelageError, match=r"expected an array 'probabilities'; known: key, logits"):
        read_outputs(write(tmp_path / "teacher.npz"), "probabilities")


@pytest.mark.parametrize(
    ("line", "said"),
    [("1,2", "number of columns changed from 3 to 2"), ("1,2,x", "could not convert string 'x'"), ("1,,2", "''")],
)
def test_a_csv_s_line_that_is_wrong(tmp_path, line, said):
    file = write(tmp_path / "teacher.csv")
    file.write_text(file.read_text() + line + "\n")
    with pytest.raises(TutelageError, match=rf"teacher\.csv: .*{said}"):
        read_outputs(file, "logits")


def test_a_header_of_another_width(tmp_path):
    file = tmp_path / "teacher.csv"
    file.write_text("key,a\n1,2,3\n")
    with pytest.raises(TutelageError, match="2 columns in the header, 3 below it"):
        read_outputs(file, "logits")


def test_a_null_is_no_number_and_a_word_is_none(tmp_path):
    pa = pytest.importorskip("pyarrow", reason="needs the parquet extra")
    from pyarrow import parquet

    file = tmp_path / "teacher.parquet"
    parquet.write_table(pa.table({"key": [0, 1], "a": [1, None]}), file)
    assert np.isnan(read_outputs(file, "logits")[1][1, 0])
    parquet.write_table(pa.table({"key": [0, 1], "a": ["x", "y"]}), file)
    with pytest.raises(TutelageError, match=r"teacher\.parquet: expected columns of numbers, found object"):
        read_outputs(file, "logits")


def test_a_table_that_does_not_fit_into_half_of_the_memory(tmp_path, monkeypatch):
    pa = pytest.importorskip("pyarrow", reason="needs the parquet extra")
    from pyarrow import parquet

    file = tmp_path / "teacher.parquet"
    parquet.write_table(pa.table({"key": [0, 1, 2], "a": [0.5, 1, 2], "b": [0.5, 1, 2], "c": [0.5, 1, 2]}), file)
    monkeypatch.setattr("tutelage.runtime.file_sizes.free_memory", lambda: 2 * 3 * 4 * 8)  # numbers of 8 bytes
    read_outputs(file, "logits")
    monkeypatch.setattr("tutelage.runtime.file_sizes.free_memory", lambda: 2 * 3 * 4 * 8 - 1)
    with pytest.raises(TutelageError, match=r"teacher\.parquet: refused because its content takes"):
        read_outputs(file, "logits")


def test_a_csv_whose_numbers_do_not_fit_into_half_of_the_memory(tmp_path, monkeypatch):
    file = write(tmp_path / "teacher.csv")
    most = file.stat().st_size * 8 // 2  # a number takes at least a digit and a comma
    monkeypatch.setattr("tutelage.runtime.file_sizes.free_memory", lambda: 2 * most)
    read_outputs(file, "logits")
    monkeypatch.setattr("tutelage.runtime.file_sizes.free_memory", lambda: 2 * most - 1)
    with pytest.raises(TutelageError, match=r"teacher\.csv: refused because its content takes"):
        read_outputs(file, "logits")


def test_another_ending_and_no_file(tmp_path):
    with pytest.raises(TutelageError, match=r"t\.txt: unknown ending '\.txt'; known: \.csv, \.npy, \.npz, \.parquet"):
        read_outputs(tmp_path / "t.txt", "logits")
    with pytest.raises(TutelageError, match=r"/t\.csv: no such file"):
        read_outputs(tmp_path / "t.csv", "logits")


class Mine:
    def __reduce__(self):
        return exec, ("raise SystemExit('unpickled')",)


@pytest.mark.parametrize("ending", ["npy", "npz"])
def test_nothing_is_unpickled(tmp_path, ending):
    file = tmp_path / f"teacher.{ending}"
    write(file, values=np.array([[Mine(), 1]], dtype=object))
    with pytest.raises(TutelageError, match="pickled objects, which are never unpickled"):
        read_outputs(file, "logits")
    file.write_bytes(pickle.dumps(Mine()))
    with pytest.raises(TutelageError, match=rf"damaged or not a \.{ending} file of numbers"):
        read_outputs(file, "logits")


@pytest.mark.parametrize("ending", ["npy", "npz", "csv", "parquet"])
def test_a_damaged_file_is_refused_or_read_but_never_crashes(tmp_path, ending):
    """The first cuts, and flipped bytes: what is read all the same has its shape."""
    file = write(tmp_path / f"teacher.{ending}")
    whole, chance = file.read_bytes(), random.Random(0)
    for length in (0, 1, len(whole) // 3, len(whole) // 2):
        file.write_bytes(whole[:length])
        with pytest.raises(TutelageError, match=rf"teacher\.{ending}"):
            read_outputs(file, "logits")
    for _ in range(100):
        damaged = bytearray(whole)
        damaged[chance.randrange(len(whole))] = chance.randrange(256)
        file.write_bytes(damaged)
        with contextlib.suppress(TutelageError):
            keys, values, _ = read_outputs(file, "logits")
            assert len(keys) == len(values)


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    file = tmp_path / "teacher.parquet"
    file.write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(TutelageError, match=r"pip install 'tutelage\[parquet\]'"):
        read_outputs(file, "logits")
