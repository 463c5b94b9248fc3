"""Our own JSON files: a record, or one sentence on why it is none."""

from __future__ import annotations

import pytest

from torch2mobile import json_files
from torch2mobile.errors import BundleError, UsageError
from torch2mobile.records import FileEntry

GOOD = '{"sha256": "abc", "size": 7}'


def decode(raw: str | bytes) -> FileEntry:
    return json_files.decode(raw, FileEntry, name="f.json", remedy="Write it again.")


def test_a_record_is_read() -> None:
    assert decode(GOOD) == decode(GOOD.encode()) == FileEntry("abc", 7)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "f.json is empty"),
        (GOOD[:-1], "f.json is truncated: it ends in the middle of a value (line 1, column 28)"),
        ("{]", "f.json is not JSON: "),
        (b"\xff\xfe\x00", "f.json is not JSON: "),
        ("[" * 200_000, "f.json is nested too deeply"),
        ("NaN", "f.json is not JSON: a bare NaN is no JSON value"),
        ("[]", "f.json does not fit its schema: Expected `object`, got `array`"),
        (GOOD.replace("7", '"7"'), "Expected `int`, got `str` - at `$.size`"),
        ('{"\\ud800": 1}', "f.json does not fit its schema: "),
    ],
)
def test_what_is_none_is_said(raw: str | bytes, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        decode(raw)
    assert message in caught.value.message
    assert caught.value.remedy == "Write it again."


def test_a_caller_has_its_own_kind_of_error() -> None:
    with pytest.raises(BundleError):
        json_files.decode("", FileEntry, name="m", remedy="", error=BundleError)
