"""How noisy a module is where float64 cannot tell: the same function, rounded in other ways.

A module that names float32 in ``forward`` cannot be run in float64, but each of its operations
can: computed in float64 and rounded back, it is the function as float32 has it, with the least
rounding there is. Beside it the same with every result rounded up or down by chance, in proportion
to how near it lies (stochastic rounding: Connolly, Higham, Mary, SIAM J. Sci. Comput. 43, 2021),
and float32 with its sums taken from the other end. How far these lie apart is the module's noise.

What float32 storage itself loses in the same way every time is not seen: a weaker evidence than a
float64 truth.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_map

from torch2mobile.dispatch import Operations
from torch2mobile.validators.parity.sums import ReversedSums
from torch2mobile.validators.parity.tolerance import Roundings

_NARROW = (torch.float32, torch.float16, torch.bfloat16)

Run = Callable[[Operations], Sequence[np.ndarray]]


def evaluate(run: Run, like: Sequence[np.ndarray], *, others: bool = True) -> Roundings | None:
    """The roundings for one input; None where the module does not run in these ways.

    ``run`` calls the module within the mode that it is given. ``like`` are its outputs as they are,
    whose shapes all must have. Without ``others`` only with the least rounding.
    """
    modes: list[Operations] = [Widened()]
    if others:
        modes += [Widened(torch.Generator().manual_seed(0)), ReversedSums()]
    shapes = [array.shape for array in like]
    found = []
    try:
        with one_thread():
            for mode in modes:
                found.append(run(mode))
                if [array.shape for array in found[-1]] != shapes:
                    return None
    except Exception:  # noqa: BLE001 (a module may look at what runs it in any way it likes)
        return None
    return Roundings(found[0], found[1:])


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """One thread and torch's own kernels, whose sums go another way than oneDNN's."""
    threads, onednn = torch.get_num_threads(), torch.backends.mkldnn.enabled
    try:
        torch.set_num_threads(1)
        torch.backends.mkldnn.enabled = False  # type: ignore[assignment]
        yield
    finally:
        torch.backends.mkldnn.enabled = onednn
        torch.set_num_threads(threads)


class Widened(Operations):
    """Within it, each operation is computed in float64 and its results rounded to what they were.

    With a generator, they are rounded up or down by chance.
    """

    def __init__(self, chance: torch.Generator | None = None) -> None:
        super().__init__()
        self._chance = chance

    def operation(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one operation, in float64 if it computes with floats of one narrow dtype."""
        if self._chance is not None and _narrows(func, args, kwargs):
            return self._round(args[0].to(torch.float64), kwargs["dtype"])
        dtype = _narrow_dtype(func, args, kwargs)
        if dtype is None:
            return func(*args, **kwargs)
        try:
            wide_args, wide_kwargs = tree_map(_widen, (args, kwargs))
            found = func(*wide_args, **wide_kwargs)
        except (RuntimeError, NotImplementedError, TypeError):
            # There are kernels for float32 alone.
            return func(*args, **kwargs)
        if func._schema.is_mutable:
            return self._written(func, (args, kwargs), (wide_args, wide_kwargs), dtype, found)
        return tree_map(lambda value: self._round(value, dtype), found)

    def _round(self, value: Any, dtype: torch.dtype) -> Any:
        if not isinstance(value, torch.Tensor) or value.dtype != torch.float64:
            return value
        nearest = value.to(dtype)
        if self._chance is None:
            return nearest
        back = nearest.to(torch.float64)
        # One rounding unit at the value; below the normal numbers it shrinks no more.
        exponent = torch.frexp(value).exponent.to(torch.float64) - 1
        unit = torch.finfo(dtype).eps * torch.exp2(exponent)
        unit = unit.clamp(min=torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps)
        part = torch.rand(value.shape, generator=self._chance, dtype=torch.float64) - 0.5
        moved = (value + part * unit).to(dtype)
        keep = (back == value) | ~torch.isfinite(moved)
        return torch.where(keep, nearest, moved)

    def _written(self, func: Any, given: Any, wide: Any, dtype: torch.dtype, found: Any) -> Any:
        """Write what an operation did to its float64 arguments into the real ones.

        What such an operation returns are the arguments that it wrote to.
        """
        written = []
        for number, argument in enumerate(func._schema.arguments):
            if argument.alias_info is None or not argument.alias_info.is_write:
                continue
            place, wider = (_argument(each, number, argument.name) for each in (given, wide))
            if isinstance(place, torch.Tensor) and place is not wider:
                place.copy_(self._round(wider, dtype))
            written.append(place)
        returned = len(func._schema.returns)
        if returned > 1 or not returned:
            return tuple(written) if returned else found
        return written[0]


_HALVES = (torch.float16, torch.bfloat16)


class _Halves(Operations):
    def __init__(self, found: set[str]) -> None:
        super().__init__()
        self._found = found

    def operation(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one operation and look at the dtype of what it gives."""
        result = func(*args, **kwargs)
        for leaf in result if isinstance(result, tuple | list) else (result,):
            if isinstance(leaf, torch.Tensor) and leaf.dtype in _HALVES:
                self._found.add(str(leaf.dtype).removeprefix("torch."))
        return result


def narrow_results(found: set[str]) -> Operations:
    """Within it, the names of the dtypes below float32 that operations give are put into a set."""
    return _Halves(found)


def _narrows(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether an operation casts to a dtype below float32, which rounds."""
    return (
        func is _aten._to_copy.default
        and kwargs.get("dtype") in _HALVES
        and args[0].dtype in {torch.float32, torch.float64}
    )


def _argument(given: Any, number: int, name: str) -> Any:
    args, kwargs = given
    return args[number] if number < len(args) else kwargs.get(name)


def _narrow_dtype(func: Any, args: Any, kwargs: Any) -> torch.dtype | None:
    """The dtype of an operation's float tensors if it is one narrow one that it computes in.

    Views share memory with their argument, casts name their dtype, and random numbers must be the
    same ones: these stay as they are.
    """
    if func.is_view or kwargs.get("dtype") is not None or func in _AS_THEY_ARE:
        return None
    if {torch.Tag.nondeterministic_seeded, torch.Tag.inplace_view} & set(func.tags):
        return None
    found: set[torch.dtype] = set()

    def look(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and (value.is_floating_point() or value.is_complex()):
            found.add(value.dtype)
        return value

    tree_map(look, (args, kwargs))
    dtype = found.pop() if len(found) == 1 else None
    return dtype if dtype in _NARROW else None


def _widen(value: Any) -> Any:
    narrow = isinstance(value, torch.Tensor) and value.dtype in _NARROW
    return value.to(torch.float64) if narrow else value


_aten = torch.ops.aten
_AS_THEY_ARE = {
    _aten._to_copy.default,
    _aten.clone.default,
    _aten.detach.default,
    _aten.copy_.default,
    _aten.empty_like.default,
    _aten.lift_fresh.default,
    _aten.lift_fresh_copy.default,
    _aten._local_scalar_dense.default,
}
