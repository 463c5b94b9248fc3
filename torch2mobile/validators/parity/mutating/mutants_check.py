"""What became of the mutants, as one Check."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from torch2mobile.records import Check, Location, Metric, Status, Table
from torch2mobile.validators.parity.gate import SHOWN
from torch2mobile.validators.parity.mutants import Trial
from torch2mobile.validators.parity.mutating.outcomes import Outcome, Verdict


def mutants_check(
    target: str, trial: Trial, min_caught: float, places: Mapping[str, Location]
) -> Check:
    """FAILED where a control was taken for a fault, or too few of the faults were caught.

    Also where the search for them met an input on which the file itself is not the module.

    SKIPPED where the file had no place for a fault that can be told from the file itself.
    """
    caught, missed, unreached = (trial.count(x) for x in ("caught", "missed", "unreached"))
    judged = caught + missed + unreached
    alarms, controls = trial.count("false alarm"), trial.count("passed", "false alarm")
    equivalent = trial.count("equivalent")
    status, hint, why = _verdict(trial, judged, alarms, min_caught)
    metrics: dict[str, Metric] = {
        "asked": trial.asked,
        "made": len(trial.verdicts),
        "caught": caught,
        "missed": missed,
        "unreached": unreached,
        "equivalent": equivalent,
        "controls": controls,
        "false_alarms": alarms,
        "share": trial.share,
        "min_caught": min_caught,
    }
    passed = f"{controls - alarms} of {controls} controls passed"
    counts = "; ".join(filter(None, (why, f"{equivalent} equivalent, {passed}")))
    share = f"{caught} of {judged} caught" + (f", {unreached} not reached" if unreached else "")
    summary = f"{share}, {counts}" if judged else counts
    return Check(
        "mutants",
        status,
        summary,
        target=target,
        hint=hint,
        metrics=metrics,
        locations=_locations(trial, places),
        mismatches=trial.wrong[:SHOWN],
        tables=tuple(_tables(trial, places)),
        notes=_notes(trial),
    )


def _verdict(trial: Trial, judged: int, alarms: int, least: float) -> tuple[Status, str, str]:
    """Status and hint, and in words what the counts do not show."""
    if trial.wrong:
        why = "the file itself is not the module on a searched input"
        return Status.FAILED, "Look at the first mismatch: it is no mutant's.", why
    if alarms:
        return Status.FAILED, "One unit in the last place is no fault: report this.", ""
    if not judged:
        return Status.SKIPPED, "", "no fault of the catalogue shows in this file"
    if trial.share < least:
        return Status.FAILED, _wanted(trial), ""
    return Status.PASSED, "", ""


def _wanted(trial: Trial) -> str:
    """Which inputs are missing."""
    where = Counter(v.behind.label for v in _of(trial, "unreached") if v.behind is not None)
    if not where:
        return (
            "Declare the values that can occur with --values, or give real inputs with --data; "
            "where the weights are random, trained ones show faults that these hide."
        )
    ((label, _),) = where.most_common(1)
    return f"Give inputs with --data, or values with --values, that go where none went: {label}."


def _of(trial: Trial, outcome: Outcome) -> list[Verdict]:
    return [verdict for verdict in trial.verdicts if verdict.outcome == outcome]


def _locations(trial: Trial, places: Mapping[str, Location]) -> tuple[Location, ...]:
    blind = [*_of(trial, "missed"), *_of(trial, "unreached")]
    at = [places.get(verdict.mutation.output) for verdict in blind]
    return tuple(dict.fromkeys(place for place in at if place is not None))


def _notes(trial: Trial) -> tuple[str, ...]:
    if len(trial.verdicts) == trial.asked:
        return ()
    return (f"the file has places for {len(trial.verdicts)} of the {trial.asked} asked for",)


def _tables(trial: Trial, places: Mapping[str, Location]) -> list[Table]:
    tables = [_by_kind(trial)]
    missed = [_missed(verdict, places) for verdict in _of(trial, "missed")]
    if missed:
        columns = ("kind", "at", "fault", "would be caught by", "why it passed", "line")
        tables.append(Table("missed", columns, tuple(missed)))
    unreached = [_unreached(verdict, places) for verdict in _of(trial, "unreached")]
    if unreached:
        behind = ("kind", "at", "fault", "decision", "never", "why it passed", "line")
        tables.append(Table("unreached", behind, tuple(unreached)))
    for title, outcome in (("equivalent", "equivalent"), ("false alarms", "false alarm")):
        rows = [
            (v.mutation.kind, _at(v), v.mutation.what, _because(v))
            for v in _of(trial, outcome)  # type: ignore[arg-type]
        ]
        if rows:
            tables.append(Table(title, ("kind", "at", "fault", "because"), tuple(rows)))
    return tables


def _because(verdict: Verdict) -> str:
    return f"{verdict.probe}: {verdict.reason}" if verdict.probe else verdict.reason


def _at(verdict: Verdict) -> str:
    mutation = verdict.mutation
    return f"{mutation.output} ({mutation.op})" if mutation.output else "the whole graph"


def _missed(verdict: Verdict, places: Mapping[str, Location]) -> tuple[Metric, ...]:
    place = places.get(verdict.mutation.output, Location())
    probe, why = verdict.probe or "no input found", verdict.reason
    line = f"{place.file}:{place.line}" if place.file else ""
    return (verdict.mutation.kind, _at(verdict), verdict.mutation.what, probe, why, line)


def _unreached(verdict: Verdict, places: Mapping[str, Location]) -> tuple[Metric, ...]:
    decision, never, at = "", "", verdict.mutation.output
    if verdict.behind is not None:
        at = verdict.behind.decision.output
        decision = f"{at} ({verdict.behind.decision.op})"
        never = verdict.behind.decision.sides[verdict.behind.side]
    place = places.get(at, Location())
    line = f"{place.file}:{place.line}" if place.file else ""
    what = verdict.mutation.what
    return (verdict.mutation.kind, _at(verdict), what, decision, never, verdict.reason, line)


def _by_kind(trial: Trial) -> Table:
    outcomes: Sequence[Outcome] = ("caught", "missed", "unreached", "equivalent")
    counts: dict[str, list[int]] = {}
    for verdict in trial.verdicts:
        if not verdict.mutation.control:
            row = counts.setdefault(verdict.mutation.kind, [0] * len(outcomes))
            row[outcomes.index(verdict.outcome)] += 1
    rows: list[tuple[Metric, ...]] = [(kind, *counts[kind]) for kind in sorted(counts)]
    return Table("mutants by kind", ("kind", *outcomes), tuple(rows))
