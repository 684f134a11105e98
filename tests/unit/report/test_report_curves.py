import math

import made_runs
import pytest
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from torch.utils.tensorboard import SummaryWriter

from tutelage.errors import TutelageError
from tutelage.report.curves import band, checksums, read_curves
from tutelage.report.document import markdown
from tutelage.report.runs import read_runs
from tutelage.report.write import make_report


def write(folder, values, *, first=0, suffix=""):
    """An attempt that logs ``values``, one an epoch of ten steps, from epoch ``first`` on."""
    with SummaryWriter(str(folder), filename_suffix=suffix) as writer:
        for epoch, value in enumerate(values, first):
            writer.add_scalar("val/accuracy", value, epoch * 10)
            writer.add_scalar("epoch", epoch, epoch * 10)
            writer.add_scalar("else", 7.0, epoch * 10)


def test_a_curve_by_epoch(tmp_path):
    write(tmp_path, [0.25, 0.5, 0.75])
    assert read_curves(tmp_path) == {"val/accuracy": {0: 0.25, 1: 0.5, 2: 0.75}}
    assert read_curves(tmp_path / "nothing") == {}


def test_a_run_that_went_on_is_one_curve_and_later_attempts_win(tmp_path):
    write(tmp_path, [0.25, 0.5, 0.75], suffix=".1")
    [first] = tmp_path.iterdir()
    first.rename(tmp_path / "events.out.tfevents.1")
    write(tmp_path, [0.875, 1.0], first=2)
    assert read_curves(tmp_path) == {"val/accuracy": {0: 0.25, 1: 0.5, 2: 0.875, 3: 1.0}}


@pytest.mark.parametrize("lost", [1, 10, 60])
def test_a_file_that_was_cut_keeps_what_stands_before(tmp_path, lost):
    write(tmp_path, [0.25, 0.5, 0.75])
    [path] = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-lost])
    found = read_curves(tmp_path)["val/accuracy"]
    assert found[0] == 0.25
    assert found[1] == 0.5


def test_nan_is_no_point(tmp_path):
    write(tmp_path, [0.25, math.nan])
    assert read_curves(tmp_path) == {"val/accuracy": {0: 0.25}}


@pytest.mark.parametrize("garbage", [b"\x05" + bytes(11) + b"\xff" * 9 + b"more", b"nothing of TensorBoard's"])
def test_garbage_is_named(tmp_path, garbage):
    write(tmp_path, [0.25])
    (tmp_path / "events.out.tfevents.0").write_bytes(garbage)
    with pytest.raises(TutelageError, match=r"events\.out\.tfevents\.0 is damaged: \d of its \d checksums"):
        read_curves(tmp_path)


def test_a_flipped_bit_anywhere_is_noticed(tmp_path):
    write(tmp_path, [0.25, 0.5, 0.75])
    [path] = tmp_path.iterdir()
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ (1 << place % 8)]) + content[place + 1 :])
        with pytest.raises(TutelageError, match="is damaged"):
            read_curves(tmp_path)


def test_checksums_are_those_of_tensorboard():
    parts = [b"", b"a", bytes(range(256)), b"val/accuracy" * 40, b"b"]
    assert checksums(parts).tolist() == [masked_crc32c(part) for part in parts]
    assert checksums([]).tolist() == []


def test_damaged_curves_are_left_out_by_name_and_the_others_shown(tmp_path):
    runs = [made_runs.run(tmp_path, seed) for seed in (0, 1)]
    for run in runs:
        for role in ("control", "student"):
            write(run / "tensorboard" / role, [0.25, 0.5])
    [path] = (runs[0] / "tensorboard" / "student").iterdir()
    content = bytearray(path.read_bytes())
    content[-10] ^= 1
    path.write_bytes(content)
    report = markdown(make_report(read_runs([tmp_path]), "last"))
    assert f"{path.name} is damaged" in report
    assert "Validation accuracy" in report
    path.unlink()
    assert "is damaged" not in markdown(make_report(read_runs([tmp_path]), "last"))


def test_a_band_is_mean_and_sd_over_common_epochs():
    found = band([{0: 1.0, 1: 2.0}, {0: 3.0, 1: 2.0, 2: 9.0}, {}])
    assert found.epochs == [0, 1]
    assert found.mean == [2.0, 2.0]
    assert found.low == pytest.approx([2 - math.sqrt(2), 2.0])
    assert found.high == pytest.approx([2 + math.sqrt(2), 2.0])
    assert found.count == 2
    assert band([{4: 1.0}]).low == [1.0]
    assert band([{}]) is None
    assert band([{0: 1.0}, {1: 1.0}]) is None
