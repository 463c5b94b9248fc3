from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import torch2mobile
from torch2mobile.records import (
    Check,
    Finding,
    Location,
    Mismatch,
    Report,
    Severity,
    Status,
    Table,
)
from torch2mobile.reporters import REPORTERS, figures, printable, terminal, text_lines

EXPECTED = """\
export sample:super_resolution

PASSED   capture         torch.export, non-strict
         note: the output 'aux' is None and was dropped
FAILED   parity [ort]    2 of 24 outputs differ: the file on the phone is another function than the
                         module
         output image, probe normal (H=65, W=33): values differ
           at [0, 0, 3, 4]: expected 0.5, actual 0.75, allowed 1.2e-06
           would have passed with atol=0.251 or rtol=0.5 on the module's own output
         output image, probe negative: NaN against a number
           at [0, 0, 0, 0]: expected -0.375, actual nan
           no tolerance lets this pass
         output logits: the output is missing
         at models/net.py:12  return torch.nn.functional.hardswish(x)
           module encoder.layers.0, op HardSwish, node node_hardswish
         at op Relu, node node_relu
         hint: Compare the operator below with the one in the module.
           Then export again.
ERROR    contract [ort]  the worker process was killed by SIGSEGV
         hint: Run again with --debug.
SKIPPED  parity [ncnn]   ncnn is not installed
         hint: pip install ncnn pnnx

FAILED: 1 failed, 1 error, 1 passed, 1 skipped
"""


def report(*checks: Check) -> Report:
    return Report(command="verify", subject="dist/net", checks=checks)


def test_exact_output(canned: Report) -> None:
    assert REPORTERS["text"](canned) == EXPECTED


def test_colour_adds_ansi_codes_and_nothing_else(canned: Report) -> None:
    coloured = terminal.render(canned, colour=True)
    assert re.sub(r"\x1b\[\d+m", "", coloured) == EXPECTED
    assert "\x1b[1mexport sample:super_resolution\x1b[0m" in coloured
    assert "\x1b[32mPASSED\x1b[0m " in coloured
    assert "\x1b[31mFAILED\x1b[0m " in coloured
    assert "\x1b[31mERROR\x1b[0m " in coloured
    assert "\x1b[33mSKIPPED\x1b[0m " in coloured
    assert "\x1b[36mhint:\x1b[0m pip install" in coloured
    assert "\x1b[31m\x1b[1mFAILED: 1 failed" in coloured


PASSED = Check("a", Status.PASSED, "good")
FAILED = Check("b", Status.FAILED, "bad")
ERROR = Check("c", Status.ERROR, "broken")
SKIPPED = Check("d", Status.SKIPPED, "absent")


@pytest.mark.parametrize(
    ("checks", "closing"),
    [
        ([PASSED] * 9 + [SKIPPED], "PASSED: 9 passed, 1 skipped"),
        ([PASSED], "PASSED: 1 passed"),
        ([PASSED, FAILED, ERROR], "FAILED: 1 failed, 1 error, 1 passed"),
        ([PASSED, ERROR, ERROR], "ERROR: 2 errors, 1 passed"),
        ([SKIPPED, SKIPPED], "ERROR: nothing was checked, 2 skipped"),
        ([], "ERROR: nothing was checked"),
    ],
)
def test_the_closing_line_counts(checks: list[Check], closing: str) -> None:
    assert terminal.render(report(*checks)).splitlines()[-1] == closing


def test_a_report_without_checks_is_an_error() -> None:
    assert terminal.render(report()) == "verify dist/net\n\nERROR: nothing was checked\n"


def test_long_texts_are_wrapped_at_100_columns_but_paths_stay_whole() -> None:
    path = "deep/" * 30 + "net.py"
    check = replace(
        FAILED,
        summary="word " * 60,
        hint="advice " * 40,
        locations=(Location(file=path, line=3, code="x = y"),),
        mismatches=(Mismatch("out", "probe", "problem " * 30),),
    )
    lines = terminal.render(report(check)).splitlines()
    number = lines.index(f"         at {path}:3")
    assert lines[number + 1] == "           x = y"
    assert all(len(line) <= 100 for line in lines if path not in line)
    assert sum("word" in line for line in lines) > 3


def test_code_that_is_too_long_goes_on_after_a_comma() -> None:
    code = "y=torch.nested.as_nested_tensor([x[0,:3],x[1,:5]],layout=torch.jagged,device=None)"
    rows = printable.wrapped(f"at a/b.py:1: {code}", 80, " " * 18, " " * 18)
    assert max(map(len, rows)) <= 80
    assert "".join(" ".join(rows).split()) == "".join(f"at a/b.py:1: {code}".split())


