"""Signals on disk: whole, checked, resumable."""

import json
import os
import resource
import signal
import subprocess
import sys
import time

import pytest
import torch
from command import environment

from tutelage.errors import TutelageError
from tutelage.sources import store
from tutelage.sources.cached import Cached
from tutelage.sources.store import ROWS, Column, Store, Writer

KEY = torch.arange(0, 2 * (ROWS + 5), 2)  # two blocks, the second short
COLUMNS = [Column("logits", (3,), "float32"), Column("stage1", (2, 2), "float16"), Column("class", (1,), "int32")]


def signals(view: int, rows: torch.Tensor) -> dict[str, torch.Tensor]:
    base = (rows + 100_000 * view).float()
    return {
        "logits": torch.stack([base, base + 0.5, -base], 1),
        "stage1": (base % 1000)[:, None, None].expand(-1, 2, 2),
        "class": rows[:, None] % 7,
    }


def write(folder, views=2, key=KEY, only=None) -> Writer:
    writer = Writer(folder, COLUMNS, key, views)
    for number, (view, start) in enumerate(list(writer.missing())):
        if only is None or number < only:
            writer.write(view, start, signals(view, torch.arange(start, min(start + ROWS, len(key)))))
    return writer


def test_what_is_read_is_what_was_written(tmp_path):
    write(tmp_path).finish({"classifier.weight": torch.eye(3)})
    store = Store.read(tmp_path)
    assert torch.equal(store.key, KEY)
    assert torch.equal(store.constant["classifier.weight"], torch.eye(3))
    rows = torch.arange(len(KEY))
    for view in (0, 1):
        for name, expected in signals(view, rows).items():
            assert torch.equal(store.columns[name][view], expected.to(store.columns[name].dtype))
    assert not (tmp_path / "progress.jsonl").exists()
    before = (tmp_path / "logits.bin").read_bytes()
    store.columns["logits"].zero_()
    assert (tmp_path / "logits.bin").read_bytes() == before  # what is changed in memory stays there
    assert store != Store.read(tmp_path)  # each is itself: tensors have no one answer to ==


def test_a_block_is_on_the_disk_before_it_is_said_to_be(tmp_path, monkeypatch):
    synced, fsync = [], os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda file: synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{file}"))) or fsync(file)
    )
    write(tmp_path, only=1)
    assert synced == ["logits.bin", "stage1.bin", "class.bin", "progress.jsonl"]


def test_a_second_writer_does_what_is_left(tmp_path):
    write(tmp_path, only=3)
    with open(tmp_path / "progress.jsonl", "a") as file:
        file.write('{"view": 1, "start": 40')  # torn by a kill
    writer = Writer(tmp_path, COLUMNS, KEY, 2)
    assert list(writer.missing()) == [(1, ROWS)]
    with pytest.raises(TutelageError, match="cannot read signals here"):
        Store.read(tmp_path)
    write(tmp_path).finish({})
    assert torch.equal(Store.read(tmp_path).columns["logits"][1], signals(1, torch.arange(len(KEY)))["logits"])


SLOW = """
import sys, time, torch
sys.path.insert(0, {folder!r})
from pathlib import Path
from test_store import COLUMNS, signals

from tutelage.sources.cached import Cached
from tutelage.sources.store import ROWS, Writer
writer = Writer(Path(sys.argv[1]), COLUMNS, torch.arange(20 * ROWS), 1)
for view, start in writer.missing():
    time.sleep(0.05)
    writer.write(view, start, signals(view, torch.arange(start, start + ROWS)))
"""


def test_killed_while_writing(tmp_path):
    script = SLOW.format(folder=os.path.dirname(__file__))
    child = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], env=environment())
    progress = tmp_path / "progress.jsonl"
    deadline = time.monotonic() + 1200
    while not progress.exists() or progress.read_text().count("\n") < 3:
        assert time.monotonic() < deadline
        assert child.poll() is None
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    key = torch.arange(20 * ROWS)
    left = list(Writer(tmp_path, COLUMNS, key, 1).missing())
    assert 0 < len(left) <= 17
    write(tmp_path, views=1, key=key).finish({})
    assert torch.equal(Store.read(tmp_path).columns["logits"][0], signals(0, key)["logits"])


@pytest.mark.parametrize("where", [0, -1])
def test_a_changed_byte_is_named(tmp_path, where):
    write(tmp_path).finish({})
    path = tmp_path / "stage1.bin"
    content = bytearray(path.read_bytes())
    content[where] ^= 1
    path.write_bytes(content)
    with pytest.raises(TutelageError, match=r"stage1\.bin: damaged in the rows from \d+ of view [01]"):
        Store.read(tmp_path)


