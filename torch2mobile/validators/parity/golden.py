"""The replay of a bundle's golden data, without torch: what the module gave, against the file."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from torch2mobile.errors import ProbeRefusedError, Torch2MobileError
from torch2mobile.interfaces import Runner
from torch2mobile.records import Check, Mismatch, Status, Tolerance
from torch2mobile.validators.parity import compare, evidence
from torch2mobile.validators.parity.answers import Answers, none_fits, refusals, run_probes
from torch2mobile.validators.parity.channels import Yardstick, is_float, wide
from torch2mobile.validators.parity.compare import Judged
from torch2mobile.validators.parity.expected import Expected
from torch2mobile.validators.parity.gate import SHOWN, limits_of
from torch2mobile.validators.parity.probes import Probe
from torch2mobile.validators.parity.tolerance import Limit, exact_limit, user_limit

if TYPE_CHECKING:
    from torch2mobile.interfaces import Outputs

_PART = re.compile(r"@(\d+)=(\d+):(\d+)")


@dataclass(frozen=True)
class Golden:
    """One case as stored: inputs, the module's outputs, and the allowed error by output.

    ``allowed`` has the output's name and, where channels are judged apart, tighter limits for some
    of them: ``"pred@1=4:84"`` is for the indices 4 to 83 of its dimension 1. ``limits`` has
    the same for artefacts that are held to something else, and ``carries`` the inputs that are what
    the artefact gave for the case before, by the output.
    """

    probe: str
    feeds: Mapping[str, np.ndarray]
    outputs: Sequence[tuple[str, np.ndarray]]
    allowed: Mapping[str, float]
    limits: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    carries: Mapping[str, str] = field(default_factory=dict)


def allowed_for(
    case: Expected,
    usual: Mapping[str, Yardstick],
    tolerances: Mapping[str, Tolerance] = MappingProxyType({}),
) -> dict[str, float]:
    """What an artefact may differ from the module's own outputs on this case, by output.

    The artefact may be off the truth by the measured tolerance, and the module by its own noise.
    """
    allowed: dict[str, float] = {}
    for (name, want), limit in zip(case.outputs, limits_of(case, usual, tolerances), strict=True):
        if not is_float(want):
            continue
        both = limit.allowed
        if limit.floor is not None and limit.rule in {"measured", "compensated"}:
            both = both + limit.floor
        allowed[name] = float(both.max(initial=0.0))
        yardstick = usual.get(name, Yardstick())
        if yardstick.groups is not None and both.size:
            axis = yardstick.axis
            by_channel = np.moveaxis(both, axis, 0).reshape(both.shape[axis], -1).max(axis=1)
            ends = [0, *(np.flatnonzero(np.diff(by_channel)) + 1).tolist(), len(by_channel)]
            for start, stop in itertools.pairwise(ends):
                if by_channel[start] < allowed[name]:
                    allowed[f"{name}@{axis}={start}:{stop}"] = float(by_channel[start])
    return allowed


def errors_of(case: Expected, answer: Outputs | Torch2MobileError) -> dict[str, float]:
    """How far an artefact is off the module's own outputs, the greatest difference by output.

    Nothing for outputs that are not floating point (they must be equal) or do not fit.
    """
    if isinstance(answer, Torch2MobileError) or compare.structure(case.outputs, answer, ""):
        return {}
    return {
        name: greatest_difference(want, got)
        for (name, want), (_, got) in zip(case.outputs, answer, strict=True)
        if is_float(want)
    }


def taken_instead(case: Expected, answer: Outputs | Torch2MobileError) -> Outputs | None:
    """What an artefact passed with in place of the module's outputs, by the order of equal values.

    That is the outputs with its own whole numbers, or those in another order; nothing where values
    were left open. None where the module's own outputs were given.
    """
    if isinstance(answer, Torch2MobileError) or compare.structure(case.outputs, answer, ""):
        return None
    if case.order is not None and case.order.taken is not None:
        return case.order.taken
    pairs = list(zip(case.outputs, answer, strict=True))
    if all(is_float(want) or (want == got).all() for (_, want), (_, got) in pairs):
        return None
    return [(name, want if is_float(want) else got) for (name, want), (_, got) in pairs]


def tied(
    taken: Sequence[Sequence[Outputs | None]],
) -> dict[int, Outputs]:
    """By probe on which an artefact took others than the module's, what all of them took."""
    rows = enumerate(zip(*taken, strict=True))
    return {number: _agreed(row) for number, row in rows if any(each is not None for each in row)}


