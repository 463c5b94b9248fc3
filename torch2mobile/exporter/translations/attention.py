"""Attention whose masked keys count for nothing, also where all keys of a row are masked."""

from __future__ import annotations

import math
from typing import Any

import onnx_ir as ir

from torch2mobile.exporter.translations.row import FLOATS, Row
from torch2mobile.exporter.translations.values import constant, is_static, like, op, opset, size_of


def scaled_dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """``softmax(query @ key.T * scale + mask) @ value``; 0 for a row without any allowed key.

    Of any rank from 2 up. Masks are boolean (true where a key is allowed) or added to the scores.
    """
    if dropout_p or (is_causal and attn_mask is not None):
        return NotImplemented
    if opset() >= 23 and _is_one_operator(query, key, value, enable_gqa):
        return NotImplemented
    rank, causal = len(key.shape), _causal(query, key) if is_causal else None
    if enable_gqa:
        key, value = (_repeated(each, query) for each in (key, value))
    keys = op.Transpose(key, perm=[*range(rank - 2), rank - 1, rank - 2])
    scores = op.MatMul(op.Mul(query, _scale(query, scale)), keys)
    blocked = None
    if causal is not None:
        scores = op.Where(causal, scores, like(-math.inf, query))
    elif attn_mask is not None:
        scores, blocked = _masked(scores, attn_mask, query)
    weights = op.Softmax(scores, axis=-1)
    if blocked is not None:
        weights = op.Where(blocked, like(0.0, query), weights)
    return op.MatMul(weights, value)


def _is_one_operator(query: Any, key: Any, value: Any, enable_gqa: bool) -> bool:
    """Whether the exporter writes ONNX's own Attention, which is right."""
    if {len(each.shape) for each in (query, key, value)} != {4}:
        return False
    heads = [each.shape[1] for each in (query, key, value)]
    return is_static(*heads) and heads[1] == heads[2] and enable_gqa is (heads[0] != heads[1])


def _scale(query: Any, scale: float | None) -> Any:
    if scale is not None:
        return like(scale, query)
    width = query.shape[-1]
    if isinstance(width, int):
        return like(1 / math.sqrt(width), query)
    return op.Reciprocal(op.Sqrt(op.CastLike(size_of(query, -1), query)))


def _masked(scores: Any, mask: Any, query: Any) -> tuple[Any, Any]:
    """The scores of allowed keys, and the rows that have none of these."""
    if mask.dtype == ir.DataType.BOOL:
        allowed = mask
        scores = op.Where(mask, scores, like(-math.inf, query))
    else:
        bias = op.CastLike(mask, query)
        allowed = op.Not(op.Equal(bias, like(-math.inf, query)))
        scores = op.Add(scores, bias)
    some = op.ReduceMax(op.Cast(allowed, to=ir.DataType.INT32), constant([-1]), keepdims=1)
    return scores, op.Equal(some, constant(0, ir.DataType.INT32))


def _causal(query: Any, key: Any) -> Any:
    """True where the key's place is not behind the query's."""
    rows, columns = (
        op.Range(constant(0), op.Squeeze(size_of(each, -2)), constant(1)) for each in (query, key)
    )
    return op.GreaterOrEqual(
        op.Unsqueeze(rows, constant([1])), op.Unsqueeze(columns, constant([0]))
    )


def _repeated(each: Any, query: Any) -> Any:
    """Keys or values with each head repeated for the queries that share it."""
    heads, wanted = each.shape[-3], query.shape[-3]
    if heads == wanted:
        return each
    if not is_static(heads, wanted):
        return op.Reshape(*_spread(each, op.Div(size_of(query, -3), size_of(each, -3))))
    return op.Reshape(*_spread(each, constant([wanted // heads])))


def _spread(each: Any, times: Any) -> tuple[Any, Any]:
    rank = len(each.shape)
    first, heads, last = (
        op.Shape(each, start=0, end=rank - 3),
        op.Shape(each, start=rank - 3, end=rank - 2),
        op.Shape(each, start=rank - 2, end=rank),
    )
    wide = op.Expand(
        op.Unsqueeze(each, constant([rank - 2])), op.Concat(first, heads, times, last, axis=0)
    )
    return wide, op.Concat(first, op.Mul(heads, times), last, axis=0)


def softmax(x: Any, dim: int, dtype: Any = None) -> Any:
    """In the dtype that is asked for, not in that of ``x``."""
    return _in_dtype(op.Softmax, x, dim, dtype)


def log_softmax(x: Any, dim: int, dtype: Any = None) -> Any:
    """As :func:`softmax`."""
    return _in_dtype(op.LogSoftmax, x, dim, dtype)


def _in_dtype(function: Any, x: Any, dim: int, dtype: Any) -> Any:
    if dtype in {None, -1, x.dtype} or not x.shape:
        return NotImplemented
    return function(op.Cast(x, to=dtype), axis=dim)


ROWS = (
    Row(
        "scaled_dot_product_attention",
        ("aten::scaled_dot_product_attention",),
        scaled_dot_product_attention,
        "wrong",
        "a row without any allowed key gives the mean of the values, PyTorch 0",
        FLOATS,
        "https://github.com/microsoft/onnxscript/pull/2479",
    ),
    Row(
        "softmax (dtype)",
        ("aten::softmax.int", "aten::special_softmax"),
        softmax,
        "wrong",
        "computes in the input's dtype, and casts what is rounded",
        ("float16", "float32", "int32", "int64", "bool"),
    ),
    Row(
        "log_softmax (dtype)",
        ("aten::log_softmax.int", "aten::special_log_softmax"),
        log_softmax,
        "wrong",
        "computes in the input's dtype, and casts what is rounded",
        ("float16", "float32", "int32", "int64", "bool"),
    ),
)
