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
        ("a.csv", "a,b\n1,2\n1,nan\n", "row 1: column 'b' is 'nan'; expected a finite number"),
        ("a.csv", "a,b\n1e39,2\n", "row 0: column 'a' is '1e39'; expected a finite number"),
        ("a.csv", "a,b\n1,2,3\n", "row 0 has more values than the header has names"),
        ("a.csv", "a,a\n1,2\n", "a.csv has 2 columns 'a'; expected one"),
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
    with pytest.raises(TutelageError, match=r"row 0: column 'a' is 51; .* are from 0 to 1: pixels=bytes reads those"):
        numbers(tmp_path / "bytes.csv", None, about)
    (tmp_path / "wrong.csv").write_text("a,b\n-3,256\n")
    with pytest.raises(TutelageError, match=r"column 'a' is -3; .* with pixels=bytes are from 0 to 255$"):
        numbers(tmp_path / "wrong.csv", None, about, "bytes")
    measured = numbers(tmp_path / "bytes.csv", None, {"input_shape": [2], "mean": None, "std": None})
    assert measured.batch(row)["input"].tolist() == [[51.0, 255.0]]  # no image
