"""Modified Bessel functions of the first kind, and polygamma, computed in float64 and rounded."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import onnx_ir as ir

from torch2mobile.exporter.translations.row import Refused, Row
from torch2mobile.exporter.translations.special import digamma, from_whole, number, polynomial
from torch2mobile.exporter.translations.values import op

_WIDE = ir.DataType.DOUBLE
_FAR = 10
"""From here on the asymptotic series, whose terms fall down to exp(-20), is the better one."""


def i0(x: Any) -> Any:
    """Of order 0."""
    return _bessel(x, 0, scaled=False)


def i0e(x: Any) -> Any:
    """``exp(-|x|) i0(x)``."""
    return _bessel(x, 0, scaled=True)


def i1(x: Any) -> Any:
    """Of order 1."""
    return _bessel(x, 1, scaled=False)


def i1e(x: Any) -> Any:
    """``exp(-|x|) i1(x)``."""
    return _bessel(x, 1, scaled=True)


def _bessel(x: Any, order: int, *, scaled: bool) -> Any:
    """``sum((x / 2)^(2k + order) / (k! (k + order)!))``, or the asymptotic series."""
    wide = op.Cast(x, to=_WIDE)
    size = op.Abs(wide)
    quarter = op.Mul(op.Mul(size, size), number(0.25))
    near = polynomial(
        [1 / (math.factorial(k) * math.factorial(k + order)) for k in range(28)], quarter
    )
    if order:
        near = op.Mul(near, op.Mul(size, number(0.5)))
    factors = [1.0]
    for k in range(1, 14):
        factors.append(factors[-1] * ((2 * k - 1) ** 2 - 4 * order**2) / (8 * k))
    far = polynomial(factors, op.Div(number(1.0), size))
    far = op.Div(far, op.Sqrt(op.Mul(size, number(2 * math.pi))))
    if scaled:
        near = op.Mul(near, op.Exp(op.Neg(size)))
    else:
        # By halves, since exp overflows before the quotient does.
        half = op.Exp(op.Mul(size, number(0.5)))
        far = op.Mul(op.Mul(far, half), half)
    found = op.Where(op.Less(size, number(_FAR)), near, far)
    infinite = number(0.0 if scaled else math.inf)
    found = op.Where(op.IsInf(size), infinite, found)
    return op.Cast(op.Mul(found, op.Sign(wide)) if order else found, to=x.dtype)


def polygamma(n: int, x: Any) -> Any:
    """The derivative of order ``n`` of digamma; shifted up by 12, then its asymptotic series."""
    if n == 0:
        return digamma(x)
    if n > _HIGHEST:
        raise Refused(f"polygamma of order {n}: at most {_HIGHEST}")
    wide = op.Cast(x, to=_WIDE)
    one = number(1.0)
    below = op.Less(wide, number(0.0))
    start = op.Where(below, op.Sub(one, wide), wide)
    value = _hurwitz(n + 1, start)
    value = op.Mul(value, number((-1) ** (n + 1) * math.factorial(n)))
    # By reflection: psi(1 - x) + (-1)^(n + 1) psi(x) = (-1)^n pi d^n cot(pi x).
    angle = op.Mul(from_whole(wide), number(math.pi))
    cotangent = op.Div(op.Cos(angle), op.Sin(angle))
    slope = polynomial(_cotangent(n), cotangent)
    reflected = op.Sub(slope, op.Mul(value, number((-1) ** (n + 1))))
    reflected = op.Mul(reflected, number(1.0 if n % 2 else -1.0))
    return op.Cast(op.Where(below, reflected, value), to=x.dtype)


_HIGHEST = 8


def _hurwitz(s: int, start: Any) -> Any:
    """``sum((start + k)^-s)`` for what is not negative, by Euler and Maclaurin from 12 on."""
    total = None
    for k in range(12):
        term = op.Div(number(1.0), _power(op.Add(start, number(k)), s))
        total = term if total is None else op.Add(total, term)
    large = op.Add(start, number(12))
    inverse = op.Div(number(1.0), large)
    factors = [
        _BERNOULLI[k] * math.prod(s + j for j in range(2 * k + 1)) / math.factorial(2 * k + 2)
        for k in range(len(_BERNOULLI))
    ]
    series = op.Mul(polynomial(factors, op.Mul(inverse, inverse)), inverse)
    series = op.Add(number(1 / (s - 1)), op.Mul(inverse, op.Add(number(0.5), series)))
    return op.Add(total, op.Mul(_power(inverse, s - 1), series))


_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6)


def _power(value: Any, exponent: int) -> Any:
    found = value
    for _ in range(exponent - 1):
        found = op.Mul(found, value)
    return found


def _cotangent(n: int) -> list[float]:
    """Factors of ``(-1)^n pi d^n cot(pi x)`` as a polynomial of the cotangent."""
    found = np.polynomial.Polynomial([0.0, math.pi])
    for _ in itertools.repeat(None, n):
        found = -math.pi * np.polynomial.Polynomial([1.0, 0.0, 1.0]) * found.deriv()
    return [float(factor) * (-1) ** n for factor in found.coef]


_NONE = "no translation"
_SINGLE = ("float16", "float32")

ROWS = (
    Row(
        "i0",
        ("aten::i0", "aten::special_i0", "aten::special_modified_bessel_i0"),
        i0,
        "missing",
        _NONE,
        _SINGLE,
    ),
    Row("i0e", ("aten::special_i0e",), i0e, "missing", _NONE, _SINGLE),
    Row(
        "i1",
        ("aten::special_i1", "aten::special_modified_bessel_i1"),
        i1,
        "missing",
        _NONE,
        _SINGLE,
    ),
    Row("i1e", ("aten::special_i1e",), i1e, "missing", _NONE, _SINGLE),
    Row(
        "polygamma",
        ("aten::polygamma", "aten::special_polygamma"),
        polygamma,
        "missing",
        _NONE,
        _SINGLE,
    ),
)
