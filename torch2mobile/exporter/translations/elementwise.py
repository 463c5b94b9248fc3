"""Functions of single elements that keep small arguments, and hold at the ends of the range."""

from __future__ import annotations

import math
from typing import Any

from torch2mobile.exporter.translations.row import FLOATS, REALS, Refused, Row
from torch2mobile.exporter.translations.values import like, op, tensor_of, widened


def log1p(x: Any) -> Any:
    """``log(1 + x)``; the rounding of ``1 + x`` is divided out (Kahan)."""
    return log1p_of(x, like(1.0, x))


def log1p_of(x: Any, one: Any) -> Any:
    """As :func:`log1p`, of any dtype, with 1 in it."""
    total = op.Add(one, x)
    kept = op.Sub(total, one)
    ratio = op.Where(op.Equal(kept, x), one, op.Div(x, kept))
    return op.Where(op.Equal(total, one), x, op.Mul(op.Log(total), ratio))


def expm1(x: Any) -> Any:
    """``exp(x) - 1``; near 0 the rounding of ``exp(x)`` is divided out (Kahan)."""
    one = like(1.0, x)
    power = op.Exp(x)
    less = op.Sub(power, one)
    near = op.Where(op.Equal(power, one), x, op.Div(op.Mul(less, x), op.Log(power)))
    return op.Where(op.Less(op.Abs(x), one), near, less)


def _softplus_of_less(x: Any, one: Any) -> Any:
    """``log1p(exp(-|x|))``, which neither overflows nor loses small terms."""
    return log1p_of(op.Exp(op.Neg(op.Abs(x))), one)


def log_sigmoid(x: Any) -> Any:
    """``min(x, 0) - log1p(exp(-|x|))``."""
    zero = like(0.0, x)
    return op.Sub(op.Where(op.Less(x, zero), x, zero), _softplus_of_less(x, like(1.0, x)))


def logaddexp(x: Any, other: Any) -> Any:
    """``log(exp(x) + exp(other))``, of the greater one and the distance."""
    one = like(1.0, x)
    far = op.Add(_greater(x, other), _softplus_of_less(op.Sub(x, other), one))
    return op.Where(op.Equal(x, other), op.Add(x, like(math.log(2), x)), far)


def logaddexp2(x: Any, other: Any) -> Any:
    """``log2(2**x + 2**other)``."""
    one, log2 = like(1.0, x), like(math.log(2), x)
    smaller = log1p_of(op.Exp(op.Neg(op.Mul(op.Abs(op.Sub(x, other)), log2))), one)
    far = op.Add(_greater(x, other), op.Div(smaller, log2))
    return op.Where(op.Equal(x, other), op.Add(x, one), far)


def _greater(x: Any, other: Any) -> Any:
    return op.Where(op.Greater(x, other), x, other)


def hypot(x: Any, other: Any) -> Any:
    """``sqrt(x**2 + other**2)``, of the ratio, whose square does not overflow."""
    wide, thin = op.Abs(x), op.Abs(other)
    swap = op.Greater(thin, wide)
    large, small = op.Where(swap, thin, wide), op.Where(swap, wide, thin)
    ratio = op.Div(small, large)
    root = op.Mul(large, op.Sqrt(op.Add(like(1.0, x), op.Mul(ratio, ratio))))
    found = op.Where(op.Equal(large, like(0.0, x)), op.Add(small, large), root)
    infinite = op.Or(_is_infinite(wide, x), _is_infinite(thin, x))
    return op.Where(infinite, like(math.inf, x), found)


def _is_infinite(magnitude: Any, x: Any) -> Any:
    return op.Equal(magnitude, like(math.inf, x))


def fmax(x: Any, other: Any) -> Any:
    """The greater one; of a number and NaN the number."""
    return _either(x, other, op.GreaterOrEqual)


def fmin(x: Any, other: Any) -> Any:
    """The smaller one; of a number and NaN the number."""
    return _either(x, other, op.LessOrEqual)


def _either(x: Any, other: Any, compare: Any) -> Any:
    if x.dtype.is_floating_point():
        return op.Where(op.Or(op.IsNaN(other), compare(x, other)), x, other)
    return widened(lambda a, b, _: op.Where(compare(a, b), a, b), x, other)


