"""The small changes of code that ``benchmarks/mutants.py`` makes."""

import ast
import builtins
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from changes import CALLED, mutants, noting

sys.path.pop(0)  # a module there has the name of a source of signals, which would count as code of a run

SOURCE = '''"""Doc 1 < 2."""
import math

WIDTH = 3


def f(x: int = 1, *, flag=True):
    """Adds 1 + 1."""
    if x < 2 and flag:
        return -x
    for i in range(2):
        x += i
        x = x * 2
    return sorted([x], reverse=False) if x in (1, 2) else math.pi
'''


def made(tmp_path, source):
    file = tmp_path / "sample.py"
    file.write_text(source)
    return [make() for make in mutants(file)]


def test_each_mutant_changes_one_place_of_what_runs(tmp_path):
    found = made(tmp_path, SOURCE)
    assert len({one.source for one in found}) == len(found)
    for one in found:
        assert one.source != ast.unparse(ast.parse(SOURCE))
        compile(one.source, "sample", "exec")
        assert "Doc 1 < 2." in one.source
        assert "Adds 1 + 1." in one.source
    changes = {one.change: one.function for one in found}
    assert changes["3 → 4"] == 0
    assert changes["True → False"] == 7
    for change in ("x < 2 → x <= 2", "-x → +x", "x * 2 → x / 2", "x in (1, 2) → x not in (1, 2)", "False → True"):
        assert changes[change] == 7
    assert sum("and" in change and " or " in change for change in changes) == 1
    assert any(change.startswith("for i in range(2): x += i x = x * 2 →") for change in changes)


@pytest.mark.parametrize(
    "source",
    [
        "raise ValueError(f'{1 + 1} {2 < 3}')",
        "x: Literal[1]",
        "f(strict=True)",
        "if TYPE_CHECKING:\n    y = 1",
        "rand() < x",
    ],
)
def test_what_changes_no_result_is_left_alone(tmp_path, source):
    assert not [one.change for one in made(tmp_path, source) if "rand" not in source or "<" in one.change]


def test_calls_are_noted_by_file_and_first_line(monkeypatch):
    monkeypatch.setattr(builtins, CALLED, set(), raising=False)
    names = {}
    exec(noting(SOURCE, "a/b.py"), names)
    names["f"](5)
    assert vars(builtins)[CALLED] == {"a/b.py:7"}
