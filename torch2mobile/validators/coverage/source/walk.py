"""Reads the user's code along the way that a call of the module takes.

Statements are followed in order, with what is known of each value; a branch whose condition is
known is the only one followed. Nothing of the user's is run.
"""

from __future__ import annotations

import ast
import builtins
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from torch2mobile.validators.coverage.source import tables, values
from torch2mobile.validators.coverage.source.code import Code, Library
from torch2mobile.validators.coverage.source.values import DATA, PLAIN, TENSOR, Kind, Value

_DEEPEST = 24
_SIMPLE = (bool, int, float, str, bytes, type(None))


@dataclass(frozen=True)
class Sighting:
    """A rule's code at a line of the user's."""

    code: str
    file: str
    line: int
    module: str
    message: str = ""
    remedy: str = ""


@dataclass
class Frame:
    """One function while it is read: whose it is, its variables, what it returns."""

    code: Code
    module: str
    env: dict[str, Value]
    returns: list[Value] = field(default_factory=list)


@dataclass(frozen=True)
class Local:
    """A function written inside of another, or a lambda."""

    tree: ast.FunctionDef | ast.Lambda
    frame: Frame


class Walker:
    """Follows a module's forward; ``sightings`` are what it came across."""

    def __init__(self, root: torch.nn.Module, library: Library) -> None:
        self.library = library
        self.paths = {id(module): name for name, module in root.named_modules()}
        self.sightings: dict[Sighting, None] = {}
        self.reads: dict[tuple[int, str], int] = {}
        self.uses: dict[str, set[tuple[str, int]]] = {}
        self.writes: list[tuple[int, str, Sighting]] = []
        self._done: dict[tuple[object, ...], Value] = {}
        self._depth = 0

    # --- functions ------------------------------------------------------------------------

    def module(self, module: torch.nn.Module, args: list[Value], kwargs: dict[str, Value]) -> Value:
        """A call of a module; of torch's own, the user's modules inside of it are followed."""
        code = self.library.find(type(module).forward)
        if code is not None:
            bound = [values.of_object(module), *args]
            return self.function(code, bound, kwargs, self.paths.get(id(module), ""))
        if isinstance(module, torch.nn.Sequential) and len(args) == 1 and not kwargs:
            result = args[0]
            for child in module:
                result = self.module(child, [result], {})
            return result
        for child in module.children():
            if not isinstance(child, torch.jit.ScriptModule):
                self.module(child, _tensors(type(child).forward), {})
        several = isinstance(module, torch.nn.RNNBase | torch.nn.MultiheadAttention)
        return replace(TENSOR, items=(TENSOR, TENSOR)) if several else TENSOR

    def function(
        self, code: Code, args: list[Value], kwargs: dict[str, Value], module: str
    ) -> Value:
        """A call of one of the user's functions: what it returns."""
        env = bind(code, args, kwargs)
        key = (id(code), module, *((name, value.key) for name, value in env.items()))
        if key not in self._done:
            self._done[key] = PLAIN  # of a recursive call
            if self._depth < _DEEPEST:
                self._depth += 1
                frame = Frame(code, module, env)
                self.body(code.tree.body, frame)
                self._depth -= 1
                self._done[key] = values.join(frame.returns)
        return self._done[key]

    def local(self, local: Local, args: Sequence[Value], kwargs: dict[str, Value]) -> Value:
        """A call of a function that is written inside of this one."""
        outer = local.frame
        names = [a.arg for a in (*local.tree.args.posonlyargs, *local.tree.args.args)]
        env = {**outer.env, **dict(zip(names, args, strict=False)), **kwargs}
        frame = Frame(outer.code, outer.module, env)
        if self._depth >= _DEEPEST:
            return PLAIN
        self._depth += 1
        try:
            if isinstance(local.tree, ast.Lambda):
                return self.value(local.tree.body, frame)
            self.body(local.tree.body, frame)
            return values.join(frame.returns)
        finally:
            self._depth -= 1

    def report(
        self, code: str, node: ast.AST, frame: Frame, message: str = "", remedy: str = ""
    ) -> Sighting:
        """Keep a sighting, once."""
        line = int(getattr(node, "lineno", 0))
        sighting = Sighting(code, frame.code.file, line, frame.module, message, remedy)
        self.sightings.setdefault(sighting)
        return sighting

    # --- statements and expressions -------------------------------------------------------

    def body(self, statements: Sequence[ast.stmt], frame: Frame) -> bool:
        """Follow statements; True where the end is not reached, for a return or a raise."""
        from torch2mobile.validators.coverage.source import statements as how

        return any(how.follow(self, statement, frame) for statement in statements)

    def value(self, node: ast.expr | None, frame: Frame) -> Value:
        """What is known of an expression's value."""
        if node is None:
            return PLAIN
        method: Callable[[Any, Frame], Value] = getattr(
            self, f"_{type(node).__name__.lower()}", self._other
        )
        return method(node, frame)

    def _other(self, node: ast.expr, frame: Frame) -> Value:
        """Whatever has no method of its own: its parts are followed."""
        parts = [c for c in ast.iter_child_nodes(node) if isinstance(c, ast.expr)]
        found = [self.value(part, frame) for part in parts]
        data = any(v.kind is not Kind.PLAIN for v in found)
        return DATA if data and isinstance(node, ast.JoinedStr | ast.FormattedValue) else PLAIN

    def _constant(self, node: ast.Constant, _: Frame) -> Value:
        return Value(obj=node.value)

    def _name(self, node: ast.Name, frame: Frame) -> Value:
        if node.id in frame.env:
            value = frame.env[node.id]
            for name in value.inputs if isinstance(node.ctx, ast.Load) else ():
                self.uses.setdefault(name, set()).add((frame.code.file, node.lineno))
            return value
        if node.id in frame.code.names:
            return values.of_object(frame.code.names[node.id], name=node.id)
        builtin = getattr(builtins, node.id, values.UNKNOWN)
        return Value(obj=builtin, name=node.id)

    def looked_at(self, node: ast.expr, how: str, frame: Frame) -> Value:
        """The value of what is asked for its shape or identity only: that is no use of it."""
        if isinstance(node, ast.Name) and how in {"is", *tables.SIZES, *tables.FACTS}:
            return frame.env.get(node.id) or self._name(node, frame)
        return self.value(node, frame)

    def _attribute(self, node: ast.Attribute, frame: Frame) -> Value:
        from torch2mobile.validators.coverage.source import calls

        value = self.looked_at(node.value, node.attr, frame)
        if value.tensor:
            return calls.of_tensor(value, node.attr, [], {})
        if value.kind is Kind.DATA:
            return Value(Kind.DATA, name=node.attr)
        if not value.known:
            return Value(name=f"{value.name}.{node.attr}".lstrip("."))
        if isinstance(node.ctx, ast.Load) and isinstance(value.obj, torch.nn.Module):
            place = (id(value.obj), node.attr)
            self.reads[place] = self.reads.get(place, 0) + 1
        found = values.attribute(value, node.attr)
        if isinstance(found.obj, property):
            code = self.library.find(found.obj.fget)
            path = self.paths.get(id(value.obj), frame.module)
            return self.function(code, [value], {}, path) if code else PLAIN
        return found

    def _call(self, node: ast.Call, frame: Frame) -> Value:
        from torch2mobile.validators.coverage.source import calls

        return calls.call(self, node, frame)

    def _subscript(self, node: ast.Subscript, frame: Frame) -> Value:
        value, index = self.value(node.value, frame), self.value(node.slice, frame)
        if value.items is not None or not value.tensor:
            if value.known and index.known and isinstance(value.obj, dict | torch.nn.ModuleDict):
                known: Any = dict(value.obj.items())
                return values.of_object(known.get(index.obj, values.UNKNOWN))
            return values.element(value, index.obj)
        indices = index.items if index.items is not None else (index,)
        if isinstance(node.ctx, ast.Load) and any(i.boolean and i.tensor for i in indices):
            self.report("T2M106", node, frame, "a mask selects elements: how many depends on data")
            return replace(TENSOR, unsized=True)
        # Indexing by a tensor copies; everything else is a view.
        copied = any(i.tensor for i in indices)
        return replace(
            values.element(value), inputs=frozenset() if copied else value.inputs, boolean=False
        )

    def _compare(self, node: ast.Compare, frame: Frame) -> Value:
        if all(isinstance(op, ast.Is | ast.IsNot) for op in node.ops):
            parts = (node.left, *node.comparators)
            return _identity([self.looked_at(p, "is", frame) for p in parts], node.ops)
        found = [self.value(part, frame) for part in (node.left, *node.comparators)]
        if any(isinstance(op, ast.In | ast.NotIn) for op in node.ops):
            return DATA if found[0].decided_by_data or found[-1].tensor else PLAIN
        if any(v.tensor for v in found):
            return replace(TENSOR, boolean=True)
        if any(v.decided_by_data for v in found):
            return DATA
        return _compared(found, node.ops)

    def _boolop(self, node: ast.BoolOp, frame: Frame) -> Value:
        found = []
        for part in node.values:
            value = self.value(part, frame)
            found.append(value)
            truth = truth_of(value)
            if truth is not None and truth is isinstance(node.op, ast.Or):
                return value if len(found) == 1 else values.join(found)
        for part, value in zip(node.values[:-1], found[:-1], strict=True):
            if value.decided_by_data:
                self.report(
                    "T2M101", part, frame, "and/or asks for the truth of what is in a tensor"
                )
        if all(v.known and not v.tensor for v in found):
            return found[-1]
        return replace(values.join(found), obj=values.UNKNOWN)

    def _unaryop(self, node: ast.UnaryOp, frame: Frame) -> Value:
        value = self.value(node.operand, frame)
        if isinstance(node.op, ast.Not):
            if value.decided_by_data:
                self.report("T2M101", node, frame, "not asks for the truth of what is in a tensor")
                return DATA
            truth = truth_of(value)
            return PLAIN if truth is None else Value(obj=not truth)
        if isinstance(node.op, ast.USub) and isinstance(value.obj, int | float):
            return Value(obj=-value.obj)
        return replace(value, obj=values.UNKNOWN, inputs=frozenset(), owner=None)

    def _binop(self, node: ast.BinOp, frame: Frame) -> Value:
        left, right = self.value(node.left, frame), self.value(node.right, frame)
        if left.items is not None and right.items is not None and isinstance(node.op, ast.Add):
            return Value(left.kind, items=left.items + right.items)
        if left.tensor or right.tensor:
            both = left.boolean and (right.boolean or right.kind is not Kind.TENSOR)
            unsized = left.unsized or right.unsized
            return replace(TENSOR, boolean=both, unsized=unsized)
        if left.kind is Kind.DATA or right.kind is Kind.DATA:
            return DATA
        return PLAIN

    def _ifexp(self, node: ast.IfExp, frame: Frame) -> Value:
        test = self.value(node.test, frame)
        if test.decided_by_data:
            self.report("T2M101", node, frame, "a conditional expression depends on tensor values")
        truth = truth_of(test)
        if truth is not None:
            return self.value(node.body if truth else node.orelse, frame)
        return values.join([self.value(node.body, frame), self.value(node.orelse, frame)])

    def _tuple(self, node: ast.Tuple | ast.List, frame: Frame) -> Value:
        items: list[Value] = []
        for element in node.elts:
            if isinstance(element, ast.Starred):
                value = self.value(element.value, frame)
                items += value.items or (values.element(value),)
            else:
                items.append(self.value(element, frame))
        kind = max((item.kind for item in items), key=lambda k: k.value, default=Kind.PLAIN)
        return Value(kind, items=tuple(items))

    _list = _tuple

    def _dict(self, node: ast.Dict, frame: Frame) -> Value:
        found = [self.value(part, frame) for part in node.values]
        return Value(items=tuple(found))

    def _slice(self, node: ast.Slice, frame: Frame) -> Value:
        parts = [self.value(part, frame) for part in (node.lower, node.upper, node.step)]
        return DATA if any(part.kind is not Kind.PLAIN for part in parts) else PLAIN

    def _namedexpr(self, node: ast.NamedExpr, frame: Frame) -> Value:
        frame.env[node.target.id] = value = self.value(node.value, frame)
        return value

    def _lambda(self, node: ast.Lambda, frame: Frame) -> Value:
        return Value(obj=Local(node, frame))

    def _listcomp(self, node: ast.ListComp | ast.GeneratorExp | ast.SetComp, frame: Frame) -> Value:
        inner = replace(frame, env=dict(frame.env))
        self._generators(node.generators, inner)
        made = self.value(node.elt, inner)
        return Value(made.kind, items=(made,))

    _generatorexp = _setcomp = _listcomp

    def _dictcomp(self, node: ast.DictComp, frame: Frame) -> Value:
        inner = replace(frame, env=dict(frame.env))
        self._generators(node.generators, inner)
        made = self.value(node.value, inner)
        return Value(made.kind, items=(made,))

    def _generators(self, generators: Sequence[ast.comprehension], frame: Frame) -> None:
        from torch2mobile.validators.coverage.source import statements as how

        for generator in generators:
            iterated = self.value(generator.iter, frame)
            how.check_iteration(self, generator.iter, iterated, frame)
            how.assign(self, generator.target, values.element(iterated), frame)
            for condition in generator.ifs:
                if self.value(condition, frame).decided_by_data:
                    self.report("T2M101", condition, frame)

    def _starred(self, node: ast.Starred, frame: Frame) -> Value:
        return self.value(node.value, frame)


