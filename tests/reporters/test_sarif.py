"""SARIF against the official schema, and what GitHub makes of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torch2mobile.records import Check, Finding, Location, Report, RuleInfo, Severity, Status
from torch2mobile.reporters import REPORTERS, codec

SCHEMA = json.loads(Path(__file__).with_name("sarif-schema-2.1.0.json").read_text("utf-8"))
VALIDATOR = jsonschema.Draft4Validator(SCHEMA)


def sarif(report: Report) -> Any:
    text = REPORTERS["sarif"](report)
    assert text.endswith("}\n")
    assert text == REPORTERS["sarif"](report, colour=True)
    log = json.loads(text)
    VALIDATOR.validate(log)
    (run,) = log["runs"]
    return run


def test_the_schema_is_the_official_one_and_refuses_what_is_wrong() -> None:
    assert SCHEMA["title"].startswith("Static Analysis Results Format (SARIF) Version 2.1.0")
    good = {"version": "2.1.0", "runs": [{"tool": {"driver": {"name": "x"}}, "results": []}]}
    VALIDATOR.validate(good)
    for bad in (
        {**good, "version": "2.2"},
        {**good, "extra": 1},
        {**good, "runs": [{"results": []}]},
        {**good, "runs": [{"tool": {"driver": {"name": "x"}}, "results": [{"level": "bad"}]}]},
    ):
        with pytest.raises(jsonschema.ValidationError):
            VALIDATOR.validate(bad)


def test_findings(linted: Report) -> None:
    run = sarif(linted)
    driver = run["tool"]["driver"]
    assert (driver["name"], driver["version"]) == ("torch2mobile", "0.1.0")
    assert [rule["id"] for rule in driver["rules"]] == ["T2M101", "T2M142", "T2M401"]
    assert driver["rules"][0]["name"] == "DataDependentBranch"
    assert "torch.where" in driver["rules"][0]["help"]["text"]
    assert driver["rules"][0]["defaultConfiguration"] == {"level": "warning"}
    first, second, third = run["results"]
    assert (first["ruleId"], first["ruleIndex"], first["level"]) == ("T2M101", 0, "error")
    place = first["locations"][0]["physicalLocation"]
    assert place["artifactLocation"] == {"uri": "models/my%20net.py", "uriBaseId": "%SRCROOT%"}
    assert place["region"] == {"startLine": 12, "snippet": {"text": "if x.mean() > 0:"}}
    assert second["suppressions"] == [{"kind": "external", "justification": "while debugging"}]
    assert third["level"] == "note"
    assert third["locations"][0]["logicalLocations"] == [
        {"name": "head", "kind": "module"},
        {"name": "Gather", "kind": "op"},
        {"name": "node_gather", "kind": "node"},
    ]
    assert "physicalLocation" not in third["locations"][0]


def test_a_fingerprint_outlives_a_moved_line(linted: Report) -> None:
    def prints(report: Report) -> list[str]:
        results = sarif(report)["results"]
        return [result["partialFingerprints"]["torch2mobile/v1"] for result in results]

    (check,) = linted.checks
    moved = [replace(f, location=replace(f.location, line=99)) for f in check.findings]
    assert prints(linted) == prints(replace(linted, checks=(replace(check, findings=moved),)))
    assert len(set(prints(linted))) == 3
    twice = replace(check, findings=(check.findings[0], *check.findings))
    assert len(set(prints(replace(linted, checks=(twice,))))) == 4
    other = [replace(f, location=replace(f.location, code="x")) for f in check.findings]
    assert prints(linted) != prints(replace(linted, checks=(replace(check, findings=other),)))


def test_other_reports(canned: Report) -> None:
    """A failed check is a result at each of its locations; a passed or skipped one is none."""
    run = sarif(canned)
    assert [(r["ruleId"], r["level"]) for r in run["results"]] == [
        ("parity", "error"),
        ("parity", "error"),
        ("contract", "error"),
    ]
    place = run["results"][0]["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "models/net.py"
    assert run["results"][2]["locations"] == []
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == ["contract", "parity"]


def test_an_absolute_path_has_no_base(linted: Report) -> None:
    finding = replace(linted.checks[0].findings[0], location=Location(file="/a b/c.py", line=1))
    report = replace(linted, checks=(replace(linted.checks[0], findings=(finding,)),))
    place = sarif(report)["results"][0]["locations"][0]["physicalLocation"]
    assert place["artifactLocation"] == {"uri": "file:///a%20b/c.py"}


def test_a_run_that_could_not_finish_says_so(canned: Report) -> None:
    assert sarif(canned)["invocations"] == [{"executionSuccessful": True}]
    broken = Report("export", "x", (Check("capture", Status.ERROR, "no"),))
    assert sarif(broken)["invocations"] == [{"executionSuccessful": False}]


TEXTS = st.text(max_size=8)
RULE = RuleInfo("T2M101", "data-dependent-branch", Severity.WARNING, "s", "r.", "d.")
FINDINGS = st.builds(
    Finding,
    code=st.just("T2M101"),
    severity=st.sampled_from(Severity),
    message=TEXTS,
    location=st.builds(
        Location,
        module=TEXTS,
        file=TEXTS.filter(lambda t: "\0" not in t),
        line=st.integers(0, 9),
        code=TEXTS,
    ),
    remedy=TEXTS,
    suppressed=TEXTS,
)


@settings(max_examples=25, deadline=None)
@given(st.lists(FINDINGS, max_size=3))
def test_any_text_makes_a_valid_log(findings: list[Finding]) -> None:
    check = Check("source", Status.FAILED, "x", findings=tuple(findings))
    report = Report("check", "x", (check,), rules=(RULE,))
    assert len(sarif(report)["results"]) == (len(findings) or 1)
    assert codec.from_json(codec.to_json(report)).checks[0].status is Status.FAILED
