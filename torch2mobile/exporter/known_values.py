"""Values that are read while a module is captured, and that no input decides: of a mask of ones."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._mode_utils import no_dispatch
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakTensorKeyDictionary

from torch2mobile.dispatch import Operations, short_name

# What these give depends on the size and type of the tensor that they are given, not on its values.
_FILLED = {"ones_like", "zeros_like", "full_like", "new_ones", "new_zeros", "new_full"}

_READING = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.equal.default)


class KnownValues(Operations):
    """Computes beside the capture what comes of constants and sizes, and says it where it is read.

    The sizes are the example's; the probes, which have others, find a value that follows them.
    """

    def __init__(self) -> None:
        super().__init__()
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
                return func(*tree_map(self._real, args))
        result = func(*args, **kwargs)
        made = [each for each in tree_leaves(result) if isinstance(each, torch.Tensor)]
        if known:
            self._follow(func, args, kwargs, given, made)
        elif writes or any(each.alias_info for each in func._schema.returns):
            self._forget(given)
        return result

    def _follow(self, func: Any, args: Any, kwargs: Any, given: Any, made: Any) -> None:
        try:
            with no_dispatch():
                real = func(*tree_map(self._real, args), **tree_map(self._real, kwargs))
                reals = [each for each in tree_leaves(real) if isinstance(each, torch.Tensor)]
                self._values.update(dict(zip(made, reals, strict=True)))
        except Exception:  # noqa: BLE001 (a number that data decide: it is written, or is a place)
            self._forget(given)

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
