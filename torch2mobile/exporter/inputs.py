"""The input grammar: what ``--input`` and ``--values`` mean, and whether real arrays fit it.

::

    image:float32[N=1..8,3,H=64..512,W]     fixed sizes, symbols, ranges; the ends are included
    tiles:float32[N,3,8*h=2..32,T=1..]      a multiple (the range is h's); no upper bound
    state.h:float32[2,N,64]   boxes.0:float32[K,4]   gain:float32[]     leaves, indices, scalars
    mask=None   scale=0.5   steps=2   causal=true   mode="bilinear"     constants

    ids=0..30521   image=uniform(0,1)   noise=normal(0,1)               values
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Literal, NoReturn

from torch2mobile.errors import InputError
from torch2mobile.records import ConstantSpec, Dim, InputSpec, PathKey, Scalar, Values

_FLOATS = ("float16", "bfloat16", "float32", "float64")
_WHOLE = ("int8", "int16", "int32", "int64", "uint8", "bool")
_DTYPES = {name: name for name in _FLOATS + _WHOLE} | {
    "half": "float16",
    "float": "float32",
    "double": "float64",
    "short": "int16",
    "int": "int32",
    "long": "int64",
}
_LIMITS: dict[str, tuple[float, float]] = {
    **{f"int{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)},
    "uint8": (0, 255),
    "float16": (-65504.0, 65504.0),
    "bfloat16": (-(2.0**128 - 2.0**120), 2.0**128 - 2.0**120),
    "float32": (-(2.0**128 - 2.0**104), 2.0**128 - 2.0**104),
    "float64": (-sys.float_info.max, sys.float_info.max),
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

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_NUMBER = r"[+-]?(?:[0-9]+(?:\.(?!\.)[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
_STRING = r""""(?:[^"\\]|\\.)*"|'[^']*'"""
_SIZE_DIGITS = 18

_INPUT_REMEDY = "Write for example --input 'image:float32[N=1..8,3,H=64..512,W]'."
_RANGE_REMEDY = "Write N=1..8, or N=1.. without an upper bound, or just 8 for a fixed size."
_CONSTANT_REMEDY = (
    "Constants are None, true, false, numbers and quoted text, for example "
    "--input 'mode=\"bilinear\"'; ranges of values belong to --values."
)
_VALUES_REMEDY = (
    "Write for example --values 'ids=0..30521', --values 'image=uniform(0,1)' "
    "or --values 'noise=normal(0,1)'."
)


def _error(flag: str, problem: str, text: str, at: int, remedy: str) -> InputError:
    shown = "".join(char if char.isprintable() else " " for char in text)
    return InputError(f"{flag}: {problem}\n  {shown}\n  {' ' * at}^", remedy)


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    known = list(known)
    close = get_close_matches(word, known, n=1)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    return f"{hint}Known are: {', '.join(known) or 'none'}."


class _Scanner:
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
        raise _error(self.flag, problem, self.text, spot, remedy or self.remedy)

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
    scan = _Scanner("--input", text, _INPUT_REMEDY)
    path = _path(scan)
    spec: InputSpec | ConstantSpec
    if scan.take("="):
        spec = ConstantSpec(path, _constant(scan))
        scan.need(r"\Z", "expected nothing after the constant", _CONSTANT_REMEDY)
    else:
        scan.need(":", "expected ':' and a dtype, or '=' and a constant, after the name")
        spec = InputSpec(onnx_name(path), path, _dtype(scan), _dims(scan))
        scan.need(r"\Z", "expected nothing after ']'")
    return spec


def _path(scan: _Scanner) -> tuple[PathKey, ...]:
    keys: list[PathKey] = [scan.need(_NAME, "expected a name")]
    while scan.take(r"\.(?!\.)"):
        key = scan.need(f"{_NAME}|[0-9]{{1,9}}", "expected a key or an index after '.'")
        keys.append(int(key) if key[0].isdigit() else key)
    return tuple(keys)


