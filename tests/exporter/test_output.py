"""Files that the user names: whole or not at all, and never over anything but a regular file."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from torch2mobile.errors import BundleError, ExitCode, WriteError
from torch2mobile.exporter.bundle_writer import BundleWriter
from torch2mobile.exporter.output import OutputFile, write_output
from torch2mobile.records import Manifest


def _bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(os.path.relpath(path))


ODD: dict[str, Callable[[Path], Any]] = {
    "a link": lambda path: (path.with_name("real").write_text("old"), path.symlink_to("real")),
    "a link ": lambda path: path.symlink_to("nowhere"),
    "a link  ": lambda path: path.symlink_to(os.devnull),
    "a folder": Path.mkdir,
    "a FIFO": os.mkfifo,
    "a socket": _bind,
}


@pytest.mark.parametrize("kind", ODD)
def test_what_is_no_regular_file_is_refused(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "out.json"
    ODD[kind](path)
    before = path.lstat()
    with pytest.raises(BundleError, match=f"out.json is {kind.strip()}, and would be") as caught:
        write_output(path, b"new")
    assert caught.value.exit_code is ExitCode.USAGE
    assert os.path.samestat(path.lstat(), before)


def test_a_device_is_refused() -> None:
    before = Path(os.devnull).stat()
    with pytest.raises(BundleError, match="is a device"):
        write_output(Path(os.devnull), b"new")
    assert stat.S_ISCHR(before.st_mode)
    assert os.path.samestat(Path(os.devnull).stat(), before)


def test_what_comes_while_the_file_is_made_is_refused(tmp_path: Path) -> None:
    with OutputFile(tmp_path / "out.json") as output:
        output.draft.write_text("new")
        (tmp_path / "out.json").symlink_to("nowhere")
        with pytest.raises(BundleError, match="is a link"):
            output.commit()
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]


def test_a_bundles_own_files_are_refused(tmp_path: Path) -> None:
    manifest = Manifest("n", "n", "", 20, False, 0, (), (), {}, (), {}, {})
    with BundleWriter(tmp_path / "net") as writer:
        for name in ("model.onnx", "report.json", "golden/0.npz"):
            (writer.stage / name).parent.mkdir(exist_ok=True)
            (writer.stage / name).write_text("old")
        writer.commit(manifest)
    (tmp_path / "link").symlink_to("net/golden")
    for name in ("net/model.onnx", "net/report.json", "net/manifest.json", "link/0.npz"):
        before = (tmp_path / name).read_bytes()
        with pytest.raises(BundleError, match="is a file of the bundle"):
            write_output(tmp_path / name, b"new")
        assert (tmp_path / name).read_bytes() == before
    # Also one that was lost from it, as what is written now would be another.
    (tmp_path / "net/report.json").unlink()
    with pytest.raises(BundleError, match="is a file of the bundle"):
        write_output(tmp_path / "net/report.json", b"new")
    assert msgspec.json.decode((tmp_path / "net/manifest.json").read_bytes())["name"] == "n"


def test_a_file_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.json"
    path.write_text("old")
    path.chmod(0o640)
    write_output(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(WriteError, match="No space left"):
        write_output(path, b"newer")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_files_made_beside_it_go_with_it(tmp_path: Path) -> None:
    with OutputFile(tmp_path / "m.onnx") as output:
        output.draft.write_text("model")
        output.draft.with_name("m.onnx.data").write_text("data")
        (tmp_path / "m.onnx.data").symlink_to("nowhere")
        with pytest.raises(BundleError, match=r"m\.onnx\.data is a link"):
            output.commit()
        assert not (tmp_path / "m.onnx").exists()
        (tmp_path / "m.onnx.data").unlink()
        output.commit()
    assert {path.name for path in tmp_path.iterdir()} == {"m.onnx", "m.onnx.data"}


def test_a_place_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"cannot write into .*gone"):
        OutputFile(tmp_path / "gone" / "out.json")
    with pytest.raises(BundleError, match="cannot write"):
        OutputFile(tmp_path / ("x" * 300))
    with pytest.raises(BundleError, match="cannot write"):
        OutputFile(tmp_path / "zero\0byte")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_file_stays(tmp_path: Path) -> None:
    (tmp_path / "out.json").write_text("old")
    (tmp_path / "out.json").chmod(0o400)
    with pytest.raises(BundleError, match="read-only"):
        OutputFile(tmp_path / "out.json")
