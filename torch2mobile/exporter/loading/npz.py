""".npz files, read only as far as memory allows: what an array takes stands before its data."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from torch2mobile import limits
from torch2mobile.errors import InputError, ModelFileError

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
        reason = error.strerror if isinstance(error, OSError) else error
        raise ModelFileError(f"{path} cannot be read as .npz: {reason}", remedy) from error
    return arrays


def load_npz(path: Path, budget: limits.Budget | None = None) -> dict[str, np.ndarray]:
    """The arrays of an .npz file by name; ModelFileError for a missing, empty or corrupt file."""
    if not path.exists():
        raise ModelFileError(f"there is no file {path}", "Check the path given to --data.")
    remedy = "Write it with numpy.savez(path, input_name=array, ...); no object arrays."
    loaded = read_npz(path, budget or limits.Budget(), remedy)
    if not loaded:
        raise ModelFileError(f"{path} holds no arrays", "Save one array for each input, by name.")
    return loaded


def load_all(paths: Sequence[str]) -> tuple[Mapping[str, np.ndarray], ...]:
    """One example from each file, all within one budget.

    Of a folder, each ``.npz`` is one, and all ``.npy`` together, an input each.
    """
    budget = limits.Budget()
    return tuple(case for path in paths for case in _cases(Path(path), budget))


class OfFiles(dict[str, np.ndarray]):
    """An example with a file for each input: one that fits no input is a slip."""


def _cases(path: Path, budget: limits.Budget) -> list[dict[str, np.ndarray]]:
    if not path.is_dir():
        return [load_npz(path, budget)]
    cases = [load_npz(file, budget) for file in sorted(path.glob("*.npz"))]
    arrays = {file.stem: _read_npy(file, budget) for file in sorted(path.glob("*.npy"))}
    if arrays:
        cases.append(OfFiles(arrays))
    if not cases:
        raise ModelFileError(
            f"the folder {path} holds neither .npz nor .npy files",
            "Save an .npz for each example, or one .npy for each input.",
        )
    return cases


def _read_npy(path: Path, budget: limits.Budget) -> np.ndarray:
    try:
        with limits.open_regular(path) as file:
            shape, _, dtype = _HEADERS[np.lib.format.read_magic(file)](file)
            budget.take(math.prod(shape) * dtype.itemsize)
            file.seek(0)
            array: np.ndarray = np.load(file, allow_pickle=False)
    except Exception as error:
        raise ModelFileError(
            f"{path} cannot be read as .npy: {error}", "Write it with numpy.save."
        ) from error
    return array


def pick(data: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """The array of one input; InputError that names what is there instead."""
    if name not in data:
        raise InputError(
            f"the data has no array for the input {name!r}",
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
