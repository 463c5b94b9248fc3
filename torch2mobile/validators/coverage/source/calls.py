"""What a call does and gives: of torch, of numpy, of Python, or of the user's own code."""

from __future__ import annotations

import ast
import types
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from torch2mobile.validators.coverage.source import python, statements, tables, values
from torch2mobile.validators.coverage.source.values import DATA, PLAIN, TENSOR, Kind, Value
from torch2mobile.validators.coverage.source.walk import Frame, Local, Walker


def call(walker: Walker, node: ast.Call, frame: Frame) -> Value:
    """What is known of a call's result; what the rules say about it is reported."""
    args: list[Value] = []
    for part in node.args:
        value = walker.value(part, frame)
        args += list(value.items) if isinstance(part, ast.Starred) and value.items else [value]
    kwargs = {k.arg: walker.value(k.value, frame) for k in node.keywords if k.arg}
    for keyword in node.keywords:
        if keyword.arg is None:
            walker.value(keyword.value, frame)
    if isinstance(node.func, ast.Attribute):
        owner = walker.looked_at(node.func.value, node.func.attr, frame)
        if owner.tensor:
            return _method(walker, node, owner, args, kwargs, frame)
        if owner.kind is Kind.DATA:
            return DATA
        _container_method(walker, node, owner, frame)
        if owner.items is not None and node.func.attr in {"items", "values", "keys", "get", "pop"}:
            return _of_dict(node.func.attr, owner)
    function = walker.value(node.func, frame)
    walker.lines.append((frame.code.file, node.lineno))
    try:
        return _function(walker, node, function, args, kwargs, frame)
    finally:
        walker.lines.pop()


def _of_dict(method: str, owner: Value) -> Value:
    inner = values.join(owner.items or ())
    if method == "items":
        return Value(inner.kind, items=(Value(inner.kind, items=(PLAIN, inner)),))
    if method == "keys":
        return PLAIN
    return Value(inner.kind, items=(inner,)) if method == "values" else inner


def _container_method(walker: Walker, node: ast.Call, owner: Value, frame: Frame) -> None:
    """``self.history.append(x)`` outlives the call."""
    changed = isinstance(owner.obj, list | dict | set) and not isinstance(owner.obj, type)
    assert isinstance(node.func, ast.Attribute)
    if changed and node.func.attr in tables.CHANGING:
        statements.written(walker, node, owner, frame)


def _method(
    walker: Walker,
    node: ast.Call,
    owner: Value,
    args: Sequence[Value],
    kwargs: Mapping[str, Value],
    frame: Frame,
) -> Value:
    assert isinstance(node.func, ast.Attribute)
    name = node.func.attr
    if name.endswith("_") and not name.endswith("__") and name != "requires_grad_":
        statements.written(walker, node, owner, frame)
    _by_name(walker, node, name, [owner, *args], kwargs, frame)
    _dtype(walker, node, name, [*args, *kwargs.values()], frame)
    return of_tensor(owner, name, args, kwargs)


def of_tensor(owner: Value, name: str, args: Sequence[Value], kwargs: Mapping[str, Value]) -> Value:
    """A method's result, or an attribute, of a tensor."""
    if name in tables.SIZES or tables.is_fact(name):
        return DATA if owner.unsized and name in tables.SIZES else PLAIN
    if name in tables.TO_PYTHON | tables.TO_NUMPY | tables.TRUTHS:
        return DATA
    inputs = owner.inputs if name in tables.VIEWS or name.endswith("_") else frozenset()
    result = Value(
        Kind.TENSOR,
        inputs=inputs,
        boolean=name in tables.BOOLEAN or (name in tables.VIEWS and owner.boolean),
        unsized=name in tables.UNSIZED or owner.unsized,
    )
    if name in tables.SEQUENCES:
        return Value(Kind.TENSOR, items=(result,))
    if _gives_two(name, args, kwargs):
        return Value(Kind.TENSOR, items=(result, result))
    return result


def _gives_two(name: str, args: Sequence[Value], kwargs: Mapping[str, Value]) -> bool:
    """Whether values come with their indices, or another second tensor."""
    if name in tables.REDUCTIONS:
        # Along a dimension; but not the greater of two tensors.
        return bool(args or kwargs) and not (args and args[0].tensor)
    return name in tables.PAIRS


def _by_name(
    walker: Walker,
    node: ast.Call,
    name: str,
    args: Sequence[Value],
    kwargs: Mapping[str, Value],
    frame: Frame,
) -> None:
    """What is the same for ``torch.name(x)`` and ``x.name()``."""
    for names, code, message in tables.SAID:
        if name in names:
            walker.report(code, node, frame, message.format(name))
    counted = name == "repeat_interleave" and "output_size" not in kwargs
    by_tensor = counted and any(a.tensor for a in [*args[1:], *kwargs.values()])
    if by_tensor or (name == "where" and len(args) + len(kwargs) == 1):
        walker.report("T2M106", node, frame, f"the shape that {name} gives depends on data")
    if "out" in kwargs and kwargs["out"].kind is Kind.TENSOR:
        statements.written(walker, node, kwargs["out"], frame)


def _dtype(walker: Walker, node: ast.Call, name: str, given: Sequence[Value], frame: Frame) -> None:
    """A dtype among the arguments that phones compute slowly or not at all."""
    codes = {torch.float64: "T2M160", torch.bfloat16: "T2M161"}
    for value in given:
        if isinstance(value.obj, torch.dtype):
            code = "T2M111" if value.obj.is_complex else codes.get(value.obj)
            if code:
                walker.report(code, node, frame, f"{name} makes {value.obj}")


