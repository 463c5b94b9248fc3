"""The report as SARIF 2.1.0, for GitHub code scanning and editors.

https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import quote

from torch2mobile.records import (
    Check,
    Finding,
    Location,
    Report,
    RuleInfo,
    Severity,
    Status,
)
from torch2mobile.reporters import wording

_SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
_BASE = "%SRCROOT%"
_LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}

Json = dict[str, Any]


def render(report: Report, *, colour: bool = False, verbose: bool = False) -> str:
    """Return the log with one run: a result a finding, and a failed check without findings."""
    del colour, verbose
    failed = [c for c in report.checks if _speaks_for_itself(c)]
    names = sorted({check.name for check in failed})
    rules = [_rule(rule) for rule in report.rules]
    # A report that was edited by hand may lack a rule.
    known = {rule.code for rule in report.rules}
    names += sorted({f.code for c in report.checks for f in c.findings} - known - {*names})
    rules += [{"id": name} for name in names]
    run: Json = {
        "tool": {
            "driver": {
                "name": "torch2mobile",
                "version": report.environment.get("torch2mobile", "0"),
                "rules": rules,
            }
        },
        "originalUriBaseIds": {_BASE: {"description": {"text": "The working directory."}}},
        "columnKind": "unicodeCodePoints",
        "invocations": [{"executionSuccessful": report.status is not Status.ERROR}],
        "results": list(_results(report, [rule["id"] for rule in rules])),
    }
    log = {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}
    text = json.dumps(log, indent=2, ensure_ascii=False, allow_nan=False)
    # What is no UTF-8, such as the bytes of a strange file name, as everywhere else.
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return wording.printable_json(text) + "\n"


def _speaks_for_itself(check: Check) -> bool:
    return check.status in {Status.FAILED, Status.ERROR} and not check.findings


def _rule(rule: RuleInfo) -> Json:
    markdown = f"**Why.** {rule.reason}\n\n**What to do.** {rule.remedy}"
    return {
        "id": rule.code,
        "name": "".join(word.capitalize() for word in rule.name.split("-")),
        "shortDescription": {"text": f"{rule.summary[:1].upper()}{rule.summary[1:]}."},
        "fullDescription": {"text": rule.reason},
        "help": {"text": f"{rule.reason}\n\n{rule.remedy}", "markdown": markdown},
        "defaultConfiguration": {"level": _LEVELS[rule.severity]},
    }


def _results(report: Report, ids: list[str]) -> Iterator[Json]:
    seen: Counter[str] = Counter()
    for check in report.checks:
        for finding in check.findings:
            text = f"{finding.message}. {finding.remedy}".strip()
            result = _result(ids, finding.code, _LEVELS[finding.severity], text, finding.location)
            yield {**result, **_fingerprint(finding, seen), **_suppression(finding)}
        if _speaks_for_itself(check):
            # A check with no line of its own is about the run: SARIF allows no location.
            for location in check.locations or (Location(),):
                summary = wording.one_line(f"{wording.label(check)}: {check.summary}")
                text = f"{summary}\n{check.hint}".strip()
                yield _result(ids, check.name, "error", text, location)


def _result(ids: list[str], rule: str, level: str, text: str, location: Location) -> Json:
    return {
        "ruleId": rule,
        "ruleIndex": ids.index(rule),
        "level": level,
        "message": {"text": text},
        "locations": list(_locations(location)),
    }


def _locations(location: Location) -> Iterator[Json]:
    named = {"module": location.module, "op": location.op, "node": location.node}
    logical = [{"name": value, "kind": kind} for kind, value in named.items() if value]
    place: Json = {"logicalLocations": logical} if logical else {}
    if location.file:
        physical: Json = {"artifactLocation": _artifact(location.file)}
        if location.line:
            physical["region"] = {"startLine": location.line}
            if location.code:
                physical["region"]["snippet"] = {"text": location.code}
        place["physicalLocation"] = physical
    if place:
        yield place


def _artifact(file: str) -> Json:
    if PurePath(file).is_absolute():
        return {"uri": Path(file).as_uri()}
    return {"uri": quote(PurePath(file).as_posix(), errors="replace"), "uriBaseId": _BASE}


def _fingerprint(finding: Finding, seen: Counter[str]) -> Json:
    """The same for a finding whose line only moved; repeats are numbered."""
    where = finding.location
    parts = (finding.code, finding.target, where.file, where.code, where.module, where.op)
    text = "\0".join(parts).encode("utf-8", "backslashreplace")
    digest = hashlib.sha256(text).hexdigest()[:32]
    seen[digest] += 1
    return {"partialFingerprints": {"torch2mobile/v1": f"{digest}:{seen[digest]}"}}


def _suppression(finding: Finding) -> Json:
    if not finding.suppressed:
        return {}
    return {"suppressions": [{"kind": "external", "justification": finding.suppressed}]}
