"""Files that unpack to far more than they are: refused before memory is filled."""

import gzip
import io
import struct
import tarfile
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch

from tutelage.checkpoints.weights import read_state
from tutelage.data import cifar_files
from tutelage.data.cifar_files import read_archive, read_file
from tutelage.data.idx import read_idx
from tutelage.data.samplers import Weighted
from tutelage.data.shards import Shards
from tutelage.data.unlabelled import Npz
from tutelage.errors import TutelageError
from tutelage.sources.outputs_file import read_outputs

MIB = 1 << 20
BOMB = 64 * MIB  # unpacked


@pytest.fixture(autouse=True)
def little_memory(monkeypatch):
    """40 MiB are free, and the test fails where it takes a quarter of the bomb."""
    monkeypatch.setattr("tutelage.runtime.file_sizes.free_memory", lambda: 40 * MIB)
    tracemalloc.start()
    yield
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < BOMB / 4


def zeros(path, head=b""):
    """A gzip file of ``head`` and the bomb, written piece by piece."""
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(head)
        for _ in range(BOMB // MIB):
            file.write(bytes(MIB))


def tar(path, name, content, mode="w", **pax):
    info = tarfile.TarInfo(name)
    info.pax_headers, info.size = pax, len(content)
    with tarfile.open(path, mode, format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info, io.BytesIO(content))


def hole(path, name, mode="w"):
    """A tar file with a member that is a hole, but for its begin."""
    content = b"1\n0\n1\n".ljust(512, b"\0") + b"x".ljust(512, b"\0")
    sparse = {"major": "1", "minor": "0", "realsize": str(BOMB * 1000), "name": name}
    tar(path, name, content, mode, **{f"GNU.sparse.{key}": value for key, value in sparse.items()})


def test_an_idx_file_that_says_what_it_unpacks_to(tmp_path):
    zeros(tmp_path / "a.gz", struct.pack(">4B3i", 0, 0, 8, 3, BOMB // 1024, 32, 32))
    with pytest.raises(TutelageError, match=r"a\.gz: refused because its content takes 0\.0625 GiB"):
        read_idx(tmp_path / "a.gz", 3)


@pytest.mark.parametrize("claimed", [2**31 - 1, 10])
def test_an_idx_file_that_says_something_else(tmp_path, claimed):
    zeros(tmp_path / "a.gz", struct.pack(">4B3i", 0, 0, 8, 3, claimed, 32, 32))
    told = "expected 10256 bytes .* found at least 75792" if claimed == 10 else "refused because its content takes"
    with pytest.raises(TutelageError, match=told):
        read_idx(tmp_path / "a.gz", 3)


def test_a_plain_idx_file_full_of_holes(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(struct.pack(">4B3i", 0, 0, 8, 3, 10, 32, 32))
    with path.open("r+b") as file:
        file.truncate(BOMB * 100)
    with pytest.raises(TutelageError, match=r"expected 10256 bytes .* found at least 75792"):
        read_idx(path, 3)


def test_an_archive_that_unpacks_to_more_than_cifar(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar_files, "_MOST", 4 * MIB)
    zeros(tmp_path / "c.tar.gz")
    with pytest.raises(TutelageError, match=r"c\.tar\.gz: unpacks to more than 4194304 bytes"):
        read_archive(tmp_path / "c.tar.gz", "cifar", ["a"])
    with (tmp_path / "a").open("wb") as file:
        file.truncate(BOMB)
    with pytest.raises(TutelageError, match=f"{BOMB} bytes; CIFAR's files have up to"):
        read_file(tmp_path / "a")


def test_a_member_of_an_archive_that_is_mostly_a_hole(tmp_path):
    hole(tmp_path / "c.tar.gz", "cifar/a", "w:gz")
    with pytest.raises(TutelageError, match="'cifar/a' has holes"):
        read_archive(tmp_path / "c.tar.gz", "cifar", ["a"])


@pytest.mark.parametrize("name", ["../a", "/a", "cifar/../../a", "elsewhere/a"])
def test_a_member_of_an_archive_that_is_elsewhere(tmp_path, name):
    with tarfile.open(tmp_path / "c.tar.gz", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(TutelageError, match=r"expected all members in cifar/"):
        read_archive(tmp_path / "c.tar.gz", "cifar", ["a"])
    assert [path.name for path in tmp_path.iterdir()] == ["c.tar.gz"]


def npy_header(*shape):
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return head.getvalue()


def bomb_of_arrays(path, shape, content):
    """A .npz whose arrays say ``shape`` and hold so many zeros."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name in ("x", "logits"):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                file.write(npy_header(*shape))
                for _ in range(content // MIB):
                    file.write(bytes(MIB))
        with archive.open("key.npy", "w") as file:
            file.write(npy_header(0))


@pytest.mark.parametrize(
    ("shape", "content", "said"),
    [
        ((BOMB // 256, 64), BOMB, r"refused because its content takes 0\.0625 GiB"),
        ((2**40, 64), MIB, r"its header says \[1099511627776, 64\] float32, \d+ bytes; there are 1048"),
    ],
)
def test_arrays_that_are_bombs_or_say_that_they_are(tmp_path, shape, content, said):
    bomb_of_arrays(tmp_path / "a.npz", shape, content)
    with pytest.raises(TutelageError, match=said):
        Npz(path=tmp_path / "a.npz", array="x").load((1, 8, 8))
    with pytest.raises(TutelageError, match=said):
        read_outputs(tmp_path / "a.npz", "logits")
    with pytest.raises(TutelageError, match=said.replace("0625", "125")):  # of both arrays
        next(iter(Shards(str(tmp_path / "a.npz"))))


def test_a_bare_array_that_says_it_is_enormous(tmp_path):
    (tmp_path / "a.npy").write_bytes(npy_header(2**40, 10) + bytes(100))
    with pytest.raises(TutelageError, match="its header says"):
        read_outputs(tmp_path / "a.npy", "logits")
    with pytest.raises(TutelageError, match="its header says"):
        Weighted(tmp_path / "a.npy")(None, 1, torch.Generator())


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_name_in_a_shard_that_unpacks_to_more_than_memory(tmp_path, kind):
    info = tarfile.TarInfo("0001.bin")
    info.type, info.size = kind, BOMB
    zeros(tmp_path / "a.tar", info.tobuf())
    with pytest.raises(
        TutelageError, match=r"a\.tar can't be read: ReadError: a header of 67108864 bytes; up to 1048576"
    ):
        next(iter(Shards(str(tmp_path / "a.tar"))))


def test_a_member_of_a_shard_that_unpacks_to_more_than_memory(tmp_path):
    info, path = tarfile.TarInfo("0001.bin"), tmp_path / "a.tar"
    info.size = BOMB
    zeros(path, info.tobuf())
    with pytest.raises(TutelageError, match=r"a\.tar: 0001\.bin: refused because its content takes 0\.0625 GiB"):
        next(iter(Shards(str(path))))


def test_a_member_of_a_shard_that_is_mostly_a_hole(tmp_path):
    hole(tmp_path / "a.tar", "0001.bin")
    with pytest.raises(TutelageError, match=r"a\.tar: 0001\.bin has holes"):
        next(iter(Shards(str(tmp_path / "a.tar"))))


def test_an_array_in_a_shard_that_says_it_is_enormous(tmp_path):
    tar(tmp_path / "a.tar", "0001.npy", npy_header(2**40, 10) + bytes(100))
    with pytest.raises(TutelageError, match=r"a\.tar: 0001\.npy: its header says \[1099511627776, 10\]"):
        next(iter(Shards(str(tmp_path / "a.tar"))))


def test_a_table_of_more_rows_than_memory_takes(tmp_path):
    pa = pytest.importorskip("pyarrow", reason="needs the parquet extra")
    from pyarrow import parquet

    one = pa.array(np.zeros(MIB, np.int8))
    with parquet.ParquetWriter(tmp_path / "a.parquet", pa.schema([("key", pa.int8()), ("0", pa.int8())])) as writer:
        for _ in range(4):
            writer.write_table(pa.table({"key": one, "0": one}))
    with pytest.raises(TutelageError, match="refused because its content takes"):
        read_outputs(tmp_path / "a.parquet", "logits")


def test_a_checkpoint_that_is_packed_zeros(tmp_path):
    torch.save({"a": torch.zeros(4)}, tmp_path / "a.pt")
    packed = zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED, compresslevel=1)
    with packed as archive, archive.open("b/data/0", "w") as file:
        for _ in range(BOMB // MIB):
            file.write(bytes(MIB))
    with pytest.raises(TutelageError, match=r"b\.pt: refused because its content takes"):
        read_state(tmp_path / "b.pt")
    assert read_state(tmp_path / "a.pt").keys() == {"a"}
