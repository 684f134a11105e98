"""Tables of numbers and images that `tutelage predict` reads or refuses."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from tutelage.errors import TutelageError
from tutelage.pipeline.asked import images, numbers

ABOUT = {"input_shape": (2,), "mean": None, "std": None}
OF_IMAGES = {"input_shape": [3, 6, 8], "mean": [0.1, 0.2, 0.3], "std": [0.5, 0.6, 0.7]}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "a,b\n1,2\n1,nan\n", r"row 1 \(line 3\): column 'b' is 'nan'; expected a finite number"),
        ("a.csv", "a,b\n1e39,2\n", r"row 0 \(line 2\): column 'a' is '1e39'; expected a finite number"),
        ("a.csv", "a,b\n1,2,3\n", r"row 0 \(line 2\) has more values than the header has names"),
        ("a.csv", "a,a\n1,2\n", "a.csv has 2 columns 'a'; expected one"),
        (
            "a.jsonl",
            '{"a": 1, "b": 2}\n\n[1, 2]\n',
            r"row 1 \(line 3\): expected an object with a value for each column",
        ),
        ("a.jsonl", "3\n", r"row 0 \(line 1\): expected an object with a value for each column"),
        ("a.jsonl", '{"a": 1, "b": 2}\n{"a": 1, "c": 2}\n', r"row 1 \(line 2\): no column 'b'; known: a, c"),
        (
            "a.jsonl",
            '{"a": 1, "b": 2}\n{"a": 1, "b": 2, "c": 3}\n',
            r"row 1 \(line 2\): column 'c' is none of .* a, b:",
        ),
        ("a.jsonl", '{"a": 1, "b": 2, "a": 3}\n', "line 1: it has 'a' 2 times; expected it once"),
        ("a.jsonl", '{"a": 1, "b": 2}\n{"a": 1,\n', "read as .jsonl: line 2: Expecting property name"),
        ("a.csv", "0.5,-1e-3\n1,2\n", r"its first line, 0\.5, -1e-3 …, consists of numbers; expected the names of the"),
        ("a.tsv", "0\t0\n1\t2\n", "consists of numbers; expected the names of the columns"),
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


def in_a_table(path, image):
    content = io.BytesIO()
    image.save(content, "PNG" if image.mode != "F" else "TIFF")
    pq.write_table(pa.table({"image": [{"bytes": content.getvalue(), "path": None}]}), path)
    return path


@pytest.mark.parametrize(("resize", "box"), [(None, (2, 0, 14, 9)), (9, (4, 2, 12, 8))])
def test_an_image_of_a_table_is_that_of_a_folder_normalised(tmp_path, resize, box):
    about = OF_IMAGES | {"resize": resize}
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 16, 3), np.uint8))
    (tmp_path / "folder").mkdir()
    image.save(tmp_path / "folder/a.png")
    row = torch.tensor([0])
    found = numbers(in_a_table(tmp_path / "a.parquet", image), None, about).batch(row)["input"]
    assert torch.equal(found, images(tmp_path / "folder", about).batch(row)["input"])
    mean, std = (torch.tensor(OF_IMAGES[key])[:, None, None] for key in ("mean", "std"))
    fitted = np.asarray(image.resize((8, 6), Image.Resampling.BILINEAR, box), np.float32)
    torch.testing.assert_close(
        found[0] * std + mean, torch.from_numpy(fitted).permute(2, 0, 1) / 255, rtol=0, atol=0.01
    )


def test_an_image_of_a_table_that_has_too_many_bits_is_refused_by_its_row(tmp_path):
    path = in_a_table(tmp_path / "a.parquet", Image.new("F", (8, 6)))
    with pytest.raises(TutelageError, match="row 0: the image can't be used: mode F has more than 16 bits a channel"):
        numbers(path, None, OF_IMAGES)


def test_pixels_of_a_table_are_shares_or_bytes_and_others_are_refused(tmp_path):
    about = {"input_shape": [1, 1, 2], "mean": [0.5], "std": [0.25]}
    (tmp_path / "unit.csv").write_text("a,b\n0.2,1\n")
    (tmp_path / "bytes.csv").write_text("a,b\n51,255\n")
    row = torch.tensor([0])
    shares = numbers(tmp_path / "unit.csv", None, about).batch(row)["input"]
    torch.testing.assert_close(shares, torch.tensor([[[[-1.2, 2.0]]]]))
    torch.testing.assert_close(numbers(tmp_path / "bytes.csv", None, about, "bytes").batch(row)["input"], shares)
    with pytest.raises(TutelageError, match=r"column 'a' is 51; .* are from 0 to 1: pixels=bytes reads those"):
        numbers(tmp_path / "bytes.csv", None, about)
    (tmp_path / "wrong.csv").write_text("a,b\n-3,256\n")
    with pytest.raises(TutelageError, match=r"column 'a' is -3; .* with pixels=bytes are from 0 to 255$"):
        numbers(tmp_path / "wrong.csv", None, about, "bytes")
    (tmp_path / "parts.csv").write_text("a,b\n3,25.5\n")
    with pytest.raises(TutelageError, match=r"column 'b' is 25\.5; with pixels=bytes pixels are whole numbers"):
        numbers(tmp_path / "parts.csv", None, about, "bytes")
    (tmp_path / "unit.csv").write_text("a,b\n0,1\n1,0\n")
    with pytest.raises(
        TutelageError, match=r"unit\.csv: no pixel is above 1; expected some, up to 255, with pixels=bytes"
    ):
        numbers(tmp_path / "unit.csv", None, about, "bytes")
    measured = numbers(tmp_path / "bytes.csv", None, ABOUT)
    assert measured.batch(row)["input"].tolist() == [[51.0, 255.0]]  # no image
    with pytest.raises(TutelageError, match="pixels=bytes: the network takes no normalised images"):
        numbers(tmp_path / "bytes.csv", None, ABOUT, "bytes")


def test_the_columns_of_every_row_are_those_of_the_first_by_name(tmp_path, caplog):
    caplog.set_level("INFO")
    (path := tmp_path / "a.jsonl").write_text('{"b": 1, "a": 2}\n{"a": 4, "b": 3}\n')
    assert numbers(path, None, ABOUT).batch(torch.arange(2))["input"].tolist() == [[1.0, 2.0], [3.0, 4.0]]
    said = [line for line in caplog.messages if "taken by position" in line]
    assert len(said) == 1
    assert said[0].endswith("2 are taken by position: b, a")


def test_columns_that_the_data_named_are_taken_by_name_in_any_order(tmp_path, caplog):
    caplog.set_level("INFO")
    about = ABOUT | {"input_names": ["age", "weight"]}
    (path := tmp_path / "a.csv").write_text("weight,age\n1,2\n")
    row = torch.tensor([0])
    assert numbers(path, None, about).batch(row)["input"].tolist() == [[2.0, 1.0]]
    assert numbers(path, ["age", "weight"], about).batch(row)["input"].tolist() == [[2.0, 1.0]]
    with pytest.raises(
        TutelageError, match=r"columns=weight, age: the network was trained on these in another order, age"
    ):
        numbers(path, ["weight", "age"], about)
    path.write_text("weight,age,id\n1,2,3\n")
    with pytest.raises(
        TutelageError, match=r"column 'id' is none of those that the network reads, age, weight: columns="
    ):
        numbers(path, None, about)
    assert numbers(path, ["weight", "id"], about).batch(row)["input"].tolist() == [[1.0, 3.0]]  # as was asked for
    path.write_text("weight,old\n1,2\n")
    with pytest.raises(TutelageError, match=r"row 0 \(line 2\): no column 'age'; known: old, weight"):
        numbers(path, None, about)
    assert not caplog.messages


def test_the_names_that_pandas_gives_to_columns_are_no_row(tmp_path):
    (path := tmp_path / "a.csv").write_text("0,1,2\n1,2,3\n")
    assert numbers(path, None, ABOUT | {"input_shape": [3]}).batch(torch.tensor([0]))["input"].tolist() == [[1, 2, 3]]
