"""Values that are read while a module is captured, and that no input decides: of a mask of ones."""

from __future__ import annotations

import itertools
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch.utils._mode_utils import no_dispatch
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakTensorKeyDictionary

from torch2mobile import user_code
from torch2mobile.dispatch import Operations, short_name
from torch2mobile.exporter.loading import flat_module

if TYPE_CHECKING:
    import sympy

# What these give depends on the size and type of the tensor that they are given, not on its values.
_FILLED = {"ones_like", "zeros_like", "full_like", "new_ones", "new_zeros", "new_full"}

_READING = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.equal.default)


# So many numbers are computed from a tape at most, for all sizes together.
_MOST = 1 << 26


@dataclass(frozen=True)
class _Made:
    """On a tape, the tensor that was made as the so-many-th."""

    number: int


@dataclass(frozen=True)
class _Size:
    """On a tape, a number that sizes decide: torch's formula, and the type that it is of."""

    formula: sympy.Basic
    kind: type

    def at(self, sizes: Mapping[sympy.Symbol, int]) -> Any:
        return self.kind(self.formula.subs(sizes))


@dataclass(frozen=True)
class _Step:
    """An operation, its arguments, and the numbers of what it makes."""

    func: Any
    args: Any
    kwargs: Any
    makes: range

    @property
    def writes(self) -> bool:
        """Whether it changes what it is given."""
        return self.func is not torch.empty and self.func._schema.is_mutable

    @property
    def leaves(self) -> list[Any]:
        return tree_leaves((self.args, self.kwargs))


@dataclass
class Tape:
    """The operations on known values in a capture, to be run again at other sizes.

    ``reads`` have the user's line, if there is one, the truth that was read there, and the number
    that it is made as.
    """

    steps: list[_Step] = field(default_factory=list)
    reads: list[tuple[tuple[str, int] | None, Any, int]] = field(default_factory=list)
    _answers: dict[tuple[Any, ...], dict[int, Any]] = field(default_factory=dict)
    _work: int = 0

    @cached_property
    def needed(self) -> list[_Step]:
        """The steps that lead to the reads; all, where one writes into what others made.

        To be asked for once the capture is made.
        """
        if any(step.writes for step in self.steps):
            return self.steps
        wanted = {number for *_, number in self.reads}
        found = []
        for step in reversed(self.steps):
            if wanted & {*step.makes}:
                found.append(step)
                wanted |= {leaf.number for leaf in step.leaves if isinstance(leaf, _Made)}
        return found[::-1]

    def sizes(self) -> set[sympy.Symbol]:
        """torch's symbols of the sizes that the reads may follow."""
        leaves = [leaf for step in self.needed for leaf in step.leaves]
        return {s for leaf in leaves if isinstance(leaf, _Size) for s in leaf.formula.free_symbols}

    def constants(self) -> list[int]:
        """The whole numbers that are written in the steps: by them a read may be another."""
        leaves = [leaf for step in self.needed for leaf in step.leaves]
        return sorted({abs(leaf) for leaf in leaves if type(leaf) is int})

    def at(self, sizes: Mapping[sympy.Symbol, int]) -> dict[int, Any]:
        """What each read gives at these sizes, by its number; LookupError beyond all bounds."""
        key = tuple(sorted(sizes.items(), key=str))
        if key not in self._answers:
            made: dict[int, Any] = {}

            def real(value: Any) -> Any:
                if isinstance(value, _Size):
                    return value.at(sizes)
                return made[value.number] if isinstance(value, _Made) else value

            for step in self.needed:
                if self._work > _MOST:
                    raise LookupError("too many numbers")
                given = tree_map(real, step.args), tree_map(real, step.kwargs)
                results = tree_leaves(step.func(*given[0], **given[1]))
                made.update(zip(step.makes, results, strict=True))
                self._work += sum(r.numel() for r in results if isinstance(r, torch.Tensor))
            self._answers[key] = {number: made[number] for *_, number in self.reads}
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
        self._sized: Any = WeakTensorKeyDictionary()

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
            follows = any(each in self._sized for each in given)
            # A number that sizes decide would be the example's for good; of a truth it is tried
            # where it is another.
            if not follows or isinstance(value, bool):
                if follows:
                    self._tape.reads.append((_line(), value, self._count))
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
        step = _Step(func, *form, range(self._count, self._count + len(made)))
        tensors = [each for each in made if isinstance(each, torch.Tensor)]
        given = [each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
        sized = any(isinstance(each, _Size) for each in step.leaves)
        if sized or any(each in self._sized for each in given):
            written = self._sharing(given[:1]) if step.writes else []
            self._sized.update(dict.fromkeys([*tensors, *written], True))
        pairs = zip(made, step.makes, strict=True)
        self._numbers.update({each: n for each, n in pairs if isinstance(each, torch.Tensor)})
        self._tape.steps.append(step)
        self._count += len(made)

    def _form(self, value: Any) -> Any:
        """An argument on the tape: a size as torch's formula, a tensor by its number."""
        if isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool):
            TAPES[value.node.shape_env] = self._tape
            return _Size(value.node.expr, type(self._real(value)))
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
        for each in self._sharing(given):
            del self._values[each]

    def _sharing(self, given: list[torch.Tensor]) -> list[torch.Tensor]:
        """All that is known and has the memory of one of these."""
        held = {_memory(self._values[each]) for each in given if each in self._values}
        return [key for key, value in self._values.items() if _memory(value) in held]


def _line() -> tuple[str, int] | None:
    """The file and line of the user's that the module is at."""
    frames = ((f.f_code.co_filename, line) for f, line in traceback.walk_stack(None))
    own = itertools.takewhile(lambda frame: frame[0] != flat_module.__file__, frames)
    return next((frame for frame in own if user_code.is_user_file(frame[0])), None)


def _memory(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
