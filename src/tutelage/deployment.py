"""Tutelage from Python, for devices: lists students that one can take, exports a network, answers examples with it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.config.composed import as_word, composed
from tutelage.pipeline import budget as budgets
from tutelage.pipeline import export as exports
from tutelage.pipeline import predict as predictions
from tutelage.pipeline.budget import Budget


@dataclass(frozen=True)
class Exported:
    """An exported network.

    Attributes:
        folder: of its files.
        measured: content of its ``export.json``: for each of ``formats``, and for the network as it was ``trained``,
            figures, bytes, latency and memory.

    Examples:
        >>> import tutelage as tt
        >>> from pathlib import Path
        >>> made = tt.Exported(Path("deployed"), {"formats": {"int8": {"file": "model.int8.onnx"}}})
        >>> made.file("int8").as_posix()
        'deployed/model.int8.onnx'
    """

    folder: Path
    measured: Mapping[str, Any]

    def file(self, name: str) -> Path:
        """Returns the main file of a format, such as ``onnx``."""
        return self.folder / str(self.measured["formats"][name]["file"])


def export(checkpoint: str | Path, format: str | Sequence[str] = "onnx", **values: Any) -> Exported:
    """Writes a trained network in formats that others run, and measures the files.

    Does what ``tutelage export`` does.

    Args:
        checkpoint: a file that ``tutelage distill`` wrote, such as ``…/checkpoints/best.safetensors``.
        format: one or several of ``safetensors``, ``onnx``, ``torch_export`` and ``int8``.
        **values: further keys of ``tutelage export``: ``output="deployed"``, ``preprocess="unit"``, ``overwrite=True``.

    Raises:
        TutelageError: the file is none of Tutelage's, a format is unknown, needs a package that is missing, or can't
            express the network; or ``output`` holds something else.

    Examples:
        >>> import tutelage as tt
        >>> result = tt.distill("data=digits", "trainer.max_epochs=1", seed=3)
        >>> made = tt.export(result.folder / "checkpoints" / "best.safetensors", "safetensors")
        >>> made.file("safetensors").name
        'model.safetensors'
        >>> made.measured["formats"]["safetensors"]["largest_difference"]
        0.0
    """
    given = {"checkpoint": checkpoint, "format": format if isinstance(format, str) else [*format], **values}
    with composed(_words(given), verb="export") as (cfg, _):
        return Exported(*exports.export(cfg))


def predict(
    checkpoint: str | Path, input: str | Path, output: str | Path | None = None, **values: Any
) -> dict[str, list[Any]]:
    """Answers a folder of images or a table of rows with a trained network.

    Does what ``tutelage predict`` does.

    Args:
        checkpoint: a file that ``tutelage distill`` wrote, or a folder or ONNX file of :func:`export`.
        input: a folder of images, or a ``.csv``, ``.tsv``, ``.jsonl`` or ``.parquet`` file of texts or numbers.
        output: a ``.csv``, ``.parquet`` or ``.jsonl`` file; None: no file is written.
        **values: further keys of ``tutelage predict``: ``text="review"``, ``batch_size=256``, ``device="cuda"``.

    Returns:
        Name of the column → its values: ``file`` or ``row``, ``prediction``, ``probability`` and that of each class;
        of several labels and of numbers, those.

    Raises:
        TutelageError: the network or the input is wrong, names the row; or the output exists.

    Examples:
        >>> import tutelage as tt
        >>> import json
        >>> from pathlib import Path
        >>> result = tt.distill("data=digits", "trainer.max_epochs=1", seed=3)
        >>> row = json.dumps({f"x{number}": 0.5 for number in range(64)})
        >>> _ = Path("rows.jsonl").write_text(row)
        >>> answers = tt.predict(result.folder / "checkpoints" / "best.safetensors", "rows.jsonl")
        >>> len(answers["prediction"]), [*answers][:4]
        (1, ['row', 'prediction', 'probability', 'p(0)'])
    """
    given = {"checkpoint": checkpoint, "input": input, "output": output, **values}
    with composed(_words(given), verb="predict") as (cfg, _):
        return predictions.predict(cfg)


def budget(*overrides: str, **values: Any) -> Budget:
    """Lists students that meet a target of size or time, each measured on this machine.

    Does what ``tutelage budget`` does; writes nothing.

    Args:
        *overrides: as on the command line: the data and other keys of ``tutelage distill``, ``"data=mnist"``.
        **values: keys without dots: ``parameters=20000``, ``milliseconds=0.5``, ``batch_size=64``, ``families="mlp"``.

    Returns:
        The students, the nearest to the first target first, and the commands that train them; as text, a table.

    Raises:
        TutelageError: a wrong override or value, no target, or no student meets it.

    Examples:
        >>> import tutelage as tt
        >>> found = tt.budget("data=digits", parameters=1500, families="mlp", threads=1)
        >>> [(student.name, student.parameters) for student in found.students]
        [('mlp widths=[16]', 1210), ('mlp widths=[8]', 610)]
        >>> found.commands[0].split(" hydra.sweep.dir=")[0]
        "tutelage distill -m data=digits model@student=mlp 'student.net.widths=[16],[8]' 'seed=range(0,3)'"
    """
    words = [*overrides, *_words(values)]
    with composed(words, verb="budget") as (cfg, folder):
        return budgets.budget(cfg, words, folder)


def _words(values: Mapping[str, Any]) -> list[str]:
    return [f"{key}={as_word(value)}" for key, value in values.items()]
