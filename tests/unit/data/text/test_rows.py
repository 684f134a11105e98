"""Texts of files: every format gives the same rows, and what is wrong in one is said with its line."""

import json

import pytest
from texts import tsv

from tutelage.data.text.rows import Columns, read
from tutelage.errors import TutelageError

ROWS = [("a film", "pos"), ('he said "no", twice', "neg"), ("äöü – ü", "pos")]


def written(folder, suffix):
    path = folder / f"train.{suffix}"
    if suffix == "tsv":
        return tsv(path, ROWS)
    if suffix == "csv":
        quoted = [('"' + text.replace('"', '""') + '"', label) for text, label in ROWS]
        path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in quoted))
    if suffix == "jsonl":
        path.write_text("".join(json.dumps({"text": text, "label": label, "more": 1}) + "\n" for text, label in ROWS))
    if suffix == "parquet":
        arrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(arrow.table({"text": [a for a, _ in ROWS], "label": [b for _, b in ROWS]}), path)
    return path


@pytest.mark.parametrize("suffix", ["tsv", "csv", "jsonl", "parquet"])
def test_every_format_gives_the_same_rows(tmp_path, suffix):
    path = written(tmp_path, suffix)
    rows = read([path], Columns(), "utf-8")
    assert list(zip(rows.texts, rows.labels, strict=True)) == ROWS
    assert str(path) in rows.places(2)
    both = read([path, path], Columns(), "utf-8")
    assert both.texts == [*rows.texts, *rows.texts]
    assert [both.places(row) for row in range(6)] == [rows.places(row) for row in range(3)] * 2


def test_a_folder_of_text_files_by_class(tmp_path):
    for label, text in (("pos", "good\nfilm"), ("neg", "bad"), ("unsup", "who knows")):
        (tmp_path / label).mkdir()
        (tmp_path / label / "0.txt").write_text(text)
    rows = read([tmp_path], Columns(), "utf-8")
    assert (rows.texts, rows.labels) == (["bad", "good\nfilm", "who knows"], ["neg", "pos", "unsup"])
    chosen = read([tmp_path], Columns(), "utf-8", classes=["neg", "pos"])
    assert (chosen.labels, chosen.names) == (["neg", "pos"], ["neg", "pos"])
    assert rows.places(0) == str(tmp_path / "neg" / "0.txt")
    with pytest.raises(TutelageError, match=r"data\.class_names: .* has no folder 'negg'; did you mean 'neg'\?"):
        read([tmp_path], Columns(), "utf-8", classes=["negg", "pos"])


def test_a_line_end_within_quotes_belongs_to_the_text(tmp_path):
    (tmp_path / "a.csv").write_bytes(b'text,label\r\n"one\r\ntwo",1\r\n')
    rows = read([tmp_path / "a.csv"], Columns(), "utf-8")
    assert rows.texts == ["one\ntwo"]
    assert rows.labels == ["1"]


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path):
    (tmp_path / "a.tsv").write_bytes("\ufefftext\tlabel\na\t1\n".encode())
    assert read([tmp_path / "a.tsv"], Columns(), "utf-8").texts == ["a"]


def test_rows_are_sorted_by_a_key_so_that_their_order_does_not_matter(tmp_path):
    one = tsv(tmp_path / "one.tsv", [(10, "ten", 1), (9, "nine", 0)], ("id", "text", "label"))
    other = tsv(tmp_path / "other.tsv", [(9, "nine", 0), (10, "ten", 1)], ("id", "text", "label"))
    found = [read([path], Columns(key="id"), "utf-8") for path in (one, other)]
    assert found[0].texts == found[1].texts == ["nine", "ten"]
    assert found[0].places(0) == f"{one}, line 3"


def test_columns_of_a_file_without_a_first_line_of_names_and_pairs(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_bytes(b"1\t0.5\tcaf\xe9\tnoir\n")
    rows = read([path], Columns(text="a", pair="b", label="y", header=["id", "y", "a", "b"]), "latin-1")
    assert (rows.texts, rows.labels) == ([("café", "noir")], ["0.5"])


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.tsv", b"sentence\tlabel\na\t1\n", "no column 'text'; known: label, sentence"),
        ("a.tsv", b"texts\tlabel\na\t1\n", "did you mean 'texts'"),
        ("a.tsv", b"text\tlabel\na\t1\n\t0\n", "line 3: column 'text' is an empty text"),
        ("a.tsv", b"text\tlabel\na\n", "line 2: 1 columns; expected 2"),
        ("a.tsv", b"text\tlabel\n", "holds no text"),
        ("a.tsv", b"text\tlabel\ttext\na\t1\tb\n", "has 2 columns 'text'; expected one"),
        ("a.csv", b"text,label,label\na,1,0\n", "has 2 columns 'label'; expected one"),
        ("a.tsv", b"", "is empty"),
        ("a.tsv", b"text\tlabel\ncaf\xe9\t1\n", "line 2: the byte 0xe9 is none of utf-8; data.encoding=latin-1"),
        (
            "a.tsv",
            "text\tlabel\na\t1\n".encode("utf-16"),
            "none of utf-8; it begins as files in data.encoding=utf-16 do",
        ),
        ("a.csv", b'text,label\n"a"b,1\n', "line 2: not comma-separated values"),
        ("a.jsonl", b'{"text": "a", "label": 1}\n{"text": 3, "label": 1}\n', "line 2: column 'text' is 3 (int)"),
        ("a.jsonl", b'{"text": "a", "label": 1}\n{"label": 1}\n', "line 2: no column 'text'"),
        ("a.jsonl", b"{\n", "line 1: not JSON"),
        ("a.jsonl", b"[1]\n", "line 1: expected an object; found list"),
        ("a.jsonl", b'{"text": "\\ud800", "label": 1}\n', "half of a surrogate pair"),
        ("a.docx", b"text", "expected a folder, or a file that ends in .tsv"),
    ],
)
def test_what_is_wrong_in_a_file_is_one_sentence(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TutelageError) as error:
        read([tmp_path / name], Columns(), "utf-8")
    assert said in str(error.value)
    assert str(tmp_path / name) in str(error.value)


def test_other_mistakes_are_said_as_well(tmp_path):
    path = tsv(tmp_path / "a.tsv", [(1, "a", 0), (1, "b", 0)], ("id", "text", "label"))
    for change, encoding, said in (
        ({"key": "id"}, "utf-8", "line 3: the key '1' is that of"),
        ({}, "no-such", "Python knows no such encoding"),
    ):
        with pytest.raises(TutelageError, match=said):
            read([path], Columns(**change), encoding)
    with pytest.raises(TutelageError, match="there is no file or folder"):
        read([tmp_path / "b.tsv"], Columns(), "utf-8")
    (tmp_path / "empty").mkdir()
    with pytest.raises(TutelageError, match=r"expected a folder of \.txt files for each class; folders found: none"):
        read([tmp_path / "empty"], Columns(), "utf-8")


def test_a_name_that_two_columns_of_a_parquet_file_have_is_said(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    twice = pyarrow.Table.from_arrays([pyarrow.array(["a"]), pyarrow.array(["b"])], names=["text", "text"])
    parquet.write_table(twice, tmp_path / "a.parquet")
    with pytest.raises(TutelageError, match=r"a\.parquet has 2 columns 'text'; expected one"):
        read([tmp_path / "a.parquet"], Columns(label=None), "utf-8")
