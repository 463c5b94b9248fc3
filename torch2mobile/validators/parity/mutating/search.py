"""A seeded search for inputs that show what the probes did not, within what is declared.

Random patterns first (constants, ramps, blocks, channels at their ends …), then small changes of
the best ones so far: an evolution strategy in its simplest form (Rechenberg, 1973).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from torch2mobile import sampling, sizing
from torch2mobile.records import InputSpec

if TYPE_CHECKING:
    from torch2mobile.interfaces import Feeds


# By input: numbers in 0..1, which stand for the least and greatest that is declared.
Genome = Mapping[str, np.ndarray]
# For each of some inputs, how well it does for each target; above 0 where it shows it.
Score = Callable[[Sequence["Feeds"]], np.ndarray]

BATCH = 8
# Kinds of values of which each number stands for itself.
_FREE = ("range", "uniform", "normal")


@dataclass(frozen=True)
class Found:
    """The best input for one target: how well it does, and the number of the run."""

    feeds: Feeds
    score: float
    run: int


class Space:
    """The inputs that may be tried: of these shapes, within what the specifications declare.

    Integers stay in their vocabulary, and floats without declared ends within four deviations.
    """

    def __init__(self, specs: Sequence[InputSpec], likes: Sequence[Feeds], seed: int) -> None:
        self._specs, self._likes = specs, list(likes)
        self._rng = np.random.default_rng([seed, 7])

    def fresh(self) -> Genome:
        """A random pattern at the sizes of one of the given inputs; most often of the first."""
        rng = self._rng
        like = self._likes[0]
        if len(self._likes) > 1 and rng.random() < 0.3:
            like = self._likes[1 + int(rng.integers(len(self._likes) - 1))]
        return {spec.name: _pattern(like[spec.name].shape, rng) for spec in self._specs}

    def near(self, genome: Genome) -> Genome:
        """A small change of one input of a genome, sometimes of all."""
        rng = self._rng
        names = [spec.name for spec in self._specs]
        chosen = set(names) if rng.random() < 0.3 else {names[int(rng.integers(len(names)))]}
        return {
            name: _changed(genome[name], rng) if name in chosen else genome[name] for name in names
        }

    def feeds(self, genome: Genome) -> Feeds:
        """The inputs that a genome stands for, of their exact dtypes."""
        shapes = {name: unit.shape for name, unit in genome.items()}
        sizes = sizing.sizes_of(self._specs, shapes)
        return {spec.name: _express(spec, genome[spec.name], sizes) for spec in self._specs}


def small_first(feeds: Sequence[Feeds]) -> list[Feeds]:
    """Inputs whose sizes a space may take: the example's, then those of no more elements."""
    sizes = [sum(array.size for array in each.values()) for each in feeds]
    rest = [each for each, size in zip(feeds[1:], sizes[1:], strict=True) if size <= sizes[0]]
    return [feeds[0], *rest]


def every_size(specs: Sequence[InputSpec], feeds: Sequence[Feeds]) -> bool:
    """Whether these inputs have every declared size: of large ones the gate tries some alone."""
    shapes = [{name: array.shape for name, array in each.items()} for each in feeds]
    tried = [sizing.sizes_of(specs, each) for each in shapes]
    for symbol in sizing.symbols_of(specs):
        seen = {sizes.get(symbol.name) for sizes in tried}
        if symbol.greatest is None or not seen >= {*range(symbol.least, symbol.greatest + 1)}:
            return False
    return True


def _express(spec: InputSpec, unit: np.ndarray, sizes: Mapping[str, int]) -> np.ndarray:
    dtype = sampling.numpy_dtype(spec.dtype)
    if spec.values is not None and spec.values.kind not in _FREE:
        # What must keep a form is drawn anew, from what the genome is.
        rng = np.random.default_rng(zlib.crc32(unit.tobytes()))
        return sampling.draw(spec, sizes, "example", rng)
    if dtype.kind == "b":
        return np.asarray(unit > 0.5)
    low, high = sampling.bounds(spec)
    if dtype.kind in "iu":
        return np.asarray(np.rint(low + (high - low) * unit)).astype(dtype)
    # A convex sum stays within the ends, also where their difference would overflow.
    return np.clip(low * (1 - unit) + high * unit, low, high).astype(dtype)