def _function(
    walker: Walker,
    node: ast.Call,
    function: Value,
    args: list[Value],
    kwargs: dict[str, Value],
    frame: Frame,
) -> Value:
    obj, given = function.obj, [*args, *kwargs.values()]
    if isinstance(obj, Local):
        return walker.local(obj, args, kwargs)
    if isinstance(obj, torch.nn.Module):
        return walker.module(obj, args, kwargs)
    if _is_apply(walker, node, frame):
        return _autograd(walker, node, args, frame)
    code = walker.library.find(obj) if function.known else None
    if code is not None:
        owner = function.owner
        method = owner is not None and not isinstance(owner, types.ModuleType | type)
        bound = [values.of_object(owner), *args] if method and _takes_self(obj, owner) else args
        path = walker.paths.get(id(owner), frame.module)
        return walker.function(code, bound, kwargs, path)
    if _is_torch(function) and not isinstance(obj, type):
        return _torch(walker, node, function, args, kwargs, frame)
    return python.call(walker, node, function, args, given, frame)


def _takes_self(function: Any, owner: Any) -> bool:
    """Whether it is a method of the owner's class, and no function kept as an attribute."""
    own = getattr(function, "__func__", function)
    return any(own is member for kind in type(owner).__mro__ for member in vars(kind).values())


def _is_apply(walker: Walker, node: ast.Call, frame: Frame) -> bool:
    return (
        isinstance(node.func, ast.Attribute)
        and node.func.attr == "apply"
        and _autograd_class(walker, node, frame) is not None
    )


def _autograd_class(walker: Walker, node: ast.Call, frame: Frame) -> Any:
    assert isinstance(node.func, ast.Attribute)
    owner = walker.value(node.func.value, frame).obj
    found = isinstance(owner, type) and issubclass(owner, torch.autograd.Function)
    return owner if found else None


def _autograd(walker: Walker, node: ast.Call, args: list[Value], frame: Frame) -> Value:
    kind = _autograd_class(walker, node, frame)
    walker.report("T2M110", node, frame, f"{kind.__name__} is an autograd.Function of your own")
    code = walker.library.find(kind.forward)
    if code is None:
        return TENSOR
    own_setup = kind.setup_context is not torch.autograd.Function.setup_context
    return walker.function(code, args if own_setup else [PLAIN, *args], {}, frame.module)


def _is_torch(function: Value) -> bool:
    module = getattr(function.obj, "__module__", None) or ""
    named = function.name.partition(".")[0] == "torch"
    return named or (isinstance(module, str) and module.partition(".")[0] == "torch")


def _torch(
    walker: Walker,
    node: ast.Call,
    function: Value,
    args: list[Value],
    kwargs: dict[str, Value],
    frame: Frame,
) -> Value:
    """A function of torch's."""
    name = function.name.rpartition(".")[2]
    _by_name(walker, node, name, args, kwargs, frame)
    _dtype(walker, node, name, list(kwargs.values()), frame)
    _by_place(walker, node, function, frame)
    if name in tables.DROPOUTS and _trains(args, kwargs):
        walker.report("T2M131", node, frame, f"{name} drops other values at every call")
    if name in {"is_scripting", "is_tracing"}:
        return Value(obj=False)
    given = any(v.kind is Kind.TENSOR for v in [*args, *kwargs.values()])
    made = given or function.name.partition(".")[2] == name  # torch.zeros(3)
    if not made or name in tables.PLAIN_FUNCTIONS or tables.is_fact(name):
        return PLAIN
    if name.endswith("_") and not name.startswith("_") and args and args[0].kind is Kind.TENSOR:
        statements.written(walker, node, args[0], frame)
    tensor = next((a for a in args if a.kind is Kind.TENSOR and a.items is None), TENSOR)
    if name == "where" and len(args) + len(kwargs) == 1:
        return Value(Kind.TENSOR, items=(replace(TENSOR, unsized=True),))
    return of_tensor(tensor, name, args[1:], kwargs)


def _by_place(walker: Walker, node: ast.Call, function: Value, frame: Frame) -> None:
    """What a function of torch's is for, by the module that it lies in."""
    place, _, name = function.name.rpartition(".")
    library = function.name.split(".")[2:4] if place.startswith("torch.ops.") else []
    if type(function.obj).__name__ == "CustomOpDef":
        library = function.obj._qualname.split("::")
    if len(library) == 2 and library[0] not in {"aten", "prims"}:
        message = f"{library[0]}.{library[1]} comes from a library"
        walker.report("T2M170", node, frame, message)
    if function.name in tables.EXPORTING:
        walker.report("T2M145", node, frame, f"{name}() is true only while exporting")
    elif place == "torch.fft" and name not in tables.REAL_FFT:
        walker.report("T2M111", node, frame, f"{name} works on complex numbers")
    elif place == "torch.sparse":
        walker.report("T2M112", node, frame, f"{name} works on sparse tensors")


def _trains(args: Sequence[Value], kwargs: Mapping[str, Value]) -> bool:
    """Whether a dropout drops anything: training is true unless it is given otherwise."""
    rest = args[tables.TRAINING_POSITION :]
    given = kwargs.get("training") or (rest[0] if rest else Value(obj=True))
    return given.obj is True
