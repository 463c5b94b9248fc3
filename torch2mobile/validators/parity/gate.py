"""The verdict: the artefact on every probe, against the module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from torch2mobile.errors import (
    ProbeRefusedError,
    Torch2MobileError,
)
from torch2mobile.records import Check, Mismatch, ParityOptions, Status, Tolerance
from torch2mobile.validators.parity import channels, compare, evidence, task_metrics, tolerance
from torch2mobile.validators.parity.answers import Answers, none_fits, refusals
from torch2mobile.validators.parity.channels import Yardstick
from torch2mobile.validators.parity.compare import Judged
from torch2mobile.validators.parity.expected import Expected, Usual, typical_of
from torch2mobile.validators.parity.tolerance import Limit

if TYPE_CHECKING:
    from torch2mobile.interfaces import Outputs

# A failing model fails on many probes; the report names this many and counts the rest.
SHOWN = 12


def judge_probe(
    case: Expected,
    answer: Outputs | Torch2MobileError,
    usual: Mapping[str, Yardstick],
    tolerances: Mapping[str, Tolerance],
) -> tuple[list[Judged], list[Mismatch]]:
    """All outputs of one probe, and what is wrong with them."""
    label = case.probe.label
    if isinstance(answer, Torch2MobileError):
        problem = f"the module gives outputs, the artefact none: {answer.message}"
        return [], [Mismatch(output="", probe=label, problem=problem)]
    wrong = compare.structure(case.outputs, answer, label)
    if wrong:
        return [], wrong
    judged = _judge_outputs(case, answer, limits_of(case, usual, tolerances))
    for closer in (case.later, case.rough):
        if closer is not None and not closer.done and _out_of_limit(judged):
            closer()
            judged = _judge_outputs(case, answer, limits_of(case, usual, tolerances))
    if _out_of_limit(judged) and isinstance(usual, Usual):
        judged = _judge_outputs(case, answer, limits_of(case, usual.coarse, tolerances))
    judged = [_by_value(one, number, case, answer[number][1]) for number, one in enumerate(judged)]
    if case.order is not None and any(one.mismatch for one in judged):
        judged = _by_order(judged, case, answer, usual, tolerances)
    return judged, [one.mismatch for one in judged if one.mismatch is not None]


def _by_order(
    judged: list[Judged],
    case: Expected,
    answer: Outputs,
    usual: Mapping[str, Yardstick],
    tolerances: Mapping[str, Tolerance],
) -> list[Judged]:
    """Judged by the module's outputs with equal values in another order, if those fit.

    First those with them in order of index, as ONNX has them; then its own, without what moves
    when values change places that are equal to within a rounding.
    """
    assert case.order is not None
    given = case.order.first()
    if given is None:
        return judged
    first = case.instead([(n, array) for (n, _), array in zip(case.outputs, given, strict=True)])
    if not compare.structure(case.outputs, first.outputs, ""):
        again = _judge_outputs(first, answer, limits_of(first, usual, tolerances))
        if not any(one.mismatch for one in again):
            case.order.take(first.outputs)
            return again
    limits = limits_of(case, usual, tolerances)
    fits = case.order.fitted(
        [array for _, array in answer],
        [array for _, array in case.outputs],
        [limit.allowed for limit in limits],
    )
    # Which indices pick as good values is known already, and that none is taken twice.
    known = case.picks() if case.picks is not None else [None] * len(fits)
    fits = [fit & (pick is None) for fit, pick in zip(fits, known, strict=True)]
    held = [
        (name, np.where(fit, want, got))
        for (name, got), (_, want), fit in zip(answer, case.outputs, fits, strict=True)
    ]
    again = [
        one
        if one.mismatch is None
        else replace(other, left_open=case.order.open and bool(fit.all()))
        for one, other, fit in zip(judged, _judge_outputs(case, held, limits), fits, strict=True)
    ]
    if any(one.mismatch for one in again):
        return judged
    case.order.take([])
    return again


def _by_value(one: Judged, number: int, case: Expected, got: np.ndarray) -> Judged:
    """Without its mismatch where other indices pick equal values, of which any will do."""
    want = case.outputs[number][1]
    if one.mismatch is None or want.dtype.kind not in "iu" or case.picks is None:
        return one
    pick = case.picks()[number]
    if pick is None or not pick.as_good(want, got):
        return one
    return replace(one, error=0.0, mismatch=None, least_atol=0.0, least_rtol=0.0)


def _judge_outputs(case: Expected, answer: Outputs, limits: Sequence[Limit]) -> list[Judged]:
    return [
        compare.judge(name, case.probe.label, want, got, limit)
        for (name, want), (_, got), limit in zip(case.outputs, answer, limits, strict=True)
    ]


def _out_of_limit(judged: Sequence[Judged]) -> bool:
    """Whether an output is further off than the noise that was measured so far."""
    return any(one.mismatch and one.rule in evidence.MEASURING for one in judged)


def limits_of(
    case: Expected, usual: Mapping[str, Yardstick], tolerances: Mapping[str, Tolerance]
) -> list[Limit]:
    """What each output of a probe is compared with, and how far it may be off."""
    limits = []
    whole = case.case
    for number, (name, want) in enumerate(case.outputs):
        own = tolerances.get(name, tolerances.get(""))
        if not channels.is_float(want):
            limits.append(tolerance.exact_limit(want))
        elif own is not None:
            limits.append(tolerance.user_limit(want, own, whole.known(number).truth))
        else:
            limits.append(
                tolerance.limit_for(
                    whole.known(number),
                    usual.get(name, Yardstick()).fitting(want),
                    case.probe.magnitude,
                )
            )
    return limits


def parity_check(
    target: str,
    expected: Sequence[Expected],
    answers: Answers,
    options: ParityOptions,
    *,
    usual: Mapping[str, Yardstick] | None = None,
) -> Check:
    """One Check for all outputs on all probes.

    Nothing to compare is an ERROR, never a pass. ``usual`` is what is usual for each output, where
    it is known from more probes than these.
    """
    if not expected:
        return _nothing(
            target,
            "nothing could be compared: the module accepted none of the probes",
            "Give real inputs with --data, or the range of the values with --values.",
        )
    skipped = refusals(answers)
    if skipped.all:
        return none_fits("parity", target, skipped)
    usual = typical_of(expected) if usual is None else usual
    expected, answers = _taken(expected, answers)
    judged, wrong = _judge_all(expected, answers, usual, options)
    count, task = len(expected), task_metrics.measure(_pairs(expected, answers))
    check = Check(
        "parity",
        Status.PASSED,
        "",
        target=target,
        metrics={"probes": count, **evidence.figures(judged, wrong), **task},
        tables=evidence.by_output(judged, wrong),
        notes=(*evidence.notes(judged), *_reordered(expected), *skipped.notes),
    )
    if wrong:
        failing = len({item.probe for item in wrong})
        return replace(
            check,
            status=Status.FAILED,
            summary=f"not the same function as the module on {failing} of {count} probes",
            hint=_advice(wrong),
            mismatches=tuple(_worst_first(wrong)[:SHOWN]),
        )
    empty = _never_compared(expected, judged)
    if empty:
        return _nothing(
            target,
            f"the output {', '.join(empty)} holds no value on any probe, or only some that follow "
            "the order of equal values: never compared",
            "Give real inputs with --data on which it holds some, or leave it out of forward.",
        )
    return replace(check, summary=evidence.summary(count, judged))


def _taken(expected: Sequence[Expected], answers: Answers) -> tuple[list[Expected], Answers]:
    """Without the probes that the artefact cannot take."""
    pairs = [
        (case, answer)
        for case, answer in zip(expected, answers, strict=True)
        if not isinstance(answer, ProbeRefusedError)
    ]
    return [case for case, _ in pairs], [answer for _, answer in pairs]


def _nothing(target: str, summary: str, hint: str) -> Check:
    """Nothing to compare is an error, and no pass."""
    return Check("parity", Status.ERROR, summary, target=target, hint=hint)


def _judge_all(
    expected: Sequence[Expected],
    answers: Answers,
    usual: Mapping[str, Yardstick],
    options: ParityOptions,
) -> tuple[list[Judged], list[Mismatch]]:
    """Every output on every probe, and the mismatches among them."""
    judged: list[Judged] = []
    wrong: list[Mismatch] = []
    for case, answer in zip(expected, answers, strict=True):
        found, mismatches = judge_probe(case, answer, usual, options.tolerances)
        judged += found
        wrong += mismatches
    return judged, wrong


LOOK = "Look at the first mismatch: output, probe and index say where it differs."


def _advice(wrong: Sequence[Mismatch]) -> str:
    """What to do about mismatches that show it by themselves; else to look at the first."""
    if any("complex" in one.problem for one in wrong if not one.index):
        return "A file has no complex outputs: return torch.view_as_real(y), or both parts as two."
    if any("inf on one side only" in one.problem for one in wrong):
        return (
            "A value leaves the range of float32 on one side, which no tolerance mends: clamp the "
            "input of that operation, scale before it, or say which values occur with --values."
        )
    return LOOK


def _never_compared(expected: Sequence[Expected], judged: Sequence[Judged]) -> list[str]:
    """The outputs that are empty or left open on every probe."""
    left = {(one.output, one.probe) for one in judged if one.left_open}
    sizes: dict[str, int] = {}
    for case in expected:
        for name, array in case.outputs:
            size = 0 if (name, case.probe.label) in left else array.size
            sizes[name] = sizes.get(name, 0) + size
    return [name for name, size in sizes.items() if size == 0]


def _reordered(expected: Sequence[Expected]) -> tuple[str, ...]:
    """A note on the probes on which an artefact may take equal values in another order."""
    taken = [case.order for case in expected if case.order and case.order.taken is not None]
    if not taken:
        return ()
    left = sum(order.open and not order.taken for order in taken)
    rest = f"; on {left} of them what follows that order was not compared" if left else ""
    note = (
        f"on {len(taken)} probes topk or sort meets values that are equal to within a rounding, of "
        f"which PyTorch promises no order: judged with the file's{rest}"
    )
    return (note,)


def _worst_first(wrong: Sequence[Mismatch]) -> list[Mismatch]:
    """Structure before values, and every output once before any a second time."""
    seen: dict[str, int] = {}
    ranked = []
    for item in wrong:
        seen[item.output] = seen.get(item.output, 0) + 1
        ranked.append((bool(item.index), seen[item.output], item))
    return [item for _, _, item in sorted(ranked, key=lambda entry: entry[:2])]


def _pairs(expected: Sequence[Expected], answers: Answers) -> list[tuple[Outputs, Outputs]]:
    """Both sides on every probe on which they can be compared."""
    return [
        (case.outputs, answer)
        for case, answer in zip(expected, answers, strict=True)
        if not isinstance(answer, Torch2MobileError)
        and not compare.structure(case.outputs, answer, "")
    ]
