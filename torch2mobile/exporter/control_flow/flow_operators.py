"""What a rewritten statement calls: torch's operators of control flow, or Python's own statement.

Which of them is decided when it runs: a condition that is no tensor, or a number of steps that is
fixed, is Python's. Where sides are watched, everything is, and each statement notes what it did.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch._higher_order_ops import scan, while_loop
from torch.fx.experimental.symbolic_shapes import statically_known_true

Values = tuple[Any, ...]
_watched: list[tuple[str, int]] | None = None


@contextlib.contextmanager
def watching() -> Iterator[list[tuple[str, int]]]:
    """For a while, in a plain call: by statement the side it took, or how often it ran."""
    global _watched  # noqa: PLW0603 (what is compiled calls these functions by name)
    before, _watched = _watched, []
    try:
        yield _watched
    finally:
        _watched = before


def _note(place: str, side: int) -> None:
    if _watched is not None:
        _watched.append((place, side))


def branch(place: str, test: Any, then: Any, other: Any, given: Values) -> Any:
    """``if test``: what ``then(*given)`` or ``other(*given)`` gives."""
    if _watched is not None or not _is_open(test):
        taken = bool(test)
        _note(place, int(taken))
        return then(*given) if taken else other(*given)

    def first() -> Any:
        return _kept(then(*map(_own, given)))

    def second() -> Any:
        return _kept(other(*map(_own, given)))

    return torch.cond(_truth(test), first, second, ())


def loop(place: str, test: Callable[..., Any], body: Callable[..., Values], given: Values) -> Any:
    """``while test(*given): given = body(*given)``; what is given in the end."""
    if _watched is not None or not _is_open(test(*given)):
        rounds = 0
        while test(*given):
            given, rounds = body(*given), rounds + 1
        _note(place, rounds)
        return given

    def again(*values: Any) -> Any:
        return _truth(test(*values))

    def run(*values: Any) -> Any:
        return _kept(body(*map(_own, values)))

    return while_loop(again, run, _kept(given))


def each(
    place: str, items: Any, body: Callable[..., Any], given: Values, lists: Sequence[list[Any]]
) -> Any:
    """``for item in items``: ``given`` in the end, and each list with what was appended to it.

    ``body(item, *given)`` returns what the next round is given, and what is appended.
    """
    if _watched is not None or not isinstance(items, _Steps):
        rounds = 0
        for item in items:
            given, found = body(item, *given)
            rounds += 1
            for own, value in zip(lists, found, strict=True):
                own.append(value)
        _note(place, rounds)
        return given, lists

    def combine(carried: Any, item: Any) -> Any:
        last, found = body(items.item(item), *map(_own, carried[1:]))
        return (carried[0].clone(), *_kept(last)), _kept(found)

    # There has to be something that is carried.
    start = (torch.zeros(1), *_kept(given))
    carried, found = scan(combine, start, items.tensors)
    return carried[1:], tuple(_Steps(value) for value in found)


class _Steps:
    """One value for each round of a loop: tensors with the rounds along their first axis."""

    def __init__(self, *tensors: torch.Tensor) -> None:
        self.tensors = tensors

    def __iter__(self) -> Iterator[Any]:
        return (self.item(each) for each in zip(*self.tensors, strict=True))

    def __getitem__(self, place: int) -> Any:
        return self.tensors[0][place]

    def __len__(self) -> int:
        return len(self.tensors[0])

    def item(self, parts: Sequence[torch.Tensor]) -> Any:
        """What the loop's variable is in one round."""
        return parts[0] if len(parts) == 1 else tuple(parts)


def counted(*ends: Any) -> Any:
    """``range(*ends)``."""
    if _watched is not None or not any(isinstance(end, torch.SymInt) for end in ends):
        return range(*ends)
    return _Steps(torch.arange(*ends))


def unbound(tensor: Any, dim: int = 0) -> Any:
    """``tensor.unbind(dim)``, or what is iterated over where it is no tensor."""
    if not isinstance(tensor, torch.Tensor):
        return tensor
    if _watched is not None or isinstance(tensor.shape[dim], int):
        return tensor.unbind(dim)
    return _Steps(tensor.movedim(dim, 0))


def numbered(items: Any) -> Any:
    """``enumerate(items)``."""
    if not isinstance(items, _Steps):
        return enumerate(items)
    return _Steps(torch.arange(items.tensors[0].shape[0]), *items.tensors)


