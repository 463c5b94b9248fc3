"""How each expression is followed, and what the rules have to say about it."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from torch2mobile.validators.coverage.source import calls, statements, values
from torch2mobile.validators.coverage.source.values import DATA, PLAIN, TENSOR, Kind, Value
from torch2mobile.validators.coverage.source.walk import SIMPLE, Frame, Local, Walker, truth_of


def follow(walker: Walker, node: ast.expr, frame: Frame) -> Value:
    """What is known of an expression's value."""
    return _ACTIONS.get(type(node), _other)(walker, node, frame)


def _other(walker: Walker, node: ast.expr, frame: Frame) -> Value:
    """Whatever has no method of its own: its parts are followed."""
    parts = [c for c in ast.iter_child_nodes(node) if isinstance(c, ast.expr)]
    found = [walker.value(part, frame) for part in parts]
    data = any(v.kind is not Kind.PLAIN for v in found)
    return DATA if data and isinstance(node, ast.JoinedStr | ast.FormattedValue) else PLAIN


def _constant(_walker: Walker, node: ast.Constant, _: Frame) -> Value:
    return Value(obj=node.value)


def _name(walker: Walker, node: ast.Name, frame: Frame) -> Value:
    if node.id in frame.env:
        value = frame.env[node.id]
        for name in value.inputs if isinstance(node.ctx, ast.Load) else ():
            walker.uses.setdefault(name, set()).add((frame.code.file, node.lineno))
        return value
    if node.id in frame.code.names:
        return values.of_object(frame.code.names[node.id], name=node.id)
    builtin = getattr(builtins, node.id, values.UNKNOWN)
    return Value(obj=builtin, name=node.id)


def _attribute(walker: Walker, node: ast.Attribute, frame: Frame) -> Value:
    value = walker.looked_at(node.value, node.attr, frame)
    if value.tensor:
        return calls.of_tensor(value, node.attr, [], {})
    if value.kind is Kind.DATA:
        return Value(Kind.DATA, name=node.attr)
    if not value.known:
        return Value(name=f"{value.name}.{node.attr}".lstrip("."))
    if isinstance(node.ctx, ast.Load) and isinstance(value.obj, torch.nn.Module):
        place = (id(value.obj), node.attr)
        walker.reads[place] = walker.reads.get(place, 0) + 1
    found = values.attribute(value, node.attr)
    if isinstance(found.obj, property):
        code = walker.library.find(found.obj.fget)
        path = walker.paths.get(id(value.obj), frame.module)
        return walker.function(code, [value], {}, path) if code else PLAIN
    return found


def _subscript(walker: Walker, node: ast.Subscript, frame: Frame) -> Value:
    value, index = walker.value(node.value, frame), walker.value(node.slice, frame)
    if value.items is not None or not value.tensor:
        if value.known and index.known and isinstance(value.obj, dict | torch.nn.ModuleDict):
            known: Any = dict(value.obj.items())
            return values.of_object(known.get(index.obj, values.UNKNOWN))
        return values.element(value, index.obj)
    indices = index.items if index.items is not None else (index,)
    if isinstance(node.ctx, ast.Load) and any(i.boolean and i.tensor for i in indices):
        walker.report("T2M106", node, frame, "a mask selects elements: how many depends on data")
        return replace(TENSOR, unsized=True)
    # Indexing by a tensor copies; everything else is a view.
    copied = any(i.tensor for i in indices)
    return replace(
        values.element(value), inputs=frozenset() if copied else value.inputs, boolean=False
    )


def _compare(walker: Walker, node: ast.Compare, frame: Frame) -> Value:
    if all(isinstance(op, ast.Is | ast.IsNot) for op in node.ops):
        parts = (node.left, *node.comparators)
        return _identity([walker.looked_at(p, "is", frame) for p in parts], node.ops)
    found = [walker.value(part, frame) for part in (node.left, *node.comparators)]
    if any(isinstance(op, ast.In | ast.NotIn) for op in node.ops):
        return DATA if found[0].decided_by_data or found[-1].tensor else PLAIN
    if any(v.tensor for v in found):
        return replace(TENSOR, boolean=True)
    if any(v.decided_by_data for v in found):
        return DATA
    return _compared(found, node.ops)


def _boolop(walker: Walker, node: ast.BoolOp, frame: Frame) -> Value:
    found = []
    for part in node.values:
        value = walker.value(part, frame)
        found.append(value)
        truth = truth_of(value)
        if truth is not None and truth is isinstance(node.op, ast.Or):
            return value if len(found) == 1 else values.join(found)
    for part, value in zip(node.values[:-1], found[:-1], strict=True):
        if value.decided_by_data:
            walker.report("T2M101", part, frame, "and/or asks for the truth of what is in a tensor")
    if all(v.known and not v.tensor for v in found):
        return found[-1]
    return replace(values.join(found), obj=values.UNKNOWN)


def _unaryop(walker: Walker, node: ast.UnaryOp, frame: Frame) -> Value:
    value = walker.value(node.operand, frame)
    if isinstance(node.op, ast.Not):
        if value.decided_by_data:
            walker.report("T2M101", node, frame, "not asks for the truth of what is in a tensor")
            return DATA
        truth = truth_of(value)
        return PLAIN if truth is None else Value(obj=not truth)
    if isinstance(node.op, ast.USub) and isinstance(value.obj, int | float):
        return Value(obj=-value.obj)
    return replace(value, obj=values.UNKNOWN, inputs=frozenset(), owner=None)


