"""The error of one node on its own, and how much of it is allowed: its own noise decides."""

from __future__ import annotations

from collections.abc import Container
from typing import TYPE_CHECKING

import numpy as np

from torch2mobile.validators.parity import compare, tolerance
from torch2mobile.validators.parity.compare import Judged
from torch2mobile.validators.parity.locating.tape import Tape
from torch2mobile.validators.parity.tolerance import Case, Yardstick, is_float

if TYPE_CHECKING:
    from torch.fx import Node


def judge(
    tape: Tape, node: Node, known: Container[Node], labels: tuple[str, str], got: np.ndarray
) -> Judged:
    """What the artefact computed from the program's values, against the program's own.

    The rule is the gate's, with the noise measured on what lies between the ``known`` nodes and
    this one: in float64, and with its sums in a plain loop where that does not suffice.
    ``labels`` are the names of the value and of the probe.
    """
    name, probe = labels
    want = tape.value(node)
    wrong = compare.structure([(name, want)], [(name, got)], probe)
    if wrong:
        return Judged(name, probe, float("inf"), 0.0, 0.0, "structure", wrong[0])
    glance = _clearly_within(labels, want, got)
    if glance is not None:
        return glance
    truth = tape.exact(node, known) if is_float(want) else None
    judged = _by_noise(labels, want, got, truth, None)
    if judged.mismatch is not None and judged.rule in {"measured", "usual"}:
        judged = _by_noise(labels, want, got, truth, tape.rough(node, known))
    return judged


def _clearly_within(labels: tuple[str, str], want: np.ndarray, got: np.ndarray) -> Judged | None:
    """PASSED at a glance: no more off than the dtype's usual rtol of the greatest value.

    Each limit allows that, so that most values need no second evaluation in float64.
    """
    if not is_float(want):
        return Judged(*labels, 0.0, 0.0, 0.0, "exact") if np.array_equal(want, got) else None
    if not want.size:
        return Judged(*labels, 0.0, 0.0, 0.0, "usual")
    with np.errstate(all="ignore"):
        error = float(np.abs(got - want).max())
        scale = max(float(want.max()), -float(want.min()))
    rtol = tolerance.USUAL.get(want.dtype.name, tolerance.USUAL["float32"]).rtol
    # False for NaN and infinities, which want a closer look.
    return Judged(*labels, error, rtol * scale, 0.0, "usual") if error <= rtol * scale else None


def _by_noise(
    labels: tuple[str, str],
    want: np.ndarray,
    got: np.ndarray,
    truth: np.ndarray | None,
    rough: np.ndarray | None,
) -> Judged:
    if not is_float(want):
        return compare.judge(*labels, want, got, tolerance.exact_limit(want))
    if truth is not None and truth.shape != want.shape:
        truth = None
    case = Case([(labels[0], want)], None if truth is None else [truth])
    yardstick = tolerance.yardsticks([case]).get(labels[0], Yardstick())
    limit = tolerance.limit_for(case.known(0), yardstick, rough=rough)
    return compare.judge(*labels, want, got, limit)
