"""How much may be taken and asked for: memory, sizes of arrays and files, ranges of numbers."""

from __future__ import annotations

import contextlib
import errno
import numbers
import os
import stat
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from torch2mobile.errors import UsageError

# Where Linux says how much a container may take; version 2 of control groups, then version 1.
_GROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def machine_memory() -> int:
    """The bytes of memory that this machine has, or the container in which it seems to be one."""
    try:
        found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        found = 1 << 34
    for group in _GROUPS:
        with contextlib.suppress(OSError, ValueError):
            found = min(found, int(Path(group).read_text(encoding="ascii")))
    return found


def worker_memory() -> int:
    """The bytes that one worker process may take: three quarters of the machine's.

    Generous, as whatever fits passes; a file that asks for more fails alone, in place of the
    machine.
    """
    return machine_memory() * 3 // 4


def cap_memory(most: int) -> None:
    """Let this process take at most so many bytes; without effect where the system has no way.

    What counts is memory that can be written, not addresses: threads and runtimes reserve many
    more of these than they use.
    """
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(
            resource.RLIMIT_DATA, (most, resource.getrlimit(resource.RLIMIT_DATA)[1])
        )


def size_text(size: int) -> str:
    """A number of bytes in words: ``3.0 GB``."""
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


@dataclass(frozen=True)
class Range:
    """The numbers that an option takes; ``above`` leaves out the least."""

    least: float
    most: float
    whole: bool = True
    above: bool = False

    def holds(self, value: object) -> bool:
        """Whether a value is a number of this range; NaN is none, and neither is True."""
        # numpy's numbers are registered with these, too.
        kind = numbers.Integral if self.whole else numbers.Real
        if isinstance(value, bool) or not isinstance(value, kind):
            return False
        number: Any = value
        return bool(self.least <= number <= self.most and (number > self.least or not self.above))

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        if self.most == sys.float_info.max:
            return f"{kind} from {self.least:g} up"
        ends = f"above {self.least:g} and up to" if self.above else f"from {self.least:g} to"
        return f"{kind} {ends} {self.most}"


# Far beyond what is of use, and far below what would hang, overflow or fill a disk.
_TIME = Range(0, 604_800, whole=False, above=True)  # a week
_TOLERANCE = Range(0, sys.float_info.max, whole=False)
RANGES: Mapping[str, Range] = {
    "probes": Range(0, 10_000),
    "seed": Range(0, 2**63 - 1),
    "timeout": _TIME,
    "simplify_timeout": _TIME,
    "mutants": Range(0, 10_000),
    "min_caught": Range(0, 1, whole=False),
    "opset": Range(1, 2**31 - 1),
    "atol": _TOLERANCE,
    "rtol": _TOLERANCE,
    "fix_dim": Range(1, 2**31 - 1),
}


def check_number(name: str, value: object, *, of: str = "", text: str | None = None) -> None:
    """UsageError where an option has no number of its range.

    ``of`` is the output or symbol that it was given for, ``text`` what was typed.
    """
    if not RANGES[name].holds(value):
        flag, shown = "--" + name.replace("_", "-"), repr(value) if text is None else text
        for_what = f"{of}=" if of else ""
        raise UsageError(
            f"{flag} {for_what}{shown[:40]}: this is not {RANGES[name]}",
            "Give such a number, or leave it out.",
        )


def read_number(name: str, text: str, *, of: str = "") -> int | float:
    """The number that a text on the command line says; UsageError as by :func:`check_number`."""
    value: object = text
    with contextlib.suppress(ValueError):
        value = int(text) if RANGES[name].whole else float(text)
    check_number(name, value, of=of, text=text)
    return cast("int | float", value)


class Budget:
    """Memory for the arrays that a command reads: an eighth of the machine's, as copies follow."""

    def __init__(self, most: int | None = None) -> None:
        self.left = machine_memory() // 8 if most is None else most

    def take(self, size: int) -> None:
        """Count so many bytes; ValueError where they are more than what is left."""
        if size > self.left:
            raise ValueError(
                f"its arrays take {size_text(size)}, and only {size_text(self.left)} more are read"
            )
        self.left -= size


def refuse_inflating(path: Path) -> None:
    """ValueError for an archive whose compressed members take more than a command may read.

    What torch and numpy save as it is cannot be larger in memory than on disk.
    """
    packed: list[zipfile.ZipInfo] = []
    # What is no archive is for its reader to say.
    unread = (zipfile.BadZipFile, NotImplementedError, OSError)
    with contextlib.suppress(*unread), zipfile.ZipFile(path) as archive:
        packed = [m for m in archive.infolist() if m.compress_type != zipfile.ZIP_STORED]
    Budget().take(sum(member.file_size for member in packed))


def open_regular(path: Path) -> IO[bytes]:
    """Open a file to read; OSError for what is none: reading a pipe or a device may never end."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return path.open("rb")


def read_regular(path: Path, most: int = 1 << 30) -> bytes:
    """All bytes of a file; OSError for what is no regular file, or has more than ``most``."""
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > most:
            raise OSError(errno.EFBIG, f"it has more than {size_text(most)}", str(path))
        return file.read()