def _constant(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    return np.full(shape, rng.choice([0.0, 1.0, 0.5, rng.random()]))


def _noise(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    low, high = np.sort(rng.random(2))
    return np.asarray(low + (high - low) * rng.random(shape))


def _ends(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    return np.asarray(rng.random(shape) < rng.random()).astype(float)


def _sparse(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    array = _constant(shape, rng)
    hit = np.asarray(rng.random(shape) < rng.choice([0.002, 0.02, 0.1]))
    array[hit] = rng.choice([0.0, 1.0])
    if array.size:
        array.flat[int(rng.integers(array.size))] = rng.choice([0.0, 1.0])
    return array


def _ramp(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    if not shape:
        return _constant(shape, rng)
    axis = int(rng.integers(len(shape)))
    start, end = rng.random(2)
    line = np.linspace(start, end, shape[axis])
    if rng.random() < 0.5:
        line = (line > rng.random()).astype(float)
    return np.broadcast_to(_along(line, axis, len(shape)), shape).copy()


def _waves(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    array = np.zeros(shape)
    for axis, size in enumerate(shape):
        turns = rng.random() * max(1, size) / 2
        wave = np.cos(np.linspace(0, 2 * np.pi * turns, size) + 2 * np.pi * rng.random())
        array = array + rng.random() * _along(wave, axis, len(shape))
    spread = float(np.ptp(array)) if array.size else 0.0
    return np.asarray((array - array.min()) / spread) if spread > 0 else array * 0 + 0.5


def _blocks(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    parts = [max(1, min(size, int(rng.integers(1, 9)))) for size in shape]
    array = rng.random(parts)
    for axis, size in enumerate(shape):
        index = np.arange(size) * parts[axis] // max(1, size)
        array = np.take(array, index, axis=axis)
    return np.asarray(array)


def _channels(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    if len(shape) < 2:
        return _ends(shape, rng)
    axis = 1 if rng.random() < 0.7 else int(rng.integers(len(shape)))
    levels = rng.choice([0.0, 0.5, 1.0], size=shape[axis])
    return np.broadcast_to(_along(levels, axis, len(shape)), shape).copy()


def _checkers(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    width = int(rng.integers(1, 4))
    parity = np.asarray(np.indices(shape).sum(axis=0) // width % 2) if shape else np.zeros(())
    low, high = rng.random(2)
    return np.asarray(np.where(parity > 0, low, high))


_PATTERNS = (_constant, _noise, _ends, _sparse, _ramp, _waves, _blocks, _channels, _checkers)


def _along(line: np.ndarray, axis: int, rank: int) -> np.ndarray:
    shape = [1] * rank
    shape[axis] = -1
    return line.reshape(shape)


def _pattern(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    return _PATTERNS[int(rng.integers(len(_PATTERNS)))](shape, rng)


def _changed(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A genome's array with noise, another contrast, a block of another pattern, or moved on."""
    which = int(rng.integers(6))
    if which == 0:
        changed = array + rng.choice([0.3, 0.1, 0.02]) * rng.standard_normal(array.shape)
    elif which == 1:
        changed = 0.5 + (array - 0.5) * rng.choice([0.5, 0.8, 1.25, 2.0, -1.0])
    elif which == 2:
        changed = array + rng.choice([-0.2, -0.05, 0.05, 0.2])
    elif which == 3 and array.ndim:
        axis = int(rng.integers(array.ndim))
        changed = np.roll(array, int(rng.integers(max(1, array.shape[axis]))), axis=axis)
    else:
        changed = np.array(array)
        block = _block(array.shape, rng)
        changed[block] = _pattern(array.shape, rng)[block]
    return np.asarray(np.clip(changed, 0, 1))


def _block(shape: tuple[int, ...], rng: np.random.Generator) -> tuple[slice, ...]:
    """A random part of an array: along each axis all of it, or a piece that is not empty."""
    block = []
    for size in shape:
        start = int(rng.integers(max(1, size)))
        stop = start + 1 + int(rng.integers(max(1, size - start)))
        block.append(slice(None) if rng.random() < 0.5 else slice(start, stop))
    return tuple(block)


def search(
    score: Score, space: Space, targets: int, *, budget: int, patterns: float = 0.25
) -> list[Found]:
    """The best input for each of the targets, after at most ``budget`` inputs.

    The first share of them, ``patterns``, are fresh; then each target in turn, as long as nothing
    shows it, has changes of its best one tried. Ends as soon as all are shown.
    """
    best: list[Found] = []
    genomes: list[Genome] = []
    done = 0
    while done < budget:
        open_ = [number for number, found in enumerate(best) if found.score <= 0]
        if best and not open_:
            break
        count = min(BATCH, budget - done)
        if done < patterns * budget or not best:
            batch = [space.fresh() for _ in range(count)]
        else:
            batch = [space.near(genomes[open_[k % len(open_)]]) for k in range(count)]
        feeds = [space.feeds(genome) for genome in batch]
        scores = np.asarray(score(feeds)).reshape(count, targets)
        for target in range(targets):
            top = int(np.argmax(scores[:, target]))
            if not best[target:] or scores[top, target] > best[target].score:
                found = Found(feeds[top], float(scores[top, target]), done + top + 1)
                best[target : target + 1] = [found]
                genomes[target : target + 1] = [batch[top]]
        done += count
    return best
