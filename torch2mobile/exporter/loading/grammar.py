"""The input grammar: the texts of ``--input``, read and written.

::

    image:float32[N=1..8,3,H=64..512,W]     fixed sizes, symbols, ranges; the ends are included
    tiles:float32[N,3,8*h=2..32,T=1..]      a multiple (the range is h's); no upper bound
    mask:int64[N,P+1]   mask:int64[N,P+T]   linear in the symbols
    state.h:float32[2,N,64]   boxes.0:float32[K,4]   gain:float32[]     leaves, indices, scalars
    mask=None   scale=0.5   steps=2   causal=true   mode="bilinear"     constants
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import NoReturn

from torch2mobile.errors import InputError, did_you_mean, dtype_remedy
from torch2mobile.records import ConstantSpec, Dim, InputSpec, PathKey, Scalar

_FLOATS = ("float16", "bfloat16", "float32", "float64")
_WHOLE = ("int8", "int16", "int32", "int64", "uint8", "bool")
DTYPES = {name: name for name in _FLOATS + _WHOLE} | {
    "half": "float16",
    "float": "float32",
    "double": "float64",
    "short": "int16",
    "int": "int32",
    "long": "int64",
}
_WORDS: dict[str, Scalar] = {
    "None": None,
    "true": True,
    "True": True,
    "false": False,
    "False": False,
    "inf": math.inf,
    "-inf": -math.inf,
    "nan": math.nan,
}

NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_NUMBER = r"[+-]?(?:[0-9]+(?:\.(?!\.)[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
_STRING = r""""(?:[^"\\]|\\.)*"|'[^']*'"""
_MOST_DIMS = 64
_SIZE_DIGITS = 18

_INPUT_REMEDY = "Write for example --input 'image:float32[N=1..8,3,H=64..512,W]'."
_RANGE_REMEDY = "Write N=1..8, or N=1.. without an upper bound, or just 8 for a fixed size."
_LINEAR_REMEDY = (
    "Write a sum of symbols, each with a whole factor in front, and a number: 2*h, P+1, P+T."
)
_SUM_REMEDY = "Give the range where a symbol stands alone: ids:int64[N,T=1..8]."
_CONSTANT_REMEDY = (
    "Constants are None, true, false, numbers and quoted text, for example "
    "--input 'mode=\"bilinear\"'; ranges of values belong to --values."
)


def error(flag: str, problem: str, text: str, at: int, remedy: str) -> InputError:
    """An InputError that shows the text and points at the character ``at``."""
    shown = "".join(char if char.isprintable() else " " for char in text)
    return InputError(f"{flag}: {problem}\n  {shown}\n  {' ' * at}^", remedy)


class Scanner:
    """Reads a text from left to right; a failure shows the text with a caret under the spot."""

    def __init__(self, flag: str, text: str, remedy: str) -> None:
        self.flag, self.text, self.remedy = flag, text, remedy
        self.at = 0
        self.start = 0

    def take(self, pattern: str) -> str | None:
        """The next token if it matches, and step over it; leading white space is skipped."""
        found = re.compile(rf"\s*({pattern})").match(self.text, self.at)
        if found is None:
            return None
        self.start, self.at = found.span(1)
        return found[1]

    def need(self, pattern: str, problem: str, remedy: str = "") -> str:
        """The next token, which has to match."""
        token = self.take(pattern)
        if token is None:
            rest = self.text[self.at :]
            blank = len(rest) - len(rest.lstrip())
            self.fail(problem, self.at + (blank if rest.strip() else 0), remedy)
        return token

    def fail(self, problem: str, at: int | None = None, remedy: str = "") -> NoReturn:
        """Raise for the character ``at``, by default the start of the last token."""
        spot = self.start if at is None else at
        raise error(self.flag, problem, self.text, spot, remedy or self.remedy)

    def size(self, problem: str, remedy: str = "") -> int:
        """A non-negative integer that fits a tensor dimension."""
        digits = self.need("[0-9]+", problem, remedy).lstrip("0") or "0"
        if len(digits) > _SIZE_DIGITS:
            self.fail("the size is too large")
        return int(digits)

    def number(self, problem: str, remedy: str = "") -> int | float:
        """A finite number; an int where it is written as one, so that int64 stays exact."""
        token = self.need(_NUMBER, problem, remedy)
        if re.fullmatch("[+-]?[0-9]{1,20}", token):
            return int(token)
        if math.isinf(float(token)):
            self.fail("the number is too large")
        return float(token)


