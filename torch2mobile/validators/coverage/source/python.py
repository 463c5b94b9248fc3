"""Calls that are Python's: builtins, classes, numpy, and what asks the world outside."""

from __future__ import annotations

import ast
import builtins
import types
from collections.abc import Sequence
from dataclasses import replace

import torch

from torch2mobile.validators.coverage.source import tables, values
from torch2mobile.validators.coverage.source.values import DATA, PLAIN, TENSOR, Kind, Value
from torch2mobile.validators.coverage.source.walk import Frame, Walker

_CONVERSIONS = {"float": "a float", "int": "an int", "bool": "a bool", "complex": "a complex"}
_REARRANGING = {
    *("list", "tuple", "sorted", "reversed", "set", "enumerate", "zip", "iter", "next"),
}
_ASKING = {
    "isinstance",
    "getattr",
    "hasattr",
    "type",
    "id",
    "callable",
    "super",
    "repr",
    "slice",
    "vars",
}


def call(
    walker: Walker,
    node: ast.Call,
    function: Value,
    args: list[Value],
    given: Sequence[Value],
    frame: Frame,
) -> Value:
    """A call of what is neither torch's nor the user's own."""
    obj, name = function.obj, function.name
    if isinstance(obj, type):
        return _class(walker, node, obj, args, given, frame)
    if isinstance(obj, types.BuiltinFunctionType) and obj.__module__ == "builtins":
        return _builtin(walker, node, obj.__name__, args, frame)
    _outside(walker, node, name, frame)
    return _numpy_call(walker, node, name, given, frame)


def _class(
    walker: Walker,
    node: ast.Call,
    obj: type,
    args: list[Value],
    given: Sequence[Value],
    frame: Frame,
) -> Value:
    name = obj.__name__
    if issubclass(obj, torch.nn.Module | torch.nn.Parameter):
        walker.report("T2M123", node, frame, f"{name} is made anew at every call")
        return TENSOR if issubclass(obj, torch.nn.Parameter) else PLAIN
    if issubclass(
        obj, torch.autograd.grad_mode.no_grad | torch.autograd.grad_mode.set_grad_enabled
    ):
        walker.report("T2M141", node, frame, f"{name} changes nothing in a file")
        return PLAIN
    if obj.__module__ == "builtins" and getattr(builtins, name, None) is obj:
        return _builtin(walker, node, name, args, frame)
    _outside(walker, node, f"{obj.__module__}.{name}", frame)
    kind = max((v.kind for v in given), key=lambda k: k.value, default=Kind.PLAIN)
    return Value(kind, items=tuple(given)) if kind is not Kind.PLAIN else PLAIN


def _builtin(
    walker: Walker, node: ast.Call, name: str, args: Sequence[Value], frame: Frame
) -> Value:
    first = args[0] if args else PLAIN
    if name in tables.PRINTING:
        walker.report("T2M142", node, frame, f"{name}() runs while exporting, never on the phone")
        return PLAIN
    if name in _CONVERSIONS or name == "len":
        return _converted(walker, node, name, first, frame)
    if name in _REARRANGING:
        return _rearranged(name, args)
    if name in _ASKING:
        return _asked(name, args, frame)
    if name in {"any", "all", "max", "min"} and len(args) == 1 and _of_tensors(first):
        walker.report("T2M101", node, frame, f"{name}() asks for the truth of tensor elements")
        return DATA
    kind = _kind([v for v in args if v.items is None])
    return Value(kind)


def _of_tensors(value: Value) -> bool:
    """Whether its elements are decided by data."""
    return any(i.decided_by_data for i in value.items) if value.items else value.tensor


def _converted(walker: Walker, node: ast.Call, name: str, value: Value, frame: Frame) -> Value:
    """``float(x)``, ``len(x)``: a number out of a tensor."""
    if name == "len":
        if not (value.tensor and value.unsized):
            return PLAIN
        walker.report("T2M107", node, frame, "how many elements there are depends on data")
    elif value.tensor:
        what = _CONVERSIONS[name]
        walker.report("T2M104", node, frame, f"{name}() makes {what} of a tensor's data")
    return DATA if value.decided_by_data else PLAIN


def _asked(name: str, args: Sequence[Value], frame: Frame) -> Value:
    """``isinstance``, ``getattr``, ``super()``; of the others the result does not matter."""
    if name == "isinstance":
        return _isinstance(args)
    if name == "getattr" and len(args) >= 2 and args[0].known and isinstance(args[1].obj, str):
        return values.attribute(args[0], args[1].obj)
    parameters = frame.code.tree.args.args
    kind = frame.code.names.get("__class__")
    if name == "super" and not args and parameters and isinstance(kind, type):
        owner = frame.env[parameters[0].arg].obj
        if isinstance(owner, kind):
            return Value(obj=super(kind, owner))
    return PLAIN


def _isinstance(args: Sequence[Value]) -> Value:
    if len(args) == 2 and args[0].tensor:
        return Value(obj=True) if args[1].obj is torch.Tensor else PLAIN
    if len(args) == 2 and args[0].known and isinstance(args[1].obj, type):
        return Value(obj=isinstance(args[0].obj, args[1].obj))
    return PLAIN


def _rearranged(name: str, args: Sequence[Value]) -> Value:
    first = args[0] if args else PLAIN
    if name == "zip":
        return _zipped(args)
    if name == "enumerate":
        return _enumerated(first)
    if name == "next":
        return values.element(first)
    reverse = name == "reversed" and first.items is not None
    return replace(first, items=(first.items or ())[::-1]) if reverse else first


def _zipped(args: Sequence[Value]) -> Value:
    if all(a.items is not None and a.known for a in args):
        pairs = zip(*(a.items or () for a in args), strict=False)
        items = tuple(Value(_kind(pair), items=tuple(pair)) for pair in pairs)
        return Value(_kind(items), (), items)
    inner = tuple(values.element(a) for a in args)
    return Value(_kind(inner), items=(Value(_kind(inner), items=inner),))


def _enumerated(first: Value) -> Value:
    if first.items is not None and first.known:
        items = tuple(Value(v.kind, items=(Value(obj=n), v)) for n, v in enumerate(first.items))
        return Value(first.kind, (), items)
    inner = values.element(first)
    return Value(inner.kind, items=(Value(inner.kind, items=(PLAIN, inner)),))


def _kind(found: Sequence[Value]) -> Kind:
    return max((v.kind for v in found), key=lambda k: k.value, default=Kind.PLAIN)


def _outside(walker: Walker, node: ast.Call, name: str, frame: Frame) -> None:
    """Clocks, random numbers and the environment: read while exporting, then fixed."""
    if name.startswith(tuple(f"{m}." for m in tables.PRINTING_MODULES)):
        walker.report("T2M142", node, frame, f"{name}() runs while exporting, never on the phone")
    elif name.startswith(tuple(f"{m}." for m in tables.OUTSIDE)) and not name.startswith(
        tables.OUTSIDE_NOT
    ):
        walker.report("T2M143", node, frame, f"{name}() is asked once, while exporting")


def _numpy_call(
    walker: Walker, node: ast.Call, name: str, given: Sequence[Value], frame: Frame
) -> Value:
    """A library's function, given tensors or what came out of them."""
    if not any(v.kind is not Kind.PLAIN for v in given):
        return PLAIN
    if name.startswith(("numpy.", "scipy.", "cv2.", "PIL.")):
        library = name.partition(".")[0]
        walker.report("T2M105", node, frame, f"{name} computes outside of torch, in {library}")
        return DATA
    return DATA if all(v.kind is not Kind.TENSOR for v in given) else PLAIN
