"""What torch.export fixes where a size varies, in operations that it can keep.

``math.sqrt`` takes a number, and ``torch.linspace`` an int: both would make one of a size.
"""

from __future__ import annotations

import contextlib
import math
import operator
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


def _square_root(original: Callable[[Any], float]) -> Callable[[Any], Any]:
    def sqrt(number: Any, /) -> Any:
        varies = isinstance(number, torch.SymInt | torch.SymFloat)
        return number**0.5 if varies else original(number)

    return sqrt


_DATA: Any = torch.Tensor.data


class _Sized(TorchFunctionMode):
    """Does linspace by a size that varies as torch's kernel does it, from both ends.

    ``x.data`` is ``x.detach()`` meanwhile: of what is written through it a graph knows nothing, and
    torch crashes on such a graph.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.linspace:
            return _linspace(*args, **(kwargs or {}))
        if getattr(func, "__self__", None) is _DATA and func.__name__ == "__get__":
            return args[0].detach()
        return func(*args, **(kwargs or {}))


def _linspace(start: Any, end: Any, steps: Any, *, dtype: Any = None, **options: Any) -> Any:
    numbers = not isinstance(start, torch.Tensor) and not isinstance(end, torch.Tensor)
    wide = dtype or torch.get_default_dtype()
    if not isinstance(steps, torch.SymInt) or not numbers or not wide.is_floating_point:
        return torch.linspace(start, end, steps, dtype=dtype, **options)
    size: Any = steps
    number = torch.arange(size, dtype=torch.int64, device=options.get("device")).to(wide)
    apart, most = float(end - start), torch.sym_max(size - 1, 1)
    first = start + number / most * apart
    last = end - (size - 1 - number) / most * apart
    return torch.where(number < (size + 1) // 2, first, last)


def with_powers(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """``sqrt`` of a size, as TorchDynamo notes it, as the power that the exporter knows."""
    root = getattr(torch, "_sym_sqrt", None)
    for node in program.graph.nodes:
        if root is not None and node.target is root:
            node.target, node.args = operator.pow, (node.args[0], 0.5)
    program.graph_module.recompile()
    return program


@contextlib.contextmanager
def by_sizes() -> Iterator[None]:
    """Replace both for a while; of numbers they are what they were."""
    before = math.sqrt
    math.sqrt = _square_root(before)
    try:
        with _Sized():
            yield
    finally:
        math.sqrt = before
