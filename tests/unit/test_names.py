"""One name for one thing: no two classes of the package share a name, and no list is written down twice."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import tutelage

ROOT = Path(tutelage.__file__).parent


def statements() -> Iterator[tuple[str, ast.stmt]]:
    """Yields the top-level statements of every file."""
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            yield path.relative_to(ROOT).as_posix(), node


def test_a_class_has_a_name_of_its_own():
    homes = defaultdict(list)
    for path, node in statements():
        if isinstance(node, ast.ClassDef):
            homes[node.name].append(path)
    assert {name: found for name, found in homes.items() if len(found) > 1} == {}


def test_no_collection_of_names_stands_in_two_files():
    homes = defaultdict(set)
    for path, node in statements():
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple | ast.Set | ast.List | ast.Dict):
            content = ast.unparse(node.value)
            if len(content) > len("('teacher', 'control', 'student')"):  # the stages in their order
                homes[content].add(path)
    assert {content: found for content, found in homes.items() if len(found) > 1} == {}
