"""Values that nobody declared: where the module gives numbers, and what lies outside of that.

A probe with explored values on which the module gives NaN, or which it refuses, is no fault of the
module's: it is moved to values that the module takes, so that it still proves something, and kept
beside that as one outside of its domain, where the file has to give NaN as well.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from torch2mobile.copies import fresh
from torch2mobile.records import LoadedModel
from torch2mobile.tensors import quiet, to_torch
from torch2mobile.validators.parity.calls import run, tensors_of
from torch2mobile.validators.parity.channels import is_float, wide
from torch2mobile.validators.parity.probes import Probe
from torch2mobile.validators.parity.reference import Reference, example_of

# So many probes are tried in every domain; of what none of them takes, others are not asked again.
_SEARCHED = 3
# With more inputs, one alone is not looked for.
_ALONE = 4


@dataclass(frozen=True)
class Domain:
    """Values that a module may want: how to move others there, and how ``--values`` says it.

    Integers and booleans become ``whole``, or stay as they are. ``bounded`` has no large values.
    """

    text: str
    moved: Callable[[np.ndarray], np.ndarray]
    whole: int | None = None
    bounded: bool = False


def _squashed(array: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * np.tanh(array / 2)


DOMAINS = (
    Domain("0.1..10", lambda array: 0.1 + np.abs(array), whole=1),
    Domain("uniform(-1,1)", np.tanh, bounded=True),
    Domain("uniform(0,1)", _squashed, whole=0, bounded=True),
    Domain("1..10", lambda array: 1.0 + np.abs(array)),
)


def overflows(item: Reference) -> bool:
    """Whether large values, which nobody declared, overflow the float16 within the module.

    Some runtimes compute it in float32, ONNX Runtime on x86 among them, and do not.
    """
    return (
        item.lack is not None
        and item.lack.narrow == "float16"
        and item.probe.extreme
        and bool(item.probe.explored)
        and any(is_float(array) and np.isinf(wide(array)).any() for _, array in item.outputs)
    )


def has_nan(reference: Reference) -> bool:
    """Whether finite inputs of ordinary size made the module return NaN."""
    nan = any(_nan(array) for _, array in reference.outputs)
    return nan and not reference.probe.extreme and reference.probe.finite


def _nan(array: np.ndarray) -> bool:
    return is_float(array) and bool(np.isnan(wide(array)).any())


@dataclass(frozen=True)
class Settled:
    """The probes, with those outside of the module's domain moved into it and kept beside it.

    ``values`` are what ``--values`` would be given to declare the domain; ``first`` is the first
    probe outside.
    """

    probes: list[Probe]
    values: tuple[str, ...]
    first: Probe


def settle(loaded: LoadedModel, references: Sequence[Reference]) -> Settled | None:
    """The probes for a module that does not take all explored values; None where it does.

    A declared size that no values help is left as it is: the size is at fault. So is a value where
    others were declared, as those may be at fault.
    """
    bad = [
        number
        for number, item in enumerate(references)
        if item.probe.explored and (item.refusal or has_nan(item))
    ]
    if not bad:
        return None
    example = references[0].probe
    search = _Search(loaded, example)
    moved = {number: search.inside(references[number].probe) for number in bad}
    resized = {number for number in bad if references[number].probe.shapes != example.shapes}
    lost = any(moved[number] is None for number in bad if number not in resized)
    strict = any(spec.values and not spec.values.suggested for spec in loaded.specs)
    probes = [item.probe for item in references]
    beside: list[Probe] = []
    for number in bad:
        probe, inside = probes[number], moved[number]
        by_size = number in resized and not lost
        outside = replace(probe, outside=True, searched=True)
        if inside is not None:
            probes[number] = inside
            beside.append(replace(outside, label=f"{probe.label} (outside)", varies=""))
        elif probe.declared and (by_size or strict):
            continue
        elif not (by_size and references[number].refusal):
            probes[number] = outside
    if not any(probe.outside for probe in (*probes, *beside)):
        return None
    return Settled([*probes, *beside], search.values(), references[bad[0]].probe)


def taken(loaded: LoadedModel) -> LoadedModel:
    """The model with another drawn example where the module refuses the one it has.

    An example of the user's stays, and so does one for which no other values are found.
    """
    names = frozenset(spec.name for spec in loaded.specs if spec.values is None)
    if not loaded.drawn or not names:
        return loaded
    probe = Probe("example", example_of(loaded), explored=names)
    error = refusal(loaded, probe)
    search = _Search(loaded, probe)
    given = search.inside(probe) if error is not None else None
    if given is None:
        return loaded
    texts = " ".join(f"--values '{text}'" for text in search.values())
    note = (
        f"the module refuses values that nobody declared ({type(error).__name__}: {error}): its "
        f"example was drawn as {texts} would have it"
    )
    tensors = tuple(to_torch(given.feeds[spec.name]) for spec in loaded.specs)
    return replace(loaded, tensors=tensors, notes=(*loaded.notes, note))


def refusal(loaded: LoadedModel, probe: Probe) -> Exception | None:
    """What the module raises on this probe, with its traceback."""
    with fresh(loaded) as own, quiet():
        try:
            run(own.flat, tensors_of(loaded, probe.feeds))
        except Exception as error:  # noqa: BLE001 (the module is the user's code)
            return error
    return None


@dataclass(frozen=True)
class _Move:
    """One domain for some of the inputs; None for values, or a cut, of the user's example."""

    domain: Domain | None
    names: frozenset[str]
    cut: bool = False


