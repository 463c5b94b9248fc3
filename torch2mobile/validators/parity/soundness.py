"""Is the module itself fit to be compared with: repeatable, finite, and true to its own ranges?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from torch2mobile.records import Check, Mismatch, Status
from torch2mobile.validators.parity.reference import Reference
from torch2mobile.validators.parity.tolerance import is_float


def has_nan(reference: Reference) -> bool:
    """Whether finite inputs of ordinary size made the module return NaN."""
    return not reference.probe.extreme and any(
        is_float(array) and bool(np.isnan(array.astype(np.float32)).any())
        for _, array in reference.outputs
    )


def reference_check(references: Sequence[Reference]) -> Check:
    """FAILED where the module's outputs are random, NaN, or refused within a declared range."""
    notes = tuple(
        f"the module refuses {item.probe.label}: {item.refusal}"
        for item in references
        if item.refusal and not item.probe.declared
    )
    if not all(item.repeatable for item in references):
        return Check(
            "reference",
            Status.FAILED,
            "the module's outputs differ between two runs on the same input",
            hint="Turn off dropout and other randomness in forward; self.training is False here.",
            notes=notes,
        )
    bad = [item for item in references if has_nan(item)]
    if bad:
        first = bad[0]
        return Check(
            "reference",
            Status.FAILED,
            f"the module returns NaN on {len(bad)} of {len(references)} probes",
            hint="Guard the operation (clamp its input), or declare with --values which inputs "
            "can occur, e.g. --values 'NAME=uniform(0,1)'.",
            mismatches=tuple(_nan_places(first)),
            notes=notes,
        )
    refused = [item for item in references if item.refusal and item.probe.declared]
    if refused:
        first = refused[0]
        return Check(
            "reference",
            Status.FAILED,
            f"the module refuses {first.probe.label}, which the inputs declare: {first.refusal}",
            hint="Narrow the range in --input to what the module takes.",
            notes=notes,
        )
    count = len(references) - len(notes)
    return Check(
        "reference",
        Status.PASSED if count else Status.ERROR,
        f"repeatable and finite on {count} probes",
        notes=notes,
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