def onnx_name(path: Sequence[PathKey]) -> str:
    """The ONNX name of the leaf at ``path``: ``("state", "h")`` is ``state_h``."""
    return "_".join(str(key) for key in path)


def parse_input(text: str) -> InputSpec | ConstantSpec:
    """Read one ``--input``: a tensor ``name:dtype[dims]`` or a constant ``name=value``.

    Raises:
        InputError: the text is not of that form; the message points at the character.
    """
    scan = Scanner("--input", text, _INPUT_REMEDY)
    path = read_path(scan)
    spec: InputSpec | ConstantSpec
    if scan.take("="):
        spec = ConstantSpec(path, _constant(scan))
        scan.need(r"\Z", "expected nothing after the constant", _CONSTANT_REMEDY)
    else:
        scan.need(":", "expected ':' and a dtype, or '=' and a constant, after the name")
        spec = InputSpec(onnx_name(path), path, _dtype(scan), _dims(scan))
        scan.need(r"\Z", "expected nothing after ']'")
    return spec


def read_path(scan: Scanner) -> tuple[PathKey, ...]:
    """The keys that lead to a leaf."""
    keys: list[PathKey] = [scan.need(NAME, "expected a name")]
    while scan.take(r"\.(?!\.)"):
        key = scan.need(f"{NAME}|[0-9]{{1,9}}", "expected a key or an index after '.'")
        keys.append(int(key) if key[0].isdigit() else key)
    return tuple(keys)


def _dtype(scan: Scanner) -> str:
    word = scan.need(r"[A-Za-z_][A-Za-z0-9_.]*", "expected a dtype after ':'")
    dtype = DTYPES.get(word.removeprefix("torch."))
    if dtype is None:
        scan.fail(
            f"unknown dtype {word!r}", remedy=dtype_remedy(word, did_you_mean(word, list(DTYPES)))
        )
    return dtype


def _dims(scan: Scanner) -> tuple[Dim, ...]:
    scan.need(r"\[", "expected '[' after the dtype")
    if scan.take(r"\]"):
        return ()
    dims = [read_dim(scan)]
    while scan.need(r"[,\]]", "expected ',' or ']' after a dimension") == ",":
        dims.append(read_dim(scan))
        if len(dims) > _MOST_DIMS:
            scan.fail(f"more than {_MOST_DIMS} dimensions, which no array has")
    return tuple(dims)


def read_dim(scan: Scanner) -> Dim:
    """One dimension, with its range if there is one."""
    scan.take("")
    first = scan.start
    terms, offset = _sum(scan)
    if not terms:
        if offset < 1:
            scan.fail("a size must be at least 1", first)
        return Dim(size=offset)
    if len(terms) > 1 and scan.take("="):
        scan.fail("the range of which symbol?", remedy=_SUM_REMEDY)
    least, greatest = _range(scan) if scan.take("=") else (None, None)
    own, *others = (Dim(symbol=name, factor=factor) for name, factor in sorted(terms.items()))
    return replace(own, least=least, greatest=greatest, offset=offset, others=tuple(others))


def _sum(scan: Scanner) -> tuple[dict[str, int], int]:
    """A linear expression: the factor of each symbol, and the number that is added."""
    terms: dict[str, int] = {}
    offset, sign = 0, 1
    while True:
        number, symbol = _term(scan, first=not terms and not offset)
        if symbol and sign < 0:
            scan.fail("a symbol cannot be taken away", remedy=_LINEAR_REMEDY)
        if symbol:
            terms[symbol] = terms.get(symbol, 0) + number
        else:
            offset += sign * number
        operator = scan.take(r"[-+]")
        if operator is None:
            break
        sign = -1 if operator == "-" else 1
    if scan.take(r"[*/%^(]") is not None:
        scan.fail("a size is linear in its symbols", remedy=_LINEAR_REMEDY)
    return terms, offset


