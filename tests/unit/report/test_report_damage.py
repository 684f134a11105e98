"""One odd file of a run never ends a report: the run has no figures and says why, the others are there.

The runs have no checksums, as those of older releases: with them damage is found before a file is read.
"""

import json

import made_runs
import odd_documents
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.errors import TutelageError
from tutelage.report.document import markdown
from tutelage.report.documents import Documents
from tutelage.report.page import page
from tutelage.report.runs import read_runs
from tutelage.report.write import make_report

NORMS = {"0": {"hard": [1.0, 0.1], "soft": [2.0, 0.3]}, "2": {"hard": [1.0, 0.1], "soft": [2.0, 0.3]}}
FILES = ["status.json", "artifacts.json", "provenance.json", ".hydra/hydra.yaml", ".hydra/overrides.yaml",
         "config.yaml", "checkpoints/stage.json", "metrics.json"]  # fmt: skip


@pytest.fixture
def root(tmp_path):
    for seed in (0, 1):
        stage = made_runs.run(tmp_path, seed) / "checkpoints" / "stage.json"
        stage.write_text(json.dumps({**json.loads(stage.read_text()), "gradient_norms": NORMS}))
        (stage.parent / "manifest.json").unlink()
    return tmp_path


def _odd(root):
    return next(path for path in root.iterdir() if path.name.endswith("seed=0"))


def _reported(root):
    """The odd run, after a report of both."""
    runs = read_runs([root])
    assert len(runs) == 2
    assert runs[1].problem is None
    report = markdown(make_report(runs, "last"))
    if runs[0].problem:
        assert str(runs[0].folder) in report
    return runs[0]