@pytest.mark.parametrize(
    "word",
    [
        "/data/a(1)/model,v2.onnx",
        "'./data/a(1)/model,v2.onnx'",
        "dist/a(1)/model,v2.onnx",
        "--input=image:float32[batch=1..8,3]",
        "--input image:float32[batch=1..8,3]",
        "-o model(1),v2_of_the_release.onnx",
        "f(first,second,third)",
    ],
)
def test_paths_options_and_what_fits_are_not_broken(word: str) -> None:
    rows = printable.wrapped(f"written to {word}", 23, "  ", "  ")
    assert all(part in " ".join(rows).split() for part in word.split()), rows


def test_a_long_name_gets_a_line_of_its_own() -> None:
    check = replace(PASSED, name="n" * 50)
    assert f"PASSED   {'n' * 50}\n         good\n" in terminal.render(report(check, SKIPPED))


def test_a_text_that_does_not_fit_stands_below_its_row() -> None:
    columns = ("artefact", "bytes", "reason")
    rows = (("onnx", 12, ""), ("ncnn", None, "convert: " + "it has no form " * 9), ("ort", 5, ""))
    check = Check("devices", Status.FAILED, "no", tables=(Table("on each", columns, rows),))
    lines = terminal.render(report(check)).splitlines()
    start = next(number for number, line in enumerate(lines) if "on each" in line)
    found = [line.strip() for line in lines[start + 1 : start + 7]]
    assert found[0].split() == ["artefact", "bytes"]
    assert found[1:3] == ["onnx         12", "ncnn          -"]
    assert found[3].startswith("convert: it has no form")
    assert found[5] == "ort           5"


FIGURES = Table(
    "by output",
    ("output", "error", "probes", "weaker"),
    (("logits", 1.23456e-7, 18, False), ("boxes\x1b", math.inf, 2, True), ("mask", None, 3, None)),
)


def test_a_table_has_aligned_columns() -> None:
    text = terminal.render(report(replace(PASSED, tables=(FIGURES,))))
    assert (
        r"""
         by output
           output        error  probes  weaker
           logits     1.23e-07      18      no
           boxes\x1b       inf       2     yes
           mask              -       3       -
"""
        in text
    )


@pytest.mark.parametrize("status", list(Status))
@pytest.mark.parametrize("verbose", [True, False])
@pytest.mark.parametrize("detail", [True, False])
def test_a_detail_of_what_passed_is_shown_where_everything_is_asked_for(
    status: Status, verbose: bool, detail: bool
) -> None:
    check = replace(PASSED, status=status, tables=(replace(FIGURES, detail=detail),))
    text = terminal.render(report(check), verbose=verbose)
    assert ("by output" in text) == (not detail or verbose or status is not Status.PASSED)
    assert all("by output" in REPORTERS[name](report(check)) for name in ("json", "html"))


def test_a_table_without_rows_still_says_so() -> None:
    text = terminal.render(report(replace(PASSED, tables=(replace(FIGURES, rows=()),))))
    assert "by output\n           output  error  probes  weaker\n" in text


def test_many_mismatches_are_cut_and_the_cut_is_said() -> None:
    check = replace(
        FAILED,
        mismatches=tuple(Mismatch(f"o{i}", "zeros", "differs") for i in range(25)),
        locations=tuple(Location(file="net.py", line=i) for i in range(1, 7)),
    )
    text = terminal.render(report(check))
    assert "output o2, probe zeros" in text
    assert "output o3" not in text
    assert "... and 22 more mismatches; --format json has all of them" in text
    assert "at net.py:5\n" in text
    assert "at net.py:6\n" not in text
    assert "... and 1 more location; --format json has all of them" in text


def test_what_has_one_cause_is_shown_once() -> None:
    mismatches = tuple(Mismatch("y", f"N={n}", "differs", index=(0,)) for n in range(1, 5))
    places = tuple(Location(file="net.py", line=3, op=op, node="n") for op in ("Cast", "Mul"))
    text = terminal.render(report(replace(FAILED, mismatches=mismatches, locations=places)))
    assert "output y, probe N=1 and 3 other probes: differs" in text
    assert text.count("at net.py:3") == 1
    assert "op Cast, Mul, node n" in text
    assert "more" not in text
    calls = tuple(replace(places[0], caller="n.py", caller_line=n) for n in (5, 6, 5))
    text = terminal.render(report(replace(FAILED, locations=calls)))
    assert (text.count("at net.py:3"), text.count("called at n.py:5")) == (2, 1)
    counted = replace(FAILED, mismatches=mismatches, metrics={"y.failing": 84})
    assert "output y, probe N=1 and 83 other probes" in terminal.render(report(counted))


def test_a_line_of_a_library_is_told_for_each_line_that_calls_it() -> None:
    at = Location(file="lib.py", line=9)
    found = [
        Finding("T2M101", Severity.ERROR, "no", replace(at, module=m, caller="n.py", caller_line=n))
        for m, n in (("a", 5), ("b", 6))
    ]
    text = terminal.render(report(replace(FAILED, findings=tuple(found))))
    first, second = text.index("called at n.py:5"), text.index("called at n.py:6")
    assert first < text.index("module a") < second < text.index("module b")