class _Search:
    """Looks for values of which a module makes numbers; what helped once is tried first."""

    def __init__(self, loaded: LoadedModel, example: Probe) -> None:
        self._loaded, self._example = loaded, example
        self._helped: list[_Move] = []
        self._left = _SEARCHED

    def inside(self, probe: Probe) -> Probe | None:
        """The probe with its explored values moved to where the module gives numbers."""
        for move in self._helped:
            given = self._moved(probe, move)
            if given is not None and self._finite(given) is not None:
                return given
        if not self._left:
            return None
        second: tuple[_Move, Probe] | None = None
        for move in self._moves(probe.explored):
            given = self._moved(probe, move)
            finite = None if given is None else self._finite(given)
            if given is not None and finite:
                self._helped.append(move)
                return given
            if given is not None and finite is not None and second is None:
                second = move, given
        if second is None:
            self._left -= 1
            return None
        self._helped.append(second[0])
        return second[1]

    def values(self) -> tuple[str, ...]:
        """What helped, as ``--values`` takes it."""
        found: dict[str, str] = {}
        for move in self._helped:
            for name in sorted(move.names):
                text = self._text(move, name)
                if text:
                    found.setdefault(name, f"{name}={text}")
        return tuple(found.values())

    def _text(self, move: _Move, name: str) -> str:
        array = self._example.feeds[name]
        if move.domain is not None:
            return move.domain.text if is_float(array) else ""
        if array.dtype.kind == "b" or move.cut or array.min() == array.max():
            return ""
        return f"{wide(array).min():.6g}..{wide(array).max():.6g}"

    def _moves(self, explored: frozenset[str]) -> Iterator[_Move]:
        """Each domain for one input alone, then for all."""
        names = sorted(explored)
        groups = [frozenset([name]) for name in names] if 1 < len(names) <= _ALONE else []
        groups.append(explored)
        if not self._loaded.drawn:
            yield from (_Move(None, group, cut) for cut in (False, True) for group in groups)
        for domain in DOMAINS:
            yield from (_Move(domain, group) for group in groups)

    def _moved(self, probe: Probe, move: _Move) -> Probe | None:
        """The probe after a move; None where that changes nothing, or leaves the example alone."""
        feeds = dict(probe.feeds)
        for name in move.names & probe.explored:
            feeds[name] = self._values(probe, name, move)
        if _all_same(feeds, probe.feeds) or _all_same(feeds, self._example.feeds):
            return None
        bounded = move.domain is not None and move.domain.bounded
        return replace(probe, feeds=feeds, magnitude=1.0 if bounded else probe.magnitude)

    def _values(self, probe: Probe, name: str, move: _Move) -> np.ndarray:
        array, known = probe.feeds[name], self._example.feeds[name]
        if move.domain is None and not known.size:
            return array
        if move.domain is None and move.cut:
            return _cut(known, array.shape)
        if move.domain is None:
            rng = np.random.default_rng(zlib.crc32(f"{probe.label} {name}".encode()))
            return rng.choice(known.reshape(-1), size=array.shape).astype(array.dtype)
        if is_float(array):
            return move.domain.moved(wide(array)).astype(array.dtype)
        return array if move.domain.whole is None else np.full_like(array, move.domain.whole)

    def _finite(self, probe: Probe) -> bool | None:
        """Whether the module gives finite numbers alone; None where it refuses or gives NaN."""
        with fresh(self._loaded) as own, quiet():
            try:
                outputs = run(own.flat, tensors_of(own, probe.feeds))
            except Exception:  # noqa: BLE001 (the module is the user's code)
                return None
        if any(_nan(array) for array in outputs):
            return None
        return all(bool(np.isfinite(wide(array)).all()) for array in outputs if is_float(array))


def _all_same(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> bool:
    return all(np.array_equal(first[name], second[name]) for name in first)


def _cut(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The array at another shape: cut off, or its last values repeated."""
    kept = array[tuple(slice(0, size) for size in shape)]
    return np.pad(kept, [(0, s - n) for s, n in zip(shape, kept.shape, strict=True)], mode="edge")
