import json
import multiprocessing
import os
import time

import pytest

from tutelage import artifacts
from tutelage.artifacts import make, recipe_digest
from tutelage.errors import TutelageError


def test_a_recipe_s_digest_is_of_its_content():
    assert recipe_digest({"a": 1, "b": [1, 2.5]}) == recipe_digest({"b": [1, 2.5], "a": 1})
    others = [
        {"a": 1, "b": [2.5, 1]},
        {"a": "1", "b": [1, 2.5]},
        {"a": 1, "b": [1, 2.5], "c": None},
        {"a": 1.5, "b": []},
    ]
    digests = {recipe_digest(recipe) for recipe in [{"a": 1, "b": [1, 2.5]}, *others]}
    assert len(digests) == 5
    assert {len(digest) for digest in digests} == {20}


def write(work):
    (work / "result").write_text("made")


def test_made_once_and_found_again(tmp_path):
    place, reused = make(tmp_path, "teacher", {"a": 1}, write)
    assert (place, reused) == (tmp_path / "teacher" / recipe_digest({"a": 1}), False)
    assert (place / "result").read_text() == "made"
    assert json.loads((place / "recipe.json").read_text()) == {"a": 1}

    def never(work):
        raise AssertionError("built again")

    assert make(tmp_path, "teacher", {"a": 1}, never) == (place, True)


def test_any_change_makes_another(tmp_path):
    places = {make(tmp_path, kind, recipe, write)[0] for kind in ("a", "b") for recipe in ({"x": 1}, {"x": 2})}
    assert len(places) == 4


def test_a_build_that_fails_is_not_there_and_goes_on_in_its_folder(tmp_path):
    def fail(work):
        (work / "half").write_text("of it")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        make(tmp_path, "teacher", {"a": 1}, fail)
    place = tmp_path / "teacher" / recipe_digest({"a": 1})
    assert not place.exists()

    def go_on(work):
        assert (work / "half").read_text() == "of it"
        write(work)

    assert make(tmp_path, "teacher", {"a": 1}, go_on) == (place, False)
    assert sorted(path.name for path in place.iterdir()) == ["half", "recipe.json", "result"]
    assert not place.with_name(f".{place.name}.work").exists()


def build_slowly(root, gate, answers):
    def slow(work):
        with (work / "log").open("a") as file:  # two builders at once would both write
            file.write("start\n")
            time.sleep(0.2)
            file.write("end\n")

    for round_ in range(3):
        gate.wait()
        answers.put((round_, make(root, "teacher", {"round": round_}, slow)))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # from Python 3.12 on
def test_four_processes_at_once_build_it_once(tmp_path):
    fork = multiprocessing.get_context("fork")
    gate, answers = fork.Barrier(4), fork.Queue()
    builders = [fork.Process(target=build_slowly, args=(tmp_path, gate, answers)) for _ in range(4)]
    for builder in builders:
        builder.start()
    found = [answers.get(timeout=60) for _ in range(12)]
    for builder in builders:
        builder.join(60)
        assert builder.exitcode == 0
    for round_ in range(3):
        places, reused = zip(*(answer for number, answer in found if number == round_), strict=True)
        assert len(set(places)) == 1
        assert sorted(reused) == [False, True, True, True]
        assert (places[0] / "log").read_text() == "start\nend\n"


def test_it_appears_by_one_rename_of_what_is_on_disk(tmp_path, monkeypatch):
    done = []
    real = artifacts.sync_folder
    monkeypatch.setattr(artifacts, "sync_folder", lambda folder: (done.append(folder.name), real(folder)))
    place, _ = make(tmp_path, "teacher", {"a": 1}, write)
    assert done == [f".{place.name}.work", "teacher"]


def test_artifacts_of_another_user_that_one_may_only_read_are_found_and_none_is_built(tmp_path, monkeypatch):
    made, _ = make(tmp_path, "teacher", {"a": 1}, write)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert make(tmp_path, "teacher", {"a": 1}, write) == (made, True)
    with pytest.raises(TutelageError, match=r"teacher is not writable, and has no teacher \w+ yet: .*paths\.artifacts"):
        make(tmp_path, "teacher", {"a": 2}, write)