def copysign(x: Any, other: Any) -> Any:
    """The magnitude of ``x`` with the sign of ``other``, also that of a zero."""
    if not x.dtype.is_floating_point():
        return NotImplemented
    other = tensor_of(other, x)
    size = op.Abs(x)
    return op.Where(_negative(other, x), op.Neg(size), size)


def _negative(x: Any, typed: Any) -> Any:
    """Whether the sign bit is set; NaN counts as positive."""
    zero = like(0.0, typed)
    below = op.Less(op.Div(like(1.0, typed), x), zero)
    return op.Or(op.Less(x, zero), op.And(op.Equal(x, zero), below))


def signbit(x: Any) -> Any:
    """Whether the sign bit is set."""
    if x.dtype.is_floating_point():
        return _negative(x, x)
    return op.Less(x, like(0, x)) if x.dtype.is_signed() else op.Not(op.Equal(x, x))


def rrelu(
    x: Any,
    lower: float = 1 / 8,
    upper: float = 1 / 3,
    training: bool = False,
    generator: Any = None,  # noqa: ARG001 (of the slopes in training)
) -> Any:
    """In eval, a leaky ReLU with the middle slope."""
    if training:
        raise Refused("rrelu in training draws random slopes: call eval()")
    slope = op.Mul(x, like((lower + upper) / 2, x))
    return op.Where(op.Less(x, like(0.0, x)), slope, x)


def binary_cross_entropy_with_logits(
    x: Any, target: Any, weight: Any = None, pos_weight: Any = None, reduction: int = 1
) -> Any:
    """``(1 - t) x + (1 + (p - 1) t) (log1p(exp(-|x|)) + max(-x, 0))``, weighted and reduced."""
    zero, one = like(0.0, x), like(1.0, x)
    minus = op.Neg(x)
    rest = op.Add(_softplus_of_less(x, one), op.Where(op.Greater(minus, zero), minus, zero))
    if pos_weight is not None:
        rest = op.Mul(op.Add(one, op.Mul(op.Sub(pos_weight, one), target)), rest)
    loss = op.Add(op.Mul(op.Sub(one, target), x), rest)
    if weight is not None:
        loss = op.Mul(loss, weight)
    if reduction == 0:
        return loss
    return (op.ReduceMean if reduction == 1 else op.ReduceSum)(loss, keepdims=0)


_SMALL = "small arguments are lost in the rounding of 1 + x"
_ENDS = "overflows, and loses the smaller term, at the ends of the range"
_NONE = "no translation"

ROWS = (
    Row("log1p", ("aten::log1p",), log1p, "wrong", _SMALL),
    Row(
        "expm1",
        ("aten::expm1", "aten::special_expm1"),
        expm1,
        "wrong",
        "small arguments are lost in the rounding of exp(x)",
    ),
    Row(
        "logsigmoid",
        ("aten::log_sigmoid",),
        log_sigmoid,
        "wrong",
        "-inf below the range of exp, and 0 where the result is small",
    ),
    Row("logaddexp", ("aten::logaddexp",), logaddexp, "wrong", _ENDS),
    Row("logaddexp2", ("aten::logaddexp2",), logaddexp2, "wrong", _ENDS),
    Row(
        "binary_cross_entropy_with_logits",
        ("aten::binary_cross_entropy_with_logits",),
        binary_cross_entropy_with_logits,
        "wrong",
        "infinite for large logits",
        FLOATS,
    ),
    Row("hypot", ("aten::hypot",), hypot, "missing", _NONE),
    Row("fmax", ("aten::fmax",), fmax, "missing", _NONE, REALS),
    Row("fmin", ("aten::fmin",), fmin, "missing", _NONE, REALS),
    Row("copysign", ("aten::copysign.Tensor", "aten::copysign.Scalar"), copysign, "missing", _NONE),
    Row("signbit", ("aten::signbit",), signbit, "wrong", "says no for -0", REALS),
    Row("rrelu", ("aten::rrelu",), rrelu, "missing", _NONE),
)
