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
    # It has no line of its own, and GitHub refuses a log with a result that has no file.
    assert third["locations"][0]["physicalLocation"] == {
        "artifactLocation": {"uri": "pyproject.toml", "uriBaseId": "%SRCROOT%"},
        "region": {"startLine": 1},
    }


def test_a_fingerprint_outlives_a_moved_line(linted: Report) -> None:
    def prints(report: Report) -> list[str]:
        results = sarif(report)["results"]
        return [result["partialFingerprints"]["torch2mobile/v1"] for result in results]

    (check,) = linted.checks
    moved = [replace(f, location=replace(f.location, line=99)) for f in check.findings]
    assert prints(linted) == prints(replace(linted, checks=(replace(check, findings=moved),)))
    assert len(set(prints(linted))) == 3
    again = replace(check.findings[0], location=replace(check.findings[0].location, line=44))
    twice = replace(check, findings=(again, *check.findings))
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
    place = run["results"][2]["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "pyproject.toml"
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == ["contract", "parity"]


def places(report: Report) -> list[tuple[str, int]]:
    found = [result["locations"][0]["physicalLocation"] for result in sarif(report)["results"]]
    return [(p["artifactLocation"]["uri"], p["region"]["startLine"]) for p in found]


def at(report: Report, *locations: Location) -> Report:
    check = report.checks[0]
    findings = tuple(replace(check.findings[0], location=place) for place in locations)
    return replace(report, checks=(replace(check, findings=findings),))


def test_what_is_elsewhere_is_shown_at_what_can_be_seen(
    linted: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    here = Location(file=str(tmp_path / "a b.py"), line=2)
    library = "/opt/lib/python3/site-packages/transformers/bert.py"
    called = Location(file=library, line=9, code="y", caller="net.py", caller_line=7)
    alone = Location(file=library, line=9)
    assert places(at(linted, here, called, alone)) == [
        ("a%20b.py", 2), ("net.py", 7), ("pyproject.toml", 1),
    ]  # fmt: skip
    _, result, _ = sarif(at(linted, here, called, alone))["results"]
    assert result["message"]["text"].endswith(f"In {library}:9.")
    assert "snippet" not in result["locations"][0]["physicalLocation"]["region"]
    assert "file:" not in REPORTERS["sarif"](at(linted, here, called, alone))


@pytest.mark.parametrize(
    ("subject", "file", "wanted"),
    [
        ("net.py:Net", "net.py", "net.py"),
        ("pkg.models:Net", "pkg/models.py", "pkg/models.py"),
        ("dist/net.onnx", "dist/net.onnx", "dist/net.onnx"),
        ("dist/net", "dist/net/manifest.json", "dist/net/manifest.json"),
        ("sample:net", "", "pyproject.toml"),
        ("../elsewhere.py:Net", "", "pyproject.toml"),
    ],
)
def test_a_result_without_a_line_is_at_the_models_source(
    subject: str, file: str, wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if file:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).touch()
    check = Check("baseline", Status.FAILED, "y moved", target="ort")
    assert places(Report("verify", subject, (check,))) == [(wanted, 1)]


def test_results_of_one_line_are_one(linted: Report) -> None:
    """One failure named six nodes of a line, and gave six annotations."""
    line = Location(file="net.py", line=3)
    nodes = [replace(line, node=f"node_{number}", op="Add") for number in range(6)]
    check = Check("parity", Status.FAILED, "differs", locations=(*nodes, replace(line, line=4)))
    check = replace(check, notes=("it starts there",), hint="look")
    told = [r["message"]["text"] for r in sarif(Report("export", "x", (check,)))["results"]]
    assert told == ["parity: differs\nit starts there\nlook"] * 2
    assert places(Report("export", "x", (check,))) == [("net.py", 3), ("net.py", 4)]
    found = at(linted, *nodes)
    check = found.checks[0]
    other = replace(check.findings[0], message="another thing")
    hidden = replace(other, suppressed="known")
    report = replace(found, checks=(replace(check, findings=(hidden, *check.findings, other)),))
    (result,) = sarif(report)["results"]
    assert result["message"]["text"].count("another thing") == 1
    assert (result["level"], "suppressions" in result) == ("error", False)


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
    results = sarif(report)["results"]
    assert 1 <= len(results) <= max(len(findings), 1)
    for result in results:
        (place,) = result["locations"]
        assert not place["physicalLocation"]["artifactLocation"]["uri"].startswith(("/", "file:"))
    assert codec.from_json(codec.to_json(report)).checks[0].status is Status.FAILED