@pytest.mark.parametrize("file", FILES)
def test_no_odd_value_ends_a_report(root, file):
    path = _odd(root) / file
    document = (json.loads if file.endswith("json") else yaml.safe_load)(path.read_text())
    documents = list(odd_documents.spoilt(document))
    documents = documents[: len(odd_documents.ODD)] + documents[len(odd_documents.ODD) :: 1 + len(documents) // 200]
    kept = 0
    for number, spoilt in enumerate(documents):
        path.write_text(json.dumps(spoilt) if file.endswith("json") else yaml.safe_dump(spoilt))
        run = read_runs([root])[0]
        if run.problem is None:
            kept += 1
            if kept % 12 == 1 or number < len(odd_documents.ODD):  # a report takes 50 ms
                _reported(root)
    _reported(root)


@pytest.mark.parametrize("file", FILES)
def test_no_damaged_file_ends_a_report(root, file):
    path = _odd(root) / file
    for damage in odd_documents.damages(path):
        run = _reported(root)
        may_pass = damage == "empty" or (damage == "cut" and path.suffix == ".yaml")  # half a YAML file may be one
        if file != "checkpoints/stage.json" and not may_pass:
            assert f"{path.name} can't be read" in run.problem


@pytest.mark.parametrize("damage", range(6))
def test_no_damaged_answers_end_a_report(root, damage):
    path = _odd(root) / "checkpoints" / "predictions.safetensors"
    content = path.read_bytes()
    spoilt = [b"", content[:100], bytes(len(content)), content[: len(content) // 2], content[8:], content + b"x"]
    path.write_bytes(spoilt[damage])
    assert _reported(root).problem is None


def test_a_file_of_aliases_is_not_unfolded(tmp_path):
    bomb = "a: &a [x, x]\n" + "".join(
        f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    (tmp_path / "config.yaml").write_text(bomb)
    with pytest.raises(TutelageError, match=r"config\.yaml can't be read: it has more than 20 aliases"):
        Documents().read(tmp_path / "config.yaml", dict)
    (tmp_path / "config.yaml").write_text("a: &a [x]\nb: *a\n")
    assert Documents().read(tmp_path / "config.yaml", dict) == {"a": ["x"], "b": ["x"]}
    (tmp_path / "config.yaml").write_text("a: 'x *y'\nb: c *d\n")
    assert Documents().read(tmp_path / "config.yaml", dict) == {"a": "x *y", "b": "c *d"}


@pytest.mark.parametrize("deep", ["[" * 100_000, "{a: " * 100_000, "- " * 100_000, "? " * 100_000, "-\t" * 100_000])
def test_a_file_without_bottom_does_not_end_the_process(tmp_path, deep):
    (tmp_path / "config.yaml").write_text(deep)
    with pytest.raises(TutelageError, match=r"config\.yaml can't be read"):
        Documents().read(tmp_path / "config.yaml", dict)


def test_what_documents_have_alike_is_in_memory_once(tmp_path):
    for number in range(2):
        (tmp_path / f"{number}.json").write_text(json.dumps({"a": [1, {"b": "c"}], "n": number, "x": 1.0, "y": True}))
    documents = Documents()
    one, two = (documents.read(tmp_path / f"{number}.json", dict) for number in range(2))
    assert one["a"] is two["a"]
    assert (one["n"], two["n"]) == (0, 1)
    assert (type(one["x"]), type(one["y"])) == (float, bool)


def test_sections_of_a_yaml_file_are_read_once(tmp_path):
    documents, made = Documents(), []
    for number in range(2):
        path = tmp_path / f"{number}.yaml"
        path.write_text(yaml.safe_dump({"data": {"root": "x", "sizes": [1, 2.5]}, "seed": number, "tt": None}))
        made.append(documents.read(path, dict))
    assert made[0]["data"] is made[1]["data"]
    assert [one["seed"] for one in made] == [0, 1]


LEAVES = (
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | st.text(max_size=90)
    | st.just("x: y\nb: c\n")
)  # fmt: skip
KEYS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=4) | st.sampled_from(
    ["a", "yes"]
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=80, deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=4), st.sampled_from([None, True, False]))
def test_a_yaml_file_says_section_by_section_what_it_says_as_a_whole(tmp_path_factory, document, flow):
    path = tmp_path_factory.mktemp("yaml") / "config.yaml"
    path.write_text(yaml.safe_dump(document, default_flow_style=flow, width=20, allow_unicode=True, sort_keys=False))
    assert Documents().read(path, dict) == yaml.safe_load(path.read_text())


@pytest.mark.parametrize(
    "text",
    [
        "a: [1,\nb, 2]\nc: 3\n",
        "a: {x: 1,\ny: 2}\n",
        "a: 'it\nb: is'\nc: 1\n",
        "# c\na: 1\n",
        "a: 1\nb: 2\na: 3\n",
        "a: |\n  b: 1\n\n  c\nd: 2\n",
    ],
)
def test_values_that_go_on_at_the_beginning_of_a_line_are_read(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    assert Documents().read(tmp_path / "config.yaml", dict) == yaml.safe_load(text)


EVIL = "=1+1 <script>alert(1)</script> [x](http://evil) ![p](http://evil) `a` \x1b[31m\x07 |"


def test_text_of_a_run_is_text_wherever_it_is_shown(root, tmp_path):
    made_runs.run(tmp_path, 2, state="FAILED", why=EVIL)
    config = made_runs.run(tmp_path, 0, temperature=2.0) / "config.yaml"
    config.write_text(yaml.safe_dump({**yaml.safe_load(config.read_text()), "note": EVIL}))
    overrides = config.parent / ".hydra" / "overrides.yaml"
    overrides.write_text(yaml.safe_dump([*yaml.safe_load(overrides.read_text()), f"note={EVIL}"]))
    report = make_report(read_runs([root]), "last")
    written = markdown(report)
    assert "<script" not in written
    assert "\x1b" not in written + page(report)
    assert r"\[x\](http" in written
    assert "<script>alert" not in page(report)
    csv = "".join(table.csv() for table in report.tables())
    assert "'=1+1" in csv
    assert "\x1b" not in csv
    assert ",=1" not in csv
    assert "\n=1" not in csv
