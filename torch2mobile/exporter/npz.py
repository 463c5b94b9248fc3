""".npz files, read only as far as memory allows: what an array takes stands before its data."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from torch2mobile import limits
from torch2mobile.errors import ModelFileError

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
