"""Seeded input arrays, for exporter and validators alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from torch2mobile import value_forms
from torch2mobile.records import InputSpec, Values

ValueKind = Literal[
    "example",
    "low",
    "high",
    "ends",
    "normal",
    "zeros",
    "ones",
    "negative",
    "small",
    "wide",
    "large",
]
VALUE_KINDS: tuple[ValueKind, ...] = get_args(ValueKind)

_SCALES = {"small": 1e-3, "wide": 10.0, "large": 1e4}


@dataclass(frozen=True)
class _Recipe:
    """How to fill an array: ``a``/``b`` are the ends, or mean and standard deviation."""

    fill: Literal["constant", "uniform", "ends", "normal", "below", "form"]
    a: float
    b: float = 0


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The numpy dtype of this name; ``bfloat16`` comes from ml_dtypes."""
    if name != "bfloat16":
        return np.dtype(name)
    import ml_dtypes  # comes with onnx; only bfloat16 needs it

    bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return bfloat16


def draw(
    spec: InputSpec, sizes: Mapping[str, int], kind: str, rng: np.random.Generator
) -> np.ndarray[Any, Any]:
    """A C-contiguous array for one input, of its exact dtype and its shape at these sizes.

    Every kind stays within declared ends, and is scaled by a declared mean and standard deviation
    (``zeros`` is then the mean). Without any, floats are standard normal at the kind's scale and
    integers 0 or 1, so that look-ups do not overflow. Drawn integers include both ends.

    Raises:
        ValueError: the kind is not one of ``VALUE_KINDS``.
    """
    if kind not in VALUE_KINDS:
        raise ValueError(f"unknown kind {kind!r}, known are {', '.join(VALUE_KINDS)}")
    dtype = numpy_dtype(spec.dtype)
    shape = tuple(dim.at(sizes) for dim in spec.dims)
    if spec.values is not None and value_forms.has_form(spec.values):
        count = spec.values.of.at(sizes) if spec.values.of is not None else 0
        array = value_forms.draw(spec.values, shape, kind, count, rng)
        if spec.values.kind == "causal" and dtype.kind not in "biu":
            array = np.where(array, 0.0, -np.inf)  # what is added to the scores
        return np.array(array, dtype, order="C")  # a scalar stays one
    array = _fill(_recipe(spec, kind), shape, _is_whole(dtype), rng)
    if spec.values is not None and spec.values.kind == "sorted":
        array.sort(axis=-1)
    if spec.values is not None and spec.values.kind == "nonzero":
        array[array == 0] = spec.values.high or spec.values.low or 1
    if dtype.kind != "b":
        np.clip(array, *_limits(dtype), out=array)
    return array.astype(dtype, copy=False)


def value_kinds(specs: Sequence[InputSpec]) -> tuple[ValueKind, ...]:
    """The kinds worth trying for these inputs, the most telling first, without repetitions.

    ``normal`` is kept beside ``example`` for floats without declared ends: it is a fresh draw.
    """
    unbounded = any(_recipe(spec, "example").fill == "normal" for spec in specs)
    first: dict[tuple[_Recipe, ...], ValueKind] = {}
    for kind in VALUE_KINDS:
        first.setdefault(tuple(_recipe(spec, kind) for spec in specs), kind)
    kept = {*first.values(), "normal"} if unbounded else {*first.values()}
    return tuple(kind for kind in VALUE_KINDS if kind in kept)


def bounds(spec: InputSpec) -> tuple[float, float]:
    """The least and greatest value that is ordinary for an input, as its dtype holds them.

    The declared ends; four standard deviations about the mean where there are none for floats.
    """
    ends = promised(spec)
    if ends is not None:
        return ends
    if _is_whole(numpy_dtype(spec.dtype)):
        return 0, 1
    mean, std = _normal(spec)
    return mean - 4 * std, mean + 4 * std


