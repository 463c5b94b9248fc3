"""Names, source lines and error texts of others: no format lets them be more than text."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from enum import Enum
from typing import Any

import pytest

from torch2mobile.records import Report
from torch2mobile.reporters import REPORTERS, codec

EVIL = (
    "a\n::error::b ##[error]c \x1b[31m\r\u2028::set-output name=x::\nPASSED: 99 passed\x9b \u202ed"
)


def poisoned(value: Any, name: str = "") -> Any:
    """A record in which every text that is not ours says what it likes."""
    if isinstance(value, Enum) or name in {"code", "command"}:
        return value
    if isinstance(value, str):
        return f"{value}{EVIL}" if value else value
    if is_dataclass(value):
        found = {field.name: getattr(value, field.name) for field in fields(value)}
        return replace(value, **{name: poisoned(item, name) for name, item in found.items()})
    if isinstance(value, tuple):
        return tuple(map(poisoned, value))
    if isinstance(value, dict):
        return {poisoned(key): poisoned(item) for key, item in value.items()}
    return value


@pytest.mark.parametrize("form", REPORTERS)
@pytest.mark.parametrize("report", ["canned", "linted"])
def test_nothing_steers_a_terminal_or_a_ci_log(
    form: str, report: str, request: pytest.FixtureRequest
) -> None:
    bad: Report = poisoned(request.getfixturevalue(report))
    text = REPORTERS[form](bad, verbose=True)
    assert all(character == "\n" or character.isprintable() for character in text)
    assert "##[" not in text
    lines = text.splitlines()
    commands = [line for line in lines if line.lstrip().startswith("::")]
    assert all(line.startswith(("::error ", "::warning ", "::notice ")) for line in commands)
    assert bool(commands) == (form == "github")
    # A page of HTML has no lines of its own.
    assert form == "html" or not any(line.startswith("PASSED: 99") for line in lines)


@pytest.mark.parametrize("report", ["canned", "linted"])
def test_json_says_the_same_as_before(report: str, request: pytest.FixtureRequest) -> None:
    bad: Report = poisoned(request.getfixturevalue(report))
    assert codec.from_json(codec.to_json(bad)) == bad
