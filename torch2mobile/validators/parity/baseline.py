"""Drift against an earlier bundle, output by output, and what of it comes from where.

Of one earlier golden case there are up to four sets of outputs: the earlier module's (recorded),
the earlier file's run now, this file's run now, and today's module's. What separates two of them
has one cause:

- earlier module to earlier file, run now: its conversion, proven small at export, and since then
  the runtime or the machine. The same bytes that give other numbers are nobody's commit.
- earlier file to this file, both run now: what made the file, from the weights to the exporter.
- earlier module to today's module: of that, weights, source, or torch; the rest is conversion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from torch2mobile.errors import Torch2MobileError
from torch2mobile.records import Check, Metric, Mismatch, Status, Table, Tolerance
from torch2mobile.validators.parity import compare, evidence
from torch2mobile.validators.parity.attribution import Cause, Changes, Moved, cause_of, hint_of
from torch2mobile.validators.parity.channels import is_float, wide
from torch2mobile.validators.parity.compare import Judged
from torch2mobile.validators.parity.golden import Golden, greatest_difference, limit_of

if TYPE_CHECKING:
    from torch2mobile.interfaces import Outputs


COLUMNS = (
    *("output", "earlier then", "earlier now", "this now", "files", "modules", "allowed"),
    "cause",
)
SHOWN = 12


@dataclass(frozen=True)
class Replay:
    """An earlier golden case, answered anew; None for what was not run.

    ``now`` is this file, ``before`` the earlier file, ``module`` the module today; ``errors`` has
    by output how far the earlier file was off when it was exported.
    """

    case: Golden
    now: Outputs | Torch2MobileError
    before: Outputs | Torch2MobileError | None
    module: Outputs | None
    errors: Mapping[str, float]


@dataclass(frozen=True)
class Part:
    """How far two sets of outputs are apart, over all cases.

    ``figure`` is the greatest difference, or a text where there is no number for it; None if not
    measured. ``by_case`` has it case by case. ``allowed`` is that of the value closest to its
    limit, None for what must be equal.
    """

    figure: float | str | None = None
    by_case: tuple[float | None, ...] = ()
    allowed: float | None = None
    out: bool | None = None
    mismatches: tuple[Mismatch, ...] = ()


@dataclass(frozen=True)
class OutputDrift:
    """One output over all cases: what was recorded, and the parts of the way."""

    output: str
    probes: tuple[str, ...]
    recorded: tuple[float | None, ...]
    before: Part
    now: Part
    files: Part
    modules: Part

    @property
    def moved(self) -> Moved:
        """What of it is beyond what was allowed."""
        return Moved(self.before.out, self.files.out, self.modules.out)

    @property
    def then(self) -> float | None:
        """The greatest error that the earlier file had at its export, None if not recorded."""
        return max((error for error in self.recorded if error is not None), default=None)

    @property
    def other_results(self) -> str:
        """Where the earlier file, the same bytes, gives other numbers than at its export."""
        for probe, then, now in zip(self.probes, self.recorded, self.before.by_case, strict=False):
            if then is not None and now is not None and then != now:
                return f"{self.output} on {probe}: off by {then:.3g} then, {now:.3g} now"
        return ""


def drifts(replays: Sequence[Replay], tolerances: Mapping[str, Tolerance]) -> list[OutputDrift]:
    """The drift of every output that is still there, over all replayed cases."""
    names = dict.fromkeys(name for replay in replays for name, _ in replay.case.outputs)
    lost = {
        name
        for replay in replays
        if not isinstance(replay.now, Torch2MobileError)
        for name in set(names) - {own for own, _ in replay.now}
    }
    return [_drift(name, replays, tolerances) for name in names if name not in lost]


def _drift(
    name: str, replays: Sequence[Replay], tolerances: Mapping[str, Tolerance]
) -> OutputDrift:
    own = tolerances.get(name, tolerances.get(""))

    def part(base: str, other: str) -> Part:
        sides = [(r.case, _side(r, base, name), _side(r, other, name)) for r in replays]
        judged = [_apart(case, name, first, second, own) for case, first, second in sides]
        return _part(judged, [_difference(first, second) for _, first, second in sides])

    return OutputDrift(
        name,
        tuple(replay.case.probe for replay in replays),
        tuple(replay.errors.get(name) for replay in replays),
        before=part("golden", "before"),
        now=part("golden", "now"),
        files=part("before", "now"),
        modules=part("golden", "module"),
    )


def _side(replay: Replay, side: str, name: str) -> np.ndarray | Torch2MobileError | None:
    given = replay.case.outputs if side == "golden" else getattr(replay, side)
    if given is None or isinstance(given, Torch2MobileError):
        return given
    return dict(given).get(name)


def _apart(
    case: Golden,
    name: str,
    base: np.ndarray | Torch2MobileError | None,
    other: np.ndarray | Torch2MobileError | None,
    own: Tolerance | None,
) -> Judged | None:
    """Two versions of an output by the limit of the golden case; None if one is not there."""
    if base is None or other is None or isinstance(base, Torch2MobileError):
        return None
    if isinstance(other, Torch2MobileError):
        return _structural(name, case.probe, f"gives no outputs: {other.message}")
    structure = compare.structure([(name, base)], [(name, other)], case.probe)
    if structure:
        return _structural(name, case.probe, structure[0].problem)
    limit = limit_of(case, name, dict(case.outputs)[name], own)
    if limit.allowed.shape != base.shape:
        return _structural(name, case.probe, f"shape: {list(base.shape)}")
    return compare.judge(name, case.probe, base, other, replace(limit, base=wide(base)))


def _structural(name: str, probe: str, problem: str) -> Judged:
    mismatch = Mismatch(output=name, probe=probe, problem=problem)
    return Judged(name, probe, float("inf"), 0.0, 0.0, "structure", mismatch)


def _difference(
    first: np.ndarray | Torch2MobileError | None, second: np.ndarray | Torch2MobileError | None
) -> float | None:
    if not isinstance(first, np.ndarray) or not isinstance(second, np.ndarray):
        return None
    if first.shape != second.shape or not is_float(first):
        return None
    return greatest_difference(first, second)


def _part(found: Sequence[Judged | None], by_case: Sequence[float | None]) -> Part:
    judged = [one for one in found if one is not None]
    if not judged:
        return Part()
    wrong = tuple(one.mismatch for one in judged if one.mismatch is not None)
    worst = max(judged, key=evidence.nearness)
    figure: float | str = max((each for each in by_case if each is not None), default=0.0)
    if not np.isfinite(worst.error) and worst.mismatch is not None:
        figure = worst.mismatch.problem
    exact = worst.rule in {"exact", "structure", "special values"}
    return Part(figure, tuple(by_case), None if exact else worst.allowed, bool(wrong), wrong)


def _size(mismatch: Mismatch) -> float:
    return float("inf") if mismatch.least_atol is None else mismatch.least_atol


def baseline_check(
    target: str,
    replays: Sequence[Replay],
    changes: Changes,
    tolerances: Mapping[str, Tolerance],
    notes: Sequence[str] = (),
) -> Check:
    """FAILED where an output is off the earlier module's by more than its golden case allows.

    SKIPPED where no earlier case can be fed to this file.
    """
    found = drifts(replays, tolerances)
    if not found:
        reason = "no golden case of the earlier bundle fits this one, so nothing was compared"
        return Check("baseline", Status.SKIPPED, reason, target=target, notes=tuple(notes))
    failed = [drift for drift in found if drift.now.out]
    causes = {drift.output: cause_of(drift.moved, changes) for drift in failed}
    figures = Table(
        "drift by output", COLUMNS, tuple(_row(drift, causes.get(drift.output)) for drift in found)
    )
    return Check(
        "baseline",
        Status.FAILED if failed else Status.PASSED,
        _failed(failed, causes) if failed else _passed(found, len(replays)),
        target=target,
        hint=hint_of([drift.moved for drift in failed], changes) if failed else "",
        metrics={"cases": len(replays), **_metrics(found)},
        mismatches=tuple(max(drift.now.mismatches, key=_size) for drift in failed)[:SHOWN],
        tables=(figures,),
        notes=(*_other_causes(causes), *notes, *_other_results(target, found, changes)),
    )


def _metrics(found: Sequence[OutputDrift]) -> Mapping[str, Metric]:
    metrics: dict[str, Metric] = {}
    for drift in found:
        if isinstance(drift.now.figure, float) and drift.now.allowed is not None:
            metrics[f"{drift.output}.drift"] = drift.now.figure
            metrics[f"{drift.output}.allowed"] = drift.now.allowed
    return metrics


def _row(drift: OutputDrift, cause: Cause | None) -> tuple[Metric | None, ...]:
    parts = (drift.before, drift.now, drift.files, drift.modules)
    figures = tuple(part.figure for part in parts)
    return (drift.output, drift.then, *figures, drift.now.allowed, cause.word if cause else None)


def _failed(failed: Sequence[OutputDrift], causes: Mapping[str, Cause]) -> str:
    first = failed[0]
    off = first.now.figure
    if isinstance(off, float):
        text = f"{first.output} moved by {off:.2g} ({first.now.allowed or 0.0:.2g} allowed)"
    else:
        text = f"{first.output} moved: {off}"
    if len(failed) > 1:
        text += f", and {len(failed) - 1} more"
    return f"{text}: {causes[first.output].sentence}"


def _other_causes(causes: Mapping[str, Cause]) -> list[str]:
    """Those that the summary, which is about the first output, does not name."""
    first = next(iter(causes.values()), None)
    return [f"{name}: {cause.sentence}" for name, cause in causes.items() if cause != first]


def _passed(found: Sequence[OutputDrift], cases: int) -> str:
    floats = [drift for drift in found if isinstance(drift.now.figure, float)]
    if not floats:
        return f"{cases} cases of the earlier bundle, with the same results"
    worst = max(floats, key=lambda drift: _share(drift.now))
    text = f"{cases} cases of the earlier bundle, at most {worst.now.figure:.2g} off its module"
    if worst.now.allowed is not None:
        text += f" ({worst.now.allowed:.2g} allowed)"
    return text


def _share(part: Part) -> float:
    figure = part.figure if isinstance(part.figure, float) else 0.0
    return figure / part.allowed if part.allowed else figure


def _other_results(target: str, found: Sequence[OutputDrift], changes: Changes) -> list[str]:
    """What is worth knowing although it fails nothing: the same file gives other numbers."""
    first = next(filter(None, (drift.other_results for drift in found)), "")
    text = f"the earlier file for {target}, the same bytes, gives other results than at its export"
    return [f"{text} ({first}): {changes.running()}"] if first else []
