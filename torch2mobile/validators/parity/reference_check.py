"""Is the module itself fit to be compared with: repeatable, finite, and true to its own ranges?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from torch2mobile.errors import some_of
from torch2mobile.records import Check, Mismatch, Status
from torch2mobile.validators.parity import compare, gate
from torch2mobile.validators.parity.answers import Answers
from torch2mobile.validators.parity.channels import is_float
from torch2mobile.validators.parity.determinism import Unsteady
from torch2mobile.validators.parity.domain import Settled, has_nan
from torch2mobile.validators.parity.expected import Expected, typical_of
from torch2mobile.validators.parity.reference import Reference

if TYPE_CHECKING:
    from torch2mobile.errors import Torch2MobileError
    from torch2mobile.interfaces import Outputs

_UNSTEADY = {
    "random": (
        "it draws random numbers",
        (
            "Turn off dropout and other randomness in forward (self.training is False here), or "
            "give the random numbers as an input."
        ),
    ),
    "outside": (
        "from the same state and seed too: a data race, or something outside the module",
        "Let forward depend on its inputs and its own weights alone.",
    ),
}


def reference_check(
    references: Sequence[Reference],
    unsteady: Unsteady | None = None,
    settled: Settled | None = None,
) -> Check:
    """FAILED where the module's outputs are random, NaN, or refused within what was declared.

    State kept between calls is no fault here: every probe meets a fresh module. ``state_check``
    looks at it. Nor is a value that nobody declared, as long as enough others are left.
    """
    held = [item for item in references if not item.probe.outside]
    outside = [item for item in references if item.probe.outside]
    notes = tuple(
        f"the module refuses {item.probe.label}: {item.refusal}"
        for item in held
        if item.refusal and not item.probe.declared
    )
    notes += _outside_notes(outside, settled)
    explored = [item for item in outside if item.probe.explored]
    kept = unsteady is not None and unsteady.cause == "state"
    if not kept and not all(item.repeatable for item in references):
        why, remedy = _UNSTEADY[unsteady.cause if unsteady else "random"]
        return Check(
            "reference",
            Status.FAILED,
            f"the module's outputs differ between two runs on the same input: {why}",
            hint=remedy,
            notes=notes,
        )
    wrong = _nan_check(held, notes) or _refusal_check(held, notes)
    if wrong is not None:
        return wrong
    good = [item for item in held if not item.refusal]
    start = " from a fresh start" if kept else ""
    if explored and len(good) < len(held + explored) / 2:
        return Check(
            "reference",
            Status.ERROR,
            f"too few probes to judge by: of the {len(held + explored)} the module gives numbers "
            f"on {len(good)}, and nobody declared its values",
            hint=_DECLARE,
            notes=notes,
        )
    return Check(
        "reference",
        Status.PASSED if good else Status.ERROR,
        f"repeatable and {_how_finite(good)}{start}",
        notes=notes,
    )


def _how_finite(references: Sequence[Reference]) -> str:
    """On how many probes, and on how many of them outputs hold infinities."""
    endless = sum(
        any(is_float(array) and np.isinf(array).any() for _, array in item.outputs)
        for item in references
    )
    with_some = f" but for infinities on {endless}" if endless else ""
    return f"finite on {len(references)} probes{with_some}"


_DECLARE = (
    "Declare with --values which inputs can occur, e.g. --values 'NAME=uniform(0,1)', or give "
    "real ones with --data."
)


def constant_check(expected: Sequence[Expected]) -> Check | None:
    """FAILED where the outputs are the same on all probes: of a file, that proves nothing.

    None where they do not, or where no two probes differ in values alone.
    """
    shapes = [tuple(a.shape for a in case.probe.feeds.values()) for case in expected]
    if not shapes[0] or len(set(shapes)) == len(shapes):
        return None
    outputs = [[array for _, array in case.outputs] for case in expected]
    held = [[np.unique(array) for array in arrays] for arrays in outputs]
    if not all(compare.same(held[0], other) for other in held[1:]):
        return None
    # Classes, masks and signs are the same values in other places.
    first: dict[tuple[tuple[int, ...], ...], Sequence[np.ndarray]] = {}
    for arrays in outputs:
        if not compare.same(first.setdefault(tuple(a.shape for a in arrays), arrays), arrays):
            return None
    values = [values for values in held[0] if values.size]
    which = f" ({values[0].item():.4g} everywhere)" if [v.size for v in values] == [1] else ""
    return Check(
        "constant",
        Status.FAILED,
        f"the module's outputs are the same on all {len(expected)} probes{which}: nothing shows "
        "that the file computes what the module does",
        hint="Look at its weights and mode, and give inputs that it answers to (--data, --values). "
        "If it is meant to be constant: --accept-constant (accept_constant in Python).",
    )


def _nan_check(held: Sequence[Reference], notes: tuple[str, ...]) -> Check | None:
    bad = [item for item in held if has_nan(item)]
    if not bad:
        return None
    return Check(
        "reference",
        Status.FAILED,
        f"the module returns NaN on {len(bad)} of {len(held)} probes",
        hint="Guard the operation (clamp its input), or declare with --values which inputs "
        "can occur, e.g. --values 'NAME=uniform(0,1)'.",
        mismatches=tuple(_nan_places(bad[0])),
        notes=notes,
    )


def _refusal_check(held: Sequence[Reference], notes: tuple[str, ...]) -> Check | None:
    refused = [item for item in held if item.refusal and item.probe.declared]
    if not refused:
        return None
    first = refused[0]
    return Check(
        "reference",
        Status.FAILED,
        f"the module refuses {first.probe.label}, which the inputs declare: {first.refusal}",
        hint="Narrow the range in --input to what the module takes.",
        notes=notes,
    )


def _outside_notes(outside: Sequence[Reference], settled: Settled | None) -> tuple[str, ...]:
    """What the module does not take of what nobody declared, and how to declare its values."""
    nan = [item for item in outside if not item.refusal]
    notes = []
    for what, items in (
        ("returns NaN on", [item for item in nan if item.probe.explored]),
        ("returns NaN on", [item for item in nan if not item.probe.explored]),
        ("refuses", [item for item in outside if item.refusal]),
    ):
        if items:
            labels = [item.probe.label.removesuffix(" (outside)") for item in items]
            names = ", ".join(sorted({name for item in items for name in item.probe.explored}))
            notes.append(
                f"the module {what} {some_of(labels, SHOWN)}, which nobody declared"
                + (f" of {names}" if names else "")
                + (f": {items[0].refusal}" if items[0].refusal else "; the file has to as well")
            )
    if settled is not None and settled.values:
        given = " ".join(f"--values '{text}'" for text in settled.values)
        notes.append(f"it was judged by other values instead, as {given} would declare them")
    return tuple(notes)


# Labels of probes in one note; the rest is counted.
SHOWN = 4


def modes_check(
    left: Sequence[str], expected: Sequence[Expected], answer: Outputs | Torch2MobileError
) -> Check:
    """FAILED where the outputs follow the submodules that were left in train mode.

    ``answer`` is what the module gives on the first of ``expected`` in the modes that it has.
    """
    names = some_of(left, SHOWN)
    wrong = gate.judge_probe(expected[0], answer, typical_of(expected), {})[1]
    verb = "is" if len(left) == 1 else "are"
    if not wrong:
        return Check(
            "modes",
            Status.PASSED,
            f"{names} {verb} in train mode in a module in eval mode; all was exported in eval "
            "mode, which gives the same",
        )
    return Check(
        "modes",
        Status.FAILED,
        f"{names} {verb} in train mode in a module in eval mode, and its outputs follow; all was "
        "exported in eval mode",
        hint="Call eval() on the whole module, after its last layer was put in. What has to work "
        "as in training in the app is written as such in forward, with its noise as an input.",
        mismatches=tuple(wrong[: gate.SHOWN]),
    )


MADE = "Make that layer in __init__: a call draws other weights for each copy."
"""What to do where forward makes a layer."""
_KEEP = (
    "Export it with --state (from Python state=True), which makes it an input and an output of the "
    "file that the app carries on; or let forward take it and return it."
)


def state_check(changed: Sequence[str], cases: Sequence[Expected], answers: Answers) -> Check:
    """FAILED where a module in use gives something else than a fresh one, as the file always is.

    ``cases`` and ``answers`` are those of :func:`determinism.sequence`; ``changed`` names state.
    """
    usual = typical_of(cases)
    wrong: list[Mismatch] = []
    for number, (case, answer) in enumerate(zip(cases, answers, strict=True), 1):
        label = f"call {number} in a row ({case.probe.label})"
        called = replace(case, probe=replace(case.probe, label=label))
        wrong += gate.judge_probe(called, answer, usual, {})[1]
    names = some_of(changed, SHOWN) or "something that no attribute shows"
    if wrong:
        return Check(
            "state",
            Status.FAILED,
            f"the module keeps {names} from call to call, and its outputs follow; the file starts "
            "anew at each call",
            hint=_KEEP if changed else f"Register what changes as a buffer. {_KEEP}",
            mismatches=tuple(wrong[: gate.SHOWN]),
        )
    return Check(
        "state",
        Status.PASSED,
        f"forward changes {names}, but {len(cases)} calls in a row give what fresh ones give",
    )


def _nan_places(reference: Reference) -> list[Mismatch]:
    places = []
    for name, array in reference.outputs:
        if is_float(array):
            nan = np.isnan(array.astype(np.float32))
            if nan.any():
                index = tuple(int(i) for i in np.argwhere(nan)[0])
                problem = f"the module itself gives NaN at {int(nan.sum())} of {array.size} values"
                places.append(
                    Mismatch(
                        output=name,
                        probe=reference.probe.label,
                        problem=problem,
                        index=index,
                        expected="a number",
                        actual="nan",
                    )
                )
    return places
