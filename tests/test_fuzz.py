"""Damaged and unusual files by the hundred: no bug, no hang, no gigabyte.

T2M_FUZZ=3000 asks for more files, T2M_SEED=1 for others.
"""

from __future__ import annotations

import os
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

import damage
import pytest

from torch2mobile.cli import run

COUNT = int(os.environ.get("T2M_FUZZ", "300"))
SEED = int(os.environ.get("T2M_SEED", "0"))
LONGEST = 30.0
MOST = 2 << 30


def look_at(folder: Path) -> None:
    """All cases in this process; prints those that end as none may."""
    for case in damage.cases(SEED, COUNT):
        place = folder / case.name
        place.mkdir()
        os.chdir(place)
        arguments = case.make(place, random.Random(f"{SEED}/{case.name}"))
        began = time.monotonic()
        code = run(arguments)
        took = time.monotonic() - began
        (folder / "last").write_text(f"{case.name} {arguments}")
        if code not in {0, 1, 2, 3} or took > LONGEST:
            with (folder / "bad").open("a") as file:
                file.write(f"{case.name}: exit {code} in {took:.1f} s: {arguments}\n")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    (folder / "peak").write_text(str(peak))


@pytest.mark.slow
def test_no_file_is_a_bug(tmp_path: Path) -> None:
    """In a process of its own, so that a native crash is seen as one."""
    program = "import sys, pathlib, test_fuzz; test_fuzz.look_at(pathlib.Path(sys.argv[1]))"
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here / "support"), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        timeout=max(300, COUNT),
        check=False,
    )
    last = (tmp_path / "last").read_text() if (tmp_path / "last").is_file() else "none"
    assert done.returncode == 0, f"after {last}: {done.stderr[-500:]}"
    bad = tmp_path / "bad"
    assert not bad.is_file(), bad.read_text()
    assert int((tmp_path / "peak").read_text()) < MOST