def _agreed(picked: Sequence[Outputs | None]) -> Outputs:
    """What all artefacts took; nothing where they do not agree."""
    first = picked[0]
    if not first:
        return []
    arrays = [array for _, array in first]
    alike = all(each and compare.same([a for _, a in each], arrays) for each in picked)
    return first if alike else []


def greatest_difference(first: np.ndarray, second: np.ndarray) -> float:
    """The greatest absolute difference of two arrays of one shape, where both are finite."""
    one, other = wide(first), wide(second)
    both = np.isfinite(one) & np.isfinite(other)
    with np.errstate(over="ignore"):
        return float(np.abs(one[both] - other[both]).max(initial=0.0))


def limit_of(case: Golden, name: str, want: np.ndarray, tolerance: Tolerance | None) -> Limit:
    """The limit of one output of a case: the user's own, or as recorded at export."""
    if not is_float(want):
        return exact_limit(want)
    if tolerance is not None:
        return user_limit(want, tolerance)
    allowed = np.full(want.shape, case.allowed.get(name, 0.0))
    for key, value in case.allowed.items():
        part = _PART.fullmatch(key.removeprefix(name)) if key.startswith(name) else None
        if part is not None:
            axis, start, stop = map(int, part.groups())
            if axis < want.ndim:
                allowed[(slice(None),) * axis + (slice(start, stop),)] = value
    return Limit(wide(want), allowed, None, "golden")


def golden_check(
    target: str,
    runner: Runner,
    cases: Sequence[Golden],
    tolerances: Mapping[str, Tolerance],
) -> Check:
    """FAILED where an output of any case differs; ERROR where there is no case to replay."""
    if not cases:
        return Check(
            "golden",
            Status.ERROR,
            "the bundle holds no golden data, so nothing was compared",
            target=target,
            hint="Export the model again.",
        )
    expected = [
        Expected(Probe(case.probe, case.feeds, carries=case.carries), case.outputs)
        for case in cases
    ]
    answers = run_probes(runner, expected)
    skipped = refusals(answers)
    if skipped.all:
        return none_fits("golden", target, skipped)
    own = [replace(case, allowed=case.limits.get(target, case.allowed)) for case in cases]
    judged, wrong = _judge_all(own, answers, tolerances)
    worst = max((one.error for one in judged), default=0.0)
    count = len(cases) - skipped.count
    check = Check(
        "golden",
        Status.PASSED,
        f"{count} cases as the module gave them, worst difference {worst:.2g}",
        target=target,
        metrics={"cases": count, "error": worst},
        tables=evidence.by_output(judged, wrong),
        notes=skipped.notes,
    )
    if not wrong:
        return check
    failing = len({item.probe for item in wrong})
    return replace(
        check,
        status=Status.FAILED,
        summary=f"gives something else than the module did on {failing} of {count} cases",
        hint="The file is not what was proven at export: export the model again.",
        mismatches=tuple(wrong[:SHOWN]),
    )


def _judge_all(
    cases: Sequence[Golden], answers: Answers, tolerances: Mapping[str, Tolerance]
) -> tuple[list[Judged], list[Mismatch]]:
    """Every output of every case that was taken, and what is wrong: structure first."""
    judged: list[Judged] = []
    wrong: list[Mismatch] = []
    for case, answer in zip(cases, answers, strict=True):
        if isinstance(answer, ProbeRefusedError):
            continue
        if isinstance(answer, Torch2MobileError):
            problem = f"the artefact gives no outputs: {answer.message}"
            wrong.append(Mismatch(output="", probe=case.probe, problem=problem))
            continue
        structure = compare.structure(case.outputs, answer, case.probe)
        wrong += structure
        if structure:
            continue
        for (name, want), (_, got) in zip(case.outputs, answer, strict=True):
            own = tolerances.get(name, tolerances.get(""))
            limit = limit_of(case, name, want, own)
            judged.append(compare.judge(name, case.probe, want, got, limit))
    wrong += [one.mismatch for one in judged if one.mismatch is not None]
    return judged, wrong
