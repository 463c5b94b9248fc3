"""Statements in another form do what they did: executed here with Python's own numbers."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from typing import Any

import pytest

from torch2mobile.exporter.control_flow.function_tree import NotRewritten
from torch2mobile.exporter.control_flow.statements import rewritten, statement_at


def one_side(x: int) -> int:
    y = x + 1
    if x > 2:  # here
        y = x * 2
    return y


def two_sides(x: int) -> tuple[int, int]:
    if x > 2:  # here
        y, z = x, 1
    else:
        z = 2
        y = z
    return y, z


def returns(x: int) -> int:
    if not 1 < x < 4:  # here
        return x * 2
    x += 1
    return x


def returns_in_turn(x: int) -> int:
    if x > 2:  # here
        if x > 3:
            return 0
        x += 1
    elif x == 1:
        return 1
    return x


def conditional(x: int) -> list[int]:
    return [x, x * 2 if x > 2 or x == 0 else x - 1]  # here


def writes(x: int) -> list[int]:
    y = [1, 2, 3]
    if x:  # here
        y[0] = x
    return y


def in_a_loop(x: int) -> int:
    best = 0
    for n in range(4):
        if n * x > best:  # here
            best = n * x
            last = n
        else:
            last = 0
    return best + last


def whiles(x: int) -> tuple[int, int]:
    n = 0
    while x > 1 and n < 3:  # here
        half = x // 2
        x = half
        n += 1
    return x, n


def grows(x: int) -> tuple[int, list[int]]:
    total, found = 0, []
    for n, each in enumerate(range(x)):  # here
        total += n * each
        found.append(total)
    return total, found


def _tree(function: Any) -> tuple[ast.FunctionDef, int]:
    text = textwrap.dedent(inspect.getsource(function))
    lines = text.splitlines()
    tree = ast.parse(text).body[0]
    assert isinstance(tree, ast.FunctionDef)
    return tree, next(n for n, line in enumerate(lines, 1) if "# here" in line)


def _made(function: Any) -> Callable[[int], Any]:
    tree, line = _tree(function)
    assert statement_at(tree, line) is not None
    new = rewritten(tree, [line], "f.py")
    assert "__torch2mobile" in ast.unparse(new)
    space: dict[str, Any] = {}
    exec(compile(ast.Module([new], []), "f.py", "exec"), space)
    made: Callable[[int], Any] = space[function.__name__]
    return made


_SAME = (
    one_side,
    two_sides,
    returns,
    returns_in_turn,
    conditional,
    writes,
    in_a_loop,
    whiles,
    grows,
)


@pytest.mark.parametrize("function", _SAME)
def test_another_form_does_the_same(function: Callable[[int], Any]) -> None:
    made = _made(function)
    for x in range(6):
        assert made(x) == function(x)


def leaves(x: int) -> int:
    while x > 1:  # here
        x -= 1
        if x == 3:
            break
    return x


def one_returns(x: int) -> Any:  # noqa: RET503 (as it must not be)
    if x > 1:  # here
        return x
    x += 1


def deep(x: int) -> int:
    for _ in range(2):
        if x > 1:  # here
            return x
    return 0


def raises(x: int) -> int:
    if x > 1:  # here
        raise ValueError
    return x


def says(x: int) -> int:
    if x > 1:  # here
        str(x)
    return x


def some_rounds(x: int) -> list[int]:
    found = []
    for n in range(x):  # here
        if n:
            found.append(n)  # noqa: PERF401 (the statement that is refused)
    return found


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (leaves, "a break leaves it"),
        (one_returns, "one side returns"),
        (deep, "stands inside of another statement"),
        (raises, "a raise stands in it"),
        (says, "nothing that it assigns is read"),
        (some_rounds, "grows in some rounds only"),
    ],
)
def test_what_has_no_other_form_is_refused(function: Any, reason: str) -> None:
    tree, line = _tree(function)
    with pytest.raises(NotRewritten, match=reason):
        rewritten(tree, [line], "f.py")
