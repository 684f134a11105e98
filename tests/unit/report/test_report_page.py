"""The page as a browser's parser sees it, of runs that were made up."""

import csv
import json
import re
from collections import Counter
from html.parser import HTMLParser
from itertools import pairwise

import made_runs
import pytest
from torch import nn

from tutelage.checkpoints.header import recorded_digest
from tutelage.checkpoints.weights import save_network
from tutelage.cli.report import main
from tutelage.errors import TutelageError
from tutelage.report.runs import read_runs
from tutelage.report.write import write_report
from tutelage.runtime import manifest

VOID = {"meta", "link", "img", "br", "input", "hr"}


class Page(HTMLParser):
    """Collects tags with their attributes, and checks that they are nested well."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.bad, self.texts = [], [], [], []
        self.feed(text)
        assert not self.open, self.open
        assert not self.bad

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs), tuple(self.open)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs), tuple(self.open)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.bad.append((tag, self.getpos()))

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    def all(self, tag):
        return [attributes for name, attributes, _ in self.tags if name == tag]

    def within(self, tag):
        return [data.strip() for inside, data in self.texts if inside == tag and data.strip()]


def report(folder, output, *, weights="last"):
    write_report(read_runs([folder]), output, weights)
    return Page((output / "index.html").read_text())


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    root = tmp_path_factory.mktemp("sweep")
    for t in (1, 4):
        for a in (0.5, 1.0):
            for seed in range(3):
                made_runs.run(root, seed, t, a, skill=0.4 + 0.02 * t + 0.1 * a)
    made_runs.run(root, 3, 4, 1.0, state="FAILED", why="<b>no</b> & memory")
    return root


@pytest.fixture(scope="module")
def page(sweep, tmp_path_factory):
    output = tmp_path_factory.mktemp("report")
    return output, report(sweep, output)


def test_every_anchor_and_every_label_leads_somewhere(page):
    _, found = page
    ids = Counter(attributes["id"] for _, attributes, _ in found.tags if "id" in attributes)
    assert max(ids.values()) == 1
    for _, attributes, _ in found.tags:
        if (target := attributes.get("href", "")).startswith("#"):
            assert target[1:] in ids
        for name in attributes.get("aria-labelledby", "").split():
            assert name in ids
    assert {"answer", "training", "behaviour", "diagnosis", "provenance"} <= set(ids)


def test_nothing_is_fetched_and_nothing_runs(page):
    output, found = page
    text = (output / "index.html").read_text()
    assert not re.search(r"https?://|url\(|@import|<script|javascript:", text)
    for tag, attributes, _ in found.tags:
        for key in ("src", "href"):
            if key in attributes:
                assert attributes[key].startswith(("#", "data:")), (tag, attributes)
        assert not [key for key in attributes if key.startswith("on")]


def test_every_drawing_is_named_and_described(page):
    _, found = page
    drawings = [(attributes, above) for tag, attributes, above in found.tags if tag == "svg"]
    assert len(drawings) > 8
    for attributes, above in drawings:
        assert attributes["role"] == "img"
        assert len(attributes["aria-labelledby"].split()) == 2
        assert "figure" in above
    assert len([text for text in found.within("desc") if len(text) > 10]) == len(drawings)
    assert all(attributes.get("alt") for attributes in found.all("img"))


def test_tables_can_be_read_aloud_and_scrolled_by_keyboard(page):
    _, found = page
    tables = [above for tag, _, above in found.tags if tag == "table"]
    assert len(tables) == len(found.all("caption")) > 8
    assert all(attributes["scope"] in ("col", "row") for attributes in found.all("th"))
    regions = [attributes for attributes in found.all("div") if attributes.get("class") == "scroll"]
    assert len(regions) == len(tables)
    assert all(attributes["tabindex"] == "0" and attributes["role"] == "region" for attributes in regions)


def test_headings_do_not_jump(page):
    _, found = page
    levels = [int(tag[1]) for tag, _, _ in found.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_what_a_user_wrote_is_no_html(page):
    output, found = page
    assert "&lt;b&gt;no&lt;/b&gt; &amp; memory" in (output / "index.html").read_text()
    assert not found.all("b")


def test_page_markdown_and_csv_have_the_same_tables(page):
    output, found = page
    markdown = (output / "report.md").read_text()
    files = {path.stem for path in (output / "tables").iterdir()}
    assert files == {attributes["id"].removeprefix("table-") for attributes in found.all("table")}
    with (output / "tables" / "cells.csv").open() as file:
        cells = list(csv.DictReader(file))
    assert len(cells) == 4
    for cell in cells:
        value = f"{100 * float(cell['val, %']):.2f}"
        assert value in markdown
        assert value in found.within("td")
    captions = found.within("span")
    assert all(caption in markdown for caption in captions if caption.startswith(("Every", "Who", "Precision")))


def test_the_chosen_cell_is_in_the_answer_and_in_every_place(page):
    output, found = page
    [lead] = [text for tag, text in found.texts if tag == "p" and "paired)" in text]
    with (output / "tables" / "cells.csv").open() as file:
        [chosen] = [row["cell"] for row in csv.DictReader(file) if row["choice"] == "chosen"]
    assert chosen in lead
    assert "among 4 cells" in lead
    assert "3 seeds" in lead
    assert lead.startswith(("Distillation helps", "Distillation harms", "These runs do not show"))


def test_stale_tables_go_and_other_files_stay(sweep, tmp_path):
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "old.csv").write_text("a")
    (tmp_path / "mine.csv").write_text("b")
    report(sweep, tmp_path)
    assert not (tmp_path / "tables" / "old.csv").exists()
    assert (tmp_path / "mine.csv").read_text() == "b"


def test_a_single_run_is_no_evidence_and_a_report(tmp_path):
    found = report(made_runs.run(tmp_path, 0), tmp_path / "report")
    [lead] = [text for tag, text in found.texts if tag == "p" and "One seed is no evidence" in text]
    assert "in the only setting that was run" in lead
    assert any("No interval and no test" in text for _, text in found.texts)


def test_equal_gains_are_not_tested(tmp_path):
    for seed in range(2):
        folder = made_runs.run(tmp_path, seed)
        metrics = json.loads((folder / "metrics.json").read_text())
        for role, value in (("student", 0.8), ("control", 0.7)):
            metrics[role]["last"]["test"]["accuracy"] = value
        (folder / "metrics.json").write_text(json.dumps(metrics))
    found = report(tmp_path, tmp_path / "report")
    assert any("all 2 seeds show exactly +10.00 points" in text for _, text in found.texts)


def test_networks_that_learned_beside_the_student_have_rows(tmp_path):
    for seed in (0, 1):
        folder = made_runs.run(tmp_path, seed)
        metrics = json.loads((folder / "metrics.json").read_text())
        peer = metrics["student"] | {"parameters": 777}
        mean = {kind: {"test": {"accuracy": 0.25 + seed / 2}} for kind in ("last", "best")}
        del metrics["teacher"]
        metrics |= {"peers": {"peers/0": peer}, "mean_of_peers": {"count": 2, **mean}}
        (folder / "metrics.json").write_text(json.dumps(metrics))
    report(tmp_path, tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text()
    assert "; 1 peer; seeds 0, 1;" in text
    assert re.search(r"\| peers/0 \| 777 \| 400 \| ", text)
    assert "| mean of peers and student | – | – | 50.00 | 35.36 | – | 2 |" in text


def test_an_evaluation_of_weights_that_were_written_again_says_so(tmp_path):
    made_runs.run(tmp_path, 0)
    path = tmp_path / "net.safetensors"
    save_network(nn.Linear(2, 2), path, {})
    found = {
        "checkpoint": str(path), "weights": recorded_digest(path), "split": "test", "parameters": 6, "multiply_adds": 4,
        "about": {"stage": "student"}, "figures": {"accuracy": 0.5},
    }  # fmt: skip
    folder = tmp_path / "asked"
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "hydra.yaml").write_text("hydra: {job: {config_name: evaluate}}")
    (folder / ".hydra" / "overrides.yaml").write_text("[]")
    (folder / "status.json").write_text(json.dumps({"state": "COMPLETE"}))
    (folder / "metrics.json").write_text(json.dumps(found))
    report(tmp_path, tmp_path / "report")
    assert "| evaluated: student, asked | 6 |" in (tmp_path / "report" / "report.md").read_text()
    save_network(nn.Linear(2, 2), path, {})
    report(tmp_path, tmp_path / "again")
    text = (tmp_path / "again" / "report.md").read_text()
    assert "| evaluated: student, asked, weights written again since | 6 |" in text


def test_without_control_teacher_or_predictions_it_says_so(tmp_path):
    folder = made_runs.run(tmp_path, 0)
    metrics = json.loads((folder / "metrics.json").read_text())
    del metrics["control"], metrics["teacher"]
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "artifacts.json").write_text(json.dumps({"student": {"folder": str(folder)}}))
    (folder / "checkpoints" / "manifest.json").unlink()  # of an older release
    (folder / "checkpoints" / "predictions.safetensors").write_bytes(b"cut")
    text = " ".join(text for _, text in report(tmp_path, tmp_path / "report").texts)
    assert "No gain can be told" in text
    assert "No predictions could be read of: distilled student" in text
    assert "These runs have no figures of a teacher." in text
    assert "this one teacher" not in text


def test_older_runs_without_answers_to_training_images(tmp_path):
    made_runs.run(tmp_path, 0, splits={"val": 60, "test": 120})
    text = " ".join(text for _, text in report(tmp_path, tmp_path / "report").texts)
    assert "Not measured: no predictions of the teacher for training examples were stored" in text
    assert "On validation examples" in text


def test_a_hundred_classes_are_a_picture(tmp_path):
    made_runs.run(tmp_path, 0, classes=100, splits={"val": 200, "test": 400})
    found = report(tmp_path, tmp_path / "report")
    assert len([one for one in found.all("image") if one["href"].startswith("data:image/png")]) == 4
    assert (tmp_path / "report" / "index.html").stat().st_size < 300_000
    with (tmp_path / "report" / "tables" / "classes.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 100


def test_best_weights_are_another_report(tmp_path):
    folder = made_runs.run(tmp_path, 0)
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["student"]["best"]["val"]["accuracy"] = 0.4321
    (folder / "metrics.json").write_text(json.dumps(metrics))
    assert "43.21" not in report(tmp_path, tmp_path / "last").within("td")
    assert "43.21" in report(tmp_path, tmp_path / "best", weights="best").within("td")


def test_the_average_of_the_best_is_a_report_where_every_run_has_one(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(made_runs, "WEIGHTS", ("last", "best", "average"))
        patched.setitem(made_runs.FACTS, "epoch", {"last": 2, "best": 1, "average": 1})
        folder = made_runs.run(tmp_path, 0)
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["student"]["average"]["test"]["accuracy"] = 0.4321
    (folder / "metrics.json").write_text(json.dumps(metrics))
    assert "43.21" not in report(tmp_path, tmp_path / "last").within("td")
    found = report(tmp_path, tmp_path / "average", weights="average")
    assert "43.21" in found.within("td")
    assert "the average of the epochs of each network that were best on validation" in " ".join(found.within("p"))
    made_runs.run(tmp_path, 1)
    with pytest.raises(TutelageError, match=r"--weights average: 1 of 2 runs have none of .*, such as .*seed=1"):
        report(tmp_path, tmp_path / "more", weights="average")


@pytest.mark.parametrize(
    ("norms", "sentence"),
    [
        (
            {"hard": [2.0, 0.5], "soft": [1.0, 0.5]},
            "2 measurements) the largest gradient is the labels', 2.0000, 2 times that of soft: that of soft is "
            "1.0000. The cosine between the labels' and the sum of the rest is 0.5000: the same way.",
        ),
        (
            {"hard": [0.5, -0.2], "soft": [1.0, 0.1], "hint": [4.0, 0.3]},
            "the largest gradient is that of hint, 4.0000, 8 times the labels': that of soft is 1.0000, the labels' is "
            "0.5000. The cosine between the labels' and the sum of the rest is −0.2000: against each other.",
        ),
        (
            {"soft": [3.0, 0.0], "hint": [0.0, 0.0]},
            "is that of soft, 3.0000: that of hint is 0.0000. The cosine between that of soft and the sum of the "
            "rest is 0.0000: at right angles.",
        ),
        ({}, "Not measured: the loss has one term, or the runs are older, stacked"),
    ],
    ids=["labels", "three", "one-vanishes", "none"],
)
@pytest.mark.parametrize("key", ["gradient_norms", "pulls"])
def test_the_terms_gradients_in_a_sentence(tmp_path, norms, sentence, key):
    folder = made_runs.run(tmp_path, 0)
    stage = json.loads((folder / "checkpoints" / "stage.json").read_text())
    stage[key] = {
        str(epoch): {name: [n * k, c] for name, (n, c) in norms.items()} for epoch, k in ((2, 1.5), (10, 0.5))
    }
    (folder / "checkpoints" / "stage.json").write_text(json.dumps(stage if norms else {**stage, key: {}}))
    manifest.write(folder / "checkpoints")
    text = " ".join(text for _, text in report(tmp_path, tmp_path / "report").texts)
    assert sentence in " ".join(text.split())
    table = tmp_path / "report" / "tables" / "gradients.csv"
    assert table.is_file() == bool(norms)
    if norms:
        with table.open() as file:
            rows = list(csv.DictReader(file))
        assert [row["term"] for row in rows] == list(norms)
        assert [float(row["norm at the end"]) for row in rows] == [0.5 * norm for norm, _ in norms.values()]


def test_the_command_line(sweep, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["tutelage report", str(sweep), "-o", str(tmp_path / "out")])
    main()
    assert capsys.readouterr().out.strip() == str(tmp_path / "out" / "index.html")
    assert (tmp_path / "out" / "report.md").is_file()
