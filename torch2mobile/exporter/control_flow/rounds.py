"""``for`` over a dimension as a function that runs for each of its places."""

from __future__ import annotations

import ast

from torch2mobile.exporter.control_flow.function_tree import (
    NEVER,
    Block,
    Names,
    NotRewritten,
    Replacing,
    assign,
    assigned,
    call,
    function,
    name_of,
    operator,
    refuse,
    slice_of,
    text,
    tuple_of,
)


def rewritten_for(found: ast.For, scope: ast.FunctionDef, names: Names, place: str) -> Block:
    """The loop as a function of what it carries, and a call."""
    refuse(found, (ast.Return, ast.Raise, *NEVER))
    if found.orelse:
        raise NotRewritten("a loop has an else", "Write the else after the loop.")
    body, lists = _appended(found.body)
    inner = {node.id for node in ast.walk(found.target) if isinstance(node, ast.Name)}
    given = sorted((assigned(found.body) & names.bound) - inner - set(lists))
    item = f"_item_{found.lineno}"
    results = ast.Return(
        ast.Tuple([tuple_of(given), tuple_of([f"_of_{n}" for n in lists])], ast.Load())
    )
    first = assign(found.target, ast.Name(item, ast.Load()), found)
    made = function(f"_body_{found.lineno}", [item, *given], [first, *body, results], found)
    _index_by(made, inner)
    items = _items(found.iter)
    became = call("each", text(place), items, name_of(made), tuple_of(given), tuple_of(lists))
    into = ast.Tuple([tuple_of(given, store=True), tuple_of(lists, store=True)], ast.Store())
    _join(scope, set(lists))
    return [made, assign(into, became, found)]


def _appended(body: Block) -> tuple[Block, list[str]]:
    """The body with ``name.append(value)`` as an assignment, and the names."""
    new: Block = []
    lists: list[str] = []
    for each in body:
        name = _appends(each)
        if name is None:
            if any(_appends(node) is not None for node in ast.walk(each)):
                raise NotRewritten(
                    "a list grows in some rounds only",
                    "Append in every round, torch.where with a neutral value where there is none.",
                )
            new.append(each)
            continue
        if name in lists:
            raise NotRewritten("a list grows by two in a round", "Append once, or to two lists.")
        lists.append(name)
        assert isinstance(each, ast.Expr)
        assert isinstance(each.value, ast.Call)
        new.append(assign(ast.Name(f"_of_{name}", ast.Store()), each.value.args[0], each))
    return new, lists


def _appends(node: ast.AST) -> str | None:
    if (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Attribute)
        and node.value.func.attr == "append"
        and isinstance(node.value.func.value, ast.Name)
        and len(node.value.args) == 1
    ):
        return node.value.func.value.id
    return None


_ITERATED = {"range": "counted", "enumerate": "numbered", "reversed": "backwards"}


def _items(iterated: ast.expr) -> ast.expr:
    """What a loop runs over, as steps where their number varies."""
    if isinstance(iterated, ast.Call):
        called = iterated.func
        if isinstance(called, ast.Name) and called.id in _ITERATED:
            inner = iterated.args if called.id == "range" else [_items(iterated.args[0])]
            return call(_ITERATED[called.id], *inner)
        if isinstance(called, ast.Attribute) and called.attr == "unbind":
            whole = isinstance(called.value, ast.Name) and called.value.id == "torch"
            given = iterated.args if whole else [called.value, *iterated.args]
            return ast.Call(operator("unbound"), given, iterated.keywords)
    return call("unbound", iterated)


def _join(scope: ast.FunctionDef, lists: set[str]) -> None:
    """``torch.stack`` and ``torch.cat`` of a list that a loop made."""

    def change(node: ast.AST) -> ast.AST | None:
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            return None
        named = node.args and isinstance(node.args[0], ast.Name) and node.args[0].id in lists
        if not named or node.func.attr not in {"stack", "cat"}:
            return None
        return ast.copy_location(ast.Call(operator(node.func.attr), node.args, node.keywords), node)

    Replacing(change).visit(scope)


def _index_by(scope: ast.FunctionDef, numbers: set[str]) -> None:
    """``x[:, t]`` and ``x[:, t] = y`` by the number of a round."""

    def change(node: ast.AST) -> ast.AST | None:
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            target = node.targets[0]
            if isinstance(target, ast.Subscript) and isinstance(target.value, ast.Name):
                index = _numbered(target, numbers)
                name = target.value.id
                if index is not None:
                    became = call("put", ast.Name(name, ast.Load()), index, node.value)
                    return assign(ast.Name(name, ast.Store()), became, node)
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
            index = _numbered(node, numbers)
            return None if index is None else ast.copy_location(call("at", node.value, index), node)
        return None

    Replacing(change).visit(scope)


def _numbered(node: ast.Subscript, numbers: set[str]) -> ast.expr | None:
    """An index as a value, where the number of a round stands in it."""
    index = node.slice
    parts = index.elts if isinstance(index, ast.Tuple) else [index]
    if not any(isinstance(part, ast.Name) and part.id in numbers for part in parts):
        return None
    spelled = [slice_of(part) for part in parts]
    return ast.Tuple(spelled, ast.Load()) if isinstance(index, ast.Tuple) else spelled[0]
