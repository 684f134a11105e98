import gzip
import hashlib
import io
import os
import pickle
import tarfile
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from cifar_writer import CLASSES, MADE, opcodes, write, written_by_python_2, written_by_python_3

from tutelage.data.cifar import DATASETS, CifarImages
from tutelage.errors import TutelageError


def pack(root: Path, dataset="CIFAR10", *, lacking=(), members=()):
    """The archive of a folder written before, which goes; ``members`` are (name, type) that come on top."""
    folder, archive = root / DATASETS[dataset].folder, root / DATASETS[dataset].archive
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name, recursive=False)
        for path in sorted(folder.iterdir()):
            if path.name not in lacking:
                tar.add(path, f"{folder.name}/{path.name}")
            path.unlink()
        for name, kind in members:
            info = tarfile.TarInfo(name)
            info.type, info.size, info.linkname = kind, 3 if kind == tarfile.REGTYPE else 0, "/etc/hostname"
            tar.addfile(info, io.BytesIO(b"abc"))
    folder.rmdir()
    return archive


def images(root, dataset="CIFAR10", download=False, verify=False, **arguments):
    common = {
        "num_classes": CLASSES.get(dataset),
        "input_shape": (3, 32, 32),
        "batch_size": 2,
        "val_size": 2,
        "seed": 0,
    }
    common |= {"mean": [0.1, 0.2, 0.3], "std": [0.25, 0.5, 0.75]}
    return CifarImages(root=root, dataset=dataset, download=download, verify=verify, **(common | arguments))


# -- what is read -----------------------------------------------------------------------------------------------------


