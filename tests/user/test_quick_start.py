"""The quick start of the documentation, as a stranger runs it: from the wheel alone, in an empty folder."""

import json
import os

import pytest
from fresh import ROOT
from pages import FENCE

pytestmark = pytest.mark.long

START = (ROOT / "docs" / "start.md").read_text()
COMMANDS = [line for _, block in FENCE.findall(START) for line in block.splitlines() if line.startswith("tutelage ")]
PYTHON = "".join(block for language, block in FENCE.findall(START) if language == "python")


@pytest.fixture(scope="module")
def fresh(tmp_path_factory, wheel):
    """Runs commands in an empty folder."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")

    def run(*command):
        return wheel(*command, cwd=elsewhere)

    run.folder, run.place = elsewhere, wheel.place
    return run


def test_the_wheel_has_package_and_configs_and_no_checkout_is_on_the_path(fresh):
    code = (
        "import sys, tutelage, tutelage.config.paths as p; print(tutelage.__file__, p.conf_dir(), *sys.path, sep='|')"
    )
    package, conf, *path = fresh("python", "-c", code).strip().split("|")
    site = os.path.dirname(os.path.dirname(package))
    assert site.startswith(str(fresh.place))
    assert conf == f"{site}/tutelage/conf"
    assert not [one for one in path if one.startswith(str(ROOT))]


def test_extras_are_not_needed(fresh):
    found = fresh("python", "-c", "import importlib.util as u; print([n for n in ('wandb', 'onnx') if u.find_spec(n)])")
    assert found.strip() == "[]"


def test_the_commands_of_the_quick_start_run(fresh):
    assert len(COMMANDS) >= 5
    for command in COMMANDS:
        fresh("bash", "-c", command)
    metrics = json.loads((fresh.folder / "outputs" / "mine" / "metrics.json").read_text())
    assert metrics["student"]["last"]["test"]["accuracy"] > 0.9
    assert len(list((fresh.folder / "outputs" / "ten").glob("*/metrics.json"))) == 10
    assert (fresh.folder / "outputs" / "ten" / "report" / "index.html").is_file()


def test_the_python_of_the_quick_start_runs(fresh):
    (fresh.folder / "start.py").write_text(PYTHON)
    assert "95 %" in fresh("python", "start.py")
