import importlib.metadata
import json
import os
import re
import signal
from contextlib import contextmanager

import pytest
from omegaconf import OmegaConf

from tutelage.errors import TutelageError
from tutelage.runtime.job import FinishedMeanwhileError, is_complete, job, sign_of_life, state, track_status
from tutelage.runtime.json_files import write_json
from tutelage.runtime.provenance import provenance
from tutelage.runtime.signals import asked_to_stop, sigterm_ends, sigterm_saves

CONFIG = {"seed": 0, "loss": {"alpha": 0.5, "twice": "${product:2,${loss.alpha}}"}, "paths": {"data": "/here"}}


def config(**changes):
    return OmegaConf.merge(OmegaConf.create(CONFIG), changes)


def status(folder):
    return json.loads((folder / "status.json").read_text())


@contextmanager
def closing(cleaned):
    try:
        yield
        raise AssertionError("went on")
    finally:
        cleaned.append(True)


@contextmanager
def closing_with(went_on):
    yield
    went_on.append(asked_to_stop())


def refused(folder, **changes):
    with pytest.raises(TutelageError, match="bad"), job(config(**changes), folder, []):
        raise TutelageError("bad")


def test_complete(tmp_path):
    folder = tmp_path / "run"
    assert state(folder) is None
    with job(config(), folder, ["seed=0"]):
        now = status(folder)
        assert now["state"] == "RUNNING"
        assert now["pid"] == os.getpid()
    ended = status(folder)
    assert ended["state"] == state(folder) == "COMPLETE"
    assert ended["why"] is None
    assert ended["started"] <= ended["ended"]
    assert OmegaConf.load(folder / "config.yaml").loss.twice == 1.0
    assert json.loads((folder / "provenance.json").read_text())["overrides"] == ["seed=0"]


@pytest.mark.parametrize(
    ("error", "why"),
    [(TutelageError("first line\nsecond"), "first line"), (RuntimeError(), "RuntimeError"), (KeyboardInterrupt(), "K")],
)
def test_failed(tmp_path, error, why):
    with pytest.raises(type(error)), job(config(), tmp_path, []):
        raise error
    assert status(tmp_path)["state"] == "FAILED"
    assert status(tmp_path)["why"].startswith(why)


@pytest.mark.parametrize(("code", "said"), [(143, "PREEMPTED"), (3, "FAILED"), (1, "FAILED")])
def test_exit(tmp_path, code, said):
    with pytest.raises(SystemExit) as stop, job(config(), tmp_path, []):
        raise SystemExit(code)
    assert stop.value.code == code
    assert status(tmp_path)["state"] == said


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_a_signal_to_end_is_a_preemption_and_the_old_handler_comes_back(tmp_path, name):
    number = getattr(signal, name)
    before = signal.getsignal(number)
    cleaned = []
    with pytest.raises(SystemExit) as stop, job(config(), tmp_path, []), closing(cleaned):
        os.kill(os.getpid(), number)
    assert stop.value.code == 143
    assert cleaned
    assert [status(tmp_path)[key] for key in ("state", "why")] == ["PREEMPTED", name]
    assert signal.getsignal(number) == before


