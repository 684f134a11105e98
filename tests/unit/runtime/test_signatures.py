"""The types of a yaml's values that arguments take, by their annotations."""

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import pytest
from torch import Tensor, nn

from tutelage.losses.logit.soft_target import SoftTarget
from tutelage.runtime.signatures import lists_of_numbers, plain_types

NULL = type(None)


class Parent:
    def __init__(self, width: int, name: "str" = "a"): ...


class Child(Parent):
    def __init__(self, depth: float | None = None, **rest: Any): ...


@pytest.mark.parametrize(
    ("annotation", "types"),
    [
        (int, {int}), (float, {int, float}), (str, {str}), (bool, {bool}), (None, {NULL}),
        (float | None, {int, float, NULL}), (Sequence[float], {list}), (tuple[int, int], {list}), (list, {list}),
        (Mapping[str, float] | None, {dict, NULL}), (Path, {str}), (str | PathLike[str], {str}),
        (Literal["auto", 3], {str, int}), (int | Sequence[int], {int, list}), (SoftTarget | None, {dict, NULL}),
        (Any, None), (Tensor | float, None), (nn.Module, None), (Callable[[int], int], None), (object, None),
    ],
    ids=str,
)  # fmt: skip
def test_what_an_annotation_takes(annotation, types):
    def target(value: annotation): ...

    assert plain_types(target) == ({} if types is None else {"value": types})


def test_the_rest_of_a_class_is_its_parents():
    assert plain_types(Child) == {"depth": {int, float, NULL}, "width": {int}}  # "str" is not looked up
    assert plain_types(print) == {}


@pytest.mark.parametrize(
    ("annotation", "numbers"),
    [
        (Sequence[float], True), (tuple[int, int], True), (tuple[float, ...], True), (list[int] | None, True),
        (int | Sequence[int], True), (Sequence[str], False), (Sequence[float | None], False), (list, False),
        (Sequence[float] | Sequence[str], False), (float, False), (Any, False), (Sequence[Any], False),
    ],
    ids=str,
)  # fmt: skip
def test_which_arguments_take_lists_of_numbers_alone(annotation, numbers):
    def target(value: annotation): ...

    assert lists_of_numbers(target) == ({"value"} if numbers else set())
