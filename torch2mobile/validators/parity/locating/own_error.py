"""The error of one node on its own, and how much of it is allowed: its own noise decides."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace
from typing import TYPE_CHECKING

from torch2mobile.validators.parity import compare, tolerance
from torch2mobile.validators.parity.channels import Yardstick, is_float
from torch2mobile.validators.parity.compare import Judged
from torch2mobile.validators.parity.locating.slices import at_a_glance
from torch2mobile.validators.parity.locating.tape import Tape
from torch2mobile.validators.parity.tolerance import Case

if TYPE_CHECKING:
    import numpy as np
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
    glance = at_a_glance(want, got)
    if glance is not None:
        return Judged(labels[0], labels[1], *glance)
    truth = tape.exact(node, known) if is_float(want) else None
    judged = _by_noise(labels, want, got, truth, None)
    if judged.mismatch is not None and judged.rule in {"measured", "usual"}:
        judged = _by_noise(labels, want, got, truth, tape.rough(node, known))
    return judged


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
    known = replace(case, rough=None if rough is None else [rough]).known(0)
    limit = tolerance.limit_for(known, yardstick)
    return compare.judge(*labels, want, got, limit)
