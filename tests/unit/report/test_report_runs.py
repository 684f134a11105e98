import json
import socket

import made_runs
import pytest
import yaml

from tutelage.errors import TutelageError
from tutelage.report.cells import by_data, sort_runs, value_of, varied
from tutelage.report.gains import choose, gains, standings
from tutelage.report.runs import Run, parse_overrides, read_run, read_runs
from tutelage.report.write import make_report


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_run_is_read_wherever_above_it_one_looks(tmp_path):
    folder = made_runs.run(tmp_path / "sweep", seed=3)
    for above in (folder, folder.parent, tmp_path):
        [run] = read_runs([above])
        assert (run.folder, run.seed, run.state, run.problem) == (folder, 3, "COMPLETE", None)
    assert len(read_runs([tmp_path, folder])) == 1
    assert run.overrides["loss.alpha"] == "0.9"


def test_links_to_runs_are_followed_and_others_are_counted(tmp_path):
    folder = made_runs.run(tmp_path / "sweep", seed=3)
    (root := tmp_path / "links").mkdir()
    for name, place in (("above", folder.parent), ("loop", "."), ("itself", "itself"), ("nowhere", "nothing")):
        (root / name).symlink_to(place)
    with pytest.raises(TutelageError, match=r"no run in .*links; a link is followed .* none of the 4 there is one"):
        read_runs([root])
    for name in ("a", "b"):
        (root / name).symlink_to(folder)
    assert [(run.folder, run.problem) for run in read_runs([root])] == [(folder, None)]
    assert len(read_runs([tmp_path])) == 1


def test_artifacts_are_found_after_a_move(tmp_path):
    folder = made_runs.run(tmp_path / "here", seed=0)
    (tmp_path / "here").rename(tmp_path / "there")
    run = read_run(tmp_path / "there" / folder.name)
    assert run.place("teacher") == tmp_path / "there" / "artifacts" / "teacher" / "t"
    assert run.place("assistant") is None


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda f: (f / "status.json").unlink(), "it has no status.json"),
        (lambda f: (f / "status.json").write_text('{"state": "COMP'), "status.json can't be read: Unterminated string"),
        (lambda f: (f / "status.json").write_text("{}"), "status.json: expected one of the states"),
        (lambda f: edit(f / "status.json", state="FAILED", why="loss is NaN"), "loss is NaN"),
        (lambda f: edit(f / "status.json", state="RUNNING"), "it has not ended"),
        (lambda f: (f / "metrics.json").unlink(), "it has no metrics.json"),
        (lambda f: (f / "metrics.json").write_text("{"), "metrics.json can't be read"),
        (lambda f: (f / "config.yaml").write_text("a: [1"), "config.yaml can't be read"),
        (lambda f: (f / "metrics.json").write_text("[]"), "metrics.json can't be read: expected dict"),
        (lambda f: edit(f / "metrics.json", schema=2), "expected schema 1, found 2"),
        (lambda f: edit(f / "metrics.json", seed="x"), "its seed is not an integer"),
        (lambda f: edit(f / "status.json", state="RUNNING", pid=2**22 + 1, host=socket.gethostname()), "is gone"),
        (lambda f: edit(f / "status.json", state="WAITING", pid=2**22 + 1, host=socket.gethostname()), "is gone"),
        (lambda f: edit(f / "metrics.json", student={"last": {"nll": float("nan")}}), "student.last.nll is not finite"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, spoil, problem):
    folder = made_runs.run(tmp_path, seed=0)
    spoil(folder)
    assert problem in read_run(folder).problem


def test_no_folder_and_no_run(tmp_path):
    with pytest.raises(TutelageError, match="no folder"):
        read_runs([tmp_path / "nothing"])
    with pytest.raises(TutelageError, match="no run in"):
        read_runs([tmp_path])
    made_runs.run(tmp_path, seed=0, state="FAILED", why="out of memory")
    with pytest.raises(TutelageError, match=r"1 run, none with figures:\n.*FAILED: out of memory"):
        make_report(read_runs([tmp_path]), "last")


def test_overrides():
    assert parse_overrides(["+a.b=1=2", "~c", "++d=[x]"]) == {"a.b": "1=2", "c": "", "d": "[x]"}


def test_what_varies_is_told_from_the_config_where_a_run_does_not_override_it():
    at = {"loss": {"temperature": 4.0}}
    default = Run("a", config=at, choices={"loss": "soft_target"})
    same = Run("b", config=at, overrides={"loss.temperature": "4"}, choices={"loss": "soft_target"})
    assert varied([default, same]) == []
    other = Run("c", config={"loss": {}}, overrides={"loss": "hard", "seed": "1"}, choices={"loss": "hard"})
    assert varied([default, same, other]) == ["loss.temperature", "loss"]
    assert value_of(other, "loss.temperature") is None
    failed = Run("d", overrides={"loss.temperature": "4.0"})
    assert value_of(failed, "loss.temperature") == 4.0
    tied = [
        Run(s, config={"stages": {"teacher": {"seed": s}}}, overrides={"stages.teacher.seed": "${seed}"}) for s in "ab"
    ]
    assert varied(tied) == []


def test_of_many_keys_a_cell_is_named_by_its_own(tmp_path):
    for key, value in (("a", "1"), ("b", "2"), ("c", "3")):
        made_runs.run(tmp_path, 0, **{key: value})
    made_runs.run(tmp_path, 0)
    names = {cell.name for cell in sort_runs(read_runs([tmp_path])).cells}
    assert names == {"a = 1", "b = 2", "c = 3", "the defaults"}


