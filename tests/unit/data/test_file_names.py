"""Names of files in one array of bytes: their order, parts of them, and what a fingerprint is made of."""

import os
import pickle

import pytest
import torch

from tutelage.data.file_names import FileNames


def test_parts_of_parts_are_those_rows_and_share_the_bytes(tmp_path):
    odd = os.fsdecode(b"\xff\xfe.png")  # no UTF-8
    names = FileNames(["a.png", odd])
    names.extend("cat/deep", ["b c.png", "ü.png"])
    whole = ["a.png", odd, "cat/deep/b c.png", "cat/deep/ü.png"]
    assert [names[row] for row in range(len(names))] == whole
    part = names.take(torch.tensor([3, 0, 1, 3]))
    assert [part[row] for row in range(len(part))] == [whole[3], whole[0], odd, whole[3]]
    last = pickle.loads(pickle.dumps(part.take(torch.tensor([2, 3]))))
    assert [last[row] for row in range(len(last))] == [odd, whole[3]]
    assert part._text is names._text
    with pytest.raises(IndexError):
        last[2]


def test_the_content_is_that_of_these_files_in_this_order(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    names = FileNames(["a", "b"])
    first = names.content(tmp_path)
    assert names.take(torch.tensor([0, 1])).content(tmp_path) == first
    assert names.take(torch.tensor([1, 0])).content(tmp_path) != first
    assert names.take(torch.tensor([0])).content(tmp_path) != first
    (tmp_path / "b").write_text("longer")
    assert names.content(tmp_path) != first
