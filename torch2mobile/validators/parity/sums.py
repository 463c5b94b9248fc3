"""The module once more, with its sums taken in another order in float32.

torch adds in pairs, ONNX Runtime and phones often in a plain loop: over the 50,000 values of a
224 x 224 feature map that alone moves a mean by some 1e-5, and more where all values are equal.
All orders are float32, so all are noise that an artefact may have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from torch2mobile.dispatch import Operations

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


class _Sums(Operations):
    """Within it, some float32 operations are computed in another way."""

    ways: dict[Any, Callable[..., torch.Tensor]]

    def __init__(self) -> None:
        from torch._decomp import get_decompositions

        super().__init__()
        self._composed = get_decompositions(_COMPOSED)

    def operation(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one operation, in the other way if it is a sum."""
        float32 = bool(args) and isinstance(args[0], torch.Tensor)
        float32 = float32 and args[0].dtype == torch.float32
        if (float32 or func in _TRANSFORMS) and func in self.ways:
            return self.ways[func](*args, **kwargs)
        if float32 and func in self._composed:
            with self:
                return self._composed[func](*args, **kwargs)
        return func(*args, **kwargs)


class PlainSums(_Sums):
    """Within it, float32 sums, means and variances are added up in a plain loop."""

    def __init__(self) -> None:
        super().__init__()
        self.ways = _LOOPS


class CoarseSums(PlainSums):
    """Plain loops, and sums of products and sigmoids off by what other kernels make of them.

    For terms t that are rounded by chance the error is of the order of u * sqrt(sum(t ** 2)), with
    u half of epsilon (Higham, Mary, SIAM J. Sci. Comput. 41, 2019). Where the terms cancel, that is
    much more than a rounding unit of the sum, and one kernel's error does not tell another's.
    ONNX Runtime's Sigmoid is exact to a rounding unit of 1, not of its value, and its DFT takes the
    angles in float32.
    """

    def __init__(self) -> None:
        super().__init__()
        chance = torch.Generator().manual_seed(0)
        near = {op: partial(_near_transform, op, chance) for op in _TRANSFORMS}
        self.ways = {**_LOOPS, **{op: partial(_scattered, op, chance) for op in _PRODUCTS}}
        self.ways |= {_aten.sigmoid.default: partial(_near_sigmoid, chance), **near}


class ReversedSums(_Sums):
    """Within it, float32 sums, also those of products and convolutions, start at the other end."""

    def __init__(self) -> None:
        super().__init__()
        self.ways = _REVERSED


_PRODUCTS = (
    _aten.addmm.default,
    _aten.baddbmm.default,
    _aten.bmm.default,
    _aten.convolution.default,
    _aten.mm.default,
)


def _scattered(op: Any, chance: torch.Generator, *args: Any, **kwargs: Any) -> torch.Tensor:
    """A sum of products, off by half an epsilon of the root of its terms' squares, up or down."""
    found: torch.Tensor = op(*args, **kwargs)
    squares = [a.square() if isinstance(a, torch.Tensor) else a for a in args]
    size: torch.Tensor = op(*squares, **kwargs).clamp(min=0).sqrt()
    return found + _signs(found, chance) * (torch.finfo(found.dtype).eps / 2) * size


def _signs(like: torch.Tensor, chance: torch.Generator) -> torch.Tensor:
    return 2 * torch.randint(2, like.shape, generator=chance) - 1


# Ten floors are allowed: two rounding units of 1, but never more than a hundredth of the values.
_SIGMOID_OFF, _SIGMOID_SHARE = 0.2, 1e-3


def _near_sigmoid(chance: torch.Generator, x: torch.Tensor) -> torch.Tensor:
    """A sigmoid as ONNX Runtime computes it, off by a share of a rounding unit of 1."""
    found = torch.sigmoid(x)
    if not found.numel():
        return found
    off = min(_SIGMOID_OFF * torch.finfo(x.dtype).eps, _SIGMOID_SHARE * float(found.max()))
    return found + _signs(found, chance) * off


_TRANSFORMS = (_aten._fft_r2c.default, _aten._fft_c2r.default, _aten._fft_c2c.default)
# Measured on ONNX Runtime 1.32 from 7 to 1000 points: ten times N, and 40 for a power of two.
_DFT_OFF = 1.5


def _near_transform(op: Any, chance: torch.Generator, x: Any, axes: Any, *rest: Any) -> Any:
    """A Fourier transform as ONNX Runtime computes it: off by N roundings of what it adds up.

    That is the root of the terms' squares, which the result's own mean square is (Parseval). Of a
    power of two, only the logarithm of N: no angle is large there.
    """
    found: torch.Tensor = op(x, axes, *rest)
    if not found.numel():
        return found
    points = max(max(x.shape[axis], found.shape[axis]) for axis in axes)
    factor = points.bit_length() if points & (points - 1) == 0 else _DFT_OFF * points
    size = found.abs().square().mean(axes, keepdim=True).sqrt()
    off = factor * torch.finfo(size.dtype).eps / 2 * size
    if not found.is_complex():
        return found + _signs(found, chance) * off
    return found + torch.complex(_signs(found, chance) * off, _signs(found, chance) * off)


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


def _turned(func: Any) -> Callable[..., torch.Tensor]:
    """A sum over some axes, with these turned round."""

    def run(x: torch.Tensor, dim: Any = None, *rest: Any, **options: Any) -> Any:
        return func(x.flip(_axes(x, dim)), *(() if dim is None else (dim,)), *rest, **options)

    return run


def _turned_in_place(func: Any) -> Callable[..., torch.Tensor]:
    """What keeps the axis that it sums over, as softmax does."""

    def run(x: torch.Tensor, dim: int, *rest: Any, **options: Any) -> Any:
        axes = _axes(x, dim)
        return func(x.flip(axes), dim, *rest, **options).flip(axes)

    return run


def _turned_product(func: Any, first: int) -> Callable[..., torch.Tensor]:
    """A product of the matrices at ``first`` and behind it."""

    def run(*args: Any, **options: Any) -> Any:
        left, right = args[first], args[first + 1]
        turned = left.flip(-1), right.flip(-2)
        return func(*args[:first], *turned, *args[first + 2 :], **options)

    return run


def _turned_convolution(x: torch.Tensor, weight: torch.Tensor, *rest: Any) -> torch.Tensor:
    transposed, groups = rest[4], rest[6]
    if groups == 1:
        x, weight = x.flip(1), weight.flip(0 if transposed else 1)
    found: torch.Tensor = _aten.convolution.default(x, weight, *rest)
    return found


_REVERSED: dict[Any, Callable[..., torch.Tensor]] = {
    **{
        func: _turned(func)
        for func in (
            _aten.sum.default,
            _aten.sum.dim_IntList,
            _aten.mean.default,
            _aten.mean.dim,
            _prims.sum.default,
        )
    },
    # Welford's algorithm gives nearly the same from either end.
    _prims.var.default: _var,
    _aten._softmax.default: _turned_in_place(_aten._softmax.default),
    _aten._log_softmax.default: _turned_in_place(_aten._log_softmax.default),
    _aten.mm.default: _turned_product(_aten.mm.default, 0),
    _aten.bmm.default: _turned_product(_aten.bmm.default, 0),
    _aten.addmm.default: _turned_product(_aten.addmm.default, 1),
    _aten.baddbmm.default: _turned_product(_aten.baddbmm.default, 1),
    _aten.convolution.default: _turned_convolution,
}
