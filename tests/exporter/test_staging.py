"""A folder beside its place: locked while its run lives, exchanged in one step, removed after."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from torch2mobile.errors import WriteError
from torch2mobile.exporter import staging
from torch2mobile.exporter.staging import Stage, writing


def put(place: Path, text: str) -> None:
    with writing(place), Stage(place) as stage:
        (stage.path / "file").write_text(text)
        with stage.settling():
            stage.swap()


@pytest.mark.skipif(sys.platform != "linux", reason="renameat2 is Linux's")
def test_the_exchange_is_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither place is ever empty: the old folder is in the new one's stead at once."""
    put(tmp_path / "out", "old")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "file").write_text("new")
    renamed: list[Any] = []
    monkeypatch.setattr(Path, "rename", lambda *paths: renamed.append(paths))
    staging._exchange(tmp_path / "new", tmp_path / "out")
    assert renamed == []
    assert (tmp_path / "out" / "file").read_text() == "new"
    assert (tmp_path / "new" / "file").read_text() == "old"


def test_without_such_an_exchange_it_is_two_and_back_if_need_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    put(tmp_path / "out", "old")
    put(tmp_path / "out", "new")
    assert (tmp_path / "out" / "file").read_text() == "new"
    real = Path.rename

    def second_fails(path: Path, target: Path) -> Path:
        if target.name == "out" and not path.name.endswith(".old"):
            raise OSError(5, "Input/output error")
        return real(path, target)

    monkeypatch.setattr(Path, "rename", second_fails)
    with pytest.raises(WriteError):
        put(tmp_path / "out", "newer")
    assert (tmp_path / "out" / "file").read_text() == "new"
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


@pytest.mark.parametrize("beside", [True, False], ids=["stage too", "alone"])
def test_a_folder_moved_aside_by_a_killed_run_comes_back(tmp_path: Path, beside: bool) -> None:
    out = tmp_path / "out"
    put(out, "old")
    out.rename(tmp_path / ".out.partial-1234.old")
    if beside:
        (tmp_path / ".out.partial-1234").mkdir()
    with Stage(out):
        pass
    assert (out / "file").read_text() == "old"
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("name", ["out", "we[i]rd*"])
def test_leftovers_of_the_dead_go_and_those_of_the_living_stay(tmp_path: Path, name: str) -> None:
    others = tmp_path / ".other.partial-12"
    for folder in (tmp_path / f".{name}.partial-12", others):
        folder.mkdir()
        (folder / "file").write_text("half")
    with Stage(tmp_path / name) as living:
        put(tmp_path / name, "new")
        assert {path.name for path in tmp_path.iterdir()} == {name, living.path.name, others.name}
    assert {path.name for path in tmp_path.iterdir()} == {name, others.name}


def test_where_there_are_no_locks_no_folder_is_taken_for_a_dead_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(staging.fcntl, "flock", none)
    (tmp_path / ".out.partial-12").mkdir()
    put(tmp_path / "out", "new")
    assert {path.name for path in tmp_path.iterdir()} == {"out", ".out.partial-12"}


# --- runs that know nothing of each other -----------------------------------------------------

APART = """
import os, sys
from pathlib import Path
from torch2mobile.exporter.staging import Stage
with Stage(Path(sys.argv[1])) as stage:
    print(os.getpid(), flush=True)
    sys.stdin.readline()
    (stage.path / "file").write_text(sys.argv[2])
    with stage.settling():
        stage.swap()
"""
NAMESPACE = ["unshare", "--user", "--map-root-user", "--pid", "--fork"]
if os.geteuid() == 0:
    NAMESPACE = ["unshare", "--pid", "--fork"]


def _namespaces() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode == 0


def apart(out: Path, text: str) -> subprocess.Popen[str]:
    """A run in a PID namespace of its own, which has made its stage and waits for a line."""
    process = subprocess.Popen(
        [*NAMESPACE, sys.executable, "-c", APART, str(out), text],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "1\n"
    return process


@pytest.mark.skipif(not _namespaces(), reason="no PID namespace can be made here")
@pytest.mark.parametrize("standing", [True, False], ids=["over an old one", "new"])
def test_two_pid_namespaces_write_into_one_place(tmp_path: Path, standing: bool) -> None:
    out = tmp_path / "out"
    if standing:
        put(out, "old")
    runs = [apart(out, "one"), apart(out, "two")]
    put(out, "three")
    for process in runs:
        process.communicate("go\n", timeout=60)
        assert process.returncode == 0
    assert (out / "file").read_text() == "two"
    assert list(tmp_path.iterdir()) == [out]