def backwards(items: Any) -> Any:
    """``reversed(items)``."""
    if not isinstance(items, _Steps):
        return reversed(items)
    return _Steps(*(tensor.flip(0) for tensor in items.tensors))


def stack(tensors: Any, dim: int = 0) -> torch.Tensor:
    """``torch.stack``."""
    if not isinstance(tensors, _Steps):
        return torch.stack(tensors, dim)
    return tensors.tensors[0].movedim(0, dim)


def cat(tensors: Any, dim: int = 0) -> torch.Tensor:
    """``torch.cat``."""
    if not isinstance(tensors, _Steps):
        return torch.cat(tensors, dim)
    whole = tensors.tensors[0]
    axis = dim % (whole.dim() - 1)
    return whole.movedim(0, axis).flatten(axis, axis + 1)


def at(value: Any, index: Any) -> Any:
    """``value[index]``, where a place in the index may be the number of a round."""
    axis = _axis(value, index)
    if axis is None:
        return value[index]
    parts = index if isinstance(index, tuple) else (index,)
    found = value.index_select(axis, parts[axis].reshape(1))
    return found[(*parts[:axis], 0, *parts[axis + 1 :])]


def put(value: Any, index: Any, new: Any) -> Any:
    """What ``value`` is after ``value[index] = new``; the index as :func:`at` has it."""
    axis = _axis(value, index)
    if axis is None:
        value[index] = new
        return value
    parts = index if isinstance(index, tuple) else (index,)
    if any(part != slice(None) for part in (*parts[:axis], *parts[axis + 1 :])):
        raise NotImplementedError("a part of a round's place is written: write all of it")
    new = torch.as_tensor(new, dtype=value.dtype).expand(
        *value.shape[:axis], *value.shape[axis + 1 :]
    )
    return value.index_copy(axis, parts[axis].reshape(1), new.unsqueeze(axis))


def _axis(value: Any, index: Any) -> int | None:
    """The axis along which an index has the number of a round; None for an index of Python's."""
    parts = index if isinstance(index, tuple) else (index,)
    axes = [n for n, part in enumerate(parts) if _is_number(part)]
    plain = all(isinstance(part, int | slice) or _is_number(part) for part in parts)
    return axes[0] if isinstance(value, torch.Tensor) and len(axes) == 1 and plain else None


def _is_number(part: Any) -> bool:
    return isinstance(part, torch.Tensor) and part.dim() == 0 and part.dtype == torch.int64


def both(first: Any, *others: Callable[[], Any]) -> Any:
    """``first and others()``."""
    for other in others:
        if _is_open(first):
            first = _truth(first) & _truth(other())
        else:
            first = first and other()
    return first


def either(first: Any, *others: Callable[[], Any]) -> Any:
    """``first or others()``."""
    for other in others:
        if _is_open(first):
            first = _truth(first) | _truth(other())
        else:
            first = first or other()
    return first


def negated(value: Any) -> Any:
    """``not value``."""
    return ~_truth(value) if _is_open(value) else not value


def _is_open(test: Any) -> bool:
    """Whether a condition is known only when the file runs."""
    if isinstance(test, torch.SymBool):
        return not (statically_known_true(test) or statically_known_true(torch.sym_not(test)))
    return isinstance(test, torch.Tensor | torch.SymFloat | torch.SymInt)


def _truth(test: Any) -> Any:
    """A condition as torch has it: a boolean of one element."""
    if isinstance(test, torch.Tensor):
        return test.reshape(()) if test.dtype == torch.bool else test.reshape(()) != 0
    return test if isinstance(test, bool | torch.SymBool) else test != 0


def _own(value: Any) -> Any:
    """A tensor that may be written into."""
    return value.clone() if isinstance(value, torch.Tensor) else value


def _kept(values: Any) -> Any:
    """Values as an operator may return them: tensors that are no other's memory."""
    return torch.utils._pytree.tree_map(_tensor, values)


def _tensor(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.clone(memory_format=torch.contiguous_format)
    if isinstance(value, torch.SymInt):
        return torch.full((), value, dtype=torch.int64)  # type: ignore[call-overload]
    # Not torch.tensor: what that gives is a constant, which a graph within a graph may not have.
    return torch.full((), value) if isinstance(value, bool | int | float) else value
