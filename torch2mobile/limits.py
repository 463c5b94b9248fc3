"""How much may be taken: memory of processes, and bytes of files."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

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