def test_a_large_folder_is_checked_block_by_block_as_its_rows_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "AT_ONCE", 0)
    write(tmp_path).finish({})
    content = bytearray((tmp_path / "stage1.bin").read_bytes())
    content[-1] ^= 1  # of the second block of view 1
    (tmp_path / "stage1.bin").write_bytes(content)
    source = Cached(None, str(tmp_path))
    first, last = KEY[:2], KEY[-2:]
    for key, view in ((first, 0), (last, 0), (first, 1)):
        found = source({"key": key, "view": torch.full((2,), view)})
        assert torch.equal(found["logits"], signals(view, key // 2)["logits"])
    for _ in range(2):
        with pytest.raises(TutelageError, match=rf"stage1\.bin: damaged in the rows from {ROWS} of view 1; delete"):
            source({"key": last, "view": torch.ones(2).long()})
    read = []
    monkeypatch.setattr("zlib.crc32", read.append)
    source({"key": KEY[:20], "view": torch.zeros(20).long()})
    assert not read  # each block once


def test_a_folder_is_large_above_its_limit(tmp_path, monkeypatch):
    write(tmp_path).finish({})
    size = sum(column.nbytes for column in Store.read(tmp_path).columns.values())
    for limit, large in ((size, False), (size - 1, True)):
        monkeypatch.setattr(store, "AT_ONCE", limit)
        assert (Store.read(tmp_path).checksums is not None) == large


def test_a_file_of_another_length_or_none_is_named(tmp_path):
    write(tmp_path).finish({})
    path = tmp_path / "logits.bin"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(TutelageError, match=r"logits\.bin: expected \d+ bytes, found \d+; delete"):
        Store.read(tmp_path)
    path.unlink()
    with pytest.raises(TutelageError, match=r"logits\.bin: expected \d+ bytes, found None"):
        Store.read(tmp_path)


def test_a_full_disk_is_met_at_the_start_and_leaves_nothing_that_can_be_read(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(TutelageError, match=r"logits\.bin: no disk space for \d+ bytes"):
            Writer(tmp_path, COLUMNS, KEY, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    with pytest.raises(TutelageError, match="cannot read signals here"):
        Store.read(tmp_path)
    write(tmp_path).finish({})  # room again
    assert Store.read(tmp_path).columns["logits"].shape == (2, len(KEY), 3)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6])
def test_a_value_that_is_not_finite_there_is_refused_by_key(tmp_path, value):
    writer = Writer(tmp_path, [Column("logits", (2,), "float16")], KEY, 1)
    block = torch.zeros(5, 2)
    block[3, 1] = value
    with pytest.raises(TutelageError, match=f"signal 'logits' of example {2 * (ROWS + 3)} is not finite as float16"):
        writer.write(0, ROWS, {"logits": block})
    assert list(writer.missing()) == [(0, 0), (0, ROWS)]


def test_store_json_says_what_is_there(tmp_path):
    write(tmp_path).finish({})
    about = json.loads((tmp_path / "store.json").read_text())
    assert about["columns"][1] == {"name": "stage1", "shape": [2, 2], "dtype": "float16", "tokens": []}
    assert (about["version"], about["views"], about["rows"], len(about["crc"])) == (1, 2, len(KEY), 4)


def test_blocks_of_wide_signals_have_fewer_rows(tmp_path, monkeypatch):
    monkeypatch.setattr("tutelage.sources.store.BYTES", 3 * 40)
    signal = torch.randn(8, 2, 5)
    wide = Writer(tmp_path, [Column("wide", (121,), "float32")], torch.arange(2), 1)
    assert [*wide.missing()] == [(0, 0), (0, 1)]  # one row at least
    writer = Writer(tmp_path, [Column("logits", (2, 5), "float32")], torch.arange(8), 1)
    assert list(writer.missing()) == [(0, 0), (0, 3), (0, 6)]
    for view, start in writer.missing():
        writer.write(view, start, {"logits": signal[start : start + writer.block]})
    writer.finish({})
    assert torch.equal(Store.read(tmp_path).columns["logits"][0], signal)
    content = (tmp_path / "logits.bin").read_bytes()
    (tmp_path / "logits.bin").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(TutelageError, match="damaged in the rows from 6 of view 0"):
        Store.read(tmp_path)
