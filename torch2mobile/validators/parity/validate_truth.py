"""Is the float64 run the same function? Judged by the rule that does without it.

A branch on the dtype, or an epsilon that goes by it, makes the float64 run another function, and
its distance from the module no noise. It is suspected where that distance is more than a few
rounding units, and then judged as an artefact would be, by the module's other roundings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from torch2mobile.validators.parity import channels, tolerance
from torch2mobile.validators.parity.channels import Yardstick
from torch2mobile.validators.parity.tolerance import Case, Roundings

# Rounding units of the scale up to which noise is nothing to look at: FACTOR times as much is no
# more than is usually allowed.
CLEAN = 8.0


def other_functions(
    cases: Sequence[Case],
    roundings: Callable[[int], Roundings | None],
    least: Callable[[int], Roundings | None],
) -> dict[int, Roundings]:
    """The cases whose truth is another function, with what to judge them by instead.

    The noisiest ordinary case is looked at first, and the next only where that one has no truth:
    ``roundings``, which gives them for a case's number, runs the module several times, and
    ``least`` once, which clears most. Where most have none, the cases with larger inputs have none
    either.
    """
    usual = tolerance.yardsticks(cases)
    shares = {
        number: _noise(case, usual)
        for number, case in enumerate(cases)
        if case.truth is not None and case.magnitude <= 1
    }
    suspects = sorted((n for n in shares if shares[n] > CLEAN), key=lambda n: -shares[n])
    found: dict[int, Roundings] = {}
    for number in suspects:
        given = least(number)
        if given is not None and _is_other(cases[number], given, usual):
            given = roundings(number)
        if given is None or not _is_other(cases[number], given, usual):
            return found
        found[number] = given
    everywhere = 2 * len(found) > len(shares)
    for number, case in enumerate(cases):
        if everywhere and case.truth is not None and case.magnitude > 1:
            given = roundings(number)
            if given is not None:
                found[number] = given
    return found


def _noise(case: Case, usual: Mapping[str, Yardstick]) -> float:
    """The greatest distance of an output from its truth, in rounding units of its scale."""
    return max(
        (
            float(tolerance.share(case.known(number), usual[name]).max(initial=0.0))
            / tolerance.epsilon(want)
            for number, (name, want) in enumerate(case.outputs)
            if name in usual
        ),
        default=0.0,
    )


def _is_other(case: Case, roundings: Roundings, usual: Mapping[str, Yardstick]) -> bool:
    """Whether the float64 run would fail as an artefact."""
    assert case.truth is not None
    bare = replace(case, truth=None, roundings=roundings)
    for number, (name, _) in enumerate(case.outputs):
        if name in usual:
            noiseless = replace(usual[name], noise=np.zeros_like(usual[name].scale))
            limit = tolerance.limit_for(bare.known(number), noiseless, case.magnitude)
            truth = channels.wide(case.truth[number])
            with np.errstate(invalid="ignore"):
                if (np.abs(truth - limit.base) > limit.allowed).any():
                    return True
    return False
