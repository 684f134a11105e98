import functools
import gzip
import hashlib
import os
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from tutelage.data import idx
from tutelage.data.idx import FILES, IdxImages, read_idx
from tutelage.errors import TutelageError

NAMES = [name for pair in FILES.values() for name in pair]
RNG = np.random.default_rng(0)
ARRAYS = {
    name: RNG.integers(0, 256, (count, 6, 5), np.uint8) if "idx3" in name else RNG.integers(0, 10, count, np.uint8)
    for name, count in zip(NAMES, (40, 40, 10, 10), strict=True)
}


def packed(array, magic=None, shape=None):
    """The IDX format, written from its description."""
    head = bytes([0, 0, 8, array.ndim]) if magic is None else magic
    return head + b"".join(int(n).to_bytes(4, "big") for n in shape or array.shape) + array.tobytes()


def write(root: Path, dataset="MNIST", suffix="", **other):
    folder = root / dataset / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in (ARRAYS | other).items():
        content = packed(array)
        (folder / f"{name}{suffix}").write_bytes(gzip.compress(content) if suffix else content)
    return folder


def images(root, dataset="MNIST", download=False, **arguments):
    common = {"num_classes": 10, "input_shape": (1, 6, 5), "batch_size": 8, "val_size": 10, "seed": 0}
    common |= {"mean": [0.5], "std": [0.25]}
    return IdxImages(root=root, dataset=dataset, download=download, **(common | arguments))


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("dataset", ["MNIST", "FashionMNIST"])
def test_reads_torchvisions_layout(tmp_path, dataset, suffix):
    write(tmp_path, dataset, suffix)
    data = images(tmp_path, dataset)
    for part, files in (("train", FILES["train"]), ("val", FILES["train"]), ("test", FILES["test"])):
        batch = data.splits[part][0, torch.arange(len(data.splits[part]))]
        pixels, labels = (torch.from_numpy(ARRAYS[file])[batch["key"]] for file in files)
        torch.testing.assert_close(batch["input"], (pixels[:, None] / 255 - 0.5) / 0.25)
        assert torch.equal(batch["label"], labels.long())


def test_the_fingerprint_is_of_the_content_not_of_the_files(tmp_path):
    write(tmp_path / "plain")
    write(tmp_path / "packed", suffix=".gz")
    changed = ARRAYS[NAMES[0]].copy()
    changed[20, 3, 3] ^= 1
    write(tmp_path / "changed", **{NAMES[0]: changed})
    plain, gz, other = (images(tmp_path / name).fingerprint() for name in ("plain", "packed", "changed"))
    assert plain == gz != other


@pytest.mark.parametrize("dimensions", [1, 3])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_reads_an_empty_file(tmp_path, suffix, dimensions):
    shape = (0, 28, 28)[:dimensions]
    content = packed(np.empty(shape, np.uint8))
    path = tmp_path / f"a{suffix}"
    path.write_bytes(gzip.compress(content) if suffix else content)
    assert read_idx(path, dimensions).shape == shape


@pytest.mark.parametrize("kept", [0, 1, 3, 4, 15, 16, 17, 616, 1215])
def test_a_truncated_file_is_named_with_both_sizes(tmp_path, kept):
    path = write(tmp_path) / NAMES[0]
    path.write_bytes(path.read_bytes()[:kept])  # whole: 16 + 40 · 6 · 5 = 1216 bytes
    expected = "an IDX header of 16 bytes" if kept < 16 else r"1216 bytes for dimensions \[40, 6, 5\]"
    with pytest.raises(TutelageError, match=rf"^{path}: expected {expected}; found {kept}$"):
        images(tmp_path).setup()


def test_a_file_that_is_too_long(tmp_path):
    path = write(tmp_path) / NAMES[3]
    path.write_bytes(path.read_bytes() + b"12")
    with pytest.raises(TutelageError, match=rf"^{path}: expected 18 bytes for dimensions \[10\]; found 20$"):
        images(tmp_path).setup()


def test_every_truncation_of_a_packed_file_is_noticed(tmp_path):
    path = write(tmp_path, suffix=".gz") / f"{NAMES[1]}.gz"
    whole = path.read_bytes()
    for kept in range(len(whole)):
        path.write_bytes(whole[:kept])
        with pytest.raises(TutelageError, match=rf"^{path}: .*found \d+ \(the gzip file is cut off after {kept} bytes"):
            read_idx(path, 1)
    path.write_bytes(whole)
    assert read_idx(path, 1).tolist() == ARRAYS[NAMES[1]].tolist()


def test_a_damaged_packed_file(tmp_path):
    path = write(tmp_path, suffix=".gz") / f"{NAMES[0]}.gz"
    whole = path.read_bytes()
    for position in (0, len(whole) // 2, len(whole) - 6):  # magic number, content, checksum
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 255]) + whole[position + 1 :])
        with pytest.raises(TutelageError, match=rf"^{path}: not a sound gzip file \({len(whole)} bytes\)"):
            read_idx(path, 3)
    path.write_bytes(whole + b"abc")
    with pytest.raises(TutelageError, match=rf"^{path}: 3 bytes follow"):
        read_idx(path, 3)


