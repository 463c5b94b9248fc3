"""The module once more, with every sum taken one value after the other in float32.

torch adds in pairs, ONNX Runtime and phones often in a plain loop: over the 50,000 values of a
224 x 224 feature map that alone moves a mean by some 1e-5, and more where all values are equal.
Both orders are float32, so both are noise that an artefact may have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

_aten, _prims = torch.ops.aten, torch.ops.prims
# What is made of sums and means inside; torch's own decompositions show them.
_COMPOSED = (
    _aten.native_layer_norm,
    _aten.native_group_norm,
    _aten.native_batch_norm,
    _aten._native_batch_norm_legit,
    _aten._fused_rms_norm,
    _aten._adaptive_avg_pool2d,
    _aten.linalg_vector_norm,
    _aten.logsumexp,
    _aten.std,
    _aten.std_mean,
    _aten.var,
    _aten.var_mean,
)


class PlainSums(TorchDispatchMode):
    """Within it, float32 sums, means and variances are added up in a plain loop."""

    def __init__(self) -> None:
        from torch._decomp import get_decompositions

        super().__init__()  # type: ignore[no-untyped-call]
        self._composed = get_decompositions(_COMPOSED)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled here: telling TorchDynamo so would import it, for some seconds."""
        return False

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run one operation, in a plain loop if it is a sum."""
        kwargs = kwargs or {}
        float32 = bool(args) and isinstance(args[0], torch.Tensor)
        float32 = float32 and args[0].dtype == torch.float32
        if float32 and func in _LOOPS:
            return _LOOPS[func](*args, **kwargs)
        if float32 and func in self._composed:
            with self:
                return self._composed[func](*args, **kwargs)
        return func(*args, **kwargs)


def _sum(x: torch.Tensor, dim: Any = None, keepdim: bool = False, **_: Any) -> torch.Tensor:
    axes = _axes(x, dim)
    kept = [axis for axis in range(x.dim()) if axis not in axes]
    rows = x.permute((*kept, *axes)).reshape((*(x.shape[axis] for axis in kept), -1))
    if not rows.shape[-1]:
        total = torch.zeros(rows.shape[:-1])
    else:
        total = torch.from_numpy(np.add.accumulate(rows.numpy(), axis=-1)[..., -1].copy())
    for axis in sorted(axes) if keepdim else ():
        total = total.unsqueeze(axis)
    return total


def _axes(x: torch.Tensor, dim: Any) -> list[int]:
    if dim is None or (isinstance(dim, Sequence) and not dim):
        return list(range(x.dim()))
    return [axis % x.dim() for axis in ([dim] if isinstance(dim, int) else dim)] if x.dim() else []


def _mean(x: torch.Tensor, dim: Any = None, keepdim: bool = False, **_: Any) -> torch.Tensor:
    total = _sum(x, dim, keepdim)
    return total / (x.numel() / max(1, total.numel()))


def _var(x: torch.Tensor, dim: Any = None, correction: Any = 1, **_: Any) -> torch.Tensor:
    count = x.numel() / max(1, _mean(x, dim).numel())
    off = x - _mean(x, dim, keepdim=True)
    return _sum(off * off, dim) / max(0.0, count - float(1 if correction is None else correction))


def _cumsum(x: torch.Tensor, dim: int, **_: Any) -> torch.Tensor:
    if not x.dim():
        return x.clone()
    return torch.from_numpy(np.add.accumulate(x.numpy(), axis=dim))


_LOOPS: dict[Any, Callable[..., torch.Tensor]] = {
    _aten.sum.default: _sum,
    _aten.sum.dim_IntList: _sum,
    _aten.mean.default: _mean,
    _aten.mean.dim: _mean,
    _aten.cumsum.default: _cumsum,
    _prims.sum.default: _sum,
    _prims.var.default: _var,
}
