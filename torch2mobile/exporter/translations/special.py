"""Functions of mathematics that ONNX lacks, computed in float64 and rounded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from torch2mobile.exporter.translations.row import Row
from torch2mobile.exporter.translations.values import constant, op

_WIDE = ir.DataType.DOUBLE
_SINGLE = ("float16", "float32")

# Of Lanczos' approximation of the gamma function, for g = 7.
_LANCZOS = (
    0.99999999999980993,
    676.5203681218851,
    -1259.1392167224028,
    771.32342877765313,
    -176.61502916214059,
    12.507343278686905,
    -0.13857109526572012,
    9.9843695780195716e-6,
    1.5056327351493116e-7,
)


def _number(value: float) -> Any:
    return constant(value, _WIDE)


def lgamma(x: Any) -> Any:
    """``log |gamma(x)|`` by Lanczos' approximation, by reflection below 1/2."""
    wide = op.Cast(x, to=_WIDE)
    below = op.Less(wide, _number(0.5))
    shifted = op.Sub(op.Where(below, op.Sub(_number(1), wide), wide), _number(1))
    series = _number(_LANCZOS[0])
    for number, factor in enumerate(_LANCZOS[1:], 1):
        series = op.Add(series, op.Div(_number(factor), op.Add(shifted, _number(number))))
    base = op.Add(shifted, _number(7.5))
    value = op.Sub(op.Mul(op.Add(shifted, _number(0.5)), op.Log(base)), base)
    value = op.Add(value, op.Add(op.Log(series), _number(math.log(2 * math.pi) / 2)))
    sine = op.Abs(op.Sin(op.Mul(_from_whole(wide), _number(math.pi))))
    reflected = op.Sub(op.Sub(_number(math.log(math.pi)), op.Log(sine)), value)
    found = op.Where(below, reflected, value)
    found = op.Where(op.IsInf(wide), _number(math.inf), found)
    root = op.Or(op.Equal(wide, _number(1.0)), op.Equal(wide, _number(2.0)))
    found = op.Where(root, _number(0.0), found)
    return op.Cast(found, to=x.dtype)


def _from_whole(wide: Any) -> Any:
    """What is left to the nearest integer, of which sines and tangents know no more."""
    return op.Sub(wide, op.Round(wide))


def digamma(x: Any) -> Any:
    """The derivative of ``log gamma``: shifted up by 10, then its asymptotic series."""
    wide = op.Cast(x, to=_WIDE)
    zero, one = _number(0.0), _number(1.0)
    below = op.Less(wide, zero)
    start = op.Where(below, op.Sub(one, wide), wide)
    shift = zero
    for number in range(10):
        shift = op.Add(shift, op.Div(one, op.Add(start, _number(number))))
    large = op.Add(start, _number(10))
    square = op.Div(one, op.Mul(large, large))
    series = zero
    for factor in (1 / 12, -691 / 32760, 1 / 132, -1 / 240, 1 / 252, -1 / 120, 1 / 12):
        series = op.Mul(square, op.Add(_number(factor), series))
    value = op.Sub(op.Log(large), op.Add(op.Div(_number(0.5), large), op.Add(series, shift)))
    angle = op.Mul(_from_whole(wide), _number(math.pi))
    slope = op.Div(op.Mul(_number(math.pi), op.Cos(angle)), op.Sin(angle))
    found = op.Where(below, op.Sub(value, slope), value)
    whole = op.And(below, op.Equal(wide, op.Round(wide)))
    found = op.Where(whole, _number(math.nan), found)
    found = op.Where(op.Equal(wide, zero), op.Neg(op.Div(one, wide)), found)
    return op.Cast(found, to=x.dtype)


# Of Wichura's approximation of the normal distribution's quantile (AS 241), the centre's first.
_CENTRE = (
    (3.3871328727963666080, 133.14166789178437745, 1971.5909503065514427, 13731.693765509461125,
     45921.953931549871457, 67265.770927008700853, 33430.575583588128105, 2509.0809287301226727),
    (1.0, 42.313330701600911252, 687.18700749205790830, 5394.1960214247511077,
     21213.794301586595867, 39307.895800092710610, 28729.085735721942674, 5226.4952788528545610),
)  # fmt: skip
_NEAR = (
    (1.42343711074968357734, 4.63033784615654529590, 5.76949722146069140550,
     3.64784832476320460504, 1.27045825245236838258, 0.241780725177450611770,
     0.0227238449892691845833, 7.74545014278341407640e-4),
    (1.0, 2.05319162663775882187, 1.67638483018380384940, 0.689767334985100004550,
     0.148103976427480074590, 0.0151986665636164571966, 5.47593808499534494600e-4,
     1.05075007164441684324e-9),
)  # fmt: skip


def erfinv(x: Any) -> Any:
    """The inverse of the error function, of the normal distribution's quantile."""
    wide = op.Cast(x, to=_WIDE)
    half = op.Mul(wide, _number(0.5))
    size = op.Abs(half)
    rest = op.Sub(_number(0.180625), op.Mul(half, half))
    centre = op.Mul(half, _ratio(_CENTRE, rest))
    depth = op.Sqrt(op.Neg(op.Log(op.Sub(_number(0.5), size))))
    tail = op.Mul(_ratio(_NEAR, op.Sub(depth, _number(1.6))), op.Sign(half))
    found = op.Where(op.LessOrEqual(size, _number(0.425)), centre, tail)
    found = op.Mul(found, _number(math.sqrt(0.5)))
    ends = op.Equal(size, _number(0.5))
    return op.Cast(op.Where(ends, op.Mul(op.Sign(half), _number(math.inf)), found), to=x.dtype)


def _ratio(factors: tuple[Sequence[float], Sequence[float]], value: Any) -> Any:
    above, below = (_polynomial(each, value) for each in factors)
    return op.Div(above, below)


def _polynomial(factors: Sequence[float], value: Any) -> Any:
    found = _number(factors[-1])
    for factor in reversed(factors[:-1]):
        found = op.Add(op.Mul(found, value), _number(factor))
    return found


_NONE = "no translation"

ROWS = (
    Row("lgamma", ("aten::lgamma",), lgamma, "missing", _NONE, _SINGLE),
    Row("digamma", ("aten::digamma", "aten::special_digamma"), digamma, "missing", _NONE, _SINGLE),
    Row("erfinv", ("aten::erfinv", "aten::special_erfinv"), erfinv, "missing", _NONE, _SINGLE),
)
