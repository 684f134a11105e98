import errno
import fcntl
import os
from threading import Timer

import pytest
from filelock import Timeout

from tutelage.errors import TutelageError
from tutelage.runtime import files
from tutelage.runtime.files import POLL, locked, sync_folder, write_atomically
from tutelage.runtime.json_files import read_json, write_json


def test_writes_and_replaces(tmp_path):
    path = tmp_path / "deep" / "er" / "file"
    write_atomically(path, b"one")
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert [p.name for p in path.parent.iterdir()] == ["file"]


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, failing):
    path = tmp_path / "file"
    write_atomically(path, b"one")

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, failing, fail)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"two")
    assert path.read_bytes() == b"one"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_content_is_on_disk_before_the_name_is(tmp_path, monkeypatch):
    done = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(files.os, name, lambda *a, name=name, real=real: (done.append(name), real(*a))[1])
    write_atomically(tmp_path / "file", b"x")
    assert done == ["fsync", "replace", "fsync"]  # content, name, folder


def test_json_round_trip_refuses_what_is_no_json(tmp_path):
    write_json(tmp_path / "a.json", {"b": [1, 0.1, None, "ü"]})
    assert read_json(tmp_path / "a.json") == {"b": [1, 0.1, None, "ü"]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"b": float("nan")})
    assert read_json(tmp_path / "a.json") == {"b": [1, 0.1, None, "ü"]}


def test_sync_folder_takes_a_folder(tmp_path):
    sync_folder(tmp_path)
    with pytest.raises(FileNotFoundError):
        sync_folder(tmp_path / "none")


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_lock_may_be_taken_by_every_user_whatever_the_umask(tmp_path):
    before = os.umask(0o022)
    try:
        with locked(tmp_path / "new" / ".lock"):
            assert (tmp_path / "new" / ".lock").stat().st_mode & 0o777 == 0o666
    finally:
        os.umask(before)


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(37, "No locks available")])
def test_a_lock_that_cannot_be_had_is_a_sentence(tmp_path, monkeypatch, error):
    def refuse(*arguments, **more):
        raise error

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    with (
        pytest.raises(TutelageError, match=rf"\.lock can't be locked \({error.strerror}\)"),
        locked(tmp_path / ".lock"),
    ):
        raise AssertionError("ran")


@pytest.mark.parametrize(("timeout", "often", "seldom"), [(0.0, [0.0], []), (0.3, [0.1], [0.2]), (-1, [0.1], [-1])])
def test_a_long_wait_for_a_lock_asks_less_often(tmp_path, monkeypatch, timeout, often, seldom):
    asked = []

    def refuse(self, timeout, poll_interval=0.05):
        asked.append((poll_interval, pytest.approx(timeout)))
        raise Timeout(tmp_path)

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    monkeypatch.setattr("tutelage.runtime.files.SOON", 0.1)
    with pytest.raises(Timeout), locked(tmp_path / ".lock", timeout):
        raise AssertionError("ran")
    assert asked == [*((0.05, each) for each in often), *((POLL, each) for each in seldom)]


def test_a_lock_that_another_holds_is_had_when_that_one_ends(tmp_path, monkeypatch):
    monkeypatch.setattr("tutelage.runtime.files.SOON", 0.0)
    monkeypatch.setattr("tutelage.runtime.files.POLL", 0.01)
    ended = []

    def end() -> None:
        ended.append(True)
        other.close()

    with open(tmp_path / ".lock", "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        Timer(0.1, end).start()
        with locked(tmp_path / ".lock"):
            assert ended
