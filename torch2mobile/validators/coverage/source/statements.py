"""How each statement is followed, and what the rules have to say about it."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from torch2mobile.validators.coverage.source import values
from torch2mobile.validators.coverage.source.values import PLAIN, Kind, Value
from torch2mobile.validators.coverage.source.walk import Frame, Local, Walker, imported, truth_of


def follow(walker: Walker, node: ast.stmt, frame: Frame) -> bool:
    """Follow one statement; True where what stands after it is not reached."""
    action = _ACTIONS.get(type(node))
    if action is not None:
        return bool(action(walker, node, frame))
    for part in ast.iter_child_nodes(node):
        if isinstance(part, ast.expr):
            walker.value(part, frame)
    return isinstance(node, ast.Raise | ast.Continue | ast.Break)


def assign(walker: Walker, target: ast.expr, value: Value, frame: Frame) -> None:
    """Bind a target to a value; what is written to is looked at."""
    if isinstance(target, ast.Name):
        frame.env[target.id] = value
    elif isinstance(target, ast.Tuple | ast.List):
        for number, part in enumerate(target.elts):
            inner = part.value if isinstance(part, ast.Starred) else part
            assign(walker, inner, values.element(value, number), frame)
    elif isinstance(target, ast.Attribute):
        _write_attribute(walker, target, frame)
    elif isinstance(target, ast.Subscript):
        walker.value(target.slice, frame)
        written(walker, target, walker.value(target.value, frame), frame)


def _write_attribute(walker: Walker, target: ast.Attribute, frame: Frame) -> None:
    owner = walker.value(target.value, frame)
    if owner.tensor:  # x.data = ...
        written(walker, target, owner, frame)
    elif isinstance(owner.obj, torch.nn.Module):
        if target.attr in owner.obj._buffers:
            walker.report("T2M122", target, frame, f"the buffer {target.attr} is replaced")
            return
        message = f"self.{target.attr} is set while forward runs"
        sighting = walker.report("T2M124", target, frame, message)
        walker.writes.append((id(owner.obj), target.attr, sighting))
        walker.keeps.append((owner.obj, target.attr, sighting))


def written(walker: Walker, node: ast.AST, value: Value, frame: Frame) -> None:
    """What is changed in place: an input, a buffer, or Python state that outlives the call."""
    if value.inputs and value.kind is Kind.TENSOR:
        names = ", ".join(sorted(value.inputs))
        walker.report("T2M120", node, frame, f"the input {names} is changed in place")
    if isinstance(value.obj, torch.Tensor) and isinstance(value.owner, torch.nn.Module):
        walker.report("T2M122", node, frame, f"the buffer {value.name} is changed in place")
    elif isinstance(value.obj, list | dict | set | bytearray):
        where = "an attribute" if value.owner is not None else "a global"
        sighting = walker.report("T2M142", node, frame, f"{value.name}, {where}, is changed")
        if isinstance(value.owner, torch.nn.Module):
            walker.keeps.append((value.owner, value.name.rpartition(".")[2], sighting))


def check_iteration(walker: Walker, node: ast.AST, iterated: Value, frame: Frame) -> None:
    """A loop whose length is in a tensor, or is a tensor's."""
    if iterated.kind is Kind.DATA and iterated.items is None:
        walker.report("T2M102", node, frame, "how often this loop runs depends on tensor values")
    elif iterated.tensor and (iterated.inputs or iterated.unsized):
        walker.report("T2M102", node, frame, "a loop over a tensor: its length is fixed in a graph")


def _assign(walker: Walker, node: Any, frame: Frame) -> None:
    value = walker.value(node.value, frame)
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    if node.value is not None:
        for target in targets:
            assign(walker, target, value, frame)


def _augmented(walker: Walker, node: ast.AugAssign, frame: Frame) -> None:
    added = walker.value(node.value, frame)
    # The target's own context is Store: read it as the code does, first.
    load = ast.copy_location(_loaded(node.target), node.target)
    value = walker.value(load, frame)
    if value.kind is Kind.TENSOR:
        written(walker, node.target, value, frame)
        if isinstance(node.target, ast.Name):
            frame.env[node.target.id] = replace(value, obj=values.UNKNOWN)
        return
    if isinstance(node.target, ast.Name):
        kind = max(value.kind, added.kind, key=lambda k: k.value)
        items = (value.items or ()) + (added.items or ()) if value.items is not None else None
        frame.env[node.target.id] = Value(kind, items=items)
    else:
        assign(walker, node.target, added, frame)


def _loaded(target: ast.expr) -> ast.expr:
    if isinstance(target, ast.Name):
        return ast.Name(target.id, ast.Load())
    if isinstance(target, ast.Attribute):
        return ast.Attribute(target.value, target.attr, ast.Load())
    assert isinstance(target, ast.Subscript)
    return ast.Subscript(target.value, target.slice, ast.Store())