@pytest.mark.parametrize(
    ("magic", "found"),
    [(b"\0\0\x08\x01", "00 00 08 01"), (b"\0\0\x0d\x03", "00 00 0d 03"), (b"\x89PNG", "89 50 4e 47")],
)
def test_another_magic_number(tmp_path, magic, found):
    path = tmp_path / "a"
    path.write_bytes(packed(ARRAYS[NAMES[0]], magic))
    with pytest.raises(TutelageError, match=rf"^{path}: expected the magic number 00 00 08 03; found {found}$"):
        read_idx(path, 3)


def test_dimensions_that_lie(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(packed(ARRAYS[NAMES[0]], shape=(41, 6, 5)))
    with pytest.raises(TutelageError, match=r"expected 1246 bytes for dimensions \[41, 6, 5\]; found 1216"):
        read_idx(path, 3)


def test_images_and_labels_of_different_number(tmp_path):
    write(tmp_path, **{NAMES[1]: ARRAYS[NAMES[1]][:-1]})
    with pytest.raises(TutelageError, match=r"^MNIST train: 40 images but 39 labels"):
        images(tmp_path).setup()


def test_a_label_that_is_no_class(tmp_path):
    labels = ARRAYS[NAMES[3]].copy()
    labels[4] = 10
    write(tmp_path, "FashionMNIST", **{NAMES[3]: labels})
    with pytest.raises(
        TutelageError, match=r"^FashionMNIST test: the example at index 4: its label is 10; expected 0 to 9"
    ):
        images(tmp_path, "FashionMNIST").setup()


def test_images_of_another_shape(tmp_path):
    write(tmp_path)
    with pytest.raises(TutelageError, match=r"shape \[1, 6, 5\]; input_shape says \[1, 28, 28\]"):
        images(tmp_path, input_shape=(1, 28, 28)).setup()


def test_missing_files_are_all_listed_with_what_to_do(tmp_path, monkeypatch):
    folder = write(tmp_path)
    for name in (NAMES[0], NAMES[3]):
        (folder / name).unlink()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TutelageError) as caught:
        images(".").setup()
    message = str(caught.value)
    for name in NAMES:
        assert (f"{folder / name}[.gz]" in message) == (name in (NAMES[0], NAMES[3]))
    assert "data.download=false" in message
    assert "data.root" in message
    assert idx.MIRRORS["MNIST"][0] in message


def test_an_unknown_dataset_has_a_near_match(tmp_path):
    with pytest.raises(TutelageError, match="did you mean 'FashionMNIST'"):
        images(tmp_path, "FasionMNIST")


@pytest.fixture
def served(tmp_path):
    """The address of a server on this machine that has the packed files of the toy data."""
    folder = write(tmp_path / "server", suffix=".gz")
    handler = functools.partial(Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", folder
        server.shutdown()
        thread.join()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def checksums(folder):
    return tuple(hashlib.md5((folder / f"{name}.gz").read_bytes()).hexdigest() for name in NAMES)


def test_downloads_what_is_missing(tmp_path, served, monkeypatch):
    mirror, folder = served
    monkeypatch.setitem(idx.MD5, "MNIST", checksums(folder))
    here = write(tmp_path / "here")
    (here / NAMES[2]).unlink()
    data = images(tmp_path / "here", download=True, mirrors=[mirror])
    assert data.fingerprint() == images(tmp_path / "server").fingerprint()
    assert {name for name in os.listdir(here) if name.endswith(".gz")} == {f"{NAMES[2]}.gz"}


def test_a_download_with_a_wrong_checksum_is_refused(tmp_path, served):
    mirror, folder = served
    with pytest.raises(TutelageError) as caught:
        images(tmp_path / "here", download=True, mirrors=[mirror]).setup()
    message = str(caught.value)
    assert f"checksum {idx.MD5['MNIST'][0]}" in message
    assert f"its checksum is {checksums(folder)[0]}" in message
    assert f"{tmp_path / 'here/MNIST/raw' / NAMES[3]}[.gz]" in message
    assert not list((tmp_path / "here").rglob("*.gz"))


def test_checksums_are_torchvisions():
    datasets = pytest.importorskip("torchvision.datasets")
    for name in idx.MD5:
        source = getattr(datasets, name)
        assert dict(source.resources) == dict(zip((f"{name}.gz" for name in NAMES), idx.MD5[name], strict=True))


@pytest.mark.parametrize(("dataset", "mean", "std"), [("MNIST", 0.1307, 0.3081), ("FashionMNIST", 0.2860, 0.3530)])
def test_the_real_data(dataset, mean, std):
    root = os.environ.get("TUTELAGE_DATA")
    if not root:
        pytest.skip("TUTELAGE_DATA does not name the folder that holds MNIST/raw and FashionMNIST/raw")
    data = images(root, dataset, input_shape=(1, 28, 28), mean=[mean], std=[std], val_size=5000)
    assert {part: len(split) for part, split in data.splits.items()} == {"train": 55_000, "val": 5_000, "test": 10_000}
    sample = data.sample(55_000)
    assert abs(float(sample["input"].mean())) < 1e-3
    assert abs(float(sample["input"].std()) - 1) < 1e-3
    labels = torch.cat([sample["label"], data.splits["val"][0, torch.arange(5000)]["label"]]).bincount()
    known = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]  # LeCun's page; Fashion-MNIST is balanced
    assert labels.tolist() == (known if dataset == "MNIST" else [6000] * 10)