def test_names_that_are_not_the_archive_s_are_refused(tmp_path):
    write(tmp_path, "CIFAR10", written_by_python_3)
    names = [f"class {c}" for c in range(10)]
    images(tmp_path, "CIFAR10", class_names=names).setup()
    with pytest.raises(
        TutelageError, match=r"data\.class_names: class 0 is 'class 9'; in .*batches\.meta it is 'class 0'"
    ):
        images(tmp_path, "CIFAR10", class_names=names[::-1]).setup()


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "archive"])
@pytest.mark.parametrize("written", [written_by_python_2, written_by_python_3])
@pytest.mark.parametrize("dataset", DATASETS)
def test_reads_torchvisions_layout(tmp_path, dataset, written, packed):
    write(tmp_path, dataset, written)
    if packed:
        pack(tmp_path, dataset)
    data, published = images(tmp_path, dataset), DATASETS[dataset]
    before = sorted(tmp_path.rglob("*"))
    for part, files in (("train", published.train), ("val", published.train), ("test", published.test)):
        batch = data.splits[part][0, torch.arange(len(data.splits[part]))]
        for image, label, key in zip(batch["input"], batch["label"], batch["key"].tolist(), strict=True):
            made = MADE[dataset][list(files)[key // 8]]
            assert int(label) == made[published.labels][key % 8]
            red, green, blue = (made[b"data"][key % 8, c * 1024 :][:1024] for c in range(3))
            for channel, pixels, mean, std in ((0, red, 0.1, 0.25), (1, green, 0.2, 0.5), (2, blue, 0.3, 0.75)):
                expected = torch.from_numpy(((pixels / 255 - mean) / std).reshape(32, 32)).float()  # row after row
                torch.testing.assert_close(image[channel], expected)
    assert {part: len(split) for part, split in data.splits.items()} == {
        "train": 8 * len(published.train) - 2,
        "val": 2,
        "test": 8,
    }
    assert data.class_names == [f"class {c}" for c in range(CLASSES[dataset])]
    assert sorted(tmp_path.rglob("*")) == before  # nothing is unpacked onto the disk


def test_the_test_writer_writes_what_torchvision_reads():
    """``written_by_python_2`` makes pickles that mean the same to pickle and numpy themselves."""
    made = MADE["CIFAR10"]["test_batch"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some numpy 2.4 do not like align=0, which the published files have
        read = pickle.loads(written_by_python_2(made), encoding="bytes")
    np.testing.assert_array_equal(read.pop(b"data"), made[b"data"])
    assert read == {key: value for key, value in made.items() if key != b"data"}


def test_pixels_stored_column_by_column(tmp_path):
    made = MADE["CIFAR10"]["test_batch"]
    rows = images(write(tmp_path / "rows").parent).fingerprint()
    columns = write(tmp_path / "columns", test_batch=made | {b"data": np.asfortranarray(made[b"data"])})
    assert images(columns.parent).fingerprint() == rows


def test_the_folder_wins_over_the_archive_and_an_incomplete_folder_does_not(tmp_path):
    write(tmp_path)
    pack(tmp_path)
    packed = images(tmp_path).fingerprint()
    other = MADE["CIFAR10"]["test_batch"][b"data"] ^ 1
    folder = write(tmp_path, test_batch=MADE["CIFAR10"]["test_batch"] | {b"data": other})
    assert images(tmp_path).fingerprint() != packed
    (folder / "batches.meta").unlink()
    assert images(tmp_path).fingerprint() == packed


def test_the_split_is_of_split_seed_alone(tmp_path):
    write(tmp_path)
    first, same, other = (
        images(tmp_path, seed=seed, split_seed=split_seed).splits["val"].keys.tolist()
        for seed, split_seed in ((0, 0), (1, 0), (0, 1))
    )
    assert first == same != other


# -- what is refused --------------------------------------------------------------------------------------------------


def refusal(data):
    with pytest.raises(TutelageError) as caught:
        data.setup()
    return str(caught.value)


class Evil:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_malicious_pickle_is_refused_and_does_nothing(tmp_path, protocol):
    mark = tmp_path / "mark"
    evil = {b"data": Evil(os.mkdir, str(mark))}
    pickle.loads(pickle.dumps(evil, protocol))
    assert mark.exists()  # it is malicious indeed
    mark.rmdir()
    path = write(tmp_path, data_batch_3=pickle.dumps(evil, protocol)) / "data_batch_3"
    assert refusal(images(tmp_path)).startswith(f"{path}: refused, for it asks for {os.mkdir.__module__}.mkdir;")
    assert not mark.exists()


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (eval, "__builtin__.eval"),
        (getattr, "__builtin__.getattr"),
        (np.fromfile, "numpy.fromfile"),
        (bytes, "__builtin__.bytes"),
    ],
)
def test_every_other_global_is_refused(tmp_path, function, name):
    path = write(tmp_path, **{"batches.meta": pickle.dumps(Evil(function, "1"), 2)}) / "batches.meta"
    assert f"{path}: refused, for it asks for {name};" in refusal(images(tmp_path))


def test_what_a_pickle_calls_of_numpy_is_not_called(tmp_path):
    """An object array that numpy would build around a number taken for a pointer stays data."""
    made = MADE["CIFAR10"]["test_batch"]
    pickled = written_by_python_2(made).replace(opcodes(b"u1"), opcodes(b"O8"))
    path = write(tmp_path, test_batch=pickled) / "test_batch"
    assert refusal(images(tmp_path)) == (
        f"{path}: expected N rows of 3072 unsigned bytes (u1) in b'data'; found the type b'O8', the shape (8, 3072) "
        "and 24576 bytes"
    )


def test_no_state_in_a_pickle_changes_what_the_next_one_meets(tmp_path):
    """BUILD may set attributes of what a pickle is given; nothing that it is given may be changed for good."""
    write(tmp_path)
    before = images(tmp_path).fingerprint()
    for named in (b"cnumpy\nndarray\n", b"c_codecs\nencode\n"):
        state = opcodes((None, {b"__setstate__": 1, b"arguments": (b"u1",)}))
        write(tmp_path, data_batch_1=b"\x80\x02" + named + state + b"b.")
        assert "data_batch_1: not a sound pickle" in refusal(images(tmp_path))
        write(tmp_path)
        assert images(tmp_path).fingerprint() == before


def test_every_truncation_is_named_with_its_size(tmp_path):
    path = write(tmp_path) / "data_batch_2"
    whole = path.read_bytes()
    for kept in [*range(0, 120, 7), 300, 20_000, len(whole) - 1]:
        path.write_bytes(whole[:kept])
        assert refusal(images(tmp_path)).startswith(f"{path}: not a sound pickle ({kept} bytes): ")


@pytest.mark.parametrize(
    "content", [b"\x80\x02T\xff\xff\xff\x7f.", b"\x80\x02h\x05.", b"<html>404</html>", b"\x80\x63."]
)
def test_what_is_no_pickle(tmp_path, content):
    path = write(tmp_path, data_batch_2=content) / "data_batch_2"
    assert refusal(images(tmp_path)).startswith(f"{path}: not a sound pickle ({len(content)} bytes): ")


def test_a_pickle_that_is_no_dictionary(tmp_path):
    path = write(tmp_path, data_batch_2=[1, 2]) / "data_batch_2"
    assert refusal(images(tmp_path)) == f"{path}: expected a dictionary; found list"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({b"data": np.zeros((8, 3071), np.uint8)}, "the type b'u1', the shape (8, 3071) and 24568 bytes"),
        ({b"data": np.zeros((8, 3072), np.int8)}, "the type b'i1', the shape (8, 3072) and 24576 bytes"),
        ({b"data": np.zeros((8, 3, 32, 32), np.uint8)}, "the shape (8, 3, 32, 32) and 24576 bytes"),
        ({b"data": [0]}, "expected an array in b'data'; found list"),
        ({b"data": None}, "expected an array in b'data'; found nothing"),
        ({b"data": np.zeros((7, 3072), np.uint8)}, "7 images but 8 labels in b'labels'"),
        ({b"labels": [0] * 9}, "8 images but 9 labels in b'labels'"),
        ({b"labels": [0] * 5 + [10, 0, 11]}, "b'labels'[5] is 10; expected 0 to 9"),
        ({b"labels": [0] * 7 + [-1]}, "b'labels'[7] is -1; expected 0 to 9"),
        ({b"labels": [0, 1, b"2"]}, "expected int in b'labels'[2]; found bytes"),
        ({b"labels": [0, True]}, "expected int in b'labels'[1]; found bool"),
        ({b"labels": None}, "expected a list in b'labels'; found nothing"),
        ({b"labels": np.zeros(8, np.uint8)}, "expected a list in b'labels'; found a numpy object"),
    ],
)
def test_a_batch_that_holds_something_else(tmp_path, change, complaint):
    path = write(tmp_path, data_batch_4=MADE["CIFAR10"]["data_batch_4"] | change) / "data_batch_4"
    message = refusal(images(tmp_path))
    assert message.startswith(f"{path}: ")
    assert message.endswith(complaint)


