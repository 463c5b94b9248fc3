"""The layers of a MIL program: convolution, pooling, resizing, norms.

As in :mod:`torch2mobile.exporter.targets.mil_operators`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_BACK = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
_MAX = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_MEAN = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    strides: Tensor | None = None,
    pad_type: str = "valid",
    pad: Tensor | None = None,
    dilations: Tensor | None = None,
    groups: Any = 1,
) -> Tensor:
    """Convolution over one to three dimensions."""
    rank = x.dim() - 2
    steps, wide = _each(strides, rank), _each(dilations, rank)
    reach = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], wide, strict=True)]
    x = F.pad(x, _flat(_pads(x, reach, steps, pad_type, pad)))
    return _CONV[rank](x, weight, bias, steps, 0, wide, int(groups))


def conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    strides: Tensor | None = None,
    pad_type: str = "valid",
    pad: Tensor | None = None,
    dilations: Tensor | None = None,
    groups: Any = 1,
    output_shape: Tensor | None = None,
) -> Tensor:
    """Transposed convolution; padding is cut off, ``output_shape`` says where the cut ends."""
    rank = x.dim() - 2
    steps, wide = _each(strides, rank), _each(dilations, rank)
    full = _BACK[rank](x, weight, None, steps, 0, 0, int(groups), wide)
    if pad_type == "same":
        wanted = [n * s for n, s in zip(x.shape[2:], steps, strict=True)]
        spare = [have - size for have, size in zip(full.shape[2:], wanted, strict=True)]
        cut = [(one // 2, one - one // 2) for one in spare]
    else:
        cut = _given(pad, rank) if pad_type == "custom" else [(0, 0)] * rank
    sizes = [n - first - last for n, (first, last) in zip(full.shape[2:], cut, strict=True)]
    if output_shape is not None:
        sizes = output_shape.tolist()[2:]
    for axis, ((first, _), size) in enumerate(zip(cut, sizes, strict=True), 2):
        lacking = max(0, first + size - full.shape[axis])
        more = [0, 0] * (full.dim() - axis - 1) + [0, lacking]
        full = F.pad(full, more).narrow(axis, first, size)
    return full if bias is None else full + bias.reshape(-1, *[1] * rank)


def max_pool(
    x: Tensor,
    kernel_sizes: Tensor,
    pad_type: str,
    strides: Tensor | None = None,
    pad: Tensor | None = None,
    ceil_mode: Any = False,
) -> Tensor:
    """The greatest of each window."""
    rank = x.dim() - 2
    sizes, steps = kernel_sizes.tolist(), _each(strides, rank)
    pads = _pads(x, sizes, steps, pad_type, pad)
    rounded = bool(ceil_mode)
    if all(first == last <= k // 2 for (first, last), k in zip(pads, sizes, strict=True)):
        return _MAX[rank](x, sizes, steps, [first for first, _ in pads], ceil_mode=rounded)
    x = F.pad(x, _flat(pads), value=-math.inf)
    return _MAX[rank](x, sizes, steps, ceil_mode=rounded)


def avg_pool(
    x: Tensor,
    kernel_sizes: Tensor,
    pad_type: str,
    strides: Tensor | None = None,
    pad: Tensor | None = None,
    exclude_padding_from_average: Any = False,
    ceil_mode: Any = False,
) -> Tensor:
    """The mean of each window, of its padding too or not."""
    rank = x.dim() - 2
    sizes, steps = kernel_sizes.tolist(), _each(strides, rank)
    pads = _pads(x, sizes, steps, pad_type, pad)
    rounded, whole = bool(ceil_mode), not bool(exclude_padding_from_average)
    if all(first == last <= k // 2 for (first, last), k in zip(pads, sizes, strict=True)):
        own = [first for first, _ in pads]
        return _MEAN[rank](x, sizes, steps, own, rounded, whole)
    mean = _MEAN[rank](F.pad(x, _flat(pads)), sizes, steps, 0, rounded)
    if whole:
        return mean
    counted = F.pad(torch.ones_like(x), _flat(pads))
    return mean / _MEAN[rank](counted, sizes, steps, 0, rounded)


def upsample_bilinear(
    x: Tensor,
    scale_factor_height: Any = 1,
    scale_factor_width: Any = 1,
    align_corners: Any = True,
) -> Tensor:
    """Both last dimensions resized by factors, between the points next to each."""
    mode = "STRICT_ALIGN_CORNERS" if bool(align_corners) else "UNALIGN_CORNERS"
    return resize_bilinear(x, *_scaled(x, scale_factor_height, scale_factor_width), mode)


def resize_bilinear(
    x: Tensor,
    target_size_height: Any = 1,
    target_size_width: Any = 1,
    sampling_mode: str = "DEFAULT",
) -> Tensor:
    """Both last dimensions resized, between the points next to each."""
    for axis, size in ((-2, int(target_size_height)), (-1, int(target_size_width))):
        length = x.shape[axis]
        at = _GRIDS[sampling_mode](length, size).clamp(0, length - 1)
        low = at.floor()
        share = (at - low).float().reshape(-1, *[1] * (-1 - axis))
        high = (low + 1).clamp(max=length - 1)
        x = torch.lerp(x.index_select(axis, low.long()), x.index_select(axis, high.long()), share)
    return x


def upsample_nearest_neighbor(
    x: Tensor, scale_factor_height: Any = 1, scale_factor_width: Any = 1
) -> Tensor:
    """Both last dimensions resized by factors, each point the one before it."""
    return resize_nearest_neighbor(x, *_scaled(x, scale_factor_height, scale_factor_width))


def resize_nearest_neighbor(x: Tensor, target_size_height: Any, target_size_width: Any) -> Tensor:
    """Both last dimensions resized, each point the one before it."""
    for axis, size in ((-2, int(target_size_height)), (-1, int(target_size_width))):
        at = torch.arange(size) * x.shape[axis] // size
        x = x.index_select(axis, at)
    return x


def pixel_shuffle(x: Tensor, upscale_factor: Tensor) -> Tensor:
    """Channels to blocks of pixels, as PyTorch orders them."""
    return F.pixel_shuffle(x, int(upscale_factor))


def depth_to_space(x: Tensor, block_size: Tensor) -> Tensor:
    """Channels to blocks of pixels, the block's place first."""
    batch, channels, height, width = x.shape
    n = int(block_size)
    apart = x.reshape(batch, n, n, channels // n**2, height, width)
    return apart.permute(0, 3, 4, 1, 5, 2).reshape(batch, -1, height * n, width * n)


def space_to_depth(x: Tensor, block_size: Tensor) -> Tensor:
    """Blocks of pixels to channels, the block's place first."""
    batch, channels, height, width = x.shape
    n = int(block_size)
    apart = x.reshape(batch, channels, height // n, n, width // n, n)
    return apart.permute(0, 3, 5, 1, 2, 4).reshape(batch, -1, height // n, width // n)


def batch_norm(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: Any = 1e-5,
) -> Tensor:
    """Each channel by its recorded mean and variance."""
    return F.batch_norm(x, mean, variance, gamma, beta, eps=float(epsilon))


def instance_norm(
    x: Tensor, gamma: Tensor | None = None, beta: Tensor | None = None, epsilon: Any = 1e-5
) -> Tensor:
    """Each channel of each example by its own mean and variance."""
    dims = tuple(range(2, x.dim()))
    centred = x - x.mean(dims, keepdim=True)
    normal = centred / (centred.square().mean(dims, keepdim=True) + float(epsilon)).sqrt()
    shape = (-1, *[1] * len(dims))
    normal = normal if gamma is None else normal * gamma.reshape(shape)
    return normal if beta is None else normal + beta.reshape(shape)


def layer_norm(
    x: Tensor,
    axes: Tensor | None = None,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: Any = 1e-5,
) -> Tensor:
    """By mean and variance over these dimensions."""
    dims = list(range(x.dim())) if axes is None else [axis % x.dim() for axis in axes.tolist()]
    centred = x - x.mean(dims, keepdim=True)
    normal = centred / (centred.square().mean(dims, keepdim=True) + float(epsilon)).sqrt()
    shape = [x.shape[n] if n in dims else 1 for n in range(min(dims), x.dim())]
    normal = normal if gamma is None else normal * gamma.reshape(shape)
    return normal if beta is None else normal + beta.reshape(shape)


def _each(given: Tensor | None, rank: int) -> list[int]:
    return [1] * rank if given is None else given.tolist()


def _given(pad: Tensor | None, rank: int) -> list[tuple[int, int]]:
    flat = [0] * 2 * rank if pad is None else pad.tolist()
    return list(zip(flat[::2], flat[1::2], strict=True))


def _flat(pads: Sequence[tuple[int, int]]) -> list[int]:
    """As PyTorch's ``pad`` has them: the last dimension first."""
    return [size for pair in reversed(pads) for size in pair]


def _pads(
    x: Tensor, sizes: Sequence[int], steps: Sequence[int], kind: str, pad: Tensor | None
) -> list[tuple[int, int]]:
    """Before and after each dimension."""
    if kind == "custom":
        return _given(pad, len(sizes))
    if kind == "valid":
        return [(0, 0)] * len(sizes)
    found = []
    for length, size, step in zip(x.shape[2:], sizes, steps, strict=True):
        total = max((math.ceil(length / step) - 1) * step + size - length, 0)
        less, more = total // 2, total - total // 2
        found.append((more, less) if kind == "same_lower" else (less, more))
    return found


def _scaled(x: Tensor, height: Any, width: Any) -> tuple[int, int]:
    """The sizes as float32 has them: 3 * 5/3 is 5 there, and 4.99… in float64."""
    rows, columns = (np.float32(size) for size in x.shape[-2:])
    return math.floor(rows * np.float32(height)), math.floor(columns * np.float32(width))


def _strict(length: int, size: int) -> Tensor:
    return torch.arange(size, dtype=torch.float64) * (length - 1) / max(size - 1, 1)


# Where the points of the result lie in what is resized.
_GRIDS: Mapping[str, Callable[[int, int], Tensor]] = {
    "STRICT_ALIGN_CORNERS": _strict,
    "ALIGN_CORNERS": lambda length, size: (
        _strict(length, size) if size > 1 else torch.tensor([(length - 1) / 2], dtype=torch.float64)
    ),
    "DEFAULT": lambda length, size: torch.arange(size, dtype=torch.float64) * length / size,
    "UNALIGN_CORNERS": lambda length, size: (
        (torch.arange(size, dtype=torch.float64) + 0.5) * length / size - 0.5
    ),
    "OFFSET_CORNERS": lambda length, size: (
        (torch.arange(size, dtype=torch.float64) + 0.5) * max(1, length - 1) / size
    ),
}
_FUNCTIONS = (
    conv, conv_transpose, max_pool, avg_pool, upsample_bilinear, resize_bilinear,
    upsample_nearest_neighbor, resize_nearest_neighbor, pixel_shuffle, depth_to_space,
    space_to_depth, batch_norm, instance_norm, layer_norm,
)  # fmt: skip
OPERATORS: Mapping[str, Callable[..., Any]] = {one.__name__: one for one in _FUNCTIONS}