def _dtype(scan: _Scanner) -> str:
    word = scan.need(r"[A-Za-z_][A-Za-z0-9_.]*", "expected a dtype after ':'")
    dtype = _DTYPES.get(word.removeprefix("torch."))
    if dtype is None:
        scan.fail(f"unknown dtype {word!r}", remedy=_did_you_mean(word, _DTYPES))
    return dtype


def _dims(scan: _Scanner) -> tuple[Dim, ...]:
    scan.need(r"\[", "expected '[' after the dtype")
    if scan.take(r"\]"):
        return ()
    dims = [_dim(scan)]
    while scan.need(r"[,\]]", "expected ',' or ']' after a dimension") == ",":
        dims.append(_dim(scan))
    return tuple(dims)


def _dim(scan: _Scanner) -> Dim:
    factor, problem = 1, "expected a size or a symbol"
    if scan.take("(?=[0-9])") is not None:
        factor, problem = scan.size(problem), "expected a symbol after '*'"
        if factor == 0:
            scan.fail("a size must be at least 1")
        if not scan.take(r"\*"):
            return Dim(size=factor)
    symbol = scan.need(_NAME, problem)
    if symbol in _WORDS:
        scan.fail(f"{symbol} is no symbol", remedy=f"Name the dimension. {_INPUT_REMEDY}")
    if scan.take(r"(?=\*)") is not None:
        scan.fail("the factor comes first", remedy=f"Write it as 8*{symbol}.")
    least, greatest = _range(scan) if scan.take("=") else (None, None)
    return Dim(symbol=symbol, factor=factor, least=least, greatest=greatest)


def _range(scan: _Scanner) -> tuple[int, int | None]:
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


def _constant(scan: _Scanner) -> Scalar:
    problem = "expected None, true, false, a number or a quoted text after '='"
    word = scan.take(f"-?{_NAME}")
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


def parse_values(text: str) -> tuple[str, Values]:
    """Read one ``--values``: the input's ONNX name and a range or distribution.

    Raises:
        InputError: the text is not of that form; the message points at the character.
    """
    scan = _Scanner("--values", text, _VALUES_REMEDY)
    name = onnx_name(_path(scan))
    scan.need("=", "expected '=' after the name")
    kind: Literal["range", "uniform", "normal"] = "range"
    if scan.take(r"(?:uniform|normal)\b"):
        kind = "normal" if scan.text.startswith("normal", scan.start) else "uniform"
        scan.need(r"\(", f"expected '(' after {kind}")
        low = scan.number(f"expected a number after '{kind}('")
        scan.need(",", "expected ',' after the first number")
        high = scan.number("expected a number after ','")
    else:
        low = scan.number("expected a number, uniform(low,high) or normal(mean,std) after '='")
        scan.need(r"\.\.", "expected '..' after the low end")
        high = scan.number("expected a number after '..'")
    if kind == "normal" and high <= 0:
        scan.fail("the standard deviation must be above 0")
    if kind != "normal" and low > high:
        scan.fail(f"the range runs backwards: {low}..{high}")
    if kind != "range":
        scan.need(r"\)", "expected ')' after the second number")
    scan.need(r"\Z", "expected nothing after the values")
    return name, Values(kind, low, high)


def resolve(
    inputs: Sequence[str], values: Sequence[str]
) -> tuple[tuple[InputSpec, ...], tuple[ConstantSpec, ...]]:
    """Read all ``--input`` and ``--values`` together, in the user's order.

    Raises:
        InputError: a text cannot be read, two of them contradict each other, or values name an
            unknown input or do not fit its dtype.
    """
    items: list[InputSpec | ConstantSpec] = []
    for text in inputs:
        item = parse_input(text)
        for other in items:
            _refuse_clash(text, item, other)
        items.append(item)
    constants = tuple(item for item in items if isinstance(item, ConstantSpec))
    specs = fill_ranges([item for item in items if isinstance(item, InputSpec)])
    return attach_values(specs, values, constants), constants


