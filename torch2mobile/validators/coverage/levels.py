"""The levels of ``check``, in order: each gives one Section or more."""

from __future__ import annotations

from torch2mobile.validators.coverage import source
from torch2mobile.validators.coverage.subject import Level

LEVELS: tuple[Level, ...] = (source.look,)

TARGETS: dict[str, str] = {"ort": "ONNX Runtime"}
"""What ``--target`` of ``check`` takes, with titles."""
