"""The texts of ``--values``, read and written.

::

    ids=0..30521   image=uniform(0,1)   noise=normal(0,1)        a range, a distribution
    mask=padding   mask=padding(left)   mask=causal              ones and zeros
    n=lengths(T)   starts=offsets(K)                             up to a size
    edges=sorted(0,9)   x=nonzero   kind=one-hot   mode=choice(1,2,5)   on=constant(true)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch2mobile.errors import did_you_mean
from torch2mobile.exporter.loading.grammar import NAME, Scanner, onnx_name, read_dim, read_path
from torch2mobile.records import KindOfValues, Values

_REMEDY = (
    "Write for example --values 'ids=0..30521', --values 'image=uniform(0,1)', "
    "--values 'noise=normal(0,1)' or --values 'attention_mask=padding'."
)


def parse_values(text: str) -> tuple[str, Values]:
    """Read one ``--values``: the input's ONNX name and what its values are.

    Raises:
        InputError: the text is not of that form; the message points at the character.
    """
    scan = Scanner("--values", text, _REMEDY)
    name = onnx_name(read_path(scan))
    scan.need("=", "expected '=' after the name")
    word = scan.take("[A-Za-z_]+(?:-[a-z]+)*")
    if word is None:
        values = _range(scan)
    elif word in _KINDS:
        values = _KINDS[word](scan, word)
    else:
        scan.fail(
            f"unknown values {word!r}", remedy=f"{did_you_mean(word, list(_KINDS))} {_REMEDY}"
        )
    scan.need(r"\Z", "expected nothing after the values")
    return name, values


def _range(scan: Scanner) -> Values:
    low = scan.number("expected a number, or a kind such as uniform(low,high), after '='")
    scan.need(r"\.\.", "expected '..' after the low end")
    high = scan.number("expected a number after '..'")
    _refuse_backwards(scan, low, high)
    return Values("range", low, high)


def _refuse_backwards(scan: Scanner, low: float, high: float) -> None:
    if low > high:
        scan.fail(f"the range runs backwards: {low}..{high}")


def _pair(scan: Scanner, word: KindOfValues) -> Values:
    scan.need(r"\(", f"expected '(' after {word}")
    low = scan.number(f"expected a number after '{word}('")
    scan.need(",", "expected ',' after the first number")
    high = scan.number("expected a number after ','")
    if word != "normal":
        _refuse_backwards(scan, low, high)
    elif high <= 0:
        scan.fail("the standard deviation must be above 0")
    scan.need(r"\)", "expected ')' after the second number")
    return Values(word, low, high)


def _maybe_pair(scan: Scanner, word: KindOfValues) -> Values:
    return Values(word) if scan.take(r"(?=\()") is None else _pair(scan, word)


def _padding(scan: Scanner, word: KindOfValues) -> Values:
    if not scan.take(r"\("):
        return Values(word)
    side = scan.need(r"left\b|right\b", "expected left or right")
    scan.need(r"\)", "expected ')' after the side")
    return Values(word, side="left" if side == "left" else "right")


def _bare(_: Scanner, word: KindOfValues) -> Values:
    return Values(word)


def _counted(scan: Scanner, word: KindOfValues) -> Values:
    if not scan.take(r"\("):
        return Values(word)
    of = read_dim(scan)
    scan.need(r"\)", "expected ')' after the size")
    return Values(word, of=of)


def _choice(scan: Scanner, word: str) -> Values:
    scan.need(r"\(", f"expected '(' after {word}")
    numbers = [_number(scan)]
    while word == "choice" and scan.take(","):
        numbers.append(_number(scan))
    scan.need(r"\)", "expected ')' after the last number")
    return Values("choice", numbers=tuple(numbers))


def _number(scan: Scanner) -> float:
    word = scan.take(rf"(?:true|false|True|False)(?!{NAME})")
    return (
        float(word.lower() == "true") if word else scan.number("expected a number, true or false")
    )


_KINDS: dict[str, Callable[[Scanner, Any], Values]] = {
    "uniform": _pair,
    "normal": _pair,
    "sorted": _maybe_pair,
    "nonzero": _maybe_pair,
    "padding": _padding,
    "causal": _bare,
    "one-hot": _bare,
    "lengths": _counted,
    "offsets": _counted,
    "choice": _choice,
    "constant": _choice,
}


def format_values(name: str, values: Values) -> str:
    """The text that :func:`parse_values` reads as these values."""
    low, high = _number_text(values.low), _number_text(values.high)
    if values.kind == "range":
        return f"{name}={low}..{high}"
    if values.kind == "choice":
        word = "constant" if len(values.numbers) == 1 else "choice"
        return f"{name}={word}({','.join(map(_number_text, values.numbers))})"
    given = ""
    if values.kind in {"uniform", "normal"} or (values.low, values.high) != (0, 0):
        given = f"({low},{high})"
    elif values.of is not None:
        given = f"({values.of.label})"
    elif values.side == "left":
        given = "(left)"
    return f"{name}={values.kind}{given}"


def _number_text(value: float) -> str:
    whole = isinstance(value, int) or (value.is_integer() and abs(value) < 2**53)
    return str(int(value)) if whole else repr(value)
