"""The inputs on which module and artefact are compared: seeded values, and sizes at their ends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from torch2mobile import probe_sizes, sampling, sizing
from torch2mobile.records import Assumption, InputSpec, ParityOptions, RealCase

# Input elements that every probe may have; it may always have twice as many as the example. Keeps
# a declared 4096 x 4096 affordable, in memory above all: float64 takes a multiple of float32.
ELEMENT_BUDGET = 1 << 13
# Floating-point operations: a run of more is heavy, and so many are spent on one probe, or on twice
# the example's size, and on a sweep in all.
HEAVY, WORK = 1e9, 5e10
# How large the values of a kind are, beside ordinary ones. The small ones are 1e-3, but a bias, or
# a function that is linear only at 0, keeps the output's noise from shrinking as much.
MAGNITUDES = {"small": 1 / 8, "wide": 10.0, "large": 1e4}


@dataclass(frozen=True)
class Probe:
    """One set of inputs. ``declared`` tells whether the module must accept its sizes.

    ``magnitude`` is that of the values beside ordinary ones; ``searched`` tells that a search
    found it, so that it says nothing of what is usual. ``explored`` are the inputs whose values
    were drawn though nobody declared any; ``outside`` tells that they are not the module's domain.
    ``real`` tells that it is the user's data. ``carries`` has inputs that are what an artefact gave
    in its call before, by the output.
    """

    label: str
    feeds: Mapping[str, np.ndarray]
    magnitude: float = 1.0
    declared: bool = True
    varies: str = ""
    searched: bool = False
    explored: frozenset[str] = frozenset()
    outside: bool = False
    real: bool = False
    carries: Mapping[str, str] = field(default_factory=dict)

    @property
    def extreme(self) -> bool:
        """Whether float32 itself may overflow there, so that only its own floor applies."""
        return self.magnitude > 1

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes of its inputs."""
        return tuple(array.shape for array in self.feeds.values())

    @property
    def elements(self) -> int:
        """How many elements its inputs have together."""
        return sum(array.size for array in self.feeds.values())

    @property
    def finite(self) -> bool:
        """Whether neither NaN nor infinities were put in."""
        return all(bool(np.isfinite(a).all()) for a in self.feeds.values() if a.dtype.kind in "fV")


def build(
    specs: Sequence[InputSpec],
    example: Mapping[str, np.ndarray],
    options: ParityOptions,
    data: Sequence[Mapping[str, np.ndarray]] = (),
    assumed: Sequence[Assumption] = (),
    *,
    drawn: bool = False,
    work: int = 0,
) -> list[Probe]:
    """The probes for these inputs: the example, values, one input alone, sizes, real data.

    Among the sizes are those at which something ``assumed`` is not so.

    The same seed gives the same probes; each has a random stream of its own, so that their
    number does not change their values. ``drawn`` tells that the example is no user's. ``work`` is
    the number of floating-point operations on it, if it is known: where it is heavy, other values
    are tried at batch 1, and fewer sizes in between.
    """
    sizes = sizing.sizes_of(specs, {name: array.shape for name, array in example.items()})
    own = _undeclared(specs) if drawn else frozenset()
    probes = [Probe("example", example, explored=own)]
    few = sizing.single(specs, sizes) if work > HEAVY else sizes
    probes += _value_probes(specs, few, options)
    if len(specs) > 1:
        probes += _single_input_probes(specs, example, sizes, options, own)
    probes += _size_probes(specs, example, sizes, options, assumed, work)
    for number, case in enumerate(data):
        label = "data" if len(data) == 1 else f"data {number + 1}"
        label += f" ({case.origin})" if isinstance(case, RealCase) else ""
        if not all(np.array_equal(case[name], array) for name, array in example.items()):
            feeds = {spec.name: case[spec.name] for spec in specs}
            probes.append(Probe(label, feeds, real=True))
    return probes


def affordable(example: Mapping[str, np.ndarray], work: int, elements: int) -> int:
    """The ``elements``, or as many as take ``WORK`` operations by the ``work`` on the example."""
    own = sum(array.size for array in example.values())
    return min(elements, round(WORK * own / work)) if work else elements


def budget_of(example: Mapping[str, np.ndarray], work: int) -> int:
    """The input elements that one probe may have."""
    own = 2 * sum(array.size for array in example.values())
    return max(own, affordable(example, work, max(ELEMENT_BUDGET, own)))


def _undeclared(specs: Sequence[InputSpec]) -> frozenset[str]:
    return frozenset(spec.name for spec in specs if spec.values is None)


def _rng(options: ParityOptions, *stream: int) -> np.random.Generator:
    return np.random.default_rng([options.seed, *stream])


def _draw(
    specs: Sequence[InputSpec], sizes: Mapping[str, int], kind: str, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    return {spec.name: sampling.draw(spec, sizes, kind, rng) for spec in specs}


def _value_probes(
    specs: Sequence[InputSpec], sizes: Mapping[str, int], options: ParityOptions
) -> Iterator[Probe]:
    kinds = [kind for kind in sampling.value_kinds(specs) if kind != "example"]
    for number in range(options.probes):
        # After one round of all kinds, further probes are fresh draws of ordinary values.
        kind = kinds[number] if number < len(kinds) else "example"
        label = kind if number < len(kinds) else f"random {number - len(kinds) + 1}"
        feeds = _draw(specs, sizes, kind, _rng(options, 1, number))
        magnitude = MAGNITUDES.get(kind, 1.0)
        yield Probe(label, feeds, magnitude=magnitude, explored=_undeclared(specs))


def _single_input_probes(
    specs: Sequence[InputSpec],
    example: Mapping[str, np.ndarray],
    sizes: Mapping[str, int],
    options: ParityOptions,
    own: frozenset[str],
) -> Iterator[Probe]:
    for number, spec in enumerate(specs):
        changed = sampling.draw(spec, sizes, "example", _rng(options, 2, number))
        feeds = {**example, spec.name: changed}
        explored = own | _undeclared([spec])
        yield Probe(f"only {spec.name}", feeds, varies=spec.name, explored=explored)


def _size_probes(
    specs: Sequence[InputSpec],
    example: Mapping[str, np.ndarray],
    sizes: Mapping[str, int],
    options: ParityOptions,
    assumed: Sequence[Assumption],
    work: int,
) -> Iterator[Probe]:
    budget = budget_of(example, work)
    cases = probe_sizes.size_cases(specs, sizes, budget, assumed)
    seen = [sizes]
    for number, (label, case, declared) in enumerate(cases):
        seen.append(case)
        feeds = _draw(specs, case, "example", _rng(options, 3, number))
        yield Probe(label, feeds, declared=declared, explored=_undeclared(specs))
    total = affordable(example, work, max(budget, probe_sizes.SWEEP_ELEMENTS))
    swept = probe_sizes.sweep_cases(specs, sizes, budget, total)
    for number, (label, case, declared) in enumerate(swept):
        if case not in seen:
            feeds = _draw(specs, case, "example", _rng(options, 6, number))
            # What may be refused is left out then, without a word for each of many sizes.
            yield Probe(
                label,
                feeds,
                declared=declared,
                searched=not declared,
                explored=_undeclared(specs),
            )
