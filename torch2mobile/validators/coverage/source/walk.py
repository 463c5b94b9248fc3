"""Reads the user's code along the way that a call of the module takes.

Statements are followed in order, with what is known of each value; a branch whose condition is
known is the only one followed. Nothing of the user's is run.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from torch2mobile.validators.coverage.source import tables, values
from torch2mobile.validators.coverage.source.code import Code, Library
from torch2mobile.validators.coverage.source.values import PLAIN, TENSOR, Kind, Value

_DEEPEST = 24
SIMPLE = (bool, int, float, str, bytes, type(None))


@dataclass(frozen=True)
class Sighting:
    """A rule's code at a line of the user's."""

    code: str
    file: str
    line: int
    module: str
    message: str = ""
    callers: tuple[tuple[str, int], ...] = field(default=(), compare=False)


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
    """Follows a module's forward; ``sightings`` are what it came across.

    ``writes`` are attributes that are set, ``keeps`` all that may hold something for a later call.
    """

    def __init__(self, root: torch.nn.Module, library: Library) -> None:
        self.library = library
        self.paths = {id(module): name for name, module in root.named_modules()}
        self.sightings: dict[Sighting, None] = {}
        self.reads: set[tuple[int, str]] = set()
        self.uses: dict[str, set[tuple[str, int]]] = {}
        self.writes: list[tuple[int, str, Sighting]] = []
        self.keeps: list[tuple[torch.nn.Module, str, Sighting]] = []
        self._done: dict[tuple[object, ...], Value] = {}
        self.lines: list[tuple[str, int]] = []  # of the calls that are being followed
        self._depth = 0

    # --- functions ------------------------------------------------------------------------

    def module(self, module: torch.nn.Module, args: list[Value], kwargs: dict[str, Value]) -> Value:
        """A call of a module; of torch's own, the user's modules inside of it are followed."""
        if isinstance(module, torch.jit.ScriptModule):  # compiled: its code is not Python's
            return TENSOR
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

    def report(self, code: str, node: ast.AST, frame: Frame, message: str = "") -> Sighting:
        """Keep a sighting, once."""
        line = int(getattr(node, "lineno", 0))
        sighting = Sighting(code, frame.code.file, line, frame.module, message, tuple(self.lines))
        self.sightings.setdefault(sighting)
        return sighting

    # --- statements and expressions -------------------------------------------------------

    def body(self, statements: Sequence[ast.stmt], frame: Frame) -> bool:
        """Follow statements; True where the end is not reached, for a return or a raise."""
        from torch2mobile.validators.coverage.source import statements as how

        return any(how.follow(self, statement, frame) for statement in statements)

    def value(self, node: ast.expr | None, frame: Frame) -> Value:
        """What is known of an expression's value."""
        from torch2mobile.validators.coverage.source import expressions

        return PLAIN if node is None else expressions.follow(self, node, frame)

    def looked_at(self, node: ast.expr, how: str, frame: Frame) -> Value:
        """The value of what is asked for its shape or identity only: that is no use of it."""
        peeked = how == "is" or how in tables.SIZES or tables.is_fact(how)
        if peeked and isinstance(node, ast.Name) and node.id in frame.env:
            return frame.env[node.id]
        return self.value(node, frame)


def truth_of(value: Value) -> bool | None:
    """Whether a value is true, where that is known without running anything."""
    if isinstance(value.obj, SIMPLE):
        return bool(value.obj)
    if value.items is not None and value.known and isinstance(value.obj, tuple | list):
        return bool(value.items)
    return None


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
