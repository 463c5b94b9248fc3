"""Parts in the cache: whole or not at all, one process at a time, and each failure in words."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from torch2mobile import installing
from torch2mobile.errors import InstallError


def archive(folder: Path) -> Path:
    path = folder / "some.deb"
    path.write_bytes(b"packed")
    return path


def test_a_part_has_a_record_of_its_archives(tmp_path: Path) -> None:
    packed = archive(tmp_path)
    with installing.filling(tmp_path / "part", {"qemu": "10"}, [packed]) as staged:
        (staged / "file").write_text("x")
        assert installing.part(tmp_path / "part") is None
    found = installing.part(tmp_path / "part")
    assert found is not None
    assert found.versions == {"qemu": "10"}
    assert list(found.archives) == ["some.deb"]
    assert len(found.archives["some.deb"]) == 64
    assert (tmp_path / "part" / "file").read_text() == "x"
    assert not packed.exists()


def test_what_stops_in_the_middle_leaves_no_part_and_keeps_what_was_downloaded(
    tmp_path: Path,
) -> None:
    packed = archive(tmp_path)
    with (
        pytest.raises(InstallError, match="broken"),
        installing.filling(tmp_path / "part", {}, [packed]),
    ):
        raise InstallError("it is broken")
    assert installing.part(tmp_path / "part") is None
    assert packed.exists()
    with installing.filling(tmp_path / "part", {}, [packed]) as staged:
        assert not any(staged.iterdir())


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"versions": 1, "archives": {}}'])
def test_a_record_that_is_none_is_no_part(tmp_path: Path, text: str) -> None:
    (tmp_path / "installed.json").write_text(text)
    assert installing.part(tmp_path) is None


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1 << 20))
    with (
        pytest.raises(InstallError, match=r"has 1\.0 MB left, and 0\.1 GB are needed") as caught,
        installing.alone(tmp_path, 100 << 20),
    ):
        raise AssertionError
    assert "XDG_CACHE_HOME" in caught.value.remedy


def test_a_disk_that_fills_up_is_named(tmp_path: Path) -> None:
    import errno

    with (
        pytest.raises(InstallError, match="No space left on device"),
        installing.filling(tmp_path / "part", {}, []),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_two_at_once_wait_for_each_other(tmp_path: Path) -> None:
    order: list[str] = []
    inside = threading.Event()

    def second() -> None:
        inside.wait(10)
        with installing.alone(tmp_path, 0):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with installing.alone(tmp_path, 0):
        inside.set()
        thread.join(0.2)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["no-such-program"], "needs no-such-program, which is not there"),
        (["sh", "-c", "echo 'E: no such host' >&2; exit 100"], "it failed: E: no such host"),
        (["false"], "it failed: it does not say why"),
    ],
)
def test_a_program_that_fails_is_quoted(command: list[str], said: str) -> None:
    with pytest.raises(InstallError, match=said) as caught:
        installing.run(command, "it")
    assert caught.value.remedy


def test_a_mirror_that_hangs_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installing, "_SECONDS", 0.1)
    with pytest.raises(InstallError, match=r"sleep gave no answer within 0.1 s"):
        installing.run(["sleep", "20"], "it")
