"""Does the artefact follow its inputs, or is one of them baked in as a constant?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from torch2mobile.errors import Torch2MobileError
from torch2mobile.records import Check, Status
from torch2mobile.validators.parity import channels, compare
from torch2mobile.validators.parity.answers import Answers
from torch2mobile.validators.parity.channels import Yardstick
from torch2mobile.validators.parity.expected import Expected, typical_of
from torch2mobile.validators.parity.gate import limits_of

if TYPE_CHECKING:
    from torch2mobile.interfaces import Outputs

# Of float16: the least normal number, and the rounding unit.
_LEAST, _UNIT = 2.0**-14, 2.0**-10


def baked_check(
    target: str, expected: Sequence[Expected], answers: Answers, *, lossy: bool = False
) -> Check:
    """An input whose change moves the module but not the artefact was baked in as a constant.

    A move within the noise of both probes is none: another kernel may round it away; nor is one of
    which a ``lossy`` artefact's float16 holds nothing.
    """
    pairs = _varied(expected)
    usual = typical_of(expected)
    baked: list[str] = []
    tested: list[str] = []
    for name, first, second in pairs:
        before, after = answers[first], answers[second]
        if isinstance(before, Torch2MobileError) or isinstance(after, Torch2MobileError):
            continue
        if not _comparable(expected[first], before) or not _comparable(expected[second], after):
            continue
        if not _moved(expected[first], expected[second], usual, lossy=lossy):
            continue
        tested.append(name)
        if _equal(before, after):
            baked.append(name)
    if baked:
        return Check(
            "baked",
            Status.FAILED,
            f"the module follows the input {', '.join(baked)}, the artefact does not: it was "
            "baked in as a constant",
            target=target,
            hint="Use the tensor itself in forward, on the path that is taken while exporting too.",
            metrics={"inputs": ", ".join(baked)},
        )
    if not tested:
        reason = "no probe changed the module's outputs by more than their noise"
        return Check("baked", Status.SKIPPED, reason, target=target)
    idle = [name for name, _, _ in pairs if name not in tested]
    notes = (f"the module itself does not follow {', '.join(idle)} at the example",) if idle else ()
    summary = f"follows {', '.join(tested)}"
    return Check("baked", Status.PASSED, summary, target=target, notes=notes)


def _comparable(wanted: Expected, got: Outputs) -> bool:
    """Whether an answer can follow anything: of another shape, or NaN alone, it is wrong itself."""
    if compare.structure(wanted.outputs, got, ""):
        return False
    pairs = zip(wanted.outputs, got, strict=True)
    return not any(_only_nan(array) and not _only_nan(own) for (_, own), (_, array) in pairs)


def _only_nan(array: np.ndarray) -> bool:
    return bool(channels.is_float(array) and array.size and np.isnan(array).all())


def _equal(first: Outputs, second: Outputs) -> bool:
    return compare.same([array for _, array in first], [array for _, array in second])


def _moved(one: Expected, other: Expected, usual: Mapping[str, Yardstick], *, lossy: bool) -> bool:
    """Whether the module's outputs on two probes differ by more than both may be off."""
    if compare.structure(one.outputs, other.outputs, ""):
        return True
    limits = zip(limits_of(one, usual, {}), limits_of(other, usual, {}), strict=True)
    for (name, before), (_, after), (first, second) in zip(
        one.outputs, other.outputs, limits, strict=True
    ):
        if not channels.is_float(before):
            if (before != after).any():
                return True
        elif (
            compare.special_values(name, "", before, after) is not None
            or (
                compare.distance(before, after)
                > first.allowed + second.allowed + (_lost(before) if lossy else 0)
            ).any()
        ):
            return True
    return False


def _lost(values: np.ndarray) -> np.ndarray:
    """The steps between numbers of float16 about these."""
    steps: np.ndarray = np.maximum(np.abs(channels.wide(values)), _LEAST) * _UNIT
    return steps


def _varied(expected: Sequence[Expected]) -> list[tuple[str, int, int]]:
    """(input, index of a probe, index of one where only that input differs), the example first."""
    alone = [(case.probe.varies, 0, n) for n, case in enumerate(expected) if case.probe.varies]
    if alone or not expected:
        return alone
    names = list(expected[0].probe.feeds)
    if len(names) != 1:
        return []
    seen: dict[tuple[int, ...], int] = {}
    pairs = [
        (names[0], first, n)
        for n, case in enumerate(expected)
        if (first := seen.setdefault(case.probe.feeds[names[0]].shape, n)) != n
    ]
    return sorted(pairs)[:1]