def test_in_80_columns_no_line_is_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    wide = Table(
        "figures", tuple(f"column {n}" for n in range(9)), (tuple("a b" * 3 for _ in range(9)),)
    )
    check = replace(
        FAILED,
        summary="word " * 60,
        notes=("note " * 40,),
        tables=(wide, FIGURES),
        locations=(Location(file="net.py", line=3, code="x = " + "y + " * 40),),
    )
    lines = terminal.render(report(check)).splitlines()
    assert max(map(len, lines)) <= 80
    assert any("column 0 a ba ba b, column 1" in line for line in lines)
    assert any(line.endswith("...") for line in lines)


def test_locations_are_not_shown_for_what_passed() -> None:
    location = (Location(file="net.py", line=3),)
    assert "net.py" not in terminal.render(report(replace(PASSED, locations=location)))
    for check in (FAILED, ERROR, SKIPPED):
        assert "at net.py:3" in terminal.render(report(replace(check, locations=location)))


@pytest.mark.parametrize(
    ("location", "lines"),
    [
        (Location(), []),
        (Location(file="net.py"), ["at net.py"]),
        (Location(module="head", op="Conv"), ["at module head, op Conv"]),
        (Location(file="n.py", line=2, module="m"), ["at n.py:2", "  module m"]),
        (Location(file="n.py", line=2, code="  y = x\n"), ["at n.py:2  y = x"]),
        (
            Location(file="l.py", line=2, caller="n.py", caller_line=7),
            ["at l.py:2", "  called at n.py:7"],
        ),
    ],
)
def test_incomplete_locations(location: Location, lines: list[str]) -> None:
    found = text_lines.details(replace(FAILED, locations=(location,)))
    assert ["  " * line.depth + line.text for line in found] == lines


def test_what_could_steer_the_terminal_is_escaped() -> None:
    nasty = "a\x1b]0;title\x07b\rc\u202ed\udc80e\u00a0f\tg"
    check = replace(FAILED, name=nasty, summary=nasty, hint=nasty, notes=(nasty,))
    text = terminal.render(replace(report(check), subject=nasty))
    assert all(character == "\n" or character.isprintable() for character in text)
    assert r"a\x1b]0;title\x07b\x0dc\u202ed\udc80e f" in text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.25, "0.25"),
        (0.2500001, "0.251"),
        (1.0001e-7, "1.01e-07"),
        (0.0, "0"),
        (1234.5, "1.24e+03"),
    ],
)
def test_the_least_tolerance_is_never_rounded_down(value: float, text: str) -> None:
    assert figures.round_up(value) == text
    assert float(text) >= value


def test_importing_the_reporters_is_light() -> None:
    code = "import sys, torch2mobile.reporters; print(*sys.modules)"
    # The package of this very run, wherever it was imported from.
    root = str(Path(torch2mobile.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": root},
    )
    heavy = {"torch", "numpy", "onnx", "onnxruntime", "onnxsim", "msgspec", "click"}
    assert not heavy & set(done.stdout.split())


LINTED = """\
check net.py:Net

FAILED   source  1 error, 1 suppressed
         at models/my net.py:12  if x.mean() > 0:
           module body.0
             T2M101 error: a branch depends on tensor values
               Use torch.where.
         at module head, op Gather, node node_gather
           T2M401 Gather is not on NNAPI

FAILED: 1 failed
"""


def test_findings_are_grouped_by_line_module_and_operator(linted: Report) -> None:
    assert REPORTERS["text"](linted) == LINTED


def test_findings_of_many_nodes_are_one_line(linted: Report) -> None:
    (check,) = linted.checks
    last = check.findings[-1]
    many = [replace(last, location=replace(last.location, node=f"n{i}")) for i in range(7)]
    text = REPORTERS["text"](replace(linted, checks=(replace(check, findings=tuple(many)),)))
    assert "at module head, op Gather, node n0, n1, ... (7 in all)" in text
    assert text.count("T2M401") == 1


def test_the_seconds_of_a_check_are_shown_where_everything_is_asked_for() -> None:
    check = replace(PASSED, seconds=12.345)
    assert f"{PASSED.summary} (12.3 s)" in terminal.render(report(check), verbose=True)
    assert "12.3" not in terminal.render(report(check))


@pytest.mark.parametrize("metrics", [{}, {"y.least_atol": 0.75}])
def test_the_least_tolerance_is_that_of_all_probes(metrics: dict[str, float]) -> None:
    one = Mismatch("y", "example", "differs", index=(0,), least_atol=0.25, least_rtol=0.5)
    both = (one, replace(one, probe="zeros", least_atol=0.5))
    most = metrics.get("y.least_atol", 0.5)
    for found, least in ((both, f"atol={most} on all of them"), (both[:1], "atol=0.25 or rtol=")):
        check = replace(FAILED, mismatches=found, metrics=metrics)
        assert f"would have passed with {least}" in terminal.render(report(check))