def _binop(walker: Walker, node: ast.BinOp, frame: Frame) -> Value:
    left, right = walker.value(node.left, frame), walker.value(node.right, frame)
    if left.items is not None and right.items is not None and isinstance(node.op, ast.Add):
        return Value(left.kind, items=left.items + right.items)
    if left.tensor or right.tensor:
        both = left.boolean and (right.boolean or right.kind is not Kind.TENSOR)
        unsized = left.unsized or right.unsized
        return replace(TENSOR, boolean=both, unsized=unsized)
    if left.kind is Kind.DATA or right.kind is Kind.DATA:
        return DATA
    return PLAIN


def _ifexp(walker: Walker, node: ast.IfExp, frame: Frame) -> Value:
    test = walker.value(node.test, frame)
    if test.decided_by_data:
        walker.report("T2M101", node, frame, "a conditional expression depends on tensor values")
    truth = truth_of(test)
    if truth is not None:
        return walker.value(node.body if truth else node.orelse, frame)
    return values.join([walker.value(node.body, frame), walker.value(node.orelse, frame)])


def _tuple(walker: Walker, node: ast.Tuple | ast.List, frame: Frame) -> Value:
    items: list[Value] = []
    for element in node.elts:
        if isinstance(element, ast.Starred):
            value = walker.value(element.value, frame)
            items += value.items or (values.element(value),)
        else:
            items.append(walker.value(element, frame))
    kind = max((item.kind for item in items), key=lambda k: k.value, default=Kind.PLAIN)
    return Value(kind, items=tuple(items))


def _dict(walker: Walker, node: ast.Dict, frame: Frame) -> Value:
    found = [walker.value(part, frame) for part in node.values]
    return Value(items=tuple(found))


def _slice(walker: Walker, node: ast.Slice, frame: Frame) -> Value:
    parts = [walker.value(part, frame) for part in (node.lower, node.upper, node.step)]
    return DATA if any(part.kind is not Kind.PLAIN for part in parts) else PLAIN


def _namedexpr(walker: Walker, node: ast.NamedExpr, frame: Frame) -> Value:
    frame.env[node.target.id] = value = walker.value(node.value, frame)
    return value


def _lambda(_: Walker, node: ast.Lambda, frame: Frame) -> Value:
    return Value(obj=Local(node, frame))


def _listcomp(
    walker: Walker, node: ast.ListComp | ast.GeneratorExp | ast.SetComp, frame: Frame
) -> Value:
    inner = replace(frame, env=dict(frame.env))
    _generators(walker, node.generators, inner)
    made = walker.value(node.elt, inner)
    return Value(made.kind, items=(made,))


def _dictcomp(walker: Walker, node: ast.DictComp, frame: Frame) -> Value:
    inner = replace(frame, env=dict(frame.env))
    _generators(walker, node.generators, inner)
    made = walker.value(node.value, inner)
    return Value(made.kind, items=(made,))


def _generators(walker: Walker, generators: Sequence[ast.comprehension], frame: Frame) -> None:
    for generator in generators:
        iterated = walker.value(generator.iter, frame)
        statements.check_iteration(walker, generator.iter, iterated, frame)
        statements.assign(walker, generator.target, values.element(iterated), frame)
        for condition in generator.ifs:
            if walker.value(condition, frame).decided_by_data:
                walker.report("T2M101", condition, frame)


def _starred(walker: Walker, node: ast.Starred, frame: Frame) -> Value:
    return walker.value(node.value, frame)


def _identity(found: Sequence[Value], ops: Sequence[ast.cmpop]) -> Value:
    if len(found) != 2:
        return PLAIN
    left, right = found
    if right.obj is None and (left.known or left.kind is not Kind.PLAIN):
        same = left.obj is None and left.kind is Kind.PLAIN
        return Value(obj=same is isinstance(ops[0], ast.Is))
    return PLAIN


def _compared(found: Sequence[Value], ops: Sequence[ast.cmpop]) -> Value:
    if len(found) != 2 or not all(isinstance(v.obj, SIMPLE) for v in found):
        return PLAIN
    left, right = found[0].obj, found[1].obj
    if isinstance(ops[0], ast.Eq | ast.NotEq):
        return Value(obj=(left == right) is isinstance(ops[0], ast.Eq))
    return PLAIN


_ACTIONS: dict[type[ast.expr], Callable[[Walker, Any, Frame], Value]] = {
    ast.Constant: _constant,
    ast.Name: _name,
    ast.Attribute: _attribute,
    ast.Call: calls.call,
    ast.Subscript: _subscript,
    ast.Compare: _compare,
    ast.BoolOp: _boolop,
    ast.UnaryOp: _unaryop,
    ast.BinOp: _binop,
    ast.IfExp: _ifexp,
    ast.Tuple: _tuple,
    ast.List: _tuple,
    ast.Dict: _dict,
    ast.Slice: _slice,
    ast.NamedExpr: _namedexpr,
    ast.Lambda: _lambda,
    ast.ListComp: _listcomp,
    ast.GeneratorExp: _listcomp,
    ast.SetComp: _listcomp,
    ast.DictComp: _dictcomp,
    ast.Starred: _starred,
}
