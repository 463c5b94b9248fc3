"""Runs two commands in turns and compares them: wall and processor time, and peak memory.

Machines are noisy, so only ratios within one run are worth anything: each pair gives one, and the
median is what is quoted. Memory is the proportional set size (PSS) summed over a command and all
its children, sampled 50 times a second; shared pages count once.
"""

from __future__ import annotations

import contextlib
import os
import resource
import statistics
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Run:
    """One run: seconds, those of all processors, and MiB of the whole tree and of one process."""

    seconds: float
    cpu: float
    tree_mib: float
    largest_mib: float


def children(pid: int) -> list[int]:
    """A process and all that it has started."""
    found = [pid]
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += children(int(child))
    return found


def pss(pid: int) -> int:
    """The proportional set size of a process in KiB; 0 where it is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0


def run(command: Sequence[str], folder: Path, *, memory: bool) -> Run:
    """Run a command to its end; RuntimeError where it fails."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    peaks = [0.0, 0.0]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            sizes = [pss(pid) for pid in children(process.pid)]
            peaks[0] = max(peaks[0], sum(sizes) / 1024)
            peaks[1] = max(peaks[1], max(sizes, default=0) / 1024)

    if memory:
        threading.Thread(target=watch, daemon=True).start()
    _, errors = process.communicate()
    seconds = time.perf_counter() - start
    done.set()
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} exited {process.returncode}: {errors[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Run(seconds, cpu, *peaks)


def compare(
    name: str, ours: Sequence[str], theirs: Sequence[str], folder: Path, *, runs: int, limit: str
) -> None:
    """Print the median ratios of ``ours`` to ``theirs``, pair by pair."""
    os.sync()
    run(ours, folder, memory=False)
    run(theirs, folder, memory=False)

    def pair(*, memory: bool) -> tuple[Run, Run]:
        return run(ours, folder, memory=memory), run(theirs, folder, memory=memory)

    times = [pair(memory=False) for _ in range(runs)]
    memory = [pair(memory=True) for _ in range(2)]
    print(f"{name}  (limit {limit})")
    for label, field in (("wall", "seconds"), ("cpu", "cpu")):
        found = [(getattr(a, field), getattr(b, field)) for a, b in times]
        ratios = [a / b for a, b in found]
        print(
            f"  {label:<8}{statistics.median(ratios):.2f}x  "
            f"({min(ratios):.2f} to {max(ratios):.2f})   "
            f"{statistics.median(a for a, _ in found):.2f} s against "
            f"{statistics.median(b for _, b in found):.2f} s"
        )
    for label, field in (("tree", "tree_mib"), ("largest", "largest_mib")):
        pairs = [(getattr(a, field), getattr(b, field)) for a, b in memory]
        ratio = statistics.median(a / b for a, b in pairs)
        ours_mib, theirs_mib = pairs[0]
        print(f"  {label:<8}{ratio:.2f}x  {ours_mib:.0f} against {theirs_mib:.0f} MiB of memory")
