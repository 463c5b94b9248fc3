"""Sizes that a module takes where it refuses others: multiples, as what halves an image wants."""

from __future__ import annotations

from collections.abc import Mapping

from torch2mobile import sizing
from torch2mobile.copies import fresh
from torch2mobile.errors import some_of
from torch2mobile.exporter import assumptions
from torch2mobile.records import Dim, LoadedModel
from torch2mobile.tensors import quiet

# What convolutions and poolings divide a size by.
_FACTORS = (2, 4, 8, 16, 32, 64)


def refusal_at(loaded: LoadedModel, sizes: Mapping[str, int]) -> Exception | None:
    """What the module itself raises at these sizes of some symbols."""
    tensors = assumptions.example_at(loaded, sizes)
    try:
        with fresh(loaded) as own, quiet():
            own.flat.call(*tensors)
    except Exception as error:  # noqa: BLE001 (the module is the user's code)
        return error
    return None


def multiples(loaded: LoadedModel, refused: Mapping[str, int] | None = None) -> str:
    """The multiples that the module takes where it refuses sizes, in words; empty if none.

    Of all symbols those are named for which one more than a multiple is refused.
    """
    sizes = {**sizing.sizes_in(loaded.specs, loaded.tensors), **(refused or {})}
    for factor in _FACTORS:
        first = {name: factor * -(-size // factor) for name, size in sizes.items()}
        if refusal_at(loaded, first) is not None:
            continue
        needed = [n for n in first if refusal_at(loaded, {**first, n: first[n] + 1}) is not None]
        others = [{**first, name: first[name] + factor} for name in needed]
        if needed and all(refusal_at(loaded, each) is None for each in others):
            dims = {d.symbol: d for spec in loaded.specs for d in spec.dims if d.symbol in needed}
            found = {dim.at(each): None for dim in dims.values() for each in (first, *others)}
            forms = ", ".join(_written(dim, factor) for dim in dims.values())
            return f"it takes {some_of(list(found), 8)}: write {forms}"
    return ""


def _written(dim: Dim, factor: int) -> str:
    """A dimension as a multiple of so much more, with the ends that its symbol then has."""
    form = f"{factor * dim.factor}*{dim.symbol}"
    if dim.least is None or dim.greatest is None:
        return form
    low, high = -(-dim.least // factor), dim.greatest // factor
    return f"{form}={low}..{high}" if low <= high else form
