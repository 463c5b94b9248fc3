"""What decided, output by output: the figures behind a verdict, as metrics and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from torch2mobile.records import Metric, Mismatch, Table
from torch2mobile.validators.parity.compare import Judged

# The rules that stand in for the float64 truth, the better one first.
WEAKER = ("compensated", "usual")
# The rules that go by the module's own noise.
MEASURING = ("measured", *WEAKER)

# From here on an error looks large that is not: the probe and its values stand beside it.
_LARGE = 100.0

_COLUMNS = (
    "output",
    "probe",
    "error",
    "noise",
    "ratio",
    "allowed",
    "rule",
    "least atol",
    "least rtol",
    "weaker",
)


class Off(Protocol):
    """What is off by an error, of which so much is allowed."""

    @property
    def error(self) -> float:
        """The error."""

    @property
    def allowed(self) -> float:
        """What is allowed."""


def closeness(one: Off) -> float:
    """The error as a share of what is allowed; infinite where nothing is."""
    return share(one.error, one.allowed)


def share(error: float, allowed: float) -> float:
    """An error as a share of what is allowed; infinite where nothing is."""
    if allowed > 0:
        return error / allowed
    return float("inf") if error > 0 else 0.0


def nearness(one: Off) -> tuple[float, float]:
    """What the worst has the most of: the share of what is allowed, then the error itself."""
    return closeness(one), one.error


def _by_output(judged: Sequence[Judged]) -> dict[str, list[Judged]]:
    found: dict[str, list[Judged]] = {}
    for one in judged:
        found.setdefault(one.output, []).append(one)
    return found


def ratio(one: Judged) -> float | None:
    """The artefact's error in units of the module's own noise; None where that is unknown."""
    if one.floor is None:
        return None
    if one.floor > 0:
        return one.error / one.floor
    return float("inf") if one.error > 0 else 0.0


def _least(values: Sequence[float | None], *, possible: bool) -> float | None:
    """The greatest of the least tolerances of all probes; None where none lets all of them pass."""
    known = [value for value in values if value is not None]
    return max(known) if possible and len(known) == len(values) else None


def figures(judged: Sequence[Judged], wrong: Sequence[Mismatch]) -> dict[str, Metric]:
    """The metrics of each output, from the probe that came closest to its limit."""
    metrics: dict[str, Metric] = {}
    for name, mine in _by_output(judged).items():
        worst = max(mine, key=nearness)
        found: Mapping[str, Metric | None] = {
            "error": worst.error,
            "allowed": worst.allowed,
            "floor": worst.floor or 0.0,
            "rule": worst.rule,
            "probe": worst.probe,
            "ratio": ratio(worst),
            "least_atol": _least([one.least_atol for one in mine], possible=_possible(name, wrong)),
            "failing": len({item.probe for item in wrong if item.output == name}) or None,
        }
        metrics |= {f"{name}.{key}": value for key, value in found.items() if value is not None}
    return metrics


def _possible(name: str, wrong: Sequence[Mismatch]) -> bool:
    """Whether a tolerance could let an output pass: not one of the wrong structure."""
    return not any(item.output in {"", name} and not item.index for item in wrong)


def by_output(judged: Sequence[Judged], wrong: Sequence[Mismatch]) -> tuple[Table, ...]:
    """One row an output: the probe that came closest to its limit, and what all would pass with.

    No table where nothing could be compared.
    """
    rows = []
    for name, mine in _by_output(judged).items():
        worst = max(mine, key=nearness)
        possible = _possible(name, wrong)
        rows.append(
            (
                name,
                worst.probe,
                worst.error,
                worst.floor,
                ratio(worst),
                worst.allowed,
                worst.rule,
                _least([one.least_atol for one in mine], possible=possible),
                _least([one.least_rtol for one in mine], possible=possible),
                # A bundle does not say by which rule its limits were measured.
                None if worst.rule == "golden" else any(one.rule in WEAKER for one in mine),
            )
        )
    return (Table("by output", _COLUMNS, tuple(rows), detail=True),) if rows else ()


def notes(judged: Sequence[Judged]) -> tuple[str, ...]:
    """For each rule that stood in for the truth: where it did, and that the verdict is weaker."""
    measured = [one for one in judged if one.rule in MEASURING]
    return tuple(
        _note(rule, [one for one in measured if one.rule == rule], len(measured))
        for rule in WEAKER
        if any(one.rule == rule for one in measured)
    )


def _note(rule: str, weak: Sequence[Judged], count: int) -> str:
    where = "for this module"
    if len(weak) < count:
        names = ", ".join(dict.fromkeys(one.output for one in weak))
        where = f"for {names} on {len({one.probe for one in weak})} probes"
    if rule == "compensated":
        by = "the noise is measured on sums in several orders, a weaker verdict"
    else:
        by = "judged by the usual tolerance of the dtype, a much weaker verdict"
    return f"no float64 truth {where}: {by}"


def summary(count: int, judged: Sequence[Judged]) -> str:
    """The closest call of all, in a sentence."""
    floats = [one for one in judged if one.rule != "exact"]
    if not floats:
        return f"{count} probes, all outputs equal"
    worst = max(floats, key=nearness)
    text = f"{count} probes, worst error {worst.error:.2g} of {worst.allowed:.2g} allowed"
    if worst.rule in {"measured", "compensated"}:
        text += f" (float32 noise {worst.floor:.2g})"
    if worst.scale >= _LARGE:
        text += f", on {worst.probe}, where values reach {worst.scale:.2g}"
    return text
