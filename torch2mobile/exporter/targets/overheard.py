"""What native code prints in a call: some libraries say there alone what they could not do."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
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
