"""The artefacts of a run on other processors, judged by the same rules, and all side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch2mobile import beside, devices, web
from torch2mobile.errors import ModelFileError, Torch2MobileError
from torch2mobile.exporter.targets import TARGETS
from torch2mobile.pipeline.candidates import Candidate
from torch2mobile.pipeline.enough import by_output, to_pass
from torch2mobile.pipeline.installed_tools import Installed
from torch2mobile.pipeline.stages import Stages, error_check
from torch2mobile.records import (
    LOAD_SECONDS,
    Check,
    Metric,
    ParityOptions,
    Request,
    Status,
    Table,
)

if TYPE_CHECKING:
    from torch2mobile.pipeline.localising import Localiser
    from torch2mobile.validators.parity.expected import Expected
    from torch2mobile.validators.parity.golden import Golden

# An emulator takes seconds for a call.
MOST_PROBES = 20
_HERE = "this machine"
_LOST_BY = (
    "Turn off what that processor's kernels lose by (float16 arithmetic, Winograd transforms), "
    "or say how far it may be off: {}."
)
_GRAVE = (Status.FAILED, Status.ERROR, Status.SKIPPED)

On = Callable[[str], Candidate]
"""An artefact as a candidate on a device, by its label."""


def find(labels: Sequence[str]) -> tuple[str, ...]:
    """The devices that labels name, each once; UsageError for an unknown one.

    ``all`` are the processors, and ``web`` where it is installed.
    """
    found = [name for label in labels for name in devices.find(label)]
    there = "all" in labels and web.installed() is not None
    return tuple(dict.fromkeys([*found, *[web.WEB] * there]))


def settled(request: Request) -> Request:
    """A request as reports have it: its devices by their full names."""
    return replace(request, devices=find(request.devices))


def packages() -> list[str]:
    """The distributions that the runtimes which are installed here need on a device."""
    there = [target for target in TARGETS.values() if not target.missing()]
    return list(dict.fromkeys(name for target in there for name in target.packages))


def as_tools() -> list[Installed]:
    """The devices that can be made, as doctor shows them: what is there, or how to make it."""
    found, lacks = devices.there(packages()) or (None, [])
    return [
        _tool(devices.ARM64, found, devices.INSTALL, lacks),
        _tool(web.WEB, web.installed(), web.INSTALL),
    ]


def _tool(
    name: str, found: Mapping[str, str] | None, command: str, lacks: Sequence[str] = ()
) -> Installed:
    told = " ".join(f"{part}={version}" for part, version in found.items()) if found else None
    told = f"{told} without {', '.join(lacks)}" if told and lacks else told
    return Installed(name, told, command, needed=False, whole=not lacks)


def install(what: str, told: Callable[[str], None]) -> None:
    """Make a device, or a target's packages, in the user's cache; InstallError where it fails."""
    if what in beside.PINS:
        beside.install(what, told)
    elif what == web.WEB:
        web.install(told)
    else:
        devices.install(packages(), told)


def versions(labels: Sequence[str]) -> Mapping[str, str]:
    """What a report says of where it ran: the versions and hashes of an emulated device's parts."""
    labels = find(labels)
    told = {}
    if any(label in devices.DEVICES for label in labels):
        found, _ = devices.there(packages()) or (None, [])
        told[devices.ARM64] = (found, devices.digest(packages()))
    if web.WEB in labels:
        told[web.WEB] = (web.installed(), web.digest())
    return {
        name: ", ".join(f"{part} {version}" for part, version in found.items())
        + f" (sha256 of its archives: {digest})"
        for name, (found, digest) in told.items()
        if found
    }


def parity(
    stages: Stages,
    label: str,
    on: On,
    labels: Sequence[str],
    expected: Sequence[Expected],
    options: ParityOptions,
    localiser: Localiser,
) -> None:
    """One artefact on each device against the module, on the first probes."""
    from torch2mobile.validators.parity import gate
    from torch2mobile.validators.parity.answers import run_probes
    from torch2mobile.validators.parity.expected import typical_of

    first = expected[:MOST_PROBES]
    left = len(expected) - len(first)
    notes = (f"the first {len(first)} of {len(expected)} probes",) if left else ()

    def compare(found: Candidate) -> Check:
        held = found.gate(options)
        answers = run_probes(found.runner, first)
        # What is usual is taken from all probes, as on this machine.
        check = gate.parity_check(label, first, answers, held, usual=typical_of(expected))
        check = replace(found.verdict(check, held), notes=(*check.notes, *notes))
        return localiser.in_layers(check, first, found.runner)

    for device in find(labels):
        _attempt(stages, "parity", label, device, on, compare, options)


