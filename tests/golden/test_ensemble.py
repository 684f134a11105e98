"""Short versions of ``experiment=ensemble`` and ``ensemble_unseen`` on scikit-learn's digits as MNIST files.

Against the figures on file: ``make golden`` writes them anew; a commit that does so says why.
"""

import math
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import on_file
import pytest
import small_mnist
from runs import artifacts, figures
from scipy import stats

PATH = Path(__file__).parent / "ensemble.json"
SCRIPT = Path(__file__).parents[2] / "docs" / "results" / "ensemble.py"
SHORT = (
    "data.val_size=200", "data.batch_size=50", "trainer.max_epochs=3", "student.net.widths=[16]",
    "teacher.net.widths=[16]", "ensemble.size=3", "logger=none", "callbacks.progress=null",
)  # fmt: skip
UNSEEN = ("data.labelled=60", "data.repeat_labelled=4", "stages.teacher.trainer.max_epochs=4")
CASES = {"ensemble_unseen": UNSEEN, "ensemble": ()}  # 60 comes before all


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


@pytest.mark.filterwarnings("ignore:.*(LeafSpec|in eval mode|lr_scheduler.step).*")
@pytest.mark.long
def test_short_versions_give_the_figures_on_file(main, tmp_path, request, script):
    digits, found = small_mnist.write(tmp_path), {}
    for name, more in CASES.items():
        found[name] = on_file.losses(
            small_mnist.distilled(main, digits, tmp_path / "sweep" / name, name, *SHORT, *more)
        )
    assert found["ensemble"]["teacher"]["test"] < found["ensemble_unseen"]["teacher"]["test"]
    assert len(artifacts(tmp_path / "outputs" / "artifacts", "teacher")) == 2 * 3
    _tables(script, tmp_path / "sweep")
    on_file.compare(request, PATH, found)


def _tables(script, sweep):
    """Of the page, as its script makes them."""
    for figure, (key, factor, digits) in {"accuracy": ("accuracy", 100, 2), "nll": ("nll", 1, 4)}.items():
        cells = script["read"]([sweep], "test", figure)
        rows = [line.split(" | ") for line in script["table"](cells, "test", figure).splitlines()[2:]]
        assert [row[2] for row in rows] == ["60", "all"]
        for row, name in zip(rows, CASES, strict=True):
            last = {
                role: entry["last"]["test"] for role, entry in figures(sweep / name).items() if role in on_file.ROLES
            }
            said = {role: factor * last[role][key] for role in last}
            assert row[9:12] == [f"{said[role]:.{digits}f}" for role in ("control", "student", "teacher")]
            kept = (said["student"] - said["control"]) / (said["teacher"] - said["control"])
            assert row[13] == f"{100 * kept:.0f}"
    assert len(script["knowledge"](cells).splitlines()) == 2 + 2 * len(CASES)


def test_the_interval_of_a_ratio_is_where_its_t_test_does_not_reject(script):
    above, below = np.array([0.31, 0.42, 0.36, 0.30, 0.45]), np.array([0.61, 0.70, 0.66, 0.59, 0.71])
    low, high = script["fieller"](above, below)
    assert low < above.mean() / below.mean() < high
    for k in (low, high):
        assert stats.ttest_1samp(above - k * below, 0.0).pvalue == pytest.approx(0.05, abs=1e-9)
    assert script["fieller"](above, below - below.mean()) == (-math.inf, math.inf)
