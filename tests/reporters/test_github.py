"""Annotations: one line each, and nothing that a finding says can become a command."""

from __future__ import annotations

from dataclasses import replace

import pytest

from torch2mobile.records import Check, Location, Report, Status
from torch2mobile.reporters import REPORTERS

FINDINGS = """\
::error file=models/my net.py,line=12,title=T2M101::a branch depends on tensor values\
%0AUse torch.where.
::notice title=T2M401 [nnapi]::Gather is not on NNAPI
FAILED: 1 failed
"""


def test_findings(linted: Report) -> None:
    assert REPORTERS["github"](linted) == FINDINGS
    assert REPORTERS["github"](linted, colour=True) == FINDINGS


def test_other_reports(canned: Report) -> None:
    lines = REPORTERS["github"](canned).splitlines()
    assert lines[0].startswith("::error file=models/net.py,line=12,title=parity [ort]::2 of 24")
    assert lines[-2].startswith("::error title=contract [ort]::the worker process was killed")
    assert len(lines) == 4


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("50% of a,b: c", "50%25 of a,b: c"),
        ("one\ntwo\r\nthree", "one%0Atwo%0Athree"),
        ("a\n::error::b", "a%0A\\x3a:error::b"),
        ("\x1b[31m", "\\x1b[31m"),
    ],
)
def test_messages_are_escaped(text: str, escaped: str, linted: Report) -> None:
    finding = replace(linted.checks[0].findings[0], message=text, remedy="")
    report = replace(linted, checks=(replace(linted.checks[0], findings=(finding,)),))
    first, last = REPORTERS["github"](report).splitlines()
    assert first.endswith(f"title=T2M101::{escaped}")
    assert last == "FAILED: 1 failed"


def test_properties_are_escaped(linted: Report) -> None:
    where = Location(file="a,b:c%\n.py", line=3)
    finding = replace(linted.checks[0].findings[0], location=where)
    report = replace(linted, checks=(replace(linted.checks[0], findings=(finding,)),))
    assert "file=a%2Cb%3Ac%25%0A.py,line=3," in REPORTERS["github"](report)


@pytest.mark.parametrize("form", ["github", "sarif"])
def test_the_notes_of_a_failed_check_say_of_what_its_hint_is(form: str) -> None:
    note = "it starts in the Conv node c1 of layer: layer.weight differs in 1 of 9 values"
    check = Check("parity", Status.FAILED, "not the same", "onnx", hint="Look.", notes=(note,))
    passed = replace(check, status=Status.PASSED, notes=("of no interest here",))
    text = REPORTERS[form](Report("verify", "model.onnx", (check, passed)))
    assert text.index("not the same") < text.index(note) < text.index("Look.")
    assert "of no interest here" not in text
