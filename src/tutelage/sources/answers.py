"""Stores the outputs of black boxes on disk by a digest of their input, so that no input is queried twice."""

import os
import sqlite3
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tutelage.errors import TutelageError
from tutelage.runtime.files import locked

_WAIT = 60.0  # seconds for another process to finish its transaction
_AT_ONCE = 500  # parameters in a statement; every version of sqlite allows 999


class AnswerStore:
    """A file of outputs: question (a digest) → a row of float32.

    Many processes may read and write at once (sqlite with a write-ahead log: on a local disk, not on a network file
    system). Once :meth:`put` has returned, an answer is stored completely even if the process is killed; each has a
    checksum.

    Args:
        path: the file; it and its folder are created at first use.
    """

    def __init__(self, path: Path):
        self.path = path
        self._connection: sqlite3.Connection | None = None
        self._process: int | None = None

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        """Yields a connection of this process in a transaction."""
        try:
            if self._connection is None or self._process != os.getpid():  # sqlite's connections do not survive a fork
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._connection, self._process = self._open(), os.getpid()
            with self._connection:
                yield self._connection
        except sqlite3.OperationalError as error:  # locked, full, forbidden
            raise TutelageError(f"{self.path}: cannot read or write the stored answers: {error}") from error
        except sqlite3.DatabaseError as error:
            raise self._damaged(str(error)) from error

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=_WAIT)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")  # a kill loses nothing; a power cut may lose the last answers
        connection.execute(
            "CREATE TABLE IF NOT EXISTS answers (question BLOB PRIMARY KEY, answer BLOB NOT NULL, crc INTEGER NOT NULL)"
        )
        return connection

    def _damaged(self, reason: str) -> TutelageError:
        return TutelageError(
            f"{self.path}: damaged, or not a file of answers ({reason}); delete it to query the model again"
        )

    def get(self, questions: Sequence[bytes]) -> dict[bytes, NDArray[np.float32]]:
        """Returns the stored answers of ``questions``; those without one are left out.

        Raises:
            TutelageError: the file is damaged or cannot be read.
        """
        found: dict[bytes, NDArray[np.float32]] = {}
        with self._database() as database:
            for at in range(0, len(questions), _AT_ONCE):
                some = questions[at : at + _AT_ONCE]
                marks = ",".join("?" * len(some))
                rows = database.execute(f"SELECT question, answer, crc FROM answers WHERE question IN ({marks})", some)
                for question, answer, crc in rows:
                    if zlib.crc32(question + answer) != crc:
                        raise self._damaged(f"the checksum of answer {question.hex()[:12]} is wrong")
                    found[question] = np.frombuffer(answer, np.float32)
        return found

    def put(self, answers: Mapping[bytes, NDArray[np.float32]]) -> None:
        """Stores ``answers``, all or none of them.

        Raises:
            TutelageError: the disk is full, or the file is damaged.
        """
        blobs = [(question, answer.tobytes()) for question, answer in answers.items()]
        with self._database() as database:
            database.executemany(
                "INSERT OR REPLACE INTO answers VALUES (?, ?, ?)",
                [(question, blob, zlib.crc32(question + blob)) for question, blob in blobs],
            )

    def lock(self) -> AbstractContextManager[None]:
        """Returns a lock to hold while querying, so that no two processes query the same; a kill frees it."""
        return locked(self.path.with_name(f".{self.path.name}.lock"))