def test_cosmetic_keys_make_no_cell():
    runs = [Run(s, overrides={"paths.outputs": s, "logger": s, "callbacks.progress": s}) for s in "ab"]
    assert varied(runs) == []


def test_cells_and_what_is_missing(tmp_path):
    for t, a, seed in [(1, 0.5, 0), (1, 0.5, 1), (10, 0.5, 0), (1, 0.9, 0), (1, 0.9, 1)]:
        made_runs.run(tmp_path, seed, t, a)
    made_runs.run(tmp_path, 1, 10, 0.5, state="FAILED", why="it fell")
    again = made_runs.run(tmp_path / "later", 0, 1, 0.5)
    edit(again / "status.json", ended="2026-02-01T00:00:00+0000")
    sweep = sort_runs(read_runs([tmp_path]))
    assert [cell.name for cell in sweep.cells] == ["T = 1, α = 0.5", "T = 1, α = 0.9", "T = 10, α = 0.5"]
    assert [list(cell.runs) for cell in sweep.cells] == [[0, 1], [0, 1], [0]]
    assert sweep.cells[0].runs[0].folder == again
    assert [run.folder.parent for run in sweep.repeated] == [tmp_path]
    assert [run.problem for run in sweep.failed] == ["it fell"]
    assert sweep.missing == [("T = 10, α = 0.5", 1)]
    assert sweep.never == ["T = 10, α = 0.9"]


def test_gains_are_of_the_same_seed(tmp_path):
    folders = [made_runs.run(tmp_path, seed) for seed in range(3)]
    edit(folders[1] / "artifacts.json", control={"folder": "x", "recipe": {"seed": 7}})
    metrics = json.loads((folders[2] / "metrics.json").read_text())
    del metrics["control"]
    (folders[2] / "metrics.json").write_text(json.dumps(metrics))
    [cell] = sort_runs(read_runs([tmp_path])).cells
    own = cell.runs[0].metrics
    expected = own["student"]["last"]["test"]["accuracy"] - own["control"]["last"]["test"]["accuracy"]
    assert gains(cell, "last", "test") == {0: pytest.approx(expected)}
    [standing] = standings(sort_runs(read_runs([tmp_path])), "last")
    assert standing.unpaired == [1, 2]


def test_validation_alone_chooses_and_a_cell_that_lacks_seeds_can_not_win(tmp_path):
    def accuracies(folder, val, test):
        metrics = json.loads((folder / "metrics.json").read_text())
        for split, value in (("val", val), ("test", test)):
            metrics["student"]["last"][split]["accuracy"] = value
        (folder / "metrics.json").write_text(json.dumps(metrics))

    for t, val, test in ((1, 0.7, 0.9), (4, 0.8, 0.6), (10, 0.75, 0.99)):
        for seed in range(2):
            accuracies(made_runs.run(tmp_path, seed, t), val, test)
    accuracies(made_runs.run(tmp_path, 0, 20), 0.99, 0.99)
    found = standings(sort_runs(read_runs([tmp_path])), "last")
    assert choose(found).cell.name == "T = 4"
    assert [one.complete for one in found] == [True, True, True, False]


def test_a_group_s_choice_is_its_value(tmp_path):
    folders = [made_runs.run(tmp_path, 0, loss=name) for name in ("dkd", "nkd")]
    for folder, name in zip(folders, ("dkd", "nkd"), strict=True):
        path = folder / ".hydra" / "hydra.yaml"
        document = yaml.safe_load(path.read_text())
        document["hydra"]["runtime"]["choices"]["loss"] = name
        path.write_text(yaml.safe_dump(document))
        (folder / "config.yaml").write_text(yaml.safe_dump(made_runs.config(4.0, 0.9, 0)))
    assert [cell.name for cell in sort_runs(read_runs([tmp_path])).cells] == ["loss = dkd", "loss = nkd"]


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        ({"dataset": "one"}, {"dataset": "one", "root": "/elsewhere", "labelled": 100}, True),
        ({"dataset": "one"}, {"dataset": "two"}, False),
        ({"root": "glue", "task": "sst2"}, {"root": "glue", "task": "cola"}, False),
        ({"path": "cora.npz"}, {"path": "citeseer.npz"}, False),
        ({"train": "a.tsv", "test": "t.tsv"}, {"train": ["a.tsv", "b.tsv"], "test": "t.tsv", "test_size": 0.2}, True),
        ({"train": "a.tsv", "test": None}, {"train": "b.tsv", "test": None}, False),
        ({"train": "a.tsv", "test_size": 0.1}, {"train": "a.tsv", "test_size": 0.2}, False),
        ({"train": "a.tsv", "label": "stars"}, {"train": "a.tsv", "label": "useful"}, False),
        ({"root": "text", "test_root": "t"}, {"root": "text", "test_root": "u"}, False),
    ],
)
def test_runs_on_different_test_data_have_a_report_each(tmp_path, first, second, together):
    for name, data in (("a", first), ("b", second), ("c", first)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "status.json").write_text('{"state": "FAILED"}')
        (tmp_path / name / "config.yaml").write_text(yaml.safe_dump({"data": {"_target_": "x.Y", **data}}))
    groups = by_data(read_runs([tmp_path]))
    found = [[run.folder.name for run in group] for group in groups.values()]
    assert found == ([["a", "b", "c"]] if together else [["a", "c"], ["b"]])
