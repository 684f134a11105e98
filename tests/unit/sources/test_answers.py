"""The file of answers: whole, shared, and damaged ones noticed."""

import os
import signal
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pytest
from command import environment
from filelock import Timeout

from tutelage.errors import TutelageError
from tutelage.runtime.files import locked
from tutelage.sources.answers import AnswerStore

ONE = {b"q": np.array([1.5, -2.0, 1e-30], np.float32)}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "deep" / "deeper" / "answers.sqlite"


def test_what_was_put_is_got_by_anyone(path):
    AnswerStore(path).put(ONE)
    found = AnswerStore(path).get([b"q", b"other"])
    assert found.keys() == {b"q"}
    np.testing.assert_array_equal(found[b"q"], ONE[b"q"])
    assert found[b"q"].dtype == np.float32


def test_a_process_opens_the_file_once(path, monkeypatch):
    opened, connect = [], sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *given, **more: opened.append(given) or connect(*given, **more))
    answers = AnswerStore(path)
    answers.put(ONE)
    answers.get([b"q"])
    answers.get([b"other"])
    assert len(opened) == 1


def test_another_process_is_waited_for_a_minute(path, monkeypatch):
    waits, connect = [], sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *given, timeout: waits.append(timeout) or connect(*given))
    AnswerStore(path).put(ONE)
    assert waits == [60.0]


def test_more_questions_than_a_statement_takes(path):
    many = {i.to_bytes(4): np.array([i], np.float32) for i in range(1234)}
    answers = AnswerStore(path)
    answers.put(many)
    assert {question: row[0] for question, row in answers.get(list(many)).items()} == {
        question: row[0] for question, row in many.items()
    }


def test_a_file_that_is_none_is_refused(path):
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(TutelageError, match=r"answers\.sqlite: damaged, or not a file of answers .* delete it"):
        AnswerStore(path).get([b"q"])


def test_a_flipped_byte_is_noticed(path):
    AnswerStore(path).put(ONE)
    with sqlite3.connect(path) as database:
        flipped = bytearray(ONE[b"q"].tobytes())
        flipped[0] ^= 1
        database.execute("UPDATE answers SET answer = ?", (bytes(flipped),))
    with pytest.raises(TutelageError, match="checksum of answer 71 is wrong"):
        AnswerStore(path).get([b"q"])


def test_a_truncated_file_is_noticed(path):
    many = {i.to_bytes(4): np.full(50, i, np.float32) for i in range(200)}
    AnswerStore(path).put(many)
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    whole = path.read_bytes()
    for length in range(5000, len(whole), 7000):
        path.write_bytes(whole[:length])
        with pytest.raises(TutelageError, match=r"answers\.sqlite: damaged"):
            AnswerStore(path).get(list(many))


def test_a_file_that_cannot_be_written(path):
    path.mkdir(parents=True)
    with pytest.raises(TutelageError, match=r"answers\.sqlite: cannot read or write the stored answers"):
        AnswerStore(path).put(ONE)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of Python 3.12 on, where torch has threads
def test_another_process_has_its_own_connection(path):
    answers = AnswerStore(path)
    answers.put(ONE)
    if (child := os.fork()) == 0:
        os._exit(0 if answers.get([b"q"]) and answers._process == os.getpid() else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert answers.get([b"q"])


WRITER = """
import sys
import numpy as np
from pathlib import Path
from tutelage.sources.answers import AnswerStore
answers, me = AnswerStore(Path(sys.argv[1])), int(sys.argv[2])
for i in range(int(sys.argv[3])):
    answers.put({b"%d %d" % (me, i): np.full(100, i, np.float32)})
    print(i, flush=True)
"""


def writer(path, me, count):
    command = [sys.executable, "-c", WRITER, str(path), str(me), str(count)]
    return subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True)


def test_several_processes_write_at_once_and_one_is_killed(path):
    """A record that a process has reported as written is there, also after kill -9."""
    killed, other = writer(path, 0, 10**6), writer(path, 1, 50)
    said = 0
    while said < 30:
        said = int(killed.stdout.readline())
    killed.send_signal(signal.SIGKILL)
    rest = killed.communicate()[0].split("\n")[:-1]
    said = max([said, *map(int, rest)])
    assert other.wait(1200) == 0
    other.stdout.close()
    answers = AnswerStore(path)
    found = answers.get([b"0 %d" % i for i in range(said + 1)] + [b"1 %d" % i for i in range(50)])
    assert len(found) == said + 1 + 50
    assert all((row == int(question.split()[1])).all() for question, row in found.items())
    answers.put(ONE)


def test_the_lock_of_a_killed_process_is_free(path):
    script = f"""
import time
from pathlib import Path
from tutelage.sources.answers import AnswerStore
with AnswerStore(Path({str(path)!r})).lock():
    print("held", flush=True)
    time.sleep(60)
"""
    holder = subprocess.Popen([sys.executable, "-c", script], env=environment(), stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    assert not _free(path)
    holder.kill()
    holder.communicate()
    for _ in range(100):
        if _free(path):
            return
        time.sleep(0.05)
    raise AssertionError("still locked")


def _free(path):
    try:
        with locked(path.with_name(f".{path.name}.lock"), 0.0):
            return True
    except Timeout:
        return False