def _refuse_clash(
    text: str, item: InputSpec | ConstantSpec, other: InputSpec | ConstantSpec
) -> None:
    new, old = item.path, other.path
    shared = min(len(new), len(old))
    both_tensors = isinstance(item, InputSpec) and isinstance(other, InputSpec)
    if new == old:
        problem = f"the input {_dotted(new)} is given twice"
    elif new[:shared] == old[:shared]:
        whole = _dotted(new[:shared])
        problem = (
            f"{whole} is given as a whole and as a container, {_dotted(max(new, old, key=len))}"
        )
    elif both_tensors and onnx_name(new) == onnx_name(old):
        problem = f"{_dotted(new)} and {_dotted(old)} would both be {onnx_name(new)} in the file"
    else:
        return
    raise _error("--input", problem, text, _indent(text), "Name every input once, and uniquely.")


def _indent(text: str) -> int:
    return len(text) - len(text.lstrip())


def fill_ranges(specs: Iterable[InputSpec]) -> tuple[InputSpec, ...]:
    """Give every use of a symbol the range that was declared at one of its uses.

    Raises:
        InputError: a symbol has two different ranges.
    """
    specs = tuple(specs)
    found: dict[str, tuple[Dim, str]] = {}
    for spec in specs:
        for dim in spec.dims:
            if dim.symbol is None or (dim.least is None and dim.greatest is None):
                continue
            first, owner = found.setdefault(dim.symbol, (dim, spec.name))
            if (first.least, first.greatest) != (dim.least, dim.greatest):
                raise InputError(
                    f"--input: the symbol {dim.symbol} has two ranges: "
                    f"{_range_text(first)} in {owner}, {_range_text(dim)} in {spec.name}",
                    "Give a symbol's range once; it holds wherever the symbol stands.",
                )

    def filled(dim: Dim) -> Dim:
        if dim.symbol is None or dim.symbol not in found:
            return dim
        first = found[dim.symbol][0]
        return replace(dim, least=first.least, greatest=first.greatest)

    return tuple(replace(spec, dims=tuple(map(filled, spec.dims))) for spec in specs)


def attach_values(
    specs: Sequence[InputSpec], values: Sequence[str], constants: Sequence[ConstantSpec] = ()
) -> tuple[InputSpec, ...]:
    """The specs with the declared ``--values``; ``constants`` only sharpen the error message.

    Raises:
        InputError: a text cannot be read, names no input or one twice, or does not fit its dtype.
    """
    known = {spec.name: spec for spec in specs}
    given: dict[str, Values] = {}
    for text in values:
        name, drawn = parse_values(text)
        at, remedy, problem = _indent(text), _did_you_mean(name, known), ""
        if name in {onnx_name(constant.path) for constant in constants}:
            problem = f"{name} is a constant and takes no values"
        elif name not in known:
            problem = f"unknown input {name!r}"
        elif name in given:
            problem, remedy = f"the values of {name} are given twice", "Keep one of them."
        elif misfit := _misfit(known[name].dtype, drawn):
            problem, remedy = f"{name}: {misfit}", f"It is {format_input(known[name])}."
            at = text.index("=") + 1
            at += _indent(text[at:])
        if problem:
            raise _error("--values", problem, text, at, remedy)
        given[name] = drawn
    return tuple(replace(spec, values=given.get(spec.name, spec.values)) for spec in specs)


def _misfit(dtype: str, values: Values) -> str:
    """Why these values do not fit the dtype; empty if they do."""
    if dtype == "bool":
        return "a bool input takes no values, true and false are always tried"
    if dtype not in _LIMITS:
        return ""
    least, greatest = _LIMITS[dtype]
    ends = (values.low, values.high)
    if isinstance(least, int):
        if values.kind == "normal":
            return f"{dtype} takes a range such as 0..9, not normal(mean,std)"
        for end in ends:
            if end != int(end):
                return f"{end} is not a whole number, as {dtype} needs"
    for end in ends:
        if not least <= end <= greatest:
            return f"{end} does not fit {dtype}, which holds {least}..{greatest}"
    return ""


def format_input(spec: InputSpec | ConstantSpec) -> str:
    """The text that :func:`parse_input` reads as this spec (values are not part of it)."""
    if isinstance(spec, ConstantSpec):
        value = spec.value
        shown = json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)
        return f"{_dotted(spec.path)}={shown}"
    return f"{_dotted(spec.path)}:{spec.dtype}[{','.join(map(_dim_text, spec.dims))}]"


