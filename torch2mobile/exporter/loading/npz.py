""".npz files, read only as far as memory allows: what an array takes stands before its data."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from torch2mobile import limits
from torch2mobile.errors import InputError, ModelFileError, near_path, reason_of
from torch2mobile.records import RealCase

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_npz(path: Path, budget: limits.Budget, remedy: str) -> dict[str, np.ndarray]:
    """The arrays of a file by name, taken from a budget; no object arrays.

    Raises ModelFileError for what is no regular file, no archive of arrays, corrupt or too large.
    """
    try:
        # Opened here, as numpy leaves a corrupt file open.
        with limits.open_regular(path) as file:
            if file.read(6) == np.lib.format.MAGIC_PREFIX:
                raise ValueError("it is one .npy array, not an .npz archive")
            budget.take(_bytes_of(file))
            with np.load(file, allow_pickle=False) as archive:
                arrays: dict[str, Any] = {name: archive[name] for name in archive.files}
    except Exception as error:
        said = f"{path} cannot be read as .npz: {reason_of(error)}"
        raise ModelFileError(said, remedy) from error
    return arrays


def load_npz(path: Path, budget: limits.Budget | None = None) -> RealCase:
    """The arrays of an .npz file by name; ModelFileError for a missing, empty or corrupt file."""
    if not path.exists():
        raise ModelFileError(
            f"there is no file {path}", near_path(path, "Check the path given to --data.")
        )
    remedy = (
        "Write it with numpy.savez(path, input_name=array, ...); no object arrays. Real inputs can "
        "also be images, or a .txt with a text a line."
    )
    loaded = read_npz(path, budget or limits.Budget(), remedy)
    if not loaded:
        raise ModelFileError(f"{path} holds no arrays", "Save one array for each input, by name.")
    return RealCase(loaded, path.name)


class OfFiles(dict[str, np.ndarray]):
    """An example with a file for each input: one that fits no input is a slip."""


def of_files(files: Sequence[Path], budget: limits.Budget) -> list[dict[str, np.ndarray]]:
    """One example from each ``.npz``, and one of all ``.npy`` together, an input each."""
    cases: list[dict[str, np.ndarray]] = [
        load_npz(file, budget) for file in files if file.suffix.lower() == ".npz"
    ]
    whole = [file for file in files if file.suffix.lower() == ".npy"]
    arrays = {file.stem: _read_npy(file, budget) for file in whole}
    return [*cases, OfFiles(arrays)] if arrays else cases


def _read_npy(path: Path, budget: limits.Budget) -> np.ndarray:
    try:
        with limits.open_regular(path) as file:
            shape, _, dtype = _HEADERS[np.lib.format.read_magic(file)](file)
            budget.take(math.prod(shape) * dtype.itemsize)
            file.seek(0)
            array: np.ndarray = np.load(file, allow_pickle=False)
    except Exception as error:
        raise ModelFileError(
            f"{path} cannot be read as .npy: {reason_of(error)}", "Write it with numpy.save."
        ) from error
    return array


def pick(data: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """The array of one input; InputError that names what is there instead."""
    if name not in data:
        source = data.origin if isinstance(data, RealCase) else "the data"
        raise InputError(
            f"{source} has no array for the input {name!r}",
            f"It has: {', '.join(data)}. Name the arrays after the inputs.",
        )
    return data[name]


def _bytes_of(file: IO[bytes]) -> int:
    """What the arrays of an archive will take, by their headers; ValueError for other members."""
    total = 0
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            with archive.open(member) as array:
                name = member.filename.removesuffix(".npy")
                try:
                    header = _HEADERS[np.lib.format.read_magic(array)]
                except (KeyError, ValueError):
                    raise ValueError(f"{name} in it is no array") from None
                shape, _, dtype = header(array)
                needed = math.prod(shape) * dtype.itemsize
                if needed > member.file_size:
                    raise ValueError(f"{name} in it is cut: {member.file_size:,} bytes are there")
                total += needed
    file.seek(0)
    return total
