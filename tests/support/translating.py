"""Calls through translation and ONNX Runtime, many in one model, beside what torch gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir
import onnxruntime
import torch
from torch import nn

from torch2mobile.exporter import capture, translate
from torch2mobile.exporter.loading import source
from torch2mobile.tensors import quiet, to_numpy

Tensors = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Case:
    """One call; the first of ``rounds`` is the example, the others are other sizes and values.

    ``ulps`` is what a result may be off from the float64 truth: relative, plus as many units of
    ``scale`` (of what is summed or cancelled on the way).
    """

    call: Callable[..., Any]
    rounds: tuple[Tensors, ...]
    ulps: float = 4
    scale: float = 0.0

    def varying(self) -> tuple[dict[int, Any] | None, ...]:
        """torch.export's dynamic shapes: what differs from round to round."""
        found = []
        for tensors in zip(*self.rounds, strict=True):
            shapes = [tuple(tensor.shape) for tensor in tensors]
            sizes = enumerate(zip(*shapes, strict=True))
            dims = {axis: torch.export.Dim.DYNAMIC for axis, size in sizes if len(set(size)) > 1}
            found.append(dims or None)
        return tuple(found)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def over(dtypes: Sequence[torch.dtype], call: Any, *rounds: Any, **options: Any) -> list[Case]:
    """One case for each dtype; all floating tensors get it."""

    def cast(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    each = [tuple(r) if isinstance(r, list | tuple) else (r,) for r in rounds]
    return [
        Case(call, tuple(tuple(cast(t, dtype) for t in r) for r in each), **options)
        for dtype in dtypes
    ]


TREE = torch.utils._pytree


class Calls(nn.Module):
    """Many calls in one model: one export and one session for all."""

    def __init__(self, cases: list[Case]) -> None:
        super().__init__()
        self.cases = cases

    def forward(self, *tensors: torch.Tensor) -> list[torch.Tensor]:
        found, rest = [], list(tensors)
        for case in self.cases:
            count = len(case.rounds[0])
            found += TREE.tree_leaves(case.call(*rest[:count]))
            rest = rest[count:]
        return found


def answers(cases: list[Case], tmp_path: Any, **options: Any) -> tuple[Any, list[list[Any]]]:
    """The translation of these calls, and by case and round what ONNX Runtime gives for them."""
    example = [t for case in cases for t in case.rounds[0]]
    shapes = tuple(dims for case in cases for dims in case.varying())
    with quiet():
        loaded = source.from_call("calls", Calls(cases), example, {}, dynamic_shapes=(shapes,))
        captured = capture.capture(loaded)
        made = translate.in_memory(captured, tmp_path, **options)
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    settings.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        onnx_ir.to_proto(made.model).SerializeToString(), settings
    )
    names = [value.name for value in session.get_inputs()]
    found: list[list[Any]] = [[] for _ in cases]
    for number in range(max(len(case.rounds) for case in cases)):
        feeds = [t for case in cases for t in case.rounds[number % len(case.rounds)]]
        flat = session.run(None, {n: to_numpy(t) for n, t in zip(names, feeds, strict=True)})
        for case, mine in zip(cases, found, strict=True):
            if number < len(case.rounds):
                count = len(TREE.tree_leaves(case.call(*case.rounds[number])))
                mine.append(flat[:count])
            else:
                count = len(mine[0])
            flat = flat[count:]
    return made, found


def compare(case: Case, found: list[list[np.ndarray]]) -> None:
    for tensors, arrays in zip(case.rounds, found, strict=True):
        own = [to_numpy(t) for t in TREE.tree_leaves(case.call(*tensors))]
        wide = [t.double() if t.is_floating_point() else t for t in tensors]
        truth = [to_numpy(t) for t in TREE.tree_leaves(case.call(*wide))]
        for array, mine, exact in zip(arrays, own, truth, strict=True):
            assert (array.dtype, array.shape) == (mine.dtype, mine.shape), (array, mine)
            if not np.issubdtype(mine.dtype, np.floating):
                np.testing.assert_array_equal(array, mine)
                continue
            finite = np.isfinite(mine) & np.isfinite(exact)
            np.testing.assert_array_equal(array[~finite], mine[~finite])
            limits = np.finfo(mine.dtype)
            with np.errstate(invalid="ignore"):
                allowed = case.ulps * (
                    limits.eps * (np.abs(exact) + case.scale) + limits.smallest_subnormal
                )
                error = np.minimum(
                    *(np.abs(array.astype(exact.dtype) - each)[finite] for each in (exact, mine))
                )
            worst = np.argmax(error - allowed[finite]) if error.size else 0
            assert (error <= allowed[finite]).all(), (
                f"{array[finite][worst]} for {exact[finite][worst]} ({mine[finite][worst]} of "
                f"{mine.dtype}): off by {error[worst]:.3g}, allowed {allowed[finite][worst]:.3g}"
            )