def _dotted(path: Sequence[PathKey]) -> str:
    return ".".join(str(key) for key in path)


def _dim_text(dim: Dim) -> str:
    undeclared = dim.symbol is None or (dim.least is None and dim.greatest is None)
    return str(dim.label) if undeclared else f"{dim.label}={_range_text(dim)}"


def _range_text(dim: Dim) -> str:
    """The symbol's range as the grammar writes it; an undeclared least size is 1."""
    least = 1 if dim.least is None else dim.least
    return f"{least}.." if dim.greatest is None else f"{least}..{dim.greatest}"


def format_values(name: str, values: Values) -> str:
    """The text that :func:`parse_values` reads as these values."""
    low, high = _number_text(values.low), _number_text(values.high)
    if values.kind == "range":
        return f"{name}={low}..{high}"
    return f"{name}={values.kind}({low},{high})"


def _number_text(value: float) -> str:
    whole = isinstance(value, int) or (value.is_integer() and abs(value) < 2**53)
    return str(int(value)) if whole else repr(value)


def check_against_example(
    specs: Sequence[InputSpec], shapes_dtypes: Mapping[str, tuple[str, tuple[int, ...]]]
) -> dict[str, int]:
    """The size of every symbol in real arrays, given as (dtype, shape) by input name.

    Raises:
        InputError: a name, dtype, rank or size differs from what is declared; the message names
            the input and dimension, what was expected and what was found.
    """
    known = [spec.name for spec in specs]
    for name in shapes_dtypes:
        if name not in known:
            raise InputError(
                f"the example has an unknown input {name!r}", _did_you_mean(name, known)
            )
    sizes: dict[str, int] = {}
    owners: dict[str, str] = {}
    for spec in specs:
        if spec.name not in shapes_dtypes:
            raise InputError(
                f"the example lacks the input {spec.name!r}",
                f"Declared is {format_input(spec)}. The example has: {', '.join(shapes_dtypes)}.",
            )
        dtype, shape = shapes_dtypes[spec.name]
        _check_form(spec, dtype, shape)
        for axis, (dim, size) in enumerate(zip(spec.dims, shape, strict=True)):
            problem = _size_problem(dim, size, sizes, owners)
            if problem:
                raise _unlike(spec, f", dimension {axis}: {problem}, got {size}")
            if dim.symbol is not None and dim.symbol not in sizes:
                sizes[dim.symbol] = size // dim.factor
                owners[dim.symbol] = f"{spec.name}, dimension {axis}"
    return sizes


def _unlike(spec: InputSpec, problem: str) -> InputError:
    remedy = f"Declared is {format_input(spec)}: change the declaration or the example."
    return InputError(f"input {spec.name!r}{problem}", remedy)


def _check_form(spec: InputSpec, dtype: str, shape: tuple[int, ...]) -> None:
    name = dtype.removeprefix("torch.")
    if _DTYPES.get(name, name) != spec.dtype:
        raise _unlike(spec, f": expected dtype {spec.dtype}, got {dtype}")
    if len(shape) != len(spec.dims):
        expected = f"{len(spec.dims)} dimensions [{','.join(map(_dim_text, spec.dims))}]"
        raise _unlike(spec, f": expected {expected}, got {len(shape)} {list(shape)}")


def _size_problem(dim: Dim, size: int, sizes: Mapping[str, int], owners: Mapping[str, str]) -> str:
    """What was expected of this size instead; empty if it fits."""
    if dim.symbol is None:
        return "" if size == dim.size else f"expected {dim.size}"
    value, rest = divmod(size, dim.factor)
    if rest:
        return f"expected a multiple of {dim.factor} ({dim.label})"
    least = 1 if dim.least is None else dim.least
    if value < least or (dim.greatest is not None and value > dim.greatest):
        return f"expected {dim.label} with {dim.symbol} in {_range_text(dim)}"
    if sizes.get(dim.symbol, value) != value:
        known = sizes[dim.symbol]
        return f"expected {dim.at(sizes)}, as {dim.symbol} is {known} in {owners[dim.symbol]}"
    return ""
