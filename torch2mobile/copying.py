"""One copy of a module: on the same weights in memory, and with nothing else in common."""

from __future__ import annotations

import copy
import enum
import functools
import threading
import types
from collections.abc import Iterator, Mapping
from typing import Any, cast

import numpy as np
import torch
from torch.nn.parameter import UninitializedBuffer, is_lazy

from torch2mobile import user_code
from torch2mobile.contents import BOUND_IN_C, BOXES, Contents, box_items, set_item


class CopyError(Exception):
    """A module that cannot be copied, or whose copy would still work on the original."""


class Original:
    """A module that is not called, to make copies of."""

    def __init__(self, root: torch.nn.Module) -> None:
        self._root = root
        self._held = Contents(root)
        self._closures = any(map(_has_closure, self._held.seen.values()))
        # Nothing else can lead from a copy to its original.
        self._entangled = bool(self._held.references) or any(
            map(_may_hold, self._held.seen.values())
        )

    def copy(self, memory: Mapping[int, torch.Tensor]) -> Any:
        """A copy whose weights share memory with the original's, or with those in ``memory``.

        Functions that hold parts of the module in their closures, such as hooks, hold the copy's.
        Raises CopyError where the module has no copy, or one that still holds the original.
        """
        memo = self._memo(memory)
        try:
            made = copy.deepcopy(self._root, memo)
        except Exception as error:
            raise CopyError(f"{type(error).__name__}: {first_line(error)}") from error
        if any(isinstance(value, torch.jit.ScriptModule) for value in self._held.opaque):
            _name_methods(self._root, made)
        if self._closures:
            _Rebinding(memo, self._held.seen).rebind(made)
        if self._entangled:
            _check_apart(self._root, made)
            self._entangled = False
        return made

    def _memo(self, memory: Mapping[int, torch.Tensor]) -> dict[int, Any]:
        """What deepcopy shall not copy, or cannot."""
        memo: dict[int, Any] = {}
        weights = {id(weight) for weight in self._root.parameters()}
        for tensor in self._held.tensors:
            if id(tensor) in weights and type(tensor) in _WEIGHTS:
                memo[id(tensor)] = _sharing(tensor, memory.get(id(tensor), tensor))
            elif isinstance(tensor, UninitializedBuffer):  # which torch cannot copy
                plain = tensor.data
                memo[id(tensor)] = UninitializedBuffer(device=plain.device, dtype=plain.dtype)  # type: ignore[call-arg]
            elif not is_lazy(tensor) and not tensor.is_leaf:
                memo[id(tensor)] = tensor.detach().clone()
        for value in self._held.opaque:
            if type(value) in _LOCKS:
                memo[id(value)] = _LOCKS[type(value)]()
        for value in self._held.seen.values():
            if isinstance(value, torch.jit.ScriptFunction):
                memo[id(value)] = value
        return memo


def _name_methods(root: torch.nn.Module, made: torch.nn.Module) -> None:
    """Scripted methods keep their Python signature: torch.export does not look into those."""
    for child, twin in zip(root.modules(), made.modules(), strict=True):
        if isinstance(child, torch.jit.ScriptModule):
            for name, method in vars(child).items():
                if isinstance(method, torch._C.ScriptMethod) and hasattr(method, "__wrapped__"):
                    own = cast("Any", twin)._c._get_method(name)
                    vars(twin)[name] = functools.wraps(method.__wrapped__)(own)


_WEIGHTS = {torch.nn.Parameter, torch.Tensor}
_LOCKS = {type(make()): make for make in (threading.Lock, threading.RLock)}


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return (str(error).strip().splitlines() or [""])[0][:200]


