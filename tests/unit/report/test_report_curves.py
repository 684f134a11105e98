import math

import pytest
from torch.utils.tensorboard import SummaryWriter

from tutelage.report.curves import band, read_curves


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


def test_garbage_and_nan_are_no_points(tmp_path):
    write(tmp_path, [0.25, math.nan])
    (tmp_path / "events.out.tfevents.0").write_bytes(b"\x05" + bytes(11) + b"\xff" * 9 + b"more")
    assert read_curves(tmp_path) == {"val/accuracy": {0: 0.25}}


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
