"""Remedies: what is called nearly as what was named."""

from __future__ import annotations

from pathlib import Path

import pytest

from torch2mobile.errors import near_path


@pytest.mark.parametrize(
    ("named", "found"),
    [
        ("Photo", "Did you mean photos? Look."),
        ("photos/one.jpgg", "Did you mean photos/one.jpg? Look."),
        ("foto/one.jpg", "Did you mean photos? Look."),
        ("something else", "Look."),
        ("", ". is a folder. Look."),
        ("photos", "photos is a folder. Look."),
    ],
)
def test_what_is_called_nearly_so_is_offered(
    named: str, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").touch()
    (tmp_path / "zebra.txt").touch()
    assert near_path(Path(named), "Look.") == found


def test_only_folders_where_a_folder_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "bert.txt").touch()
    assert near_path(tmp_path / "berd", "Look.", folders=True) == "Look."
    (tmp_path / "bert").mkdir()
    near = near_path(tmp_path / "berd", "Look.", folders=True)
    assert near == f"Did you mean {tmp_path / 'bert'}? Look."
