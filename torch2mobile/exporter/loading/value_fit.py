"""Whether values fit an input, and which its name suggests."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import replace

from torch2mobile.records import Dim, InputSpec, Values

_LIMITS: dict[str, tuple[float, float]] = {
    **{f"int{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)},
    "uint8": (0, 255),
    "float16": (-65504.0, 65504.0),
    "bfloat16": (-(2.0**128 - 2.0**120), 2.0**128 - 2.0**120),
    "float32": (-(2.0**128 - 2.0**104), 2.0**128 - 2.0**104),
    "float64": (-sys.float_info.max, sys.float_info.max),
}


_KNOWN = {"bool", *_LIMITS}
# What a bool can be.
_OF_BOOL = ("padding", "causal", "one-hot", "choice")
# How many dimensions a form needs.
_RANKS = {"padding": 1, "causal": 2, "one-hot": 1, "sorted": 1, "offsets": 1}
# By the input's name: its dtypes, its number of dimensions if that matters, and its values.
_SUGGESTED = (
    (r"(?:.*_)?attention_mask", r"u?int.*|float.*|bool", 2, Values("padding", suggested=True)),
    (r"(?:.*_)?token_type_ids", r"u?int.*", None, Values("range", 0, 1, suggested=True)),
)


def suggested(spec: InputSpec) -> Values | None:
    """The values that an input of this name takes by custom."""
    for name, dtype, rank, values in _SUGGESTED:
        named = re.fullmatch(name, spec.name) and re.fullmatch(dtype, spec.dtype)
        if named and rank in {None, len(spec.dims)}:
            return values
    return None


def counting(values: Values, spec: InputSpec, specs: Sequence[InputSpec]) -> Values:
    """Lengths and offsets with the size that they count, with its range.

    Where none is given, lengths count what follows the same batch in another input, and offsets the
    places of another input of one dimension.
    """
    if values.kind not in {"lengths", "offsets"}:
        return values
    dims = [dim for other in specs for dim in other.dims]
    if values.of is None:
        return replace(values, of=_counted(values.kind, spec, specs))
    declared = {dim.symbol: dim for whole in dims for dim in whole.terms}

    def filled(dim: Dim) -> Dim:
        found = declared.get(dim.symbol, dim)
        others = tuple(map(filled, dim.others))
        return replace(dim, least=found.least, greatest=found.greatest, others=others)

    return replace(values, of=filled(values.of))


def _counted(kind: str, spec: InputSpec, specs: Sequence[InputSpec]) -> Dim | None:
    for other in specs:
        if other.name == spec.name or not other.dims or not spec.dims:
            continue
        if kind == "offsets" and len(other.dims) == 1:
            return other.dims[0]
        if kind == "lengths" and len(other.dims) > 1 and other.dims[0] == spec.dims[0]:
            return other.dims[1]
    return None


def misfit(spec: InputSpec, values: Values, specs: Sequence[InputSpec]) -> str:
    """Why these values do not fit the input; empty if they do."""
    unlike = _unlike_dims(spec, values, specs)
    # A dtype of which nothing is known is refused elsewhere.
    return unlike or (_unlike_dtype(spec.dtype, values) if spec.dtype in _KNOWN else "")


def _unlike_dims(spec: InputSpec, values: Values, specs: Sequence[InputSpec]) -> str:
    rank = _RANKS.get(values.kind, 0)
    if len(spec.dims) < rank:
        return f"{values.kind} needs {rank} dimension{'s' * (rank > 1)}, it has {len(spec.dims)}"
    if values.kind not in {"lengths", "offsets"}:
        return ""
    if values.of is None:
        return f"which size do the {values.kind} count? Write {values.kind}(T)"
    symbols = {term.symbol for each in specs for dim in each.dims for term in dim.terms}
    unknown = [str(t.symbol) for t in values.of.terms if t.symbol not in symbols]
    if unknown:
        listed = ", ".join(sorted(map(str, symbols))) or "none"
        return f"no input has the symbol {unknown[0]}; known are: {listed}"
    return ""


def _unlike_dtype(dtype: str, values: Values) -> str:
    if dtype == "bool":
        odd = [number for number in values.numbers if number not in {0, 1}]
        if odd:
            return f"{odd[0]} is neither true nor false"
        kinds = ", ".join(_OF_BOOL)
        return "" if values.kind in _OF_BOOL else f"a bool takes {kinds} or constant"
    least, greatest = _LIMITS[dtype]
    whole = isinstance(least, int)
    if values.kind in {"lengths", "offsets"} and not whole:
        return f"{values.kind} are whole numbers, not {dtype}"
    if values.kind == "normal" and whole:
        return f"{dtype} takes a range such as 0..9, not normal(mean,std)"
    given = (values.low, values.high, *values.numbers)
    odd = [end for end in given if whole and end != int(end)]
    if odd:
        return f"{odd[0]} is not a whole number, as {dtype} needs"
    far = [end for end in given if not least <= end <= greatest]
    return f"{far[0]} does not fit {dtype}, which holds {least}..{greatest}" if far else ""