def _is_whole(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "biu"


def _limits(dtype: np.dtype[Any]) -> tuple[float, float]:
    """The least and greatest finite number of a dtype other than bool."""
    if _is_whole(dtype):
        return int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    finfo: Any = np.finfo
    if dtype.kind != "f":
        import ml_dtypes  # comes with onnx; only bfloat16 needs it

        finfo = ml_dtypes.finfo
    return float(finfo(dtype).min), float(finfo(dtype).max)


def _normal(spec: InputSpec) -> tuple[float, float]:
    """The mean and standard deviation of floats without ends."""
    declared = spec.values is not None and spec.values.kind == "normal"
    return (spec.values.low, spec.values.high) if spec.values and declared else (0.0, 1.0)


def promised(spec: InputSpec) -> tuple[float, float] | None:
    """The declared ends as the dtype holds them, rounded inward; None without a range."""
    dtype = numpy_dtype(spec.dtype)
    found = None if dtype.kind == "b" else _declared(spec.values, whole=_is_whole(dtype))
    return found if found is None or found[0] == -np.inf else _within(dtype, *found)


def _declared(values: Values | None, *, whole: bool) -> tuple[float, float] | None:
    """The ends that values have, if they have any."""
    if values is None or (values.kind in {"sorted", "nonzero"} and not values.low < values.high):
        return None
    if value_forms.has_form(values):
        additive = values.kind == "causal" and not whole
        return (-np.inf, 0.0) if additive else value_forms.ends(values)
    if values.kind != "normal":
        return values.low, values.high
    return (values.low - 3 * values.high, values.low + 3 * values.high) if whole else None


def _within(dtype: np.dtype[Any], low: float, high: float) -> tuple[float, float]:
    """The ends in a dtype, rounded inward."""
    least, greatest = _limits(dtype)
    low, high = min(max(low, least), greatest), min(max(high, least), greatest)
    if _is_whole(dtype):
        return round(low), round(high)
    near_low, near_high = np.array([low, high], dtype=np.float64).astype(dtype)
    infinity = dtype.type(np.inf)
    above = near_low if float(near_low) >= low else np.nextafter(near_low, infinity)
    below = near_high if float(near_high) <= high else np.nextafter(near_high, -infinity)
    if float(above) > float(below):
        return float(near_low), float(near_high)
    return float(above), float(below)


def _recipe(spec: InputSpec, kind: str) -> _Recipe:
    if value_forms.has_form(spec.values):
        level = value_forms.level(kind)
        return _Recipe("form", -1 if level is None else level)
    ends = promised(spec)
    whole = _is_whole(numpy_dtype(spec.dtype))
    if ends is not None:
        recipe = _bounded(*ends, kind, whole)
        return recipe if recipe.a != recipe.b else _Recipe("constant", recipe.a)
    share = {"zeros": 0.0, "ones": 1.0}.get(kind)
    if whole:
        return _Recipe("uniform", 0, 1) if share is None else _Recipe("constant", int(share))
    mean, std = _normal(spec)
    if share is not None:
        return _Recipe("constant", mean + std * share)
    return _Recipe("below" if kind == "negative" else "normal", mean, std * _SCALES.get(kind, 1.0))


def _bounded(low: float, high: float, kind: str, whole: bool) -> _Recipe:
    zero, one = (min(max(level, low), high) for level in (0, 1))
    constant = {"low": low, "high": high, "zeros": zero, "ones": one}.get(kind)
    if constant is not None:
        return _Recipe("constant", constant)
    if kind == "ends" and not (whole and high - low <= 1):
        return _Recipe("ends", low, high)
    if kind == "negative" and low < 0:
        return _Recipe("uniform", low, min(high, -1 if whole else 0.0))
    if kind == "small" and not whole:
        a, b = (zero + (end - zero) * _SCALES[kind] for end in (low, high))
        return _Recipe("uniform", a, b)
    return _Recipe("uniform", low, high)


def _fill(
    recipe: _Recipe, shape: tuple[int, ...], whole: bool, rng: np.random.Generator
) -> np.ndarray[Any, Any]:
    """The array in int64 or float64; beyond float64 it is infinite."""
    a, b = recipe.a, recipe.b
    ends = np.array([a, b], dtype=np.int64 if whole else np.float64)
    if recipe.fill == "constant":
        return np.full(shape, ends[0])
    if recipe.fill == "ends":
        return _with_ends(np.asarray(ends[rng.integers(0, 2, size=shape)]), ends, rng)
    if recipe.fill == "uniform" and whole:
        drawn = rng.integers(int(a), int(b), size=shape, dtype=np.int64, endpoint=True)
        return _with_ends(np.asarray(drawn), ends, rng)
    if recipe.fill == "uniform":
        array = np.asarray(rng.random(shape))
        array *= b / 2 - a / 2  # b - a might be infinite
        array += a / 2
        array *= 2
        return np.clip(array, a, b, out=array)
    noise = rng.standard_normal(shape)
    with np.errstate(over="ignore"):
        return np.asarray(a + b * (-np.abs(noise) if recipe.fill == "below" else noise))


def _with_ends(
    array: np.ndarray[Any, Any], ends: np.ndarray[Any, Any], rng: np.random.Generator
) -> np.ndarray[Any, Any]:
    """Put both ends somewhere, if there is room for both."""
    flat = array.reshape(-1)
    if flat.size >= 2:
        first = rng.integers(flat.size)
        flat[[first, (first + 1 + rng.integers(flat.size - 1)) % flat.size]] = ends
    return array
