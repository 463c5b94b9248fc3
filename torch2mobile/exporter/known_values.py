"""Values that are read while a module is captured, and that no input decides: of a mask of ones."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import sympy
import torch
from torch.utils._mode_utils import no_dispatch
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakTensorKeyDictionary

from torch2mobile import user_code
from torch2mobile.dispatch import Operations, short_name

# What these give depends on the size and type of the tensor that they are given, not on its values.
_FILLED = {"ones_like", "zeros_like", "full_like", "new_ones", "new_zeros", "new_full"}

_READING = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.equal.default)


# At so many sizes a tape is run, at most.
_MOST = 512


@dataclass(frozen=True)
class _Made:
    """On a tape, the tensor that was made as the so-many-th."""

    number: int


@dataclass
class Tape:
    """The operations on known values in a capture, to be run again at other sizes.

    ``reads`` have the user's line, the value that was read there, and the place in ``steps``.
    """

    steps: list[tuple[Any, Any, Any]] = field(default_factory=list)
    reads: list[tuple[tuple[str, int], Any, int]] = field(default_factory=list)
    _answers: dict[tuple[int, ...], list[Any]] = field(default_factory=dict)

    def sizes(self) -> set[sympy.Symbol]:
        """torch's symbols of the sizes in all of it."""
        leaves = tree_leaves([step[1:] for step in self.steps])
        return {s for leaf in leaves if isinstance(leaf, sympy.Basic) for s in leaf.free_symbols}

    def at(self, sizes: Mapping[sympy.Symbol, int]) -> list[Any]:
        """What each read gives at these sizes; LookupError once too many have been tried."""
        key = tuple(sizes.values())
        if key not in self._answers:
            if len(self._answers) >= _MOST:
                raise LookupError
            made: list[Any] = []

            def real(value: Any) -> Any:
                if isinstance(value, sympy.Basic):
                    return int(value.subs(sizes))
                return made[value.number] if isinstance(value, _Made) else value

            for func, args, kwargs in self.steps:
                made += tree_leaves(func(*tree_map(real, args), **tree_map(real, kwargs)))
            self._answers[key] = [made[number] for *_, number in self.reads]
        return self._answers[key]


TAPES: WeakKeyDictionary[Any, Tape] = WeakKeyDictionary()
"""By the environment that has a capture's sizes, what was read in it."""


class KnownValues(Operations):
    """Computes beside the capture what comes of constants and sizes, and says it where it is read.

    The sizes are the example's; what has another value at others is an assumption of the capture.
    """

    def __init__(self) -> None:
        super().__init__()
        self._tape, self._count = Tape(), 0
        self._numbers: Any = WeakTensorKeyDictionary()
        self._values: Any = WeakTensorKeyDictionary()

    def operation(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one operation, and the same with values where all are known."""
        given = [each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
        filled, random = short_name(func) in _FILLED, torch.Tag.nondeterministic_seeded in func.tags
        writes = func._schema.is_mutable
        known = not random and all(
            each in self._values or filled or type(each) is torch.Tensor for each in given
        )
        if writes:  # into what is known alone: what is real is the module's own
            known &= args[0] in self._values
        if known and func in _READING:
            with no_dispatch():
                value = func(*tree_map(self._real, args))
            frames = ((f.f_code.co_filename, line) for f, line in traceback.walk_stack(None))
            line = next((each for each in frames if user_code.is_user_file(each[0])), ("", 0))
            self._tape.reads.append((line, value, self._count))
            self._record(func, args, kwargs, [value])
            return value
        result = func(*args, **kwargs)
        if known:
            self._follow(func, args, kwargs, given, result)
        elif writes or any(each.alias_info for each in func._schema.returns):
            self._forget(given)
        return result

    def _follow(self, func: Any, args: Any, kwargs: Any, given: Any, result: Any) -> None:
        made = [each for each in tree_leaves(result) if isinstance(each, torch.Tensor)]
        try:
            with no_dispatch():
                real = func(*tree_map(self._real, args), **tree_map(self._real, kwargs))
                reals = [each for each in tree_leaves(real) if isinstance(each, torch.Tensor)]
                self._values.update(dict(zip(made, reals, strict=True)))
                self._record(func, args, kwargs, tree_leaves(result))
        except Exception:  # noqa: BLE001 (a number that data decide: it is written, or is a place)
            self._forget(given)

    def _record(self, func: Any, args: Any, kwargs: Any, made: Any) -> None:
        form = tree_map(self._form, args), tree_map(self._form, kwargs)
        self._tape.steps.append((func, *form))
        for each in made:
            if isinstance(each, torch.Tensor):
                self._numbers[each] = self._count
            self._count += 1

    def _form(self, value: Any) -> Any:
        """An argument on the tape: a size as torch's formula, a tensor by its number."""
        if isinstance(value, torch.SymInt):
            TAPES[value.node.shape_env] = self._tape
            return value.node.expr
        if not isinstance(value, torch.Tensor) or type(value) is torch.Tensor:
            return self._real(value)
        if value not in self._numbers:  # of which only the size and type count
            self._record(torch.empty, ([*value.shape],), {"dtype": value.dtype}, [value])
        return _Made(self._numbers[value])

    def _real(self, value: Any) -> Any:
        if isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool):
            if value.node.hint is None:
                raise LookupError(f"{value} is decided by data")
            return value.node.hint
        if not isinstance(value, torch.Tensor) or type(value) is torch.Tensor:
            return value
        if value in self._values:
            return self._values[value]
        return torch.empty([self._real(size) for size in value.shape], dtype=value.dtype)

    def _forget(self, given: list[torch.Tensor]) -> None:
        """Know nothing any more of the memory of these, into which something unknown is written."""
        lost = {_memory(self._values[each]) for each in given if each in self._values}
        for each in [key for key, value in self._values.items() if _memory(value) in lost]:
            del self._values[each]


def _memory(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
