"""Statements of a function in another form: ``if``, ``while`` and ``for`` as calls of functions.

The tree that comes back has the lines of the one that went in. The variables that a statement
assigns are what its functions are given and return.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator, Sequence

from torch2mobile.exporter.control_flow.function_tree import (
    ALIAS,
    NEVER,
    ONE_RETURN,
    Block,
    Names,
    NotRewritten,
    Replacing,
    assign,
    assigned,
    call,
    ends,
    function,
    give,
    has,
    lambda_of,
    name_of,
    refuse,
    text,
    tuple_of,
)
from torch2mobile.exporter.control_flow.rounds import rewritten_for


def statement_at(tree: ast.FunctionDef, line: int) -> ast.stmt | None:
    """The statement that decides on a line: if, while, for, or one with ``a if b else c``."""
    found: ast.stmt | None = None
    for node in ast.walk(tree):
        if isinstance(node, ast.If | ast.While | ast.For):
            head = node.iter if isinstance(node, ast.For) else node.test
            if node.lineno <= line <= (head.end_lineno or head.lineno):
                found = node
        elif isinstance(node, ast.stmt) and _conditional(node) is not None:
            conditional = _conditional(node)
            assert conditional is not None
            if conditional.lineno <= line <= (conditional.end_lineno or 0):
                found = node
    return found


def rewritten(tree: ast.FunctionDef, lines: Sequence[int], file: str) -> ast.FunctionDef:
    """The function with the statements of these lines as calls; NotRewritten for what has none."""
    made = copy.deepcopy(tree)
    made.decorator_list = []
    for line in lines:
        while True:
            found = next(_places(made, line), None)
            if found is None:
                break
            _rewrite(*found, f"{file}:{line}")
            ast.fix_missing_locations(made)
    head = 1 if ast.get_docstring(made) is not None else 0
    package = __name__.rpartition(".")[0]
    made.body.insert(head, ast.parse(f"from {package} import flow_operators as {ALIAS}").body[0])
    return ast.fix_missing_locations(made)


# What there is around a statement: the function, whether the block is that function's own, and
# the loops that the statement is in.
_Place = tuple[ast.FunctionDef, Block, int, bool, tuple[ast.stmt, ...]]


def _places(tree: ast.FunctionDef, line: int) -> Iterator[_Place]:
    wanted = statement_at(tree, line)

    def walk(
        scope: ast.FunctionDef, block: Block, own: bool, loops: tuple[ast.stmt, ...]
    ) -> Iterator[_Place]:
        for number, each in enumerate(block):
            if each is wanted:
                yield scope, block, number, own, loops
            elif isinstance(each, ast.FunctionDef):
                yield from walk(each, each.body, True, ())
            else:
                inside = (*loops, each) if isinstance(each, ast.For | ast.While) else loops
                for part in ("body", "orelse", "finalbody"):
                    yield from walk(scope, getattr(each, part, []), False, inside)

    yield from walk(tree, tree.body, True, ())


def _rewrite(
    scope: ast.FunctionDef,
    block: Block,
    number: int,
    own: bool,
    loops: tuple[ast.stmt, ...],
    place: str,
) -> None:
    found = block[number]
    names = Names(scope, found, loops)
    if isinstance(found, ast.While):
        new = _while(found, names, place)
    elif isinstance(found, ast.For):
        new = rewritten_for(found, scope, names, place)
    elif isinstance(found, ast.If) and has(found, ast.Return):
        if not own:
            raise NotRewritten("a return stands inside of another statement", ONE_RETURN)
        block[number:] = _returning(found, block[number + 1 :], names, place)
        return
    elif isinstance(found, ast.If):
        new = _if(found, names, place)
    else:
        new = [_expression(found, place)]
    block[number : number + 1] = new


def _if(found: ast.If, names: Names, place: str) -> Block:
    refuse(found, (ast.Return, ast.Raise, *NEVER))
    then, other = assigned(found.body), assigned(found.orelse)
    given = sorted((then | other) & names.bound)
    out = sorted(name for name in given if name in names.read)
    out += sorted(name for name in (then & other) - names.bound if name in names.read)
    if not out:
        raise NotRewritten(
            "nothing that it assigns is read after it",
            "Assign what it is for to a variable, which is returned.",
        )
    made = [
        function(f"_then_{found.lineno}", given, [*found.body, give(out)], found),
        function(f"_else_{found.lineno}", given, [*found.orelse, give(out)], found),
    ]
    became = call("branch", text(place), _test(found.test), *map(name_of, made), tuple_of(given))
    return [*made, assign(tuple_of(out, store=True), became, found)]


def _returning(found: ast.If, rest: Block, names: Names, place: str) -> Block:
    refuse(found, (ast.Raise, *NEVER))
    sides = []
    for name, block in (("then", found.body), ("else", found.orelse)):
        whole = block if block and ends(block[-1]) else [*block, *copy.deepcopy(rest)]
        if not whole or not ends(whole[-1]):
            raise NotRewritten("one side returns, and the other does not", ONE_RETURN)
        sides.append((name, whole))
    given = sorted((assigned(sides[0][1]) | assigned(sides[1][1])) & names.bound)
    made = [function(f"_{name}_{found.lineno}", given, block, found) for name, block in sides]
    became = call("branch", text(place), _test(found.test), *map(name_of, made), tuple_of(given))
    return [*made, ast.copy_location(ast.Return(became), found)]


def _while(found: ast.While, names: Names, place: str) -> Block:
    refuse(found, (ast.Return, ast.Raise, *NEVER))
    if found.orelse:
        raise NotRewritten("a loop has an else", "Write the else after the loop.")
    given = sorted(assigned(found.body) & names.bound)
    if not given:
        raise NotRewritten(
            "nothing that it assigns was there before", "Give what it changes a value before it."
        )
    made = [
        function(f"_test_{found.lineno}", given, [ast.Return(_test(found.test))], found),
        function(f"_body_{found.lineno}", given, [*found.body, give(given)], found),
    ]
    became = call("loop", text(place), *map(name_of, made), tuple_of(given))
    return [*made, assign(tuple_of(given, store=True), became, found)]


def _expression(found: ast.stmt, place: str) -> ast.stmt:
    """A statement with ``a if b else c`` as a call."""
    wanted = _conditional(found)

    def change(node: ast.AST) -> ast.AST | None:
        if node is not wanted or not isinstance(node, ast.IfExp):
            return None
        sides = [lambda_of(node.body), lambda_of(node.orelse)]
        became = call("branch", text(place), _test(node.test), *sides, tuple_of([]))
        return ast.copy_location(became, node)

    made = Replacing(change).visit(found)
    assert isinstance(made, ast.stmt)
    return made


def _conditional(found: ast.stmt) -> ast.IfExp | None:
    """The first ``a if b else c`` of a statement that holds no other statements."""
    if hasattr(found, "body"):
        return None
    return next((node for node in ast.walk(found) if isinstance(node, ast.IfExp)), None)


def _test(test: ast.expr) -> ast.expr:
    """A condition without Python's ``and``, ``or``, ``not`` and chains, which ask for a value."""
    if isinstance(test, ast.BoolOp):
        name = "both" if isinstance(test.op, ast.And) else "either"
        first, *others = (_test(value) for value in test.values)
        return call(name, first, *map(lambda_of, others))
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return call("negated", _test(test.operand))
    if isinstance(test, ast.Compare) and len(test.ops) > 1:
        ends = [test.left, *test.comparators]
        pairs = zip(ends, test.ops, ends[1:], strict=False)
        parts: list[ast.expr] = [ast.Compare(a, [op], [copy.deepcopy(b)]) for a, op, b in pairs]
        return call("both", parts[0], *map(lambda_of, parts[1:]))
    if isinstance(test, ast.Call) and isinstance(test.func, ast.Name) and test.func.id == "bool":
        return _test(test.args[0])
    return test
