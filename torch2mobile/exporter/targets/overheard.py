"""What native code prints in a call: some libraries say there alone what they could not do."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

_Value = TypeVar("_Value")
_STREAMS = (1, 2)


def overheard(call: Callable[[], _Value]) -> tuple[_Value, list[str]]:
    """What a call returns, and the lines that it wrote to stdout and stderr."""
    with tempfile.TemporaryFile() as heard:
        kept = [os.dup(stream) for stream in _STREAMS]
        for stream in _STREAMS:
            os.dup2(heard.fileno(), stream)
        try:
            value = call()
        finally:
            for stream, own in zip(_STREAMS, kept, strict=True):
                os.dup2(own, stream)
                os.close(own)
        heard.seek(0)
        lines = heard.read().decode(errors="replace").splitlines()
    return value, [line.strip() for line in lines if line.strip()]


def heard(command: Sequence[str], folder: Path) -> tuple[int, str]:
    """How a program ends, and what it says on stderr: passed on at once, as it may be stopped."""
    said = b""
    own = subprocess.Popen(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    with own as running:
        for line in running.stderr or ():
            said += line
            os.write(2, line)
    return running.returncode, said.decode(errors="replace")
