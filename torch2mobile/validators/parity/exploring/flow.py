"""Where a module's inputs go, seen in one run of it: tables they index, numbers they meet.

Observed below autograd, operation by operation, with what is known of each tensor: the inputs that
it comes from, and how. The file plays no part in it, as it may be the one that is wrong.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from torch2mobile.copies import fresh
from torch2mobile.dispatch import Operations, short_name, work_of
from torch2mobile.records import LoadedModel
from torch2mobile.tensors import quiet
from torch2mobile.validators.parity.calls import run, tensors_of
from torch2mobile.validators.parity.probes import HEAVY

if TYPE_CHECKING:
    import numpy as np

# The same values, at other places.
_MOVES = {
    *("view", "_unsafe_view", "_reshape_alias", "clone", "alias", "detach", "expand", "permute"),
    *("transpose", "t", "unsqueeze", "squeeze", "slice", "select", "cat", "stack", "flip", "roll"),
    *("split", "split_with_sizes", "unbind", "_to_copy", "lift_fresh", "lift_fresh_copy"),
    *("repeat", "unfold", "diagonal", "as_strided", "contiguous", "tril", "triu"),
}
_COMPARE = {"lt", "le", "gt", "ge", "eq", "ne"}
# The same values between two ends.
_CUTTING = {"clamp", "clamp_min", "clamp_max", "hardtanh", "relu"}
# What is taken of them has ends, whatever they are.
_BOUNDING = {
    *_COMPARE,
    *_CUTTING,
    *("remainder", "fmod", "bitwise_and", "sign"),
    *("logical_and", "logical_or", "logical_not", "logical_xor", "any", "all"),
}
# The index is this argument, the table the first.
_LOOK_UPS = {"embedding": 1, "index_select": 2, "gather": 2, "take": 1}
# Nothing is made as large as the numbers in them say, and nothing traps on them.
_ARITHMETIC = {
    *_MOVES,
    *_BOUNDING,
    *_LOOK_UPS,
    *("add", "sub", "rsub", "mul", "div", "floor_divide", "neg", "abs", "minimum", "maximum"),
    *("bitwise_or", "bitwise_xor", "bitwise_not", "where", "masked_fill", "sum", "cumsum"),
    *("amax", "amin", "max", "min", "argmax", "argmin", "sort", "topk", "index", "new_zeros"),
    *("zeros_like", "ones_like", "full_like", "empty_like"),
}
_NAN_AWARE = {
    *("nan_to_num", "isnan", "isinf", "isfinite", "fmax", "fmin", "maximum", "minimum", "nansum"),
    *("nanmean", "isneginf", "isposinf", "nanmedian"),
}
# ONNX Runtime's kernels pass NaN on in these as PyTorch does; in pooling and in greatest values
# they do not.
NAN_SAFE = {
    *_MOVES,
    *_NAN_AWARE,
    *_COMPARE,
    *("add", "sub", "rsub", "mul", "div", "neg", "abs", "exp", "log", "sqrt", "sigmoid", "tanh"),
    *("relu", "leaky_relu", "elu", "hardswish", "clamp", "clamp_min", "clamp_max", "hardtanh"),
    *("where", "masked_fill", "erf", "floor", "ceil", "round", "sign", "silu", "softplus"),
    *("sum", "mean", "logical_not", "logical_and", "logical_or", "bitwise_and", "bitwise_or"),
    *("bitwise_not", "_local_scalar_dense", "full_like", "zeros_like", "ones_like", "reciprocal"),
    *("square", "new_zeros", "new_ones", "new_full", "empty_like", "scalar_tensor"),
}


@dataclass(frozen=True)
class Trail:
    """How a tensor came from an input: its values are ``slope * input + offset``, where known."""

    name: str
    slope: float | None = 1.0
    offset: float | None = 0.0
    bounded: bool = False


@dataclass
class Flow:
    """What became of the inputs, by name.

    ``rows`` has the least and greatest whole number with which every table is indexed inside it;
    ``loose`` the whole inputs that meet nothing but arithmetic, and ``floating`` those that become
    floats in it; ``met`` the values that an input is compared with, ``exactly`` those that no
    rounding comes before; ``rounded`` slope and offset of what is rounded; ``nan`` and ``inf``
    those that reach an operation which treats NaN, or infinities, in a way of its own. ``work`` is
    the number of floating-point operations, as torch.utils.flop_counter counts them, and
    ``operations`` the names of all that ran.
    """

    rows: dict[str, tuple[int, int]] = field(default_factory=dict)
    entered: dict[str, set[str]] = field(default_factory=dict)
    floating: set[str] = field(default_factory=set)
    met: dict[str, set[float]] = field(default_factory=dict)
    exactly: dict[str, set[float]] = field(default_factory=dict)
    rounded: dict[str, set[tuple[float, float]]] = field(default_factory=dict)
    nan: set[str] = field(default_factory=set)
    inf: set[str] = field(default_factory=set)
    work: int = 0
    operations: set[str] = field(default_factory=set)

    @property
    def heavy(self) -> bool:
        """Whether a run takes long, so that there should be few."""
        return self.work > HEAVY

    def loose(self, name: str) -> bool:
        """Whether only arithmetic follows on a whole input, so that any number may be tried."""
        return name in self.entered and self.entered[name] <= _ARITHMETIC


class _Follower(Operations):
    """Within it, the inputs' values are followed through every operation."""

    def __init__(self, inputs: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        self.flow = Flow()
        self._trails: Any = WeakTensorKeyDictionary()
        for name, tensor in inputs.items():
            self._trails[tensor] = (Trail(name),)

    def operation(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one operation and note what reaches it."""
        result = func(*args, **kwargs)
        op = short_name(func)
        self.flow.operations.add(op)
        self.flow.work += work_of(func, args, kwargs, result)
        leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        reached = [(leaf, trail) for leaf in leaves for trail in self._trails.get(leaf, ())]
        if reached:
            self._note(op, args, reached)
            after = tuple(dict.fromkeys(self._after(op, args, reached)))[:8]
            for leaf in tree_leaves(result):
                if isinstance(leaf, torch.Tensor):
                    self._trails[leaf] = after
                    if leaf.is_floating_point():
                        self.flow.floating |= {each.name for each in after if not each.bounded}
        return result

    def _after(
        self, op: str, args: Sequence[Any], reached: Sequence[tuple[torch.Tensor, Trail]]
    ) -> Iterator[Trail]:
        for leaf, trail in reached:
            if op in _LOOK_UPS and leaf is not args[0]:
                continue  # what is found in a table is not the number that found it
            if op == "index" and leaf is not args[0]:
                continue
            if op in _MOVES:
                yield trail
                continue
            bounded = trail.bounded or op in _BOUNDING
            slope, offset = _affine(op, args, leaf, trail)
            yield replace(trail, slope=slope, offset=offset, bounded=bounded)

    def _note(
        self, op: str, args: Sequence[Any], reached: Sequence[tuple[torch.Tensor, Trail]]
    ) -> None:
        flow = self.flow
        for leaf, trail in reached:
            if not leaf.is_floating_point():
                flow.entered.setdefault(trail.name, set()).add(op)
            elif op in _NAN_AWARE or (op == "ne" and len(args) > 1 and args[1] is leaf):
                flow.nan.add(trail.name)
                if op not in {"maximum", "minimum", "fmax", "fmin"}:
                    flow.inf.add(trail.name)
            if trail.slope:
                self._note_numbers(op, args, leaf, trail)
        at = _LOOK_UPS.get(op)
        if at is not None and len(args) > at:
            dim = args[1] if at == 2 else 0
            rows = args[0].numel() if op == "take" else args[0].shape[dim] if args[0].dim() else 1
            self._note_rows(args[at], rows, 0)
        elif op == "index":
            for axis, index in enumerate(args[1]):
                if index is not None and index.dtype != torch.bool:
                    rows = args[0].shape[axis]
                    self._note_rows(index, rows, -rows)

    def _note_numbers(self, op: str, args: Sequence[Any], leaf: torch.Tensor, trail: Trail) -> None:
        """The numbers that an input is compared with, and what is rounded of it."""
        if trail.offset is None or trail.slope is None:
            return
        if op == "round":
            pair = trail.slope, trail.offset
            self.flow.rounded.setdefault(trail.name, set()).add(pair)
        if op in _COMPARE | _CUTTING | {"threshold"}:
            others = [_number(arg) for arg in args if arg is not leaf]
            for value in (value for value in others if value is not None):
                plain = (trail.slope, trail.offset) == (1, 0)
                known = self.flow.exactly if plain else self.flow.met
                known.setdefault(trail.name, set()).add((value - trail.offset) / trail.slope)

    def _note_rows(self, index: torch.Tensor, rows: int, least: int) -> None:
        for trail in self._trails.get(index, ()):
            if not trail.slope or trail.slope < 0:
                continue
            if trail.offset is None or not index.numel():
                continue
            low = math.ceil((least - trail.offset) / trail.slope)
            high = math.floor((rows - 1 - trail.offset) / trail.slope)
            known = self.flow.rows.get(trail.name, (low, high))
            self.flow.rows[trail.name] = max(known[0], low), min(known[1], high)


def _number(value: Any) -> float | None:
    """A finite number that an operation was given, as itself or as a tensor of one."""
    if isinstance(value, torch.Tensor):
        if value.numel() != 1 or value.is_complex():
            return None
        value = value.item()
    if isinstance(value, bool | int | float) and math.isfinite(value):
        return float(value)
    return None


_Line = tuple[float | None, float | None]
# Of slope, offset and a number: the line after an operation with the number.
_LINES: Mapping[str, Callable[[float, float, float], _Line]] = {
    "add": lambda a, b, c: (a, b + c),
    "sub": lambda a, b, c: (a, b - c),
    "rsub": lambda a, b, c: (-a, c - b),
    "mul": lambda a, b, c: (a * c, b * c),
    "div": lambda a, b, c: (a / c, b / c) if c else (None, None),
}
# The same with the number first; an operation that is not here is not a line then.
_TURNED = {"add": "add", "mul": "mul", "sub": "rsub", "rsub": "sub"}


def _affine(op: str, args: Sequence[Any], leaf: torch.Tensor, trail: Trail) -> _Line:
    """Slope and offset after one operation with a number; None where they are not known."""
    slope, offset = trail.slope, trail.offset
    if slope is None or offset is None or op in _CUTTING:
        return slope, offset
    if op == "neg":
        return -slope, -offset
    others = [arg for arg in args if arg is not leaf]
    value = _number(others[0]) if len(args) == 2 and len(others) == 1 else None
    line = _LINES.get(op if args[0] is leaf else _TURNED.get(op, ""))
    return (None, None) if value is None or line is None else line(slope, offset, value)


class _NanWatch(Operations):
    """Within it, NaN and infinities are seen to reach only what runtimes treat alike."""

    def __init__(self) -> None:
        super().__init__()
        self.safe = True

    def operation(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one operation and look at what it is given."""
        op = short_name(func)
        if op not in NAN_SAFE and any(
            isinstance(leaf, torch.Tensor)
            and leaf.is_floating_point()
            and not bool(torch.isfinite(leaf).all())
            for leaf in tree_leaves((args, kwargs))
        ):
            self.safe = False
        return func(*args, **kwargs)


def follow(loaded: LoadedModel, feeds: Mapping[str, np.ndarray]) -> Flow:
    """What becomes of the inputs in one run; nothing where the module refuses to be looked at."""
    tensors = [tensor.clone() for tensor in tensors_of(loaded, feeds)]
    inputs = {spec.name: tensor for spec, tensor in zip(loaded.specs, tensors, strict=True)}
    follower = _Follower(inputs)
    # By its fast path an encoder is one operator, within which nothing is seen.
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with contextlib.suppress(Exception), fresh(loaded, "observed") as own, quiet(), follower:
            cast("Any", own.flat)(*tensors)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return follower.flow


def passes_nan_on(loaded: LoadedModel, feeds: Mapping[str, np.ndarray]) -> bool:
    """Whether NaN and infinities in these inputs reach only what runtimes treat as torch does."""
    watch = _NanWatch()
    try:
        with fresh(loaded, "observed") as own, quiet(), watch:
            run(own.flat, tensors_of(loaded, feeds))
    except Exception:  # noqa: BLE001 (the module is the user's code)
        return False
    return watch.safe