@pytest.fixture
def listens():
    """As in a terminal: processes in the background ignore Ctrl-C, and so may these tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_is_a_preemption_and_says_how_to_go_on(tmp_path, listens, caplog):
    cleaned = []
    with pytest.raises(SystemExit) as stop, job(config(), tmp_path / "run", []), closing(cleaned):
        os.kill(os.getpid(), signal.SIGINT)
    assert stop.value.code == 130
    assert cleaned
    assert status(tmp_path / "run")["state"] == "PREEMPTED"
    assert status(tmp_path / "run")["why"] == "Ctrl-C"
    assert f"run the same command with hydra.run.dir='{tmp_path / 'run'}'" in caplog.text
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_first_ctrl_c_in_training_is_noted_and_a_second_one_ends_at_once(listens, capfd):
    went_on = []

    def interrupt_twice():
        with sigterm_saves():
            os.kill(os.getpid(), signal.SIGINT)
            went_on.append(asked_to_stop())
            os.kill(os.getpid(), signal.SIGINT)
            went_on.append("still")

    with pytest.raises(SystemExit) as stop:
        interrupt_twice()
    assert stop.value.code == 130
    assert went_on == [True]
    assert "Ctrl-C: saving the state, then stopping; once more to stop without saving" in capfd.readouterr().err


def test_a_job_in_the_background_goes_on_ignoring_ctrl_c(tmp_path):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with job(config(), tmp_path, []):
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert state(tmp_path) == "COMPLETE"


def test_inside_sigterm_saves_a_sigterm_is_noted_and_ends_the_process_after():
    went_on = []
    with sigterm_ends():
        ours = signal.getsignal(signal.SIGTERM)
        with pytest.raises(SystemExit) as stop, sigterm_saves(), closing_with(went_on):
            os.kill(os.getpid(), signal.SIGTERM)
        assert went_on == [True]
        assert stop.value.code == 143
        assert signal.getsignal(signal.SIGTERM) == ours


def test_a_sigterm_of_before_is_forgotten():
    with pytest.raises(SystemExit), sigterm_saves():
        os.kill(os.getpid(), signal.SIGTERM)
    with sigterm_saves():
        assert not asked_to_stop()


def test_a_second_process_in_the_same_folder_is_refused_and_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("tutelage.runtime.job.PATIENCE", 0.0)
    with job(config(), tmp_path, ["first"]):
        found = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
        with pytest.raises(TutelageError, match="another process is running in"), job(config(), tmp_path, ["second"]):
            raise AssertionError("ran")
        assert {path: path.read_bytes() for path in found} == found
    with job(config(), tmp_path, []):
        pass
    assert state(tmp_path) == "COMPLETE"


def test_who_waited_for_another_process_learns_that_the_run_is_finished(tmp_path, monkeypatch):
    @contextmanager
    def waits(folder):
        write_json(folder / "status.json", {"state": "COMPLETE"})  # as the other process did meanwhile
        yield

    monkeypatch.setattr("tutelage.runtime.job._alone", waits)
    with pytest.raises(FinishedMeanwhileError, match="just finished"), job(config(), tmp_path, []):
        raise AssertionError("ran")
    with pytest.raises(ZeroDivisionError), job(config(), tmp_path, []):  # it was complete before, too
        raise ZeroDivisionError


def test_the_same_config_may_go_on_in_its_folder_another_may_not(tmp_path):
    with job(config(), tmp_path, []):
        pass
    with job(config(paths={"data": "/elsewhere"}), tmp_path, []):
        pass
    with pytest.raises(TutelageError, match="holds a run with another config"), job(config(seed=1), tmp_path, []):
        raise AssertionError("ran")
    assert state(tmp_path) == "COMPLETE"
    assert OmegaConf.load(tmp_path / "config.yaml").seed == 0


@pytest.mark.parametrize(
    ("callbacks", "same"),
    [
        ({"recovery": {"every_n_seconds": 5}, "progress": None}, True),
        ({"best": {"monitor": "val/nll"}}, False),
        ({"max_norm": {"limit": 3.5}}, False),
    ],
)
def test_of_the_callbacks_those_count_that_change_the_weights(tmp_path, callbacks, same):
    usual = {"progress": {}, "recovery": {"every_n_seconds": 60}, "best": {"monitor": "val/accuracy"}}
    with job(config(callbacks=usual), tmp_path, []):
        pass
    assert is_complete(config(callbacks={**usual, **callbacks}), tmp_path) == same


def test_a_folder_in_which_nothing_was_trained_may_have_another_config(tmp_path):
    refused(tmp_path)
    with job(config(seed=1), tmp_path, []):
        pass
    assert OmegaConf.load(tmp_path / "config.yaml").seed == 1


def test_a_folder_with_a_student_in_it_keeps_its_config(tmp_path):
    (tmp_path / "checkpoints" / "states").mkdir(parents=True)
    refused(tmp_path)
    with pytest.raises(TutelageError, match="holds a run with another config"), job(config(seed=1), tmp_path, []):
        raise AssertionError("ran")


def test_jobs_that_run_together_live_together_each_with_its_figures(tmp_path, monkeypatch):
    monkeypatch.setattr("tutelage.runtime.job.BEAT", 0.01)
    folders = [tmp_path / "a", tmp_path / "b"]
    said = {}
    with track_status(folders, "WAITING"):
        assert [state(folder) for folder in folders] == ["RUNNING"] * 2
        sign_of_life.show(lambda folder: {"best": folder.name})
        while [beat.get("progress") for beat in said.values()] != [{"best": "a"}, {"best": "b"}]:
            said = {
                f: json.loads((f / "heartbeat.json").read_text()) for f in folders if (f / "heartbeat.json").exists()
            }
    assert [state(folder) for folder in folders] == ["WAITING"] * 2


def test_provenance():
    found = provenance(["a=1"])
    assert found["overrides"] == ["a=1"]
    assert {"tutelage", "torch", "lightning", "hydra-core"} <= found["versions"].keys()
    json.dumps(found)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 1}'])
def test_a_damaged_status_says_nothing(tmp_path, content):
    (tmp_path / "status.json").write_text(content)
    assert state(tmp_path) is None


def test_provenance_of_a_checkout_that_is_not_installed(monkeypatch):
    """``PYTHONPATH=src python -m tutelage``: a package without metadata has no version, ours that of pyproject.toml."""
    installed = importlib.metadata.version

    def version(name):
        if name in ("tutelage", "scikit-learn"):
            raise importlib.metadata.PackageNotFoundError(name)
        return installed(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    found = provenance([])["versions"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", found["tutelage"])
    assert found["scikit-learn"] is None
    assert found["torch"] == installed("torch")
