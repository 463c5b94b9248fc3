"""Which of the probes a bundle keeps as golden data, and what their outputs are held to."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from torch2mobile.records import GoldenCase, ParityOptions, Variant

if TYPE_CHECKING:
    import numpy as np

    from torch2mobile.interfaces import Outputs
    from torch2mobile.validators.parity.expected import Expected

# Golden data stays small enough to check in.
GOLDEN_CASES = 6
GOLDEN_BYTES = 1 << 20
# So many of them are the user's own data, besides the example.
REAL_CASES = 2
# And so many more, which take a decision as none of the others does or were found for the module's
# own operations; together as large as one case may be.
MORE_CASES = 10
# And as many further sizes as are together no larger than this.
SIZES_BYTES = 1 << 15


def write_golden(
    folder: Path,
    expected: Sequence[Expected],
    options: ParityOptions,
    errors: Mapping[str, Sequence[Mapping[str, float]]],
    variants: Sequence[Variant],
    tied: Mapping[int, Outputs] = MappingProxyType({}),
    sides: Callable[[Mapping[str, np.ndarray]], Collection[object]] = lambda _: (),
) -> tuple[GoldenCase, ...]:
    """The example, some of the user's data, other sizes, other values, as far as they are small.

    Then what takes decisions as these do not, by the ``sides`` of decisions that inputs take, and
    small further sizes. ``errors`` has by artefact, for each of the expected, how far it was off,
    by output. Variants that the user's tolerances hold to something else have limits of their own.
    Calls in a row of a module with state come last, all of each row.
    Of a heavy module only what has a truth, whatever decisions it takes.
    Those of ``tied``, on which an artefact took equal values in another order, are left out; if all
    are, they are stored with what the artefacts gave, where all gave the same.
    """
    from torch2mobile.exporter.bundle import write_case
    from torch2mobile.validators.parity.expected import typical_of
    from torch2mobile.validators.parity.golden import allowed_for

    typical = typical_of(expected)
    common = options.for_artifact("").tolerances
    held = {variant.label: options.for_artifact(variant.label).tolerances for variant in variants}
    own = {
        v.label: held[v.label]
        for v in variants
        if held[v.label] and (v.lossy or held[v.label] != common)
    }
    cases: list[GoldenCase] = []
    rows = _rows(expected)
    usual = [n for n in _golden_order(expected) if not any(n in row for row in rows)]
    order = [number for number in usual if number not in tied]
    if not order:
        order = [number for number in usual if tied[number]]
        expected = [c.instead(tied[n]) if tied.get(n) else c for n, c in enumerate(expected)]
    chosen = [*order[:GOLDEN_CASES], *_more(expected, order, sides)]
    calls = [number for row in rows if not tied.keys() & set(row) for number in row]
    for number in [*chosen, *_sizes(expected, order, chosen), *calls]:
        case = expected[number]
        label = "".join(c if c.isalnum() else "_" for c in case.probe.label)
        name = f"golden/{len(cases)}_{label}.npz"
        write_case(folder / name, case.probe.feeds, case.outputs)
        # Another machine is held to these: they are measured, not guessed.
        allowed = allowed_for(case if number in tied else case.sure(), typical, common)
        limits = {label: allowed_for(case, typical, given) for label, given in own.items()}
        off = {label: found[number] for label, found in errors.items()}
        carries = case.probe.carries
        cases.append(GoldenCase(name, case.probe.label, allowed, off, limits, carries))
    return tuple(cases)


def _rows(expected: Sequence[Expected]) -> list[list[int]]:
    """The cases that are calls in a row, each row by the numbers of its cases."""
    rows: list[list[int]] = []
    for number, case in enumerate(expected):
        if case.probe.carries:
            if not rows or rows[-1][-1] != number - 1:
                rows.append([number - 1])
            rows[-1].append(number)
    return rows


def _more(
    expected: Sequence[Expected],
    order: Sequence[int],
    sides: Callable[[Mapping[str, np.ndarray]], Collection[object]],
) -> list[int]:
    """Cases that take new sides of decisions, most first, then those that were searched for."""
    first, rest = order[:GOLDEN_CASES], list(order[GOLDEN_CASES:])
    # A larger input shows no more, and takes longer to run.
    example = 0 if expected[0].heavy else expected[0].probe.elements
    known = {
        number: set(sides(expected[number].probe.feeds))
        for number in order
        if expected[number].probe.elements <= example
    }
    seen = set[object]().union(*(known.get(number, set()) for number in first))
    found: list[int] = []
    room = GOLDEN_BYTES

    def gain(number: int) -> tuple[int, bool]:
        probe = expected[number].probe
        return len(known.get(number, set()) - seen), probe.searched and probe.declared

    while rest and len(found) < MORE_CASES:
        best = max(rest, key=gain)
        if gain(best) == (0, False):
            break
        rest.remove(best)
        size = _bytes_of(expected[best])
        if size <= room:
            room -= size
            seen |= known.get(best, set())
            found.append(best)
    return found


def _sizes(expected: Sequence[Expected], order: Sequence[int], chosen: Sequence[int]) -> list[int]:
    """Cases of further sizes, smallest first: a fault may show at a single one."""
    seen = {expected[number].probe.shapes for number in chosen}
    found: list[int] = []
    room = SIZES_BYTES
    for number in sorted(order, key=lambda each: _bytes_of(expected[each])):
        case = expected[number]
        if case.probe.shapes in seen:
            continue
        room -= _bytes_of(case)
        if room < 0:
            break
        seen.add(case.probe.shapes)
        found.append(number)
    return sorted(found)


def _bytes_of(case: Expected) -> int:
    arrays = [*case.probe.feeds.values(), *(array for _, array in case.outputs)]
    return sum(array.nbytes for array in arrays)


def _golden_order(expected: Sequence[Expected]) -> list[int]:
    """The example, some real data, cases of new sizes, then of other values; small ones only.

    Of a heavy module what has no truth is left out, as it takes a float64 run.
    """
    small = [n for n, case in enumerate(expected) if _bytes_of(case) <= GOLDEN_BYTES] or [0]
    real = [number for number in small[1:] if expected[number].probe.real][:REAL_CASES]
    others = [n for n in small[1:] if not expected[n].heavy or expected[n].truth is not None]
    seen: set[tuple[tuple[int, ...], ...]] = set()
    ranked = []
    for number in [small[0], *real, *(each for each in others if each not in real)]:
        shapes = expected[number].probe.shapes
        first = number == small[0] or number in real
        ranked.append((number != small[0], not first, shapes in seen, number))
        seen.add(shapes)
    return [number for *_, number in sorted(ranked)]
