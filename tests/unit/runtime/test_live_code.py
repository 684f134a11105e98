"""Code that a notebook or a script defines or replaces counts in recipes as it is now."""

import importlib
import sys
import uuid
from types import ModuleType

import pytest
import torch

from tutelage.models.mlp import MLP
from tutelage.pipeline import fit  # noqa: F401 - with all that any training uses: loaded modules are read once
from tutelage.runtime.identity import made_with

CELL = """
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace

import torch
from torch import nn

WIDTH, SLOPES, KINDS = 4, [0.1, {"a": 0.2}], frozenset({"p", "q"})
weights = torch.arange(3.0)
settings = SimpleNamespace(depth=2)


@dataclass
class Sizes:
    rows: int = 3


class Gate(nn.Module):
    power = 2

    def __init__(self, scale=1.0):
        super().__init__()
        self.scale = scale


sizes, gate = Sizes(), Gate()


def scaled(factor):
    def apply(x):
        return x * factor

    return apply


act = scaled(0.5)
mix = partial(max, 1)


def helper(x, *, shift=1):
    return x + shift


def unrelated(x):
    return x


class Base(nn.Module):
    def depth(self):
        return settings.depth, sizes, gate, weights, KINDS, SLOPES, mix


class Net(Base):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(64, WIDTH), nn.ReLU())

    @property
    def first(self):
        return 1

    @staticmethod
    def second():
        return (lambda: 2)()

    def forward(self, x):
        return act(helper(self.body(x)))
"""
NET = {"net": {"_target_": "__main__.Net"}}


@pytest.fixture
def cell(monkeypatch):
    """Runs the text of a notebook's cell in a ``__main__`` without a file."""
    main = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    return lambda text: exec(text, vars(main))


@pytest.fixture
def module(monkeypatch, tmp_path):
    """Writes and imports a module of the user's."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # a file that changes within a second keeps its compiled one

    def write(name, text):
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)
        importlib.invalidate_caches()
        found = importlib.import_module(name)
        monkeypatch.setitem(sys.modules, name, found)
        return found

    return write


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("nn.ReLU()", "nn.Tanh()"),
        ("WIDTH, SLOPES, KINDS = 4", "WIDTH, SLOPES, KINDS = 8"),
        ('{"a": 0.2}', '{"a": 0.3}'),
        ('frozenset({"p", "q"})', 'frozenset({"p", "r"})'),
        ("torch.arange(3.0)", "torch.arange(3.0) + 1"),
        ("depth=2", "depth=3"),
        ("sizes, gate = Sizes()", "sizes, gate = Sizes(5)"),
        ("rows: int = 3", "rows: int = 4"),
        ("power = 2", "power = 3"),
        ("Gate()", "Gate(2.0)"),
        ("scaled(0.5)", "scaled(0.25)"),
        ("x * factor", "x / factor"),
        ("partial(max, 1)", "partial(max, 2)"),
        ("partial(max, 1)", "partial(min, 1)"),
        ("shift=1", "shift=2"),
        ("x + shift", "x - shift"),
        ("return 1", "return 7"),
        ("(lambda: 2)", "(lambda: 3)"),
        ("@staticmethod\n    def second():", "@classmethod\n    def second(cls):"),
        ("class Net(Base)", "class Net(Base, Gate)"),
        ("settings.depth, sizes", "settings.depth + 1, sizes"),
    ],
)  # fmt: skip
def test_an_edit_of_a_cell_counts_wherever_the_network_reaches(cell, old, new):
    assert old in CELL
    cell(CELL)
    before = made_with(NET)["code"]
    cell(CELL)
    assert made_with(NET)["code"] == before
    cell(CELL.replace(old, new))
    assert made_with(NET)["code"] != before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("def unrelated(x):\n    return x", "def unrelated(x):\n    return -x"),
        ("    power = 2", "    # squared\n    power = 2"),
        ('def helper(x, *, shift=1):\n', 'def helper(x, *, shift=1):\n    "Adds."\n'),
    ],
)  # fmt: skip
def test_what_it_does_not_reach_does_not_count(cell, old, new):
    assert old in CELL
    cell(CELL)
    before = made_with(NET)["code"]
    cell(CELL.replace(old, new))
    assert made_with(NET)["code"] == before


def test_a_module_that_a_cell_uses_counts_by_its_source(cell, module):
    module("blocks_of_a_cell", "def block(x):\n    return x\n")
    cell("import blocks_of_a_cell\nfrom torch import nn\nclass Net(nn.Module):\n    block = blocks_of_a_cell.block\n")
    assert "blocks_of_a_cell" in made_with(NET)["code"]


OWN = """
import dataclasses, enum, functools
from torch import nn

SCALE: float = 1.0
SIZES = (1, 2)
KINDS, counted = [], 0

def count():
    global counted
    counted += 1

count()
KINDS.append(count)

def act(x):
    return x

