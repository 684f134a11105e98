"""Packages import downwards only."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import tutelage

ROOT = Path(tutelage.__file__).parent
# From top to bottom: each imports only what stands below it.
ORDER = (
    "__main__", "api", "deployment", "cli", "stacked", "pipeline", "report", "config", "condense", "training",
    "exporting", "evaluation", "sources", "objective", "signal_paths", "models", "losses", "data", "tasks", "types",
    "checkpoints", "runtime", "compat", "errors", "seeding",
)  # fmt: skip
FILES = sorted(ROOT.rglob("*.py"))
# Packages that must stay usable without these libraries.
FREE_OF = {
    "losses": ("lightning", "hydra", "omegaconf"),
    "models": ("lightning", "hydra", "omegaconf"),
    "tasks": ("lightning", "hydra", "omegaconf"),
    "exporting": ("lightning", "hydra", "omegaconf"),
    "condense": ("lightning", "hydra", "omegaconf"),
    "cli": ("torch", "lightning"),
}


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """Yields the module and the name of every import in a file, also of those inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                yield node.module, alias.name
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, ""


def part(path: Path) -> str:
    """The top-level package or module that a file belongs to."""
    return path.relative_to(ROOT).with_suffix("").parts[0]


def test_every_package_has_a_place_in_the_order():
    assert {part(path) for path in FILES} - {"__init__"} == set(ORDER)


def upwards(path: Path) -> list[str]:
    """Returns the imports of a file that lead up, or to a library that its package must do without."""
    own, found = part(path), []
    for module, name in imports(path):
        package, *parts = [*module.split("."), name]
        leads_up = package == "tutelage" and parts[0] != own and ORDER.index(parts[0]) <= ORDER.index(own)
        if leads_up or package in FREE_OF.get(own, ()):
            found.append(f"{path.relative_to(ROOT)}: {module} {name}")
    return found


def test_imports_lead_downwards():
    assert [line for path in FILES if part(path) != "__init__" for line in upwards(path)] == []


@pytest.mark.parametrize("line", ["from tutelage.pipeline import fit", "import lightning"])
def test_an_import_that_leads_upwards_is_seen(monkeypatch, line):
    path = ROOT / "losses" / "base.py"
    monkeypatch.setattr(Path, "read_text", lambda _: line)
    assert len(upwards(path)) == 1


def test_no_private_name_is_imported_from_another_file():
    private = [
        f"{path.relative_to(ROOT)}: {module} {name}"
        for path in FILES
        for module, name in imports(path)
        if module.startswith("tutelage") and name[:1] == "_"
    ]
    assert not private


def test_modules_have_no_import_cycle():
    modules = {".".join(("tutelage", *path.relative_to(ROOT).with_suffix("").parts)): path for path in FILES}
    leads_to = {
        own: {
            target
            for module, name in imports(path)
            for target in (f"{module}.{name}", module)
            if target in modules and target != own
        }
        for own, path in modules.items()
    }
    while free := [own for own, targets in leads_to.items() if not targets & leads_to.keys()]:
        for own in free:
            del leads_to[own]
    assert not leads_to
