"""Every name of ``import tutelage as tt`` has an example in its docstring, and the example runs."""

import doctest
import inspect
import io
import re
from pathlib import Path

import pytest

import tutelage as tt

TRAIN = ("Comparison", "Result", "budget", "compare", "distill", "load", "predict")
NAMES = [
    pytest.param(name, marks=pytest.mark.long if name == "export" else pytest.mark.slow if name in TRAIN else ())
    for name in tt.__all__
    if not name.startswith("_")
]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


class WithoutProgress(doctest.OutputChecker):
    """Compares what an example prints, without the line that a training prints for each epoch."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        return super().check_output(want, re.sub(r"^\w+ epoch \d+/\d+ .*\n", "", got, flags=re.M), optionflags)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Returns a working folder of all examples: what one has trained, the others find again."""
    return tmp_path_factory.mktemp("examples")


@pytest.mark.parametrize("name", NAMES)
def test_the_example_of_an_exported_name_runs(name, folder, monkeypatch):
    monkeypatch.chdir(folder)
    text = inspect.getdoc(getattr(tt, name)) or ""
    example = doctest.DocTestParser().get_doctest(text, {}, name, None, 0)
    assert example.examples
    assert "+SKIP" not in text
    report = io.StringIO()
    failed = doctest.DocTestRunner(WithoutProgress(), optionflags=FLAGS).run(example, out=report.write).failed
    assert not failed, report.getvalue()
