import json
import multiprocessing
import os
import shutil
import time

import pytest

from tutelage.errors import TutelageError
from tutelage.pipeline import artifacts
from tutelage.pipeline.artifacts import make, oldest
from tutelage.runtime import distributed
from tutelage.runtime.files import recipe_digest


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
    assert sorted(path.name for path in place.iterdir()) == ["half", "manifest.json", "recipe.json", "result"]
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
    found = [answers.get(timeout=1200) for _ in range(12)]
    for builder in builders:
        builder.join(1200)
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
    with pytest.raises(
        TutelageError, match=r"teacher is not writable, and has no teacher \w+ to reuse: .*paths\.artifacts"
    ):
        make(tmp_path, "teacher", {"a": 2}, write)


def damaged(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("file", ["result", "recipe.json", "manifest.json"])
@pytest.mark.parametrize("damage", [damaged, lambda path: path.unlink(), lambda path: path.write_bytes(b"")])
def test_a_damaged_one_is_set_aside_and_made_anew_and_says_so(tmp_path, caplog, file, damage):
    place, _ = make(tmp_path, "teacher", {"a": 1}, write)
    damage(place / file)
    assert make(tmp_path, "teacher", {"a": 1}, write) == (place, False)
    [line] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert str(place / file) in line
    assert line.endswith(f"kept as {place.name}.damaged-1 and made again")
    assert (place / "result").read_text() == "made"
    assert make(tmp_path, "teacher", {"a": 1}, write) == (place, True)
    damage(place / file)
    make(tmp_path, "teacher", {"a": 1}, write)
    assert place.with_name(f"{place.name}.damaged-2").is_dir()


def test_another_artifact_in_its_place_is_not_taken_for_it(tmp_path):
    place, _ = make(tmp_path, "teacher", {"a": 1}, write)
    other, _ = make(tmp_path, "teacher", {"a": 2}, write)
    shutil.rmtree(place)
    shutil.copytree(other, place)
    assert make(tmp_path, "teacher", {"a": 1}, write) == (place, False)


def test_an_older_one_is_made_anew_in_its_place_and_says_so(tmp_path, caplog):
    caplog.set_level("INFO")
    place, _ = make(tmp_path, "teacher", {"a": 1}, write)
    made = (place / "manifest.json").stat().st_mtime

    def again(work):
        assert (place / "result").read_text() == "made"  # it is there for others meanwhile
        (work / "result").write_text("again")

    assert make(tmp_path, "teacher", {"a": 1}, again, since=made + 1) == (place, False)
    assert (place / "result").read_text() == "again"
    assert sorted(path.name for path in place.parent.iterdir()) == [f".{place.name}.lock", place.name]
    assert make(tmp_path, "teacher", {"a": 1}, write, since=made) == (place, True)
    assert f"reused teacher {place.name}, made on 2" in caplog.text


def test_what_a_kill_left_half_written_is_swept(tmp_path):
    def fail(work):
        (work / "states").mkdir()
        (work / "states" / ".step.ckpt.01ab.tmp").write_text("half")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        make(tmp_path, "teacher", {"a": 1}, fail)
    place, _ = make(tmp_path, "teacher", {"a": 1}, write)
    assert not list(place.rglob("*.tmp"))


def test_without_reuse_what_counts_is_when_the_command_began(compose):
    assert oldest(compose()) == artifacts.ALWAYS
    assert 0 < oldest(compose("reuse=false")) <= time.time()


def test_each_rank_reads_it_below_its_own_root(tmp_path, monkeypatch):
    """Machines may have mounted the folder of artifacts in different places."""
    place, _ = make(tmp_path / "here", "teacher", {"a": 1}, write)
    said = []
    monkeypatch.setattr(distributed, "broadcast", lambda value: said.append(value) or value)
    make(tmp_path / "here", "teacher", {"a": 1}, write)
    (tmp_path / "there").symlink_to(tmp_path / "here")
    monkeypatch.setattr(distributed, "broadcast", lambda value: said.pop(0))
    monkeypatch.setattr(distributed, "is_main", lambda: False)
    assert make(tmp_path / "there", "teacher", {"a": 1}, write)[0] == tmp_path / "there" / "teacher" / place.name
    assert said == []
