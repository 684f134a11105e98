"""Reads Hugging Face datasets from disk: a folder written by ``save_to_disk``, or parquet files."""

from pathlib import Path
from typing import Any, ClassVar

from tutelage.data.dataset import DatasetData
from tutelage.data.parquet import ParquetTable, split_files
from tutelage.data.parts import Part
from tutelage.errors import TutelageError, nearest

_USUAL = {"train": ("train",), "val": ("validation", "valid", "val", "dev"), "test": ("test",)}


class HuggingFaceData(DatasetData):
    """Reads ``<path>/{train,validation,test}-*.parquet`` (extra ``parquet``), or output of ``save_to_disk`` (``hf``).

    Nothing is downloaded. Number and names of the classes are those of the label's feature.

    Args:
        path: the folder.
        train: name of the training split.
        val: name of the validation split; null: ``validation``, ``valid``, ``val`` or ``dev`` if it exists, else it is
            drawn from the training set.
        test: likewise for test; null: ``test`` if it exists.
        **common: arguments of :class:`~tutelage.data.dataset.DatasetData`.

    Raises:
        TutelageError: there is no such folder or split, or a library is missing.
    """

    seen_through: ClassVar[tuple[str, ...]] = ("path", *DatasetData.seen_through)

    def __init__(
        self,
        *,
        path: str | Path,
        train: str | Part = "train",
        val: str | Part | None = None,
        test: str | Part | None = None,
        **common: Any,
    ):
        self.path = Path(path).absolute()
        splits = {} if isinstance(train, Part) else self._splits()
        asked = {"train": train, "val": val, "test": test}
        found = {part: self._choose(splits, part, name) for part, name in asked.items()}
        super().__init__(train=found["train"], val=found["val"], test=found["test"], **common)
        self.name = self.path.name

    def _choose(self, splits: dict[str, Any], part: str, name: str | Part | None) -> Any:
        if isinstance(name, Part):
            return name
        if name is not None and name not in splits:
            raise TutelageError(f"data.{part}: {self.path} has no split {name!r}; {nearest(name, splits)}")
        chosen = name or next((usual for usual in _USUAL[part] if usual in splits), None)
        return None if chosen is None else splits[chosen]

    def _splits(self) -> dict[str, Any]:
        if not self.path.is_dir():
            raise TutelageError(f"data.path: {self.path} is not a folder")
        if any((self.path / name).is_file() for name in ("dataset_dict.json", "dataset_info.json")):
            return self._saved()
        files = [*self.path.glob("*.parquet"), *self.path.glob("data/*.parquet")]
        names = {path.stem.partition("-")[0] for path in files}
        if not names:
            raise TutelageError(
                f"data.path: {self.path} holds neither parquet files, such as train-00000-of-00001.parquet, nor what "
                "a dataset's save_to_disk writes"
            )
        return {name: ParquetTable(split_files(self.path, name)) for name in sorted(names)}

    def _saved(self) -> dict[str, Any]:
        try:
            from datasets import load_from_disk
        except ImportError as error:
            raise TutelageError(
                f"{self.path}: reading what save_to_disk wrote needs datasets: pip install 'tutelage[hf]'"
            ) from error
        try:
            found = load_from_disk(str(self.path))
        except Exception as error:  # it raises anything on a damaged folder
            raise TutelageError(f"{self.path}: can't be read as a saved dataset: {error}") from error
        return dict(found) if isinstance(found, dict) else {"train": found}
