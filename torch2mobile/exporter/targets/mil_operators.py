"""What the operators of a MIL program compute, after coremltools' documentation of each.

One function an operator, with MIL's own names and defaults of its inputs. Floats come in float32,
constants and sizes as tensors too, and strings as they are; the evaluator rounds what is returned
to the type that the program declares.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from torch2mobile.exporter.targets import mil_indexing, mil_layers, mil_recurrent

Operator = Callable[..., Any]
# The inputs that are always several tensors, also where there is one.
LISTED = frozenset({"values"})


def cast(x: Tensor, dtype: str) -> Tensor:
    """To a type by MIL's name of it; the program declares the same."""
    if dtype == "bool":
        return x != 0
    return x.trunc() if dtype.startswith(("int", "uint")) and x.is_floating_point() else x


def clip(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """At least ``alpha`` and at most ``beta``."""
    return torch.minimum(torch.maximum(x, alpha), beta)


def gelu(x: Tensor, mode: str = "EXACT") -> Tensor:
    """GELU, exact or by one of two approximations."""
    if mode == "SIGMOID_APPROXIMATION":
        return x * torch.sigmoid(1.702 * x)
    return F.gelu(x, approximate="tanh" if mode == "TANH_APPROXIMATION" else "none")


def prelu(x: Tensor, alpha: Tensor) -> Tensor:
    """A slope for each channel, or one for all."""
    slope = alpha.reshape(-1, *[1] * (x.dim() - 2))
    return torch.where(x < 0, slope * x, x)


def pad(x: Tensor, pad: Tensor, mode: str = "constant", constant_val: Any = 0.0) -> Tensor:
    """The last dimensions longer: before and after, dimension by dimension."""
    pairs = pad.reshape(-1, 2).tolist()
    pairs = [[0, 0]] * (x.dim() - len(pairs)) + pairs
    if mode == "constant":
        wide = np.pad(x.numpy(), pairs, constant_values=float(constant_val))
    else:
        wide = np.pad(x.numpy(), pairs, mode={"reflect": "reflect", "replicate": "edge"}[mode])  # type: ignore[call-overload]
    return torch.from_numpy(wide)


def reshape(x: Tensor, shape: Tensor) -> Tensor:
    """Other sizes; 0 keeps that of the same place."""
    sizes = shape.tolist()
    return x.reshape([x.shape[n] if size == 0 else size for n, size in enumerate(sizes)])


def expand_dims(x: Tensor, axes: Tensor) -> Tensor:
    """New dimensions of 1, counted in what comes out."""
    rank = x.dim() + axes.numel()
    for axis in sorted(axis % rank for axis in axes.reshape(-1).tolist()):
        x = x.unsqueeze(axis)
    return x


def squeeze(x: Tensor, axes: Tensor | None = None) -> Tensor:
    """Without these dimensions, or without all of 1."""
    return x.squeeze() if axes is None else x.squeeze(tuple(axes.reshape(-1).tolist()))


def concat(values: Sequence[Tensor], axis: Tensor, interleave: Tensor | None = None) -> Tensor:
    """Side by side, or one row of each in turn."""
    if interleave is not None and bool(interleave):
        stacked = torch.stack(list(values), int(axis) % values[0].dim() + 1)
        return stacked.flatten(int(axis) % values[0].dim(), int(axis) % values[0].dim() + 1)
    return torch.cat([torch.atleast_1d(one) for one in values], int(axis))


def split(
    x: Tensor,
    axis: Tensor,
    num_splits: Tensor | None = None,
    split_sizes: Tensor | None = None,
) -> Sequence[Tensor]:
    """Equal pieces, or those of these sizes."""
    if split_sizes is not None:
        return torch.split(x, split_sizes.tolist(), int(axis))
    assert num_splits is not None
    return torch.split(x, x.shape[int(axis)] // int(num_splits), int(axis))


def range_1d(end: Tensor, start: Tensor, step: Tensor) -> Tensor:
    """From ``start`` to before ``end``."""
    return torch.arange(start.item(), end.item(), step.item())


def cumsum(x: Tensor, axis: Any = 0, exclusive: Any = False, reverse: Any = False) -> Tensor:
    """Sums of all before, with or without the place itself, from either end."""
    dim = int(axis)
    turned = x.flip(dim) if bool(reverse) else x
    summed = turned.cumsum(dim) - (turned if bool(exclusive) else 0)
    return summed.flip(dim) if bool(reverse) else summed


def band_part(x: Tensor, lower: Any = -1, upper: Any = -1) -> Tensor:
    """Zero but for diagonals below and above the main one; -1 keeps all."""
    kept = x if int(upper) < 0 else torch.tril(x, int(upper))
    return kept if int(lower) < 0 else torch.triu(kept, -int(lower))


def topk(
    x: Tensor,
    k: Any = 1,
    axis: Any = -1,
    ascending: Any = False,
    sort: Any = True,
    return_indices: Any = True,
) -> Sequence[Tensor]:
    """The greatest, or least, and where they are; of equal ones the first."""
    del sort, return_indices
    order = torch.sort(x, dim=int(axis), descending=not bool(ascending), stable=True)
    return [one.narrow(int(axis), 0, int(k)) for one in order]


def one_hot(
    indices: Tensor,
    one_hot_vector_size: Tensor,
    axis: Any = -1,
    on_value: Any = 1,
    off_value: Any = 0,
) -> Tensor:
    """A new dimension, ``on_value`` at the index and ``off_value`` elsewhere."""
    size, dim = int(one_hot_vector_size), int(axis)
    places = torch.arange(size).reshape(-1, *[1] * (-1 - dim if dim < 0 else indices.dim() - dim))
    on, off = (torch.as_tensor(value) for value in (on_value, off_value))
    return torch.where(indices.unsqueeze(dim) == places, on, off)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias``."""
    return F.linear(x, weight, bias)


def matmul(x: Tensor, y: Tensor, transpose_x: Any = False, transpose_y: Any = False) -> Tensor:
    """The product of the last two dimensions, each turned or not."""
    x, y = (one.mT if bool(turn) else one for one, turn in ((x, transpose_x), (y, transpose_y)))
    return x @ y


def softmax(x: Tensor, axis: Any = -1) -> Tensor:
    """Exponentials that sum to 1 along one dimension."""
    return x.softmax(int(axis))


def _reduced(function: Callable[..., Tensor]) -> Operator:
    def reduce(x: Tensor, axes: Tensor | None = None, keep_dims: Any = False) -> Tensor:
        dims = list(range(x.dim())) if axes is None else axes.reshape(-1).tolist()
        return function(x, dims, keepdim=bool(keep_dims)) if dims else function(x, [], keepdim=True)

    return reduce


def _product(x: Tensor, dims: Sequence[int], *, keepdim: bool) -> Tensor:
    for dim in dims:
        x = x.prod(dim, keepdim=True)
    return x if keepdim else x.squeeze(tuple(dims))


def _arg(function: Callable[..., Tensor]) -> Operator:
    def where(
        x: Tensor, axis: Any = -1, keep_dims: Any = False, output_dtype: str = "int32"
    ) -> Tensor:
        del output_dtype
        return function(x, int(axis), keepdim=bool(keep_dims))

    return where


_UNARY: Mapping[str, Operator] = {
    "identity": lambda x: x, "square": lambda x: x * x, "softplus": lambda x: x.logaddexp(x * 0),
    "logical_not": torch.logical_not, "relu6": F.relu6, "softsign": F.softsign, "silu": F.silu,
    "erf": torch.erf, "exp2": torch.exp2, "sigmoid": torch.sigmoid, "relu": torch.relu,
    "non_zero": torch.nonzero, "shape": lambda x: torch.tensor(x.shape),
    **{
        name: getattr(torch, name) for name in (
            "abs", "acos", "acosh", "asin", "asinh", "atan", "atanh", "ceil", "cos", "cosh", "exp",
            "floor", "round", "sign", "sin", "sinh", "sqrt", "tan", "tanh",
        )
    },
}  # fmt: skip
_BINARY: Mapping[str, Operator] = {
    "add": torch.add, "sub": torch.sub, "mul": torch.mul, "real_div": torch.true_divide,
    "floor_div": torch.floor_divide, "mod": torch.remainder, "pow": torch.pow,
    "maximum": torch.maximum, "minimum": torch.minimum, "equal": torch.eq, "not_equal": torch.ne,
    "greater": torch.gt, "greater_equal": torch.ge, "less": torch.lt, "less_equal": torch.le,
    "logical_and": torch.logical_and, "logical_or": torch.logical_or,
    "logical_xor": torch.logical_xor,
}  # fmt: skip


def _of_two(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    def both(x: Tensor, y: Tensor) -> Tensor:
        kind = torch.result_type(x, y)
        return function(x.to(kind), y.to(kind))

    return both


def _of_one(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return function(x)


def make_list(
    init_length: Tensor, elem_shape: Any, dtype: str, dynamic_length: Any = False
) -> list[Tensor | None]:
    """A list of Python's; each step of a loop has one of its own."""
    del elem_shape, dtype, dynamic_length
    return [None] * int(init_length)


OPERATORS: Mapping[str, Operator] = {
    **{name: partial(_of_one, function) for name, function in _UNARY.items()},
    **{name: _of_two(function) for name, function in _BINARY.items()},
    "log": lambda x, epsilon=1e-45: torch.log(x + epsilon),
    "rsqrt": lambda x, epsilon=1e-12: torch.rsqrt(x + epsilon),
    "inverse": lambda x, epsilon=1e-4: 1 / (x + epsilon),
    "elu": lambda x, alpha=1.0: torch.where(x > 0, x, torch.expm1(x) * alpha),
    "leaky_relu": lambda x, alpha=0.01: torch.where(x >= 0, x, x * alpha),
    "linear_activation": lambda x, alpha=1.0, beta=0.0: x * alpha + beta,
    "scaled_tanh": lambda x, alpha=1.0, beta=1.0: alpha * torch.tanh(beta * x),
    "sigmoid_hard": lambda x, alpha=0.2, beta=0.5: (x * alpha + beta).clamp(0, 1),
    "threshold": lambda x, alpha=0.0: torch.maximum(x, torch.as_tensor(alpha)),
    "thresholded_relu": lambda x, alpha=1.0: torch.where(x >= alpha, x, 0.0),
    "select": lambda cond, a, b: torch.where(cond.bool(), a, b),
    "transpose": lambda x, perm: x.permute(perm.tolist()),
    "reverse": lambda x, axes=None: x.flip(range(x.dim()) if axes is None else axes.tolist()),
    "tile": lambda x, reps: x.tile(reps.tolist()),
    "fill": lambda shape, value=0.0: torch.full(shape.tolist(), torch.as_tensor(value).item()),
    "fill_like": lambda ref_tensor, value=0.0: torch.full(
        ref_tensor.shape, torch.as_tensor(value).item()
    ),
    "stack": lambda values, axis: torch.stack(list(values), int(axis)),
    "flatten2d": lambda x, axis=1: x.reshape(math.prod(x.shape[: int(axis)]), -1),
    "argsort": lambda x, axis=-1, ascending=False: torch.argsort(
        x, dim=int(axis), descending=not bool(ascending), stable=True
    ),
    "list_length": lambda ls: torch.tensor(len(ls)),
    "list_read": lambda ls, index: ls[int(index)],
    "list_write": lambda ls, index, value: [
        *ls[: int(index)], value, *ls[int(index) + 1 :]
    ],
    "list_gather": lambda ls, indices: torch.stack([ls[n] for n in indices.tolist()]),
    "einsum": lambda values, equation: torch.einsum(equation, *values),
    "reduce_sum": _reduced(torch.sum),
    "reduce_mean": _reduced(torch.mean),
    "reduce_max": _reduced(torch.amax),
    "reduce_min": _reduced(torch.amin),
    "reduce_prod": _reduced(_product),
    "reduce_l1_norm": _reduced(lambda x, dims, keepdim: x.abs().sum(dims, keepdim=keepdim)),
    "reduce_l2_norm": _reduced(lambda x, dims, keepdim: (x * x).sum(dims, keepdim=keepdim).sqrt()),
    "reduce_sum_square": _reduced(lambda x, dims, keepdim: (x * x).sum(dims, keepdim=keepdim)),
    "reduce_log_sum": _reduced(lambda x, dims, keepdim: x.sum(dims, keepdim=keepdim).log()),
    "reduce_log_sum_exp": _reduced(torch.logsumexp),
    "reduce_argmax": _arg(torch.argmax),
    "reduce_argmin": _arg(torch.argmin),
    **{
        function.__name__: function
        for function in (
            cast, clip, gelu, prelu, pad, reshape, expand_dims, squeeze, concat, split,
            range_1d, cumsum, band_part, topk, one_hot, linear, matmul, softmax,
            make_list,
        )
    },
    **mil_indexing.OPERATORS,
    **mil_layers.OPERATORS,
    **mil_recurrent.OPERATORS,
}  # fmt: skip
