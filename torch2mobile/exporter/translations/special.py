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


def number(value: float) -> Any:
    """A number in float64."""
    return constant(value, _WIDE)


def lgamma(x: Any) -> Any:
    """``log |gamma(x)|`` by Lanczos' approximation, by reflection below 1/2."""
    wide = op.Cast(x, to=_WIDE)
    below = op.Less(wide, number(0.5))
    shifted = op.Sub(op.Where(below, op.Sub(number(1), wide), wide), number(1))
    series = number(_LANCZOS[0])
    for place, factor in enumerate(_LANCZOS[1:], 1):
        series = op.Add(series, op.Div(number(factor), op.Add(shifted, number(place))))
    base = op.Add(shifted, number(7.5))
    value = op.Sub(op.Mul(op.Add(shifted, number(0.5)), op.Log(base)), base)
    value = op.Add(value, op.Add(op.Log(series), number(math.log(2 * math.pi) / 2)))
    sine = op.Abs(op.Sin(op.Mul(from_whole(wide), number(math.pi))))
    reflected = op.Sub(op.Sub(number(math.log(math.pi)), op.Log(sine)), value)
    found = op.Where(below, reflected, value)
    found = op.Where(op.IsInf(wide), number(math.inf), found)
    root = op.Or(op.Equal(wide, number(1.0)), op.Equal(wide, number(2.0)))
    found = op.Where(root, number(0.0), found)
    return op.Cast(found, to=x.dtype)


def from_whole(wide: Any) -> Any:
    """What is left to the nearest integer, of which sines and tangents know no more."""
    return op.Sub(wide, op.Round(wide))


def digamma(x: Any) -> Any:
    """The derivative of ``log gamma``: shifted up by 10, then its asymptotic series."""
    wide = op.Cast(x, to=_WIDE)
    zero, one = number(0.0), number(1.0)
    below = op.Less(wide, zero)
    start = op.Where(below, op.Sub(one, wide), wide)
    shift = zero
    for place in range(10):
        shift = op.Add(shift, op.Div(one, op.Add(start, number(place))))
    large = op.Add(start, number(10))
    square = op.Div(one, op.Mul(large, large))
    series = zero
    for factor in (1 / 12, -691 / 32760, 1 / 132, -1 / 240, 1 / 252, -1 / 120, 1 / 12):
        series = op.Mul(square, op.Add(number(factor), series))
    value = op.Sub(op.Log(large), op.Add(op.Div(number(0.5), large), op.Add(series, shift)))
    angle = op.Mul(from_whole(wide), number(math.pi))
    slope = op.Div(op.Mul(number(math.pi), op.Cos(angle)), op.Sin(angle))
    found = op.Where(below, op.Sub(value, slope), value)
    whole = op.And(below, op.Equal(wide, op.Round(wide)))
    found = op.Where(whole, number(math.nan), found)
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


_FAR = (
    (6.65790464350110377720, 5.46378491116411436990, 1.78482653991729133580,
     0.296560571828504891230, 0.0265321895265761230930, 1.24266094738807843860e-3,
     2.71155556874348757815e-5, 2.01033439929228813265e-7),
    (1.0, 0.599832206555887937690, 0.136929880922735805310, 0.0148753612908506148525,
     7.86869131145613259100e-4, 1.84631831751005468180e-5, 1.42151175831644588870e-7,
     2.04426310338993978564e-15),
)  # fmt: skip


def erfinv(x: Any) -> Any:
    """The inverse of the error function, of the normal distribution's quantile."""
    half = op.Mul(op.Cast(x, to=_WIDE), number(0.5))
    found = quantile(half, op.Sub(number(0.5), op.Abs(half)))
    return op.Cast(op.Mul(found, number(math.sqrt(0.5))), to=x.dtype)


def quantile(half: Any, rest: Any) -> Any:
    """The normal distribution's, of how far a probability is from 1/2, and from the nearer end."""
    at = op.Sub(number(0.180625), op.Mul(half, half))
    centre = op.Mul(half, ratio(_CENTRE, at))
    depth = op.Sqrt(op.Neg(op.Log(rest)))
    near = ratio(_NEAR, op.Sub(depth, number(1.6)))
    far = ratio(_FAR, op.Sub(depth, number(5.0)))
    tail = op.Mul(op.Where(op.Less(depth, number(5.0)), near, far), op.Sign(half))
    found = op.Where(op.LessOrEqual(op.Abs(half), number(0.425)), centre, tail)
    infinite = op.Mul(op.Sign(half), number(math.inf))
    return op.Where(op.Equal(rest, number(0.0)), infinite, found)


def ratio(factors: tuple[Sequence[float], Sequence[float]], value: Any) -> Any:
    """Of two polynomials, given by their factors, the constant one first."""
    above, below = (polynomial(each, value) for each in factors)
    return op.Div(above, below)


def polynomial(factors: Sequence[float], value: Any) -> Any:
    """By its factors, the constant one first."""
    found = number(factors[-1])
    for factor in reversed(factors[:-1]):
        found = op.Add(op.Mul(found, value), number(factor))
    return found


_NONE = "no translation"

ROWS = (
    Row("lgamma", ("aten::lgamma",), lgamma, "missing", _NONE, _SINGLE),
    Row("digamma", ("aten::digamma", "aten::special_digamma"), digamma, "missing", _NONE, _SINGLE),
    Row("erfinv", ("aten::erfinv", "aten::special_erfinv"), erfinv, "missing", _NONE, _SINGLE),
)