def golden(
    stages: Stages,
    label: str,
    on: On,
    labels: Sequence[str],
    cases: Sequence[Golden],
    options: ParityOptions,
) -> None:
    """The replay of one artefact's golden data on each device."""
    from torch2mobile.validators.parity.golden import golden_check

    def compare(found: Candidate) -> Check:
        held = found.gate(options, held=any(label in case.limits for case in cases))
        return found.verdict(golden_check(label, found.runner, cases, held.tolerances), held)

    for device in find(labels):
        _attempt(stages, "golden", label, device, on, compare, options)


def _attempt(
    stages: Stages,
    name: str,
    label: str,
    device: str,
    on: On,
    compare: Callable[[Candidate], Check],
    options: ParityOptions,
) -> None:
    """One artefact on one device: what goes wrong with the device is no verdict about the file."""
    stages.observer.started(f"{name} {label} on {device}")
    try:
        found = on(device)
        with found.process as process:
            process.load()
            check = compare(found)
    except ModelFileError as error:
        check = replace(error_check(name, error, target=label), status=Status.FAILED)
    except Torch2MobileError as error:
        check = error_check(name, error, target=label)
    here = next((c for c in reversed(stages.checks) if (c.name, c.target) == (name, label)), None)
    if check.status is Status.FAILED and here is not None and here.status is not Status.FAILED:
        note = f"it does not fail on this machine: {device} computes otherwise"
        enough = to_pass(check, options.for_artifact(label).tolerances)
        hint = _LOST_BY.format(enough) if enough else check.hint
        check = replace(check, notes=(*check.notes, note), hint=hint)
    stages.add(replace(check, device=device))


def side_by_side(stages: Stages, labels: Sequence[str], *, several: bool = False) -> None:
    """One check for all artefacts on all devices: its table has a row an artefact and device.

    Made where devices were asked for, or ``several`` targets. What was not converted has one row.
    """
    if not labels and not several:
        return
    names = {"parity", "golden"}
    compared = [
        check
        for check in stages.checks
        if check.target
        and (check.name in names or (check.name == "convert" and check.status in _GRAVE))
    ]
    rows = tuple(
        (
            check.target,
            check.device or _HERE,
            *_figures(check),
            check.metrics.get("bytes"),
            check.metrics.get(LOAD_SECONDS),
            check.status.value,
            "" if check.status is Status.PASSED else f"{check.name}: {check.summary}",
        )
        for check in sorted(compared, key=lambda check: _order(compared, check))
    )
    columns = ("artefact", "device", "error", "noise", "bytes", LOAD_SECONDS, "status", "reason")
    table = Table("on each device", columns, rows)
    wrong = [check for check in compared if check.status is not Status.PASSED]
    wrong.sort(key=lambda check: _GRAVE.index(check.status))
    if wrong:
        status, summary = wrong[0].status, f"{wrong[0].target} on {wrong[0].device or _HERE}"
    else:
        count, where = len({row[0] for row in rows}), ", ".join((_HERE, *find(labels)))
        status, summary = Status.PASSED, f"{count} artefacts on {where}"
    note = f"{web.WEB} is not installed, and no device of this run: {web.INSTALL}"
    notes = (note,) if "all" in labels and web.WEB not in find(labels) else ()
    stages.add(Check("devices", status, summary, tables=(table,), notes=notes))


def _order(compared: Sequence[Check], check: Check) -> int:
    """Artefacts in the order of the run, each with its devices after this machine."""
    return [other.target for other in compared].index(check.target)


def _figures(check: Check) -> tuple[Metric | None, Metric | None]:
    """The error that the check's own line names, and the noise there."""
    known = [row for row in by_output(check) if isinstance(row["error"], float)]
    worst = max(known, key=_nearness, default={})
    # A replay's line has the greatest difference.
    return check.metrics.get("error", worst.get("error")), worst.get("noise")


def _nearness(row: Mapping[str, Any]) -> tuple[float, float]:
    from torch2mobile.validators.parity.evidence import share

    return share(row["error"], row["allowed"]), row["error"]
