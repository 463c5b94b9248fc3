"""The report as SARIF 2.1.0, for GitHub code scanning and editors.

https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
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
from torch2mobile.reporters import text_lines
from torch2mobile.reporters.printable import one_line, printable_json

_SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
_BASE = "%SRCROOT%"
_FILES = {".py", ".onnx", ".ort", ".pt2", ".json"}
_SETTINGS = "pyproject.toml"
_PACKAGES = {"site-packages", "dist-packages"}
_ORDER = ("note", "warning", "error")
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
        "results": _results(report, [rule["id"] for rule in rules]),
    }
    log = {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}
    text = json.dumps(log, indent=2, ensure_ascii=False, allow_nan=False)
    # What is no UTF-8, such as the bytes of a strange file name, as everywhere else.
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return printable_json(text) + "\n"


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


def _results(report: Report, ids: list[str]) -> list[Json]:
    """A result a line and rule: what is found several times at a line is one."""
    results: dict[tuple[object, ...], Json] = {}
    seen: Counter[str] = Counter()
    anchor = _anchor(report)
    for check in report.checks:
        for finding in check.findings:
            text = f"{finding.message}. {finding.remedy}".strip()
            result = _result(ids, finding.code, text, finding.location, anchor)
            result["level"] = _LEVELS[finding.severity]
            result.update(_suppression(finding))
            if _added(results, result, finding.location):
                result.update(_fingerprint(finding, seen))
        if _speaks_for_itself(check):
            for location in check.locations or (Location(),):
                summary = one_line(f"{text_lines.label(check)}: {check.summary}")
                text = "\n".join(filter(None, [summary, *check.notes, check.hint]))
                _added(results, _result(ids, check.name, text, location, anchor), location)
    return list(results.values())


def _added(results: dict[tuple[object, ...], Json], result: Json, location: Location) -> bool:
    """Whether it is the first of its line; one that is not is told by the first."""
    key = _key(result, location)
    first = results.setdefault(key, result)
    if first is result:
        return True
    told = first["message"]["text"].splitlines()
    told += [line for line in result["message"]["text"].splitlines() if line not in told]
    first["message"]["text"] = "\n".join(told)
    first["level"] = max(first["level"], result["level"], key=_ORDER.index)
    if "suppressions" not in result:  # one that counts is not hidden by one that does not
        first.pop("suppressions", None)
    return False


def _key(result: Json, location: Location) -> tuple[object, ...]:
    """What makes two results one: the rule and the line; without a line, also what is said."""
    place = result["locations"][0]["physicalLocation"]
    text = "" if location.line else result["message"]["text"]
    uri, line = place["artifactLocation"]["uri"], place["region"]["startLine"]
    return (result["ruleId"], uri, line, text, "" if location.line else location.node)


def _result(ids: list[str], rule: str, text: str, location: Location, anchor: str) -> Json:
    file, line = text_lines.own_place(location)
    shown = _relative(file)
    if location.file and (location.caller or shown is None):
        text += f"\nIn {location.file}:{location.line}."
    physical: Json = {
        "artifactLocation": _artifact(shown or anchor),
        "region": {"startLine": line if shown and line > 0 else 1},
    }
    if location.code and file == location.file and shown and line > 0:
        physical["region"]["snippet"] = {"text": location.code}
    place: Json = {"physicalLocation": physical}
    named = {"module": location.module, "op": location.op, "node": location.node}
    logical = [{"name": value, "kind": kind} for kind, value in named.items() if value]
    if logical:
        place["logicalLocations"] = logical
    return {
        "ruleId": rule,
        "ruleIndex": ids.index(rule),
        "level": "error",
        "message": {"text": text},
        "locations": [place],
    }


def _anchor(report: Report) -> str:
    """The file that a result without a line of its own is shown at.

    GitHub refuses a log in which any result has none: the model's source, else the settings.
    """
    given = report.request.source if report.request else ""
    for text in (given, report.environment.get("source", ""), report.subject):
        name = text.rpartition(":")[0] or text
        for file in (name, f"{name.replace('.', '/')}.py", f"{name}/manifest.json"):
            shown = _relative(file)
            if shown and Path(shown).suffix in _FILES and Path(shown).is_file():
                return shown
    return _SETTINGS


def _relative(file: str) -> str | None:
    """A path below the working directory, seen from there; None for what is elsewhere."""
    if not file:
        return None
    path = PurePath(file)
    try:
        path = path.relative_to(Path.cwd()) if path.is_absolute() else path
    except (ValueError, OSError):
        return None
    return None if ".." in path.parts or _PACKAGES & set(path.parts) else path.as_posix()


def _artifact(file: str) -> Json:
    return {"uri": quote(file, errors="replace"), "uriBaseId": _BASE}


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
