from __future__ import annotations

import json
import math
import types
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jsonschema
import numpy as np
import pytest
import report_schema
from hypothesis import given
from hypothesis import strategies as st

from torch2mobile.errors import ExitCode, UsageError
from torch2mobile.records import NOT_INSTALLED, Check, Mismatch, Report, Request, Status, Table
from torch2mobile.reporters import REPORTERS, codec

VALIDATOR = jsonschema.Draft202012Validator(report_schema.schema())
NON_FINITE = {"NaN", "Infinity", "-Infinity"}


def names_of_numbers(report: Report) -> bool:
    """Whether a metric or a figure is a text that reads like a number that JSON cannot write."""
    values = [value for check in report.checks for value in check.metrics.values()]
    values += [v for c in report.checks for t in c.tables for row in t.rows for v in row]
    return any(isinstance(value, str) and value in NON_FINITE for value in values)


FIGURES = st.none() | st.booleans() | st.integers() | st.floats() | st.text()


def tables(width: int) -> st.SearchStrategy[Table]:
    """Every row has as many figures as there are columns."""
    columns = st.tuples(*[st.text()] * width)
    rows = st.lists(st.tuples(*[FIGURES] * width), max_size=3).map(tuple)
    return st.builds(Table, st.text(), columns, rows, st.booleans())


st.register_type_strategy(Table, st.integers(0, 3).flatmap(tables))
REPORTS = st.from_type(Report).map(lambda report: replace(report, schema_version=1))
REPORTS = REPORTS.filter(lambda report: not names_of_numbers(report))


@given(REPORTS)
def test_round_trip(report: Report) -> None:
    text = codec.to_json(report)
    again = codec.from_json(text)
    assert codec.to_json(again) == text
    assert codec.from_json(text.encode()) == again or "NaN" in text
    assert again == report or "NaN" in text
    VALIDATOR.validate(json.loads(text))


def test_round_trip_of_the_canned_report(canned: Report) -> None:
    again = codec.from_json(codec.to_json(canned))
    rtol = again.checks[1].mismatches[1].least_rtol
    assert rtol is not None
    assert math.isnan(rtol)
    assert repr(sorted_mappings(again)) == repr(sorted_mappings(canned))
    for format_ in REPORTERS:
        assert REPORTERS[format_](again) == REPORTERS[format_](canned)


def sorted_mappings(report: Report) -> Report:
    checks = [replace(c, metrics=dict(sorted(c.metrics.items()))) for c in report.checks]
    return replace(
        report, checks=tuple(checks), environment=dict(sorted(report.environment.items()))
    )


def test_what_the_checks_amount_to_is_written_and_not_read(canned: Report) -> None:
    tree = json.loads(codec.to_json(canned))
    assert tree["status"] == canned.status.value == "failed"
    assert tree["exit_code"] == canned.exit_code.value == 1
    skipped = Check("convert", Status.SKIPPED, "", metrics={NOT_INSTALLED: "pip install ncnn"})
    strict = Report(
        "export",
        "x",
        (Check("parity", Status.PASSED, ""), skipped),
        request=Request("x", strict=True),
    )
    written = json.loads(codec.to_json(strict))
    assert (written["status"], written["exit_code"]) == ("passed", 3)
    tree |= {"status": "passed", "exit_code": 0}
    assert codec.from_json(json.dumps(tree)).status is Status.FAILED
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(tree | {"exit_code": 2})


def test_the_form_is_canonical(canned: Report) -> None:
    text = codec.to_json(canned)
    assert text == REPORTERS["json"](canned)
    assert text == REPORTERS["json"](canned, colour=True)
    tree = json.loads(text)
    assert text == json.dumps(tree, indent=2, sort_keys=True) + "\n"
    assert tree["schema_version"] == 1
    assert tree["checks"][1]["metrics"]["worst_error"] == "Infinity"
    assert tree["checks"][1]["mismatches"][1]["least_rtol"] == "NaN"
    assert tree["checks"][1]["status"] == "failed"


@pytest.mark.parametrize("value", [math.inf, -math.inf, 1e308, 5e-324, -0.0, 0.1, 3, True, "nan"])
def test_metrics_keep_value_and_type(value: float | str) -> None:
    report = Report("verify", "x", (Check("a", Status.PASSED, "", metrics={"m": value}),))
    (check,) = codec.from_json(codec.to_json(report)).checks
    assert repr(check.metrics) == repr({"m": value})


def test_numpy_scalars_and_other_mappings_among_the_metrics() -> None:
    metrics: dict[str, Any] = {
        "single": np.float32(0.5),
        "double": np.float64("inf"),
        "flag": np.bool_(True),
        "count": np.int64(3),
    }
    check = Check("a", Status.PASSED, "", metrics=types.MappingProxyType(metrics))
    again = codec.from_json(codec.to_json(Report("verify", "x", (check,))))
    assert again.checks[0].metrics == {"single": 0.5, "double": math.inf, "flag": True, "count": 3}


def test_what_a_report_cannot_hold_is_a_bug_with_a_name() -> None:
    check = Check("a", Status.PASSED, "", metrics={"m": object()})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="a report cannot hold a value of type object"):
        codec.to_json(Report("verify", "x", (check,)))


