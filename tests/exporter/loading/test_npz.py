"""Archives of arrays: what they take is known, and refused, before it is taken."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from torch2mobile.errors import ExitCode, InputError, ModelFileError
from torch2mobile.exporter import bundle
from torch2mobile.exporter.loading import npz, real_inputs
from torch2mobile.exporter.loading.npz import read_npz
from torch2mobile.limits import Budget
from torch2mobile.records import Request


def test_arrays_by_name(tmp_path: Path) -> None:
    given = {"x": np.ones((2, 3), "f4"), "ids": np.arange(4)}
    np.savez(tmp_path / "d.npz", **given)
    loaded = npz.load_npz(tmp_path / "d.npz")
    assert loaded.keys() == given.keys()
    np.testing.assert_array_equal(loaded["ids"], given["ids"])


def saved(**given: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **given)
    return file.getvalue()


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def archive(name: str, content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as zipped:
        zipped.writestr(name, content)
    return file.getvalue()


GOOD = saved(x=np.ones(50))
FLIPPED = bytearray(GOOD)
FLIPPED[len(FLIPPED) // 2] ^= 0xFF


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "not a zip file", id="empty"),
        pytest.param(GOOD[:40], "not a zip file", id="cut short"),
        pytest.param(GOOD[:-30], "not a zip file", id="cut at the end"),
        pytest.param(bytes(FLIPPED), "Bad CRC-32", id="a flipped byte"),
        pytest.param(b"hello", "not a zip file", id="text"),
        pytest.param(pickle.dumps({"x": 1}), "not a zip file", id="pickle"),
        pytest.param(saved(x=np.array([{}], dtype=object)), "Object arrays", id="object array"),
        pytest.param(npy(np.array([{}], dtype=object)), "one .npy array", id="object .npy"),
        pytest.param(npy(np.ones(3)), "one .npy array", id=".npy"),
        pytest.param(archive("x.txt", b"hello"), "x.txt in it is no array", id="other zip"),
        pytest.param(archive("x.npy", npy(np.ones(9))[:-5]), "x.npy", id="member cut short"),
        pytest.param(saved(), "holds no arrays", id="no arrays"),
    ],
)
def test_corrupt_npz(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "d.npz").write_bytes(content)
    with pytest.raises(ModelFileError) as caught:
        npz.load_npz(tmp_path / "d.npz")
    assert message.removesuffix(".npy") in caught.value.message
    assert caught.value.exit_code is ExitCode.USAGE
    assert caught.value.remedy


def test_any_flipped_byte_is_an_error_or_harmless(tmp_path: Path) -> None:
    content, path = saved(x=np.ones(1)), tmp_path / "d.npz"
    refused = 0
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 0xFF
        path.write_bytes(flipped)
        try:
            npz.load_npz(path)
        except ModelFileError:
            refused += 1
    assert refused > len(content) // 2


def test_missing_npz(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="there is no file"):
        npz.load_npz(tmp_path / "gone.npz")


def test_a_missing_array_names_those_that_are_there() -> None:
    with pytest.raises(InputError, match="no array for the input 'image'") as caught:
        npz.pick({"img": np.ones(1), "mask": np.ones(1)}, "image")
    assert "img, mask" in caught.value.remedy


def test_a_small_archive_of_large_arrays_is_not_inflated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez_compressed(tmp_path / "bomb.npz", x=np.zeros(1 << 20), y=np.zeros(1 << 20))
    assert (tmp_path / "bomb.npz").stat().st_size < 1 << 15
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(ModelFileError, match=r"arrays take 16\.8 MB, and only 9\.0 MB"):
        read_npz(tmp_path / "bomb.npz", Budget(9_000_000), "Do not.")
    monkeypatch.setattr("torch2mobile.limits.machine_memory", lambda: 8 * 9_000_000)
    for read in (npz.load_npz, bundle.read_case):
        with pytest.raises(ModelFileError, match=r"only 9\.0 MB more are read"):
            read(tmp_path / "bomb.npz")


def test_all_files_of_a_command_share_one_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / "data.npz", x=np.zeros(1000))
    monkeypatch.setattr("torch2mobile.limits.machine_memory", lambda: 8 * 20_000)
    request = Request(source="", data=(str(tmp_path / "data.npz"),) * 2)
    assert len(real_inputs.read(request, nn.Identity(), ()).cases) == 2
    with pytest.raises(ModelFileError, match="are read"):
        real_inputs.read(replace(request, data=request.data[:1] * 3), nn.Identity(), ())


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
        for read in (npz.load_npz, bundle.read_case):
            with pytest.raises(ModelFileError, match="it is no regular file"):
                read(path)