class Net(nn.Module):
    power = 2
    made_so_far = 0

    def __init__(self, width=4, act=nn.ReLU, *, bias=True):
        super().__init__()
        Net.made_so_far += 1

    def forward(self, x):
        return act(x)

    @classmethod
    def made(cls):
        return cls()

@functools.wraps(act)
def wrapped(x, by=2):
    return x

class Kind(enum.IntEnum):
    ONE = 1

@dataclasses.dataclass
class Sizes:
    rows: int = 3

def again(x=1):
    return x

def again(x=2):
    return x

Net()
"""


@pytest.mark.parametrize("name", ["Net.forward", "act", "Net.made", "Net.added", "Net"])
def test_what_a_session_puts_in_the_place_of_code_counts_until_it_is_put_back(cell, module, monkeypatch, name):
    own = module("replaced_by_hand", OWN)
    node = {"net": {"_target_": "replaced_by_hand.Net"}}
    before = made_with(node)["code"]
    place, _, attribute = name.rpartition(".")
    digests = []
    for text in ("def new(*x):\n    return 1", "def new(*x):\n    return 2", "class new:\n    x = 1"):
        cell(text)
        new = sys.modules["__main__"].new
        with monkeypatch.context() as patch:
            patch.setattr(
                own.Net if place else own, attribute, classmethod(new) if "made" in name else new, raising=False
            )
            digests.append(made_with(node)["code"])
    assert len({str(one) for one in (before, *digests)}) == 4
    assert made_with(node)["code"] == before


@pytest.mark.parametrize(("name", "new"), [("SCALE", 0.5), ("SCALE", 1), ("SIZES", (1, 3)), ("SIZES", None)])
def test_a_constant_that_was_replaced_counts_until_it_is_put_back(module, monkeypatch, name, new):
    own = module("with_constants", OWN)
    node = {"net": {"_target_": "with_constants.Net"}}
    before = made_with(node)["code"]
    assert "__main__ in memory" not in before
    with monkeypatch.context() as patch:
        patch.setattr(own, name, new)
        assert made_with(node)["code"] != before
    assert made_with(node)["code"] == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("return act(x)", "return -act(x)"),
        ("width=4", "width=8"),
        ("bias=True", "bias=False"),
        ("power = 2", "power = 3"),
        ("SCALE: float = 1.0", "SCALE: float = 2.0"),
        ("return cls()", "return cls(2)"),
        ("return act(x)", "return act("),
    ],
)
def test_an_edit_between_import_and_training_makes_nothing_that_a_later_process_finds(
    module, monkeypatch, tmp_path, old, new
):
    name = f"edited_{uuid.uuid4().hex}"
    assert old in OWN
    module(name, OWN)
    (tmp_path / f"{name}.py").write_text(OWN.replace(old, new))
    node = {"net": {"_target_": f"{name}.Net"}}
    ran = made_with(node)["code"]
    assert made_with(node)["code"] == ran
    monkeypatch.delitem(sys.modules, name)  # as in another process
    assert made_with(node)["code"] != ran


@pytest.mark.parametrize(
    ("old", "new"), [("SCALE: float", "# a line\n\nSCALE: float"), ("def act(x):", "def act(x):  # one")]
)
def test_a_comment_that_is_added_after_the_import_changes_nothing(module, tmp_path, old, new):
    name = f"commented_{uuid.uuid4().hex}"
    module(name, OWN)
    (tmp_path / f"{name}.py").write_text(OWN.replace(old, new))
    node = {"net": {"_target_": f"{name}.Net"}}
    ran = made_with(node)["code"]
    module(name, OWN)
    assert made_with(node)["code"] == ran


def test_what_an_unrelated_module_replaces_counts_by_its_source(module, monkeypatch):
    own = module("replaced_by_module", OWN)
    other = module("that_replaces", "def forward(self, x):\n    return -x\n")
    node = {"net": {"_target_": "replaced_by_module.Net"}}
    before = made_with(node)["code"]
    assert "that_replaces" not in before
    monkeypatch.setattr(own.Net, "forward", other.forward)
    after = made_with(node)["code"]
    assert {*after} - {*before} == {"__main__ in memory", "that_replaces"}


def test_a_network_of_tutelage_s_that_was_changed_counts(cell, monkeypatch):
    node = {"net": {"_target_": "tutelage.models.mlp.MLP"}}
    before = made_with(node)["code"]
    cell("def forward(self, x):\n    return x")
    monkeypatch.setattr(MLP, "forward", sys.modules["__main__"].forward)
    assert made_with(node)["code"] != before


def test_objects_that_hold_themselves_are_read_once(cell):
    cell("from torch import nn\nloop = []\nloop.append(loop)\nclass Net(nn.Module):\n    x = lambda self: (loop, Net)")
    assert "__main__ in memory" in made_with(NET)["code"]


def test_a_tensor_on_no_device_of_its_own_is_read(cell):
    cell("import torch\nt = torch.ones(2, requires_grad=True)\ndef Net():\n    return t")
    before = made_with(NET)["code"]
    with torch.no_grad():
        sys.modules["__main__"].t.add_(1)
    assert made_with(NET)["code"] != before