def test_a_file_name_that_is_not_utf8_does_not_break_the_report() -> None:
    text = codec.to_json(Report("verify", "caf\udce9.onnx", ()))
    assert text.encode()
    assert codec.from_json(text).subject == r"caf\udce9.onnx"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_report_that_a_shell_re_encoded_is_read(encoding: str, canned: Report) -> None:
    bytes_ = codec.to_json(canned).encode(encoding)
    assert codec.from_json(bytes_).subject == canned.subject


GOOD = {"command": "verify", "subject": "x", "checks": [], "schema_version": 1}
CHECK = {"name": "a", "status": "passed", "summary": "s"}


def altered(**changes: object) -> str:
    return json.dumps({**GOOD, **changes})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        (b"", "is empty"),
        (" \n", "is empty"),
        ('{"checks": [', "is truncated: it ends in the middle of a value (line 1, column 13)"),
        (altered()[:-9], "is truncated"),
        ('{"subject": "sample:su', "is truncated"),
        ("PASSED  capture", "is not JSON: Expecting value (line 1, column 1)"),
        ('{"checks": NaN}', "is not JSON: a bare NaN is no JSON value"),
        (b"PK\x03\x04\xff\xfe\xfa", "is not JSON"),
        ("[" * 200_000, "is nested too deeply"),
        ("9" * 5000, "is not JSON"),
        ("null", "is JSON, but not a report of torch2mobile"),
        ("[]", "is JSON, but not a report of torch2mobile"),
        ('{"files": {}, "seed": 0}', "is JSON, but not a report of torch2mobile"),
        (altered(schema_version=2), "has schema version 2; this torch2mobile reads version 1"),
        (altered(schema_version="1"), 'has schema version "1"; this torch2mobile reads version 1'),
        (altered(schema_version=True), "has schema version true;"),
        (altered(checks={}), "Expected `array`, got `object` - at `$.checks`"),
        (altered(subject=3), "Expected `str`, got `int` - at `$.subject`"),
        (altered(checks=[{**CHECK, "status": "great"}]), "Invalid enum value 'great' - at `$.chec"),
        (
            altered(checks=[CHECK, {"name": "b"}]),
            "missing required field `status` - at `$.checks[1]",
        ),
        (
            altered(checks=[{**CHECK, "mismatches": [{"allowed": "Infinite"}]}]),
            "at `$.checks[0].mismatches[0].allowed`",
        ),
        (altered(request={"source": "x", "parity": [1]}), "at `$.request.parity`"),
    ],
)
def test_what_is_no_report_is_refused(text: str | bytes, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        codec.from_json(text, name="result.json")
    assert caught.value.message.startswith("result.json ")
    assert message in caught.value.message
    assert caught.value.remedy
    assert caught.value.exit_code is ExitCode.USAGE


def test_fields_of_a_later_minor_version_are_ignored() -> None:
    report = codec.from_json(altered(checks=[{**CHECK, "colour": 1}], later=[{}]))
    assert report.checks == (Check("a", Status.PASSED, "s"),)


def test_every_cut_of_a_report_is_refused(canned: Report) -> None:
    text = codec.to_json(canned)
    for length in range(0, len(text) - 2, 7):
        with pytest.raises(UsageError, match=r"is truncated|is empty|is not JSON"):
            codec.from_json(text[:length])


def test_the_published_schema_is_the_generated_one() -> None:
    published = report_schema.SCHEMA.read_text(encoding="utf-8")
    assert published == report_schema.schema_json(), "run: python scripts/report_schema.py"


def test_the_schema_is_a_schema_and_says_no() -> None:
    schema = report_schema.schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert VALIDATOR.is_valid(GOOD)
    for bad in ({**GOOD, "schema_version": 2}, {**GOOD, "checks": None}, {"checks": []}):
        assert not VALIDATOR.is_valid(bad)


@pytest.mark.parametrize("number", [1.5, 0, "Infinity", "-Infinity", "NaN", None])
def test_the_schema_knows_the_numbers_that_json_cannot_write(number: object) -> None:
    mismatch = {"output": "o", "probe": "p", "problem": "q", "allowed": number}
    assert VALIDATOR.is_valid({**GOOD, "checks": [{**CHECK, "mismatches": [mismatch]}]})
    mismatch["allowed"] = "Infinite"
    assert not VALIDATOR.is_valid({**GOOD, "checks": [{**CHECK, "mismatches": [mismatch]}]})


@pytest.mark.parametrize("field", ["allowed", "least_atol", "least_rtol"])
@pytest.mark.parametrize("make", [float, np.float64])
def test_infinite_tolerances_survive(field: str, make: Callable[[str], float]) -> None:
    mismatch = replace(Mismatch("o", "p", "q"), **{field: make("inf")})
    check = Check("a", Status.FAILED, "", mismatches=(mismatch,))
    again = codec.from_json(codec.to_json(Report("verify", "x", (check,))))
    assert getattr(again.checks[0].mismatches[0], field) == math.inf
