"""The error function's kin, in float64: small values far out, where 1 - erf has nothing left."""

from __future__ import annotations

import math
from typing import Any

import onnx_ir as ir

from torch2mobile.exporter.translations.elementwise import log1p_of
from torch2mobile.exporter.translations.row import FLOATS, Row
from torch2mobile.exporter.translations.special import number, quantile, ratio
from torch2mobile.exporter.translations.values import op

_WIDE = ir.DataType.DOUBLE

# Cody's rational approximations (Mathematics of Computation 23, 1969), the constant terms first:
# of erf(x) / x below 0.46875, of exp(x^2) erfc(x) up to 4, and of what is above.
_NEAR = (
    (3209.37758913846947, 377.485237685302021, 113.864154151050156, 3.16112374387056560,
     0.185777706184603153),
    (2844.23683343917062, 1282.61652607737228, 244.024637934444173, 23.6012909523441209, 1.0),
)  # fmt: skip
_MIDDLE = (
    (1230.33935479799725, 2051.07837782607147, 1712.04761263407058, 881.952221241769090,
     298.635138197400131, 66.1191906371416295, 8.88314979438837594, 0.564188496988670089,
     2.15311535474403846e-8),
    (1230.33935480374942, 3439.36767414372164, 4362.61909014324716, 3290.79923573345963,
     1621.38957456669019, 537.181101862021734, 117.693950891312499, 15.7449261107098347, 1.0),
)  # fmt: skip
_FAR = (
    (6.58749161529837803e-4, 0.0160837851487422766, 0.125781726111229246, 0.360344899949804439,
     0.305326634961232344, 0.0163153871373020978),
    (2.33520497626869185e-3, 0.0605183413124413191, 0.527905102951428412, 1.87295284992346725,
     2.56852019228982242, 1.0),
)  # fmt: skip


def _scaled(size: Any) -> Any:
    """``exp(x^2) erfc(x)`` of what is not negative."""
    square = op.Mul(size, size)
    near = op.Mul(op.Exp(square), op.Sub(number(1.0), op.Mul(size, ratio(_NEAR, square))))
    inverse = op.Div(number(1.0), square)
    far = op.Div(
        op.Sub(number(math.sqrt(1 / math.pi)), op.Mul(inverse, ratio(_FAR, inverse))), size
    )
    found = op.Where(op.Less(size, number(4.0)), ratio(_MIDDLE, size), far)
    return op.Where(op.Less(size, number(0.46875)), near, found)


def erfc(x: Any) -> Any:
    """``1 - erf(x)``."""
    return op.Cast(_complement(op.Cast(x, to=_WIDE)), to=x.dtype)


def _complement(wide: Any) -> Any:
    size = op.Abs(wide)
    found = op.Mul(op.Exp(op.Neg(op.Mul(size, size))), _scaled(size))
    found = op.Where(op.IsInf(size), number(0.0), found)
    return op.Where(op.Less(wide, number(0.0)), op.Sub(number(2.0), found), found)


def erfcx(x: Any) -> Any:
    """``exp(x^2) erfc(x)``."""
    wide = op.Cast(x, to=_WIDE)
    found = _scaled(op.Abs(wide))
    twice = op.Mul(number(2.0), op.Exp(op.Mul(wide, wide)))
    found = op.Where(op.Less(wide, number(0.0)), op.Sub(twice, found), found)
    return op.Cast(found, to=x.dtype)


def log_ndtr(x: Any) -> Any:
    """The logarithm of the normal distribution's integral."""
    wide = op.Cast(x, to=_WIDE)
    out = op.Mul(wide, number(math.sqrt(0.5)))
    scaled = op.Mul(_scaled(op.Abs(out)), number(0.5))
    below = op.Sub(op.Log(scaled), op.Mul(out, out))
    above = log1p_of(op.Mul(_complement(out), number(-0.5)), number(1.0))
    return op.Cast(op.Where(op.Less(wide, number(-1.0)), below, above), to=x.dtype)


def ndtri(x: Any) -> Any:
    """The normal distribution's quantile."""
    wide = op.Cast(x, to=_WIDE)
    return op.Cast(
        quantile(op.Sub(wide, number(0.5)), op.Min(wide, op.Sub(number(1.0), wide))), to=x.dtype
    )


_SINGLE = ("float16", "float32")

ROWS = (
    Row(
        "erfc",
        ("aten::erfc", "aten::special_erfc"),
        erfc,
        "wrong",
        "nothing is left of what is small",
        FLOATS,
    ),
    Row("erfcx", ("aten::special_erfcx",), erfcx, "wrong", "NaN far out", _SINGLE),
    Row("log_ndtr", ("aten::special_log_ndtr",), log_ndtr, "wrong", "NaN far below 0", _SINGLE),
    Row("ndtri", ("aten::special_ndtri",), ndtri, "missing", "no translation", _SINGLE),
)