def test_a_shape_that_lies(tmp_path):
    pickled = written_by_python_2(MADE["CIFAR10"]["test_batch"])
    path = write(tmp_path, test_batch=pickled.replace(opcodes((8, 3072)), opcodes((9, 3072)))) / "test_batch"
    assert refusal(images(tmp_path)).endswith("the shape (9, 3072) and 24576 bytes")
    assert str(path) in refusal(images(tmp_path))


def test_other_classes_than_configured(tmp_path):
    folder = write(tmp_path)
    assert refusal(images(tmp_path, num_classes=12)) == (
        f"{folder / 'batches.meta'}: 10 names in b'label_names'; data.num_classes is 12"
    )
    write(tmp_path, **{"batches.meta": {b"label_names": ["a"] * 10}}, written=written_by_python_3)
    assert "expected bytes in b'label_names'[0]; found str" in refusal(images(tmp_path))


def test_an_unknown_dataset_has_a_near_match(tmp_path):
    with pytest.raises(TutelageError, match=r"data\.dataset='CIFAR-100' is not known; did you mean 'CIFAR100'"):
        images(tmp_path, "CIFAR-100", num_classes=100)


# -- the archive ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["../evil", "cifar-10-batches-py/../../evil", "/evil", "evil", "cifar-100-python/train", "."]
)
def test_a_member_that_leaves_the_folder_is_refused(tmp_path, name):
    root = tmp_path / "root"
    write(root)
    archive = pack(root, members=[(name, tarfile.REGTYPE)])
    before = sorted(tmp_path.rglob("*"))
    assert refusal(images(root)).startswith(f"{archive}: expected all members in cifar-10-batches-py/; found {name!r}")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_link_is_not_followed(tmp_path):
    write(tmp_path)
    links = [("cifar-10-batches-py/test_batch", tarfile.SYMTYPE), ("cifar-10-batches-py/batches.meta", tarfile.LNKTYPE)]
    archive = pack(tmp_path, lacking=["test_batch", "batches.meta"], members=links)
    assert refusal(images(tmp_path)) == (
        f"{archive}: found no test_batch, batches.meta in cifar-10-batches-py/; a whole archive has them"
    )


