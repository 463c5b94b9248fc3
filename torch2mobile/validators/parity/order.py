"""What a module gives where ``topk`` and ``sort`` take equal values in another order.

PyTorch promises none for values that are equal, nor any runtime for those that rounding makes so.
What follows the order, a box gathered by its score, is as right with the one as with the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from torch2mobile.dispatch import Operations, arguments
from torch2mobile.tensors import to_numpy
from torch2mobile.validators.parity.channels import is_float, wide
from torch2mobile.validators.parity.picks import near

_aten = torch.ops.aten
_SORTS = {_aten.sort.default, _aten.sort.stable}
# So many nearly equal values are tried in each other's places; of more, only these moves are tried.
MOST = 16
SHIFTS = (1, 2, MOST)


class _InOrder(Operations):
    """Takes equal values first come, first served; then moves nearly equal ones by ``shift``."""

    def __init__(self, shift: int) -> None:
        super().__init__()
        self._shift = shift
        self.met = False
        self.alike = 1

    def operation(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one operator, ``topk`` and ``sort`` in the order wanted."""
        if func is not _aten.topk.default and func not in _SORTS:
            return func(*args, **kwargs)
        given = arguments(func, args, kwargs)
        source, axis = given["self"], given["dim"]
        if not source.dim() or (given.get("stable") and func in _SORTS):
            return func(*args, **kwargs)
        self.met = True
        down = given["largest"] if "k" in given else given["descending"]
        values, indices = torch.sort(source, dim=axis, descending=down, stable=True)
        place, alike = _moved(_numbers(values.movedim(axis, -1)), self._shift)
        self.alike = max(self.alike, alike)
        indices = indices.gather(axis, torch.from_numpy(place).movedim(-1, axis))
        values = source.gather(axis, indices)
        count = given.get("k", source.shape[axis])
        return values.narrow(axis, 0, count), indices.narrow(axis, 0, count)


def _numbers(values: torch.Tensor) -> np.ndarray:
    array = to_numpy(values)
    return wide(array) if values.is_floating_point() else array


def _moved(ranked: np.ndarray, shift: int) -> tuple[np.ndarray, int]:
    """The places of ranked values along the last axis, those of nearly equal ones moved around.

    And how many are nearly equal at most.
    """
    size = ranked.shape[-1]
    at = np.broadcast_to(np.arange(size), ranked.shape)
    first, last = (np.ones(ranked.shape, dtype=bool) for _ in range(2))
    alike = (ranked[..., 1:] == ranked[..., :-1]) | near(ranked, ranked[..., 1:], ranked[..., :-1])
    first[..., 1:] = last[..., :-1] = ~alike
    start = np.maximum.accumulate(np.where(first, at, 0), axis=-1)
    end = np.flip(np.minimum.accumulate(np.flip(np.where(last, at, size), -1), axis=-1), -1)
    count = end - start + 1
    return start + (at - start + shift) % count, int(count.max(initial=1))


class Order:
    """One probe's outputs in other orders, each run once, when needed.

    ``taken`` has the outputs with which an artefact was compared in place of the module's own:
    None where no other order was asked for, nothing where they are in no one order. What follows
    it was left ``open`` where too many values are nearly equal.
    """

    def __init__(self, run: Callable[[Operations], Sequence[np.ndarray]]) -> None:
        self._run = run
        self._known: dict[int, Sequence[np.ndarray] | None] = {}
        self._alike = 1
        self.open = False
        self.taken: Sequence[tuple[str, np.ndarray]] | None = None

    def take(self, outputs: Sequence[tuple[str, np.ndarray]]) -> None:
        """Keep what an artefact was compared with; once that is in no one order, it stays so."""
        if self.taken is None or not outputs:
            self.taken = outputs

    def first(self) -> Sequence[np.ndarray] | None:
        """With equal values first come, first served; None where nothing is ordered."""
        return self._in(0)

    def fitted(
        self, got: Sequence[np.ndarray], own: Sequence[np.ndarray], limits: Sequence[np.ndarray]
    ) -> list[np.ndarray]:
        """By output, where ``got`` is right with nearly equal values in some order, not its own.

        Where too many are nearly equal to try all their orders, that is left ``open``.
        """
        base = self._in(0) or ()
        self.open = self._alike > MOST
        shifts = SHIFTS if self.open else range(1, self._alike)
        others = [given for shift in shifts if (given := self._in(shift)) is not None]
        fits = []
        for number, (mine, want, limit) in enumerate(zip(got, own, limits, strict=True)):
            known = [each[number] for each in (base, *others) if each]
            known = [each for each in known if each.shape == want.shape]
            moves = [_apart(each, known[0], limit) for each in known[1:]]
            hits = [~_apart(each, mine, limit) for each in known]
            some = _any(moves, want.shape)
            fits.append(some if self.open else some & _any(hits, want.shape))
        return fits

    def _in(self, shift: int) -> Sequence[np.ndarray] | None:
        if shift not in self._known:
            mode = _InOrder(shift)
            try:
                given = self._run(mode)
            except Exception:  # noqa: BLE001 (then its own order has to do)
                given = None
            self._alike = max(self._alike, mode.alike)
            self._known[shift] = given if mode.met else None
        return self._known[shift]


def _any(found: Sequence[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    either: np.ndarray = np.logical_or.reduce([np.zeros(shape, dtype=bool), *found])
    return either


def _apart(one: np.ndarray, other: np.ndarray, limit: np.ndarray) -> np.ndarray:
    differ: np.ndarray = one != other
    if is_float(one):
        with np.errstate(invalid="ignore", over="ignore"):
            differ &= ~(np.abs(wide(one) - wide(other)) <= limit)
    return differ
