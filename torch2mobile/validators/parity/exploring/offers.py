"""Inputs that a module's own operations make worth trying, beyond what was declared.

Nobody promised that the module takes them: one that it refuses is left out, and where it gives NaN
the file has to as well.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from torch2mobile import sampling, sizing, value_forms
from torch2mobile.records import InputSpec, LoadedModel, ParityOptions
from torch2mobile.validators.parity.exploring.flow import Flow, passes_nan_on
from torch2mobile.validators.parity.probes import Probe, budget_of

if TYPE_CHECKING:
    Feeds = Mapping[str, np.ndarray]

# Probes that visit the rows of one table.
ROW_PROBES = 5
# Whole numbers at whose powers of two types end, and which floats hold apart.
_POWERS = (1, 2, 3, 7, 8, 15, 16, 24, 31, 32, 40)
_FLOAT_POWERS = (1, 2, 3, 7, 8, 15)
_HALVES = np.arange(-8, 8) + 0.5


def offers(
    loaded: LoadedModel,
    specs: Sequence[InputSpec],
    example: Feeds,
    options: ParityOptions,
    flow: Flow,
) -> list[Probe]:
    """Probes for what one run on the example has shown; the same seed gives the same ones."""
    maker = _Maker(specs, example, options)
    probes: list[Probe] = []
    for number, spec in enumerate(specs):
        rng = np.random.default_rng([options.seed, 4, number])
        if sampling.numpy_dtype(spec.dtype).kind in "iu":
            probes += maker.rows(spec, flow, rng)
            probes += maker.whole(spec, flow, rng)
        elif spec.dtype != "bool":
            probes += maker.numbers(spec, flow, rng)
    probes += [
        probe
        for probe in maker.not_finite(flow, np.random.default_rng([options.seed, 5]))
        if passes_nan_on(loaded, probe.feeds)
    ]
    return probes


class _Maker:
    """The probes for each input, the others as in the example."""

    def __init__(self, specs: Sequence[InputSpec], example: Feeds, options: ParityOptions) -> None:
        self._specs, self._example, self._options = specs, example, options
        shapes = {name: array.shape for name, array in example.items()}
        self._sizes = sizing.sizes_of(specs, shapes)

    def rows(self, spec: InputSpec, flow: Flow, rng: np.random.Generator) -> Iterator[Probe]:
        """Each row of the tables that an input indexes, in a few long probes."""
        if spec.name not in flow.rows or value_forms.has_form(spec.values):
            return
        low, high = flow.rows[spec.name]
        if spec.values is not None:
            ends = sampling.bounds(spec)
            low, high = max(low, round(ends[0])), min(high, round(ends[1]))
        limits = np.iinfo(sampling.numpy_dtype(spec.dtype))
        low, high = max(low, limits.min), min(high, limits.max)
        if high <= low:
            return
        # The ends first: they are visited however small the budget is.
        order = low + rng.permutation(high - low + 1) if high - low < 1 << 22 else None
        if order is None:
            order = rng.integers(low, high, size=1 << 20, endpoint=True)
        order = np.array([high, low, *order])
        budget = budget_of(self._example, flow.work)
        for number in range(1, 2 if flow.heavy else ROW_PROBES + 1):
            # Other sizes than the example's may be refused, where they were not declared.
            sizes = self._sizes
            if number > 1:
                sizes = sizing.holding(self._specs, sizes, spec.name, len(order), budget)
            feeds = self._drawn(sizes, rng)
            shape = feeds[spec.name].shape
            count = math.prod(shape)
            if not count or not len(order):
                return
            taken, order = order[:count], order[count:]
            feeds[spec.name] = np.resize(taken, shape).astype(spec.dtype)
            yield Probe(f"rows of {spec.name} {number}", feeds, searched=True)

    def whole(self, spec: InputSpec, flow: Flow, rng: np.random.Generator) -> Iterator[Probe]:
        """Whole numbers around powers of two, where only arithmetic follows."""
        if spec.values is not None or spec.name in flow.rows or not flow.loose(spec.name):
            return
        powers = _FLOAT_POWERS if spec.name in flow.floating else _POWERS
        limits = np.iinfo(sampling.numpy_dtype(spec.dtype))
        around = {2**power + step for power in powers for step in (-1, 0, 1)}
        # The least number itself traps where it is divided by -1.
        values = [v for n in around for v in (n, -n) if limits.min < v <= limits.max]
        yield self._one(spec, np.sort(np.array([0, *values])), "powers of two in", rng)

    def numbers(self, spec: InputSpec, flow: Flow, rng: np.random.Generator) -> Iterator[Probe]:
        """The numbers that an input is compared with, between and beside them, and ties."""
        if spec.values is not None and (
            value_forms.has_form(spec.values) or spec.values.kind in {"sorted", "nonzero"}
        ):
            return
        met = flow.met.get(spec.name, set())
        exactly = flow.exactly.get(spec.name, set())
        every = sorted(met | exactly)
        edges = [a + (b - a) / 2 for a, b in itertools.pairwise(every)]
        dtype = sampling.numpy_dtype(spec.dtype)
        for value in exactly:
            at = dtype.type(value)
            edges += [float(at), *(float(np.nextafter(at, dtype.type(s))) for s in (-3e4, 3e4))]
        edges += [value + 1e-3 * side * (abs(value) or 1) for value in met for side in (-1, 1)]
        ties = [
            (half - offset) / slope
            for slope, offset in sorted(flow.rounded.get(spec.name, ()))
            for half in _HALVES
        ]
        low, high = (-np.inf, np.inf) if spec.values is None else sampling.bounds(spec)
        for word, values in (("edges in", edges), ("ties in", ties)):
            allowed = [value for value in values if low <= value <= high]
            if allowed:
                yield self._one(spec, np.array(allowed), word, rng)

    def not_finite(self, flow: Flow, rng: np.random.Generator) -> Iterator[Probe]:
        """NaN and infinities at some places of the inputs for which the module has a use."""
        for word, names, values in (
            ("NaN", flow.nan, [np.nan]),
            ("infinities", flow.inf, [np.inf, -np.inf]),
        ):
            feeds = dict(self._example)
            for spec in self._specs:
                if spec.name in names and spec.values is None:
                    array = np.array(feeds[spec.name])
                    hit = rng.random(array.shape) < 0.25
                    array[hit] = rng.choice(values, size=array.shape)[hit]
                    array.flat[: len(values)] = values[: array.size]
                    feeds[spec.name] = array
            if any(feeds[name] is not self._example[name] for name in feeds):
                yield Probe(word, feeds, searched=True)

    def _one(
        self, spec: InputSpec, values: np.ndarray, word: str, rng: np.random.Generator
    ) -> Probe:
        """One input of these values, each at least once where there is room, and ordinary ones."""
        array = sampling.draw(spec, self._sizes, "example", rng)
        flat = array.reshape(-1)
        drawn = np.resize(rng.permutation(values), flat.shape)
        keep = np.arange(flat.size) >= len(values)
        keep &= rng.random(flat.size) < 0.5
        flat[~keep] = drawn[~keep].astype(array.dtype)
        feeds = {**self._example, spec.name: flat.reshape(array.shape)}
        return Probe(f"{word} {spec.name}", feeds, searched=True)

    def _drawn(self, sizes: Mapping[str, int], rng: np.random.Generator) -> dict[str, np.ndarray]:
        if sizes == self._sizes:
            return dict(self._example)
        return {spec.name: sampling.draw(spec, sizes, "example", rng) for spec in self._specs}