def _term(scan: Scanner, *, first: bool) -> tuple[int, str]:
    """A number and a symbol, of which it is the factor; no symbol for a number alone."""
    factor, problem = 1, "expected a size or a symbol"
    if scan.take("(?=[0-9])") is not None:
        factor, problem = scan.size(problem), "expected a symbol after '*'"
        if factor == 0 and first:
            scan.fail("a size must be at least 1")
        if not scan.take(r"\*"):
            return factor, ""
        if factor == 0:
            scan.fail("a factor must be at least 1")
    symbol = scan.need(NAME, problem)
    if symbol in _WORDS:
        scan.fail(f"{symbol} is no symbol", remedy=f"Name the dimension. {_INPUT_REMEDY}")
    if scan.take(r"(?=\*\s*[^\s\w*]|\*\s*[0-9])") is not None:
        scan.fail("the factor comes first", remedy=f"Write it as 8*{symbol}.")
    return factor, symbol


def parse_dim(text: str) -> Dim | None:
    """The dimension that is called so in a file, if it is one of this grammar's."""
    scan = Scanner("", text, "")
    try:
        found = read_dim(scan)
        scan.need(r"\Z", "expected nothing after the dimension")
    except InputError:
        return None
    return found


def _range(scan: Scanner) -> tuple[int, int | None]:
    least = scan.size("expected the least size after '='", _RANGE_REMEDY)
    scan.need(r"\.\.", "expected '..' after the least size", _RANGE_REMEDY)
    if scan.take("(?=[0-9])") is None:
        return least, None
    greatest = scan.size("expected the greatest size after '..'")
    if greatest < least:
        scan.fail(f"the range runs backwards: {least}..{greatest}", remedy=_RANGE_REMEDY)
    if greatest == least:
        scan.fail("the range holds one size only", remedy=f"Write {least} for a fixed size.")
    return least, greatest


def _constant(scan: Scanner) -> Scalar:
    problem = "expected None, true, false, a number or a quoted text after '='"
    word = scan.take(f"-?{NAME}")
    if word is not None:
        if word not in _WORDS:
            scan.fail(problem, remedy=_CONSTANT_REMEDY)
        return _WORDS[word]
    quoted = scan.take(_STRING)
    if quoted is None:
        return scan.number(problem, _CONSTANT_REMEDY)
    if quoted[0] == "'":
        return quoted[1:-1]
    try:
        return str(json.loads(quoted, strict=False))
    except json.JSONDecodeError as error:
        scan.fail("the text has an unknown escape", scan.start + error.pos, _CONSTANT_REMEDY)


def format_input(spec: InputSpec | ConstantSpec) -> str:
    """The text that :func:`parse_input` reads as this spec (values are not part of it)."""
    if isinstance(spec, ConstantSpec):
        value = spec.value
        shown = json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)
        return f"{dotted(spec.path)}={shown}"
    return f"{dotted(spec.path)}:{spec.dtype}[{','.join(map(dim_text, spec.dims))}]"


def dotted(path: Sequence[PathKey]) -> str:
    """The leaf as it is typed: ``state.h``."""
    return ".".join(str(key) for key in path)


def dim_text(dim: Dim) -> str:
    """One dimension as it is typed."""
    undeclared = dim.symbol is None or dim.others or (dim.least is None and dim.greatest is None)
    return str(dim.label) if undeclared else f"{dim.label}={range_text(dim)}"


def range_text(dim: Dim) -> str:
    """The symbol's range as the grammar writes it; an undeclared least size is 1."""
    least = 1 if dim.least is None else dim.least
    return f"{least}.." if dim.greatest is None else f"{least}..{dim.greatest}"
