"""A teacher that is a black box: a remote model, an ONNX file, any callable."""

import hashlib
import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutelage.errors import TutelageError
from tutelage.runtime.json_files import read_json, write_json
from tutelage.runtime.source_code import trace
from tutelage.sources.answers import AnswerStore
from tutelage.sources.base import Source
from tutelage.sources.outputs import FLOOR, as_logits, check_kind
from tutelage.types import Batch, Signals

if TYPE_CHECKING:
    from tutelage.data.module import Data

log = logging.getLogger(__name__)

_GRADED = 256  # validation images whose accuracy is measured before training


class BlackBoxTeacher(Source):
    """Logits of a callable, which is queried once per image: its outputs are stored on disk by content.

    An output is stored by the name (and version) of the model and the bytes of the augmented, normalised image. So it
    is correct in any order and epoch and with any augmentation, and is shared by all jobs, ranks and later runs that
    use the file ``<folder>/<name>.sqlite``. Processes query one after another.

    Args:
        ask: float32 array [B, C, H, W], normalised as for the student → array [B, num_classes]. In a yaml: a class
            by ``_target_``, or a function by ``_target_`` with ``_partial_: true``. Its attribute ``version``, if any,
            is part of the name.
        kind: whether it returns ``logits`` or ``probabilities``, whose logarithms are taken
            (:func:`tutelage.sources.outputs.as_logits`).
        num_classes: classes of the data.
        folder: folder of the stored outputs.
        name: name and version of the model; under another name all is queried again. Optional if ``ask`` has a version.
            If the source of ``ask`` in your own modules has changed, the answers stored under the name are refused.
        batch_size: greatest number of images in a query.
        retries: number of retries of a query that raised an exception.
        wait: seconds before the first retry, doubled for each later one.
        floor: replaces smaller probabilities, such as 0.
        allow_normalised: whether logits that look like probabilities are accepted.

    Raises:
        TutelageError: an argument is invalid, or the code of ``ask`` is not that of the stored answers.
    """

    ask: Callable[[NDArray[np.float32]], Any]
    asks_host = True

    def __init__(
        self,
        ask: Callable[[NDArray[np.float32]], Any],
        kind: str,
        num_classes: int,
        folder: str,
        name: str | None = None,
        batch_size: int = 64,
        retries: int = 3,
        wait: float = 1.0,
        floor: float = FLOOR,
        allow_normalised: bool = False,
    ):
        super().__init__()
        check_kind(kind, floor)
        if not callable(ask):
            raise TutelageError(
                f"ask must be callable; found {type(ask).__name__} (a function by _target_ needs _partial_: true)"
            )
        version = getattr(ask, "version", None)
        if not name and not version:
            raise TutelageError("name is needed: the name and version of the model, by which its answers are stored")
        if batch_size < 1 or retries < 0 or wait < 0:
            raise TutelageError(
                f"batch_size must be at least 1, retries and wait at least 0; found {batch_size}, {retries} and {wait}"
            )
        object.__setattr__(self, "ask", ask)  # not a submodule: if it is a module, it is neither trained nor saved
        self.name = name or f"{type(ask).__name__}-{str(version)[:12]}"
        self.kind, self.num_classes, self.floor = kind, num_classes, floor
        self.allow_normalised = allow_normalised
        self.batch_size, self.retries, self.wait = batch_size, retries, wait
        self._identity = f"{name or ''}\n{version or ''}\n".encode()
        self.answers = AnswerStore(Path(folder) / (re.sub(r"[^\w.-]+", "_", self.name)[:100] + ".sqlite"))
        self._code = _code_of(ask)
        self._check_code()

    @property
    def _code_file(self) -> Path:
        return self.answers.path.with_suffix(".code.json")

    def _check_code(self) -> None:
        """Checks that the stored answers are of the same code, which the name alone does not tell."""
        if not self._code_file.exists() or (before := read_json(self._code_file)) == self._code:
            return
        before = before if isinstance(before, dict) else {}
        changed = sorted(name for name in {*before, *self._code} if before.get(name) != self._code.get(name))
        raise TutelageError(
            f"the code of {', '.join(changed)} has changed since the answers of {self.name!r} were stored: give it "
            f"another name to query it anew (sources.teacher.name=…), or delete {self._code_file} to keep the answers"
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> "BlackBoxTeacher":
        return self  # immutable, and a connection cannot be copied

    def attach(self, needs: Iterable[str], sources: Mapping[str, Source]) -> None:
        """Checks that only logits are read."""
        if extra := sorted(set(needs) - {"logits"}):
            raise TutelageError(f"a black box has logits only; the objective also reads {extra}")

    def forward(self, batch: Batch) -> Signals:
        """Returns the logits of the batch's images.

        Raises:
            TutelageError: the model keeps failing, or does not return a row of finite numbers per image; the file of
                answers is damaged; the input requires a gradient, which a black box does not have.
        """
        if batch["input"].requires_grad:
            raise TutelageError("a black box has no gradient with respect to its input")
        images = batch["input"].float().cpu().contiguous().numpy()
        questions = [self._question(image) for image in images]
        found = self.answers.get(list(dict.fromkeys(questions)))
        if any(question not in found for question in questions):
            with self.answers.lock():
                found |= self._ask_missing(questions, images, batch["key"].tolist())
        raw = np.stack([found[question] for question in questions])
        logits = self._as_logits(raw, batch["key"].tolist())
        return {"logits": torch.from_numpy(logits).to(batch["input"].device)}

    def graded(self, data: "Data") -> Mapping[str, tuple[Tensor, Tensor]]:
        """Returns logits and labels of the first validation examples, which are needed later in any case."""
        validation = data.splits["val"]
        batch = validation[0, torch.arange(min(_GRADED, len(validation)))]
        return {"validation": (self(batch)["logits"].cpu(), batch["label"].cpu())}

    def _as_logits(self, raw: NDArray[Any], keys: list[int]) -> NDArray[np.float32]:
        return as_logits(raw, self.kind, self.num_classes, self.floor, self.name, keys, self.allow_normalised)

    def _question(self, image: NDArray[np.float32]) -> bytes:
        content = hashlib.sha256(self._identity)
        content.update(repr(image.shape).encode())
        content.update(image.data)
        return content.digest()

    def _ask_missing(
        self, questions: list[bytes], images: NDArray[np.float32], keys: list[int]
    ) -> dict[bytes, NDArray[np.float32]]:
        """Returns the answers of all ``questions``; queries those that no other process has queried meanwhile."""
        row = {question: i for i, question in enumerate(questions)}  # duplicate images are queried once
        found = self.answers.get(list(row))
        missing = [question for question in row if question not in found]
        if missing and self._code and not self._code_file.exists():
            write_json(self._code_file, self._code)
        for at in range(0, len(missing), self.batch_size):
            some = missing[at : at + self.batch_size]
            rows = [row[question] for question in some]
            answer = np.asarray(self._ask_with_retries(images[rows]))
            self._as_logits(answer, [keys[i] for i in rows])  # raises if the answer is invalid
            new = dict(zip(some, answer.astype(np.float32), strict=True))
            self.answers.put(new)
            found |= new
        return found

    def _ask_with_retries(self, images: NDArray[np.float32]) -> Any:
        failure: Exception | None = None
        for attempt in range(self.retries + 1):
            if failure is not None:
                seconds = self.wait * 2 ** (attempt - 1)
                log.warning("%s: %s; retrying in %g s", self.name, _with_causes(failure), seconds)
                time.sleep(seconds)
            try:
                return self.ask(images)
            except TutelageError:  # a user's mistake, which no retry mends
                raise
            except Exception as error:
                failure = error
        raise TutelageError(
            f"{self.name} failed on {len(images)} images in {self.retries + 1} attempts; the last error: "
            + _with_causes(failure)
        ) from failure


def _code_of(ask: Callable[..., Any]) -> dict[str, str]:
    """Returns the user's own modules that a callable reaches, with digests of their source; none of packages."""
    called = getattr(ask, "func", ask)  # of functools.partial
    kind = called if hasattr(called, "__qualname__") else type(called)
    return trace([f"{kind.__module__}.{kind.__qualname__}"]).own


def _with_causes(error: BaseException | None) -> str:
    """Returns the messages of the error and its causes, the root cause last."""
    messages = []
    while error is not None:
        messages.append(f"{type(error).__name__}: {error}")
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return ", from ".join(messages)