def truth_of(value: Value) -> bool | None:
    """Whether a value is true, where that is known without running anything."""
    if isinstance(value.obj, _SIMPLE):
        return bool(value.obj)
    if value.items is not None and value.known and isinstance(value.obj, tuple | list):
        return bool(value.items)
    return None


def _identity(found: Sequence[Value], ops: Sequence[ast.cmpop]) -> Value:
    if len(found) != 2:
        return PLAIN
    left, right = found
    if right.obj is None and (left.known or left.kind is not Kind.PLAIN):
        same = left.obj is None and left.kind is Kind.PLAIN
        return Value(obj=same is isinstance(ops[0], ast.Is))
    return PLAIN


def _compared(found: Sequence[Value], ops: Sequence[ast.cmpop]) -> Value:
    if len(found) != 2 or not all(isinstance(v.obj, _SIMPLE) for v in found):
        return PLAIN
    left, right = found[0].obj, found[1].obj
    if isinstance(ops[0], ast.Eq | ast.NotEq):
        return Value(obj=(left == right) is isinstance(ops[0], ast.Eq))
    return PLAIN


def bind(code: Code, args: list[Value], kwargs: dict[str, Value]) -> dict[str, Value]:
    """The variables of a call: parameters by position and name, else their defaults."""
    tree = code.tree.args
    names = [a.arg for a in (*tree.posonlyargs, *tree.args)]
    env = {a.arg: PLAIN for a in tree.kwonlyargs} | dict.fromkeys(names, PLAIN)
    env |= {name: values.of_object(default) for name, default in code.defaults.items()}
    env |= dict(zip(names, args, strict=False))
    env |= {name: value for name, value in kwargs.items() if name in env}
    if tree.vararg:
        rest = tuple(args[len(names) :])
        kind = max((v.kind for v in rest), key=lambda k: k.value, default=Kind.PLAIN)
        env[tree.vararg.arg] = Value(kind, items=rest)
    if tree.kwarg:
        env[tree.kwarg.arg] = Value(items=tuple(v for k, v in kwargs.items() if k not in names))
    return env


def _tensors(forward: Any) -> list[Value]:
    """Tensors for the parameters of a forward that have no default."""
    import inspect

    try:
        parameters = list(inspect.signature(forward).parameters.values())[1:]
    except (TypeError, ValueError):
        return [TENSOR]
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [TENSOR for p in parameters if p.kind in kinds and p.default is p.empty]


def imported(name: str) -> Value:
    """A module that the code imports, where it is imported already."""
    module = sys.modules.get(name)
    return PLAIN if module is None else Value(obj=module, name=name)
