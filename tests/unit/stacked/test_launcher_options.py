"""Options of ``launcher=stacked`` by the names of the last release."""

import logging

import pytest

from hydra_plugins.tutelage_stacked import StackedLauncher
from tutelage.errors import TutelageError


def test_old_names_of_options_work_with_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        launcher = StackedLauncher(max_jobs=None, max_macs=2e7, most_jobs=3, most_work=None)
    assert (launcher.max_jobs, launcher.max_macs) == (3, None)
    assert "hydra.launcher.most_jobs is now max_jobs" in caplog.text
    assert "hydra.launcher.most_work is now max_macs" in caplog.text


def test_new_names_of_options_give_no_warning(caplog):
    launcher = StackedLauncher(max_jobs=2, max_macs=1e6)
    assert (launcher.max_jobs, launcher.max_macs) == (2, 1e6)
    assert not caplog.text


@pytest.mark.parametrize("value", ["many", True, [1]])
def test_an_old_option_that_is_no_number_is_refused(value):
    with pytest.raises(TutelageError, match=r"hydra.launcher.most_jobs, now max_jobs: expected a number or null"):
        StackedLauncher(max_jobs=None, max_macs=None, most_jobs=value)