def _sharing(weight: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
    """A parameter like ``weight`` on another's memory, and with its version counter."""
    plain = memory.detach()
    if isinstance(weight, torch.nn.Parameter):
        made: torch.Tensor = torch.nn.Parameter(plain, requires_grad=weight.requires_grad)
        if type(weight) is not torch.nn.Parameter:
            made.__class__ = type(weight)
    else:
        made = plain.requires_grad_(weight.requires_grad)
    vars(made).update(vars(weight))
    return made


class _Rebinding:
    """Gives the functions in a copy closures of their own: deepcopy shares functions."""

    def __init__(self, memo: dict[int, Any], foreign: Mapping[int, Any]) -> None:
        self._memo, self._foreign = memo, foreign
        self._done: dict[int, Any] = {}

    def rebind(self, made: torch.nn.Module) -> None:
        """In all boxes that are the copy's own."""
        self._found = Contents(made, functions=False)
        number = 0
        # A new function brings the boxes in its closure.
        while number < len(self._found.boxes):
            box = self._found.boxes[number]
            number += 1
            if id(box) in self._foreign or isinstance(box, set):
                continue
            for key, value in box_items(box).items():
                if _has_closure(value):
                    set_item(box, key, self._own(value))

    def _own(self, value: Any) -> Any:
        """What is called in place of a function, or of a partial or bound one."""
        if isinstance(value, types.MethodType):
            return types.MethodType(self._own(value.__func__), value.__self__)
        if isinstance(value, BOUND_IN_C):
            return getattr(copy.deepcopy(value.__self__, self._memo), value.__name__)
        if isinstance(value, functools.partial):
            made = functools.partial(self._own(value.func), *value.args, **value.keywords)
            vars(made).update(vars(value))
            return made
        return self._function(value) if _has_closure(value) else value

    def _function(self, given: types.FunctionType) -> types.FunctionType:
        if id(given) in self._done:
            known: types.FunctionType = self._done[id(given)]
            return known
        cells = tuple(types.CellType() for _ in given.__closure__ or ())
        cells = tuple(
            self._done.setdefault(id(old), new)
            for old, new in zip(given.__closure__ or (), cells, strict=True)
        )
        made = types.FunctionType(
            given.__code__, given.__globals__, given.__name__, given.__defaults__, cells
        )
        self._done[id(given)] = self._done[id(made)] = made
        made.__kwdefaults__, made.__qualname__ = given.__kwdefaults__, given.__qualname__
        made.__module__ = given.__module__
        for old, new in zip(given.__closure__ or (), cells, strict=True):
            self._fill(old, new)
        vars(made).update({key: self._inner(value) for key, value in vars(given).items()})
        return made

    def _fill(self, old: types.CellType, new: types.CellType) -> None:
        if box_items(new) or not box_items(old):
            return
        content = old.cell_contents
        new.cell_contents = content
        try:
            own = self._inner(content)
        except Exception:  # noqa: BLE001 (it is shared then; whether that matters is checked)
            return
        new.cell_contents = own
        self._found.add(own)

    def _inner(self, value: Any) -> Any:
        if isinstance(value, types.FunctionType):
            return self._own(value)
        return self._own(copy.deepcopy(value, self._memo))


def _may_hold(value: Any) -> bool:
    if isinstance(value, types.FunctionType | types.MethodType | functools.partial):
        return True
    return hasattr(type(value), "__deepcopy__") and not isinstance(value, _COPIED_WELL)


_COPIED_WELL = (torch.Tensor, np.ndarray, np.generic, enum.Enum)


def _has_closure(value: Any) -> bool:
    if isinstance(value, BOUND_IN_C):
        return isinstance(value.__self__, BOXES)
    if isinstance(value, functools.partial | types.MethodType):
        return _has_closure(getattr(value, "func", None) or getattr(value, "__func__", None))
    return isinstance(value, types.FunctionType) and bool(value.__closure__)


def _check_apart(root: torch.nn.Module, made: torch.nn.Module) -> None:
    """CopyError where the copy can still reach a module of the original, or what one holds."""
    original = {id(child): (child, path) for path, child in root.named_modules()}
    for path, child in root.named_modules():
        for name, value in vars(child).items():
            if isinstance(value, BOXES):
                original[id(value)] = (value, f"{path}.{name}")
    found = Contents(made)
    near = [*found.seen.values(), *(ref() for ref in found.references)]
    near += [value for function in found.functions for value in _globals_of(function)]
    for value in near:
        if id(value) in original and original[id(value)][0] is value:
            path = user_code.module_path(original[id(value)][1])
            raise CopyError(f"something in it keeps a hold on {path or 'the module'} from outside")


def _globals_of(function: types.FunctionType) -> Iterator[Any]:
    """The global variables that a function's code names."""
    waiting = [function.__code__]
    while waiting:
        code = waiting.pop()
        waiting += [part for part in code.co_consts if isinstance(part, types.CodeType)]
        yield from (function.__globals__[n] for n in code.co_names if n in function.__globals__)