def _if(walker: Walker, node: ast.If, frame: Frame) -> bool:
    test = walker.value(node.test, frame)
    if test.decided_by_data:
        walker.report("T2M101", node, frame)
    truth = truth_of(test)
    if truth is not None:
        return walker.body(node.body if truth else node.orelse, frame)
    return _both(walker, node.body, node.orelse, frame)


def _both(walker: Walker, first: list[ast.stmt], second: list[ast.stmt], frame: Frame) -> bool:
    """Follow two ways, and go on with what may be after either."""
    ways = []
    for statements in (first, second):
        way = replace(frame, env=dict(frame.env))
        if not walker.body(statements, way):
            ways.append(way.env)
    if not ways:
        return True
    names = set().union(*ways)
    frame.env.update(
        {name: values.join([env[name] for env in ways if name in env]) for name in names}
    )
    return False


def _while(walker: Walker, node: ast.While, frame: Frame) -> None:
    if walker.value(node.test, frame).decided_by_data:
        walker.report("T2M102", node, frame)
    _both(walker, [*node.body, *node.orelse], [], frame)
    # What the body makes may be what the condition asks: once more, with that.
    if walker.value(node.test, frame).decided_by_data:
        walker.report("T2M102", node, frame)


def _for(walker: Walker, node: ast.For, frame: Frame) -> None:
    iterated = walker.value(node.iter, frame)
    check_iteration(walker, node, iterated, frame)
    known = iterated.items if iterated.known else None
    if known and len(known) <= 64:
        for item in known:
            assign(walker, node.target, item, frame)
            walker.body(node.body, frame)
        return
    assign(walker, node.target, values.element(iterated), frame)
    _both(walker, [*node.body, *node.orelse], [], frame)


def _match(walker: Walker, node: ast.Match, frame: Frame) -> None:
    if walker.value(node.subject, frame).decided_by_data:
        walker.report("T2M101", node, frame)
    for case in node.cases:
        _both(walker, case.body, [], frame)


def _return(walker: Walker, node: ast.Return, frame: Frame) -> bool:
    frame.returns.append(walker.value(node.value, frame))
    return True


def _assert(walker: Walker, node: ast.Assert, frame: Frame) -> None:
    if walker.value(node.test, frame).decided_by_data:
        walker.report("T2M103", node, frame)


def _with(walker: Walker, node: ast.With, frame: Frame) -> bool:
    for item in node.items:
        value = walker.value(item.context_expr, frame)
        if item.optional_vars is not None:
            assign(walker, item.optional_vars, value, frame)
    return walker.body(node.body, frame)


def _try(walker: Walker, node: ast.Try, frame: Frame) -> bool:
    before = dict(frame.env)
    ended = walker.body([*node.body, *node.orelse], frame)
    if node.handlers and _touches_tensors(walker, node.body, replace(frame, env=before)):
        walker.report("T2M144", node, frame)
    for handler in node.handlers:
        walker.body(handler.body, replace(frame, env=dict(frame.env)))
    return walker.body(node.finalbody, frame) or ended


def _touches_tensors(walker: Walker, body: list[ast.stmt], frame: Frame) -> bool:
    """Whether a statement works on a tensor: a call, an operator or an index."""
    walker.body(body, frame)
    for statement in body:
        for part in ast.walk(statement):
            if isinstance(part, ast.Call | ast.BinOp | ast.Subscript):
                value = walker.value(part, frame)
                if value.kind is not Kind.PLAIN:
                    return True
    return False


def _global(walker: Walker, node: ast.Global | ast.Nonlocal, frame: Frame) -> None:
    if isinstance(node, ast.Global):
        names = ", ".join(node.names)
        walker.report("T2M142", node, frame, f"the global {names} is set")


def _function(_: Walker, node: ast.FunctionDef, frame: Frame) -> None:
    frame.env[node.name] = Value(obj=Local(node, frame))


def _import(_: Walker, node: ast.Import, frame: Frame) -> None:
    for alias in node.names:
        name = alias.name if alias.asname else alias.name.partition(".")[0]
        frame.env[alias.asname or name] = imported(name)


def _import_from(_: Walker, node: ast.ImportFrom, frame: Frame) -> None:
    module = imported(node.module or "") if not node.level else PLAIN
    for alias in node.names:
        found = values.attribute(module, alias.name) if module.known else PLAIN
        frame.env[alias.asname or alias.name] = found


_ACTIONS: dict[type[ast.stmt], Callable[[Walker, Any, Frame], bool | None]] = {
    ast.Assign: _assign,
    ast.AnnAssign: _assign,
    ast.AugAssign: _augmented,
    ast.If: _if,
    ast.While: _while,
    ast.For: _for,
    ast.Match: _match,
    ast.Return: _return,
    ast.Assert: _assert,
    ast.With: _with,
    ast.Try: _try,
    ast.Global: _global,
    ast.Nonlocal: _global,
    ast.FunctionDef: _function,
    ast.Import: _import,
    ast.ImportFrom: _import_from,
}
