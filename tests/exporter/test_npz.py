"""Archives of arrays: what they take is known, and refused, before it is taken."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from torch2mobile.errors import ModelFileError
from torch2mobile.exporter import arrays, bundle
from torch2mobile.exporter.npz import read_npz
from torch2mobile.limits import Budget


def test_a_small_archive_of_large_arrays_is_not_inflated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez_compressed(tmp_path / "bomb.npz", x=np.zeros(1 << 20), y=np.zeros(1 << 20))
    assert (tmp_path / "bomb.npz").stat().st_size < 1 << 15
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(ModelFileError, match=r"arrays take 16\.8 MB, and only 9\.0 MB"):
        read_npz(tmp_path / "bomb.npz", Budget(9_000_000), "Do not.")
    monkeypatch.setattr("torch2mobile.limits.machine_memory", lambda: 8 * 9_000_000)
    for read in (arrays.load_npz, bundle.read_case):
        with pytest.raises(ModelFileError, match=r"only 9\.0 MB more are read"):
            read(tmp_path / "bomb.npz")


def test_all_files_of_a_command_share_one_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / "data.npz", x=np.zeros(1000))
    monkeypatch.setattr("torch2mobile.limits.machine_memory", lambda: 8 * 20_000)
    assert len(arrays.load_all([str(tmp_path / "data.npz")] * 2)) == 2
    with pytest.raises(ModelFileError, match="are read"):
        arrays.load_all([str(tmp_path / "data.npz")] * 3)


def test_a_header_that_promises_more_than_is_there(tmp_path: Path) -> None:
    raw = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        raw, {"descr": "<f8", "fortran_order": False, "shape": (1 << 40, 1 << 20)}
    )
    with zipfile.ZipFile(tmp_path / "cut.npz", "w") as archive:
        archive.writestr("x.npy", raw.getvalue() + bytes(80))
    with pytest.raises(ModelFileError, match="x in it is cut"):
        read_npz(tmp_path / "cut.npz", Budget(1 << 70), "Copy it anew.")


def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.npz")
    for path in (tmp_path / "pipe.npz", Path("/dev/zero"), tmp_path):
        for read in (arrays.load_npz, bundle.read_case):
            with pytest.raises(ModelFileError, match="it is no regular file"):
                read(path)
