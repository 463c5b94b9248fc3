"""Where a runtime with layers of its own goes wrong: its values beside those of the .onnx.

A converter fuses operators and renames their values, so a value is known by what it holds: of the
values of the .onnx with as many numbers, the one that it is nearest to. A value that is near to
none (laid out otherwise, or ruined) counts as wrong, unless what is made of it is right again.
Where a runtime keeps the names of the .onnx, a value is known by its name.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from torch2mobile.records import Layer

# Farther off than this, of a value's scale, it is no longer that value.
_ALIKE = 0.5
# Of the error of the outputs, what is right may have.
_SHARE = 0.1
# Rounding, of a value's scale: less is never wrong.
_ROUNDING = 1e-5


@dataclass(frozen=True)
class Reached:
    """How near a value comes to one of the .onnx: that one's name, and the errors."""

    name: str
    error: float
    relative: float


@dataclass(frozen=True)
class WrongLayer:
    """The first layer whose value is wrong on values that are right.

    ``before`` and ``after`` are the greatest errors of what it takes and gives; ``value`` is the
    value of the .onnx that it stands for. Where no value is alike, ``after`` is None, and the name
    is empty. ``reads`` are the values of the .onnx that it takes.
    """

    layer: Layer
    value: str
    before: float
    after: float | None
    reads: tuple[str, ...] = ()


def first_wrong(
    layers: Sequence[Layer],
    shown: Mapping[str, np.ndarray],
    wanted: Mapping[str, np.ndarray],
) -> WrongLayer | None:
    """The first layer that goes wrong, from what a runtime shows and what the .onnx has.

    None where no layer does: rounding adds up, or the fault is in what is made of the outputs.
    """
    last = {name for layer in layers if layer.channels_last for name in layer.outputs}
    same = {name for layer in layers if layer.same_names for name in layer.outputs}
    reached = _reached(shown, wanted, last, same)
    producer = {name: layer for layer in layers for name in layer.outputs}
    read = {name for layer in layers for name in layer.inputs}
    outputs = [name for name in producer if name not in read]
    worst = max((reached[name].relative for name in outputs), default=0.0)
    allowed = max(_SHARE * min(worst, _ALIKE), _ROUNDING)
    # A value without numbers has none that is wrong.
    wrong = {name for name in producer if shown[name].size and reached[name].relative > allowed}
    found = _starts([name for name in outputs if name in wrong], producer, wrong)
    if not found:
        return None
    layer = min(found, key=layers.index)
    after = max((reached[name] for name in layer.outputs), key=lambda one: one.relative)
    before = max((reached[name].error for name in layer.inputs), default=0.0)
    alike = after.relative <= _ALIKE or after.name in same & {*layer.outputs}
    reads = tuple(reached[name].name for name in layer.inputs)
    value, error = (after.name, after.error) if alike else ("", None)
    return WrongLayer(layer, value, before, error, reads)


def _starts(outputs: Iterable[str], producer: Mapping[str, Layer], wrong: set[str]) -> list[Layer]:
    """Upwards from wrong outputs through wrong values: the layers that read right ones only."""
    found, seen, queue = [], set(), list(outputs)
    while queue:
        layer = producer[queue.pop()]
        if layer.name in seen:
            continue
        seen.add(layer.name)
        above = [name for name in layer.inputs if name in wrong]
        queue += above
        if not above:
            found.append(layer)
    return found


def _reached(
    shown: Mapping[str, np.ndarray],
    wanted: Mapping[str, np.ndarray],
    last: Container[str],
    same: Container[str],
) -> dict[str, Reached]:
    by_size = defaultdict(list)
    for name, array in wanted.items():
        if array.dtype.kind in "fiub":
            flat = np.asarray(array, np.float64).ravel()
            by_size[flat.size].append((name, flat))
    found = {}
    for name, array in shown.items():
        alike = by_size[array.size]
        alike = [pair for pair in alike if pair[0] == name and name in same] or alike
        found[name] = min(
            (_nearest(form, alike) for form in _forms(array, last=name in last)),
            key=lambda one: one.relative,
        )
    return found


def _forms(array: np.ndarray, *, last: bool) -> list[np.ndarray]:
    """A value as it is, and with its channels first where they may be last."""
    return [array, array.transpose(0, 3, 1, 2)] if last and array.ndim == 4 else [array]


def _nearest(array: np.ndarray, candidates: Sequence[tuple[str, np.ndarray]]) -> Reached:
    best = Reached("", float("inf"), float("inf"))
    flat = np.asarray(array, np.float64).ravel()
    for name, other in candidates:
        with np.errstate(invalid="ignore"):
            error = float(np.abs(flat - other).max(initial=0.0))
        scale = float(np.abs(other).max(initial=0.0))
        relative = error / scale if scale else (0.0 if error == 0 else float("inf"))
        if relative < best.relative:  # never, for NaN
            best = Reached(name, error, relative)
    return best