def test_other_files_in_the_folder_are_let_be(tmp_path):
    plain = images(write(tmp_path / "plain").parent).fingerprint()
    write(tmp_path / "packed")
    pack(tmp_path / "packed", members=[("cifar-10-batches-py/readme.html", tarfile.REGTYPE)])
    assert images(tmp_path / "packed").fingerprint() == plain


def test_a_damaged_archive_is_named_with_its_size(tmp_path):
    write(tmp_path)
    archive = pack(tmp_path)
    whole = archive.read_bytes()
    damaged = [whole[:kept] for kept in (0, 5, 1000, len(whole) // 2, len(whole) - 1)]
    damaged += [whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :] for at in (0, len(whole) // 2, len(whole) - 6)]
    damaged += [gzip.compress(b"x" * 2000), gzip.compress(gzip.decompress(whole)[:100_000])]
    for content in damaged:
        archive.write_bytes(content)
        message = refusal(images(tmp_path))
        assert message.startswith(f"{archive}: not a sound tar.gz file ({len(content)} bytes): ")


# -- checksums and download -------------------------------------------------------------------------------------------


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def published(tmp_path, monkeypatch):
    """The toy CIFAR-10 as if it were the published one: the folder on a mirror that holds the archive alone."""
    mirror = tmp_path / "mirror"
    folder, real = write(mirror), DATASETS["CIFAR10"]
    sums = {part: {name: md5(folder / name) for name in getattr(real, part)} for part in ("train", "test", "meta")}
    toy = real._replace(md5=md5(pack(mirror)), mirrors=(mirror.as_uri(),), **sums)
    monkeypatch.setitem(DATASETS, "CIFAR10", toy)
    return mirror


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "archive"])
def test_files_that_differ_from_the_published_ones(tmp_path, published, packed):
    here = tmp_path / "here"
    path = write(here) / "data_batch_5"
    images(here, verify=True).setup()
    content = bytearray(path.read_bytes())
    content[20_000] ^= 1  # a pixel
    path.write_bytes(content)
    expected, found = DATASETS["CIFAR10"].train["data_batch_5"], md5(path)
    if packed:
        path = pack(here) / path.relative_to(here)
    assert refusal(images(here, verify=True)) == (
        f"{path}: expected the published file's MD5 checksum {expected}; found {found} ({len(content)} bytes). "
        "If the file is meant to differ, set data.verify=false"
    )
    images(here, verify=False).setup()


def test_real_checksums_are_asked_for_by_default(tmp_path):
    write(tmp_path)
    common = {"num_classes": 10, "input_shape": (3, 32, 32), "batch_size": 2, "val_size": 2, "seed": 0}
    data = CifarImages(root=tmp_path, dataset="CIFAR10", download=False, mean=[0] * 3, std=[1] * 3, **common)
    assert "data_batch_1: expected the published file's MD5 checksum c99cafc152244af753f735de768cd75f" in refusal(data)


def test_downloads_what_is_missing(tmp_path, published):
    here = tmp_path / "here"
    folder = write(here)
    (folder / "data_batch_2").unlink()
    data = images(here, download=True, verify=True)
    assert data.fingerprint() == images(published).fingerprint()
    assert {path.name for path in here.iterdir() if path.suffix != ".lock"} == {folder.name, "cifar-10-python.tar.gz"}
    os.remove(published / "cifar-10-python.tar.gz")
    assert images(here, download=True, verify=True).fingerprint() == data.fingerprint()  # from what lies here


def test_a_download_with_a_wrong_checksum_is_refused(tmp_path, published):
    archive = published / "cifar-10-python.tar.gz"
    archive.write_bytes(archive.read_bytes() + b"x")
    message = refusal(images(tmp_path / "here", download=True))
    assert f"with the MD5 checksum {DATASETS['CIFAR10'].md5}" in message
    assert f"{archive.as_uri()}: its checksum is {md5(archive)}" in message
    assert not list((tmp_path / "here").rglob("*.gz"))


@pytest.mark.parametrize("dataset", DATASETS)
def test_missing_files_are_all_listed_with_what_to_do(tmp_path, dataset, monkeypatch):
    folder = write(tmp_path, dataset)
    published = DATASETS[dataset]
    gone = [next(iter(published.train)), next(iter(published.meta))]
    for name in gone:
        (folder / name).unlink()
    monkeypatch.chdir(tmp_path)
    message = refusal(images(".", dataset))
    assert message.splitlines()[:4] == [
        f"{dataset}: files are missing:",
        *(f"  {folder / name}" for name in gone),
        f"  or {tmp_path / published.archive}",
    ]
    assert "data.download=false, so nothing was fetched\nSet data.download=true, point data.root at" in message
    assert f"https://www.cs.toronto.edu/~kriz/{published.archive}" in message


def test_checksums_are_torchvisions():
    datasets = pytest.importorskip("torchvision.datasets")
    for name, published in DATASETS.items():
        source = getattr(datasets, name)
        assert (source.filename, source.tgz_md5, source.base_folder) == (
            published.archive,
            published.md5,
            published.folder,
        )
        assert source.url == f"{published.mirrors[0]}/{published.archive}"
        assert dict(source.train_list) == published.train
        assert dict(source.test_list) == published.test
        assert {source.meta["filename"]: source.meta["md5"]} == published.meta
        assert source.meta["key"].encode() == published.names


@pytest.mark.parametrize(
    ("dataset", "mean", "std"),
    [
        ("CIFAR10", [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]),
        ("CIFAR100", [0.5071, 0.4867, 0.4408], [0.2675, 0.2565, 0.2761]),
    ],
)
def test_the_real_data(dataset, mean, std):
    root = Path(os.environ.get("TUTELAGE_DATA", "/nowhere"))
    published = DATASETS[dataset]
    if not any((root / name).exists() for name in (published.folder, published.archive)):
        pytest.skip(f"TUTELAGE_DATA does not name a folder that holds {published.folder} or {published.archive}")
    data = images(root, dataset, verify=True, mean=mean, std=std, val_size=5000)
    assert {part: len(split) for part, split in data.splits.items()} == {"train": 45_000, "val": 5_000, "test": 10_000}
    sample = data.sample(45_000)
    assert sample["input"].mean((0, 2, 3)).abs().max() < 0.01
    assert (sample["input"].std((0, 2, 3)) - 1).abs().max() < 0.01
    labels = torch.cat([sample["label"], data.splits["val"][0, torch.arange(5000)]["label"]]).bincount()
    assert labels.tolist() == [50_000 // CLASSES[dataset]] * CLASSES[dataset]
    assert data.class_names[0] == {"CIFAR10": "airplane", "CIFAR100": "apple"}[dataset]
