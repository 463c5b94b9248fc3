"""Take a PyTorch module to ONNX and mobile runtimes, and prove that it arrived intact.

The functions of the API are loaded on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# onnxruntime sends usage data to its vendor, and reads this once, when it is imported. Worker
# processes import this package first as well; whoever set the variable has decided for himself.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from torch2mobile.exporter.bundle import load_bundle
    from torch2mobile.pipeline.api import check, debug, export, verify
    from torch2mobile.pipeline.results import (
        CheckResult,
        DebugResult,
        ExportResult,
        SimplifyResult,
        VerifyResult,
    )
    from torch2mobile.pipeline.simplify_file import simplify

__all__ = [
    "CheckResult",
    "DebugResult",
    "ExportResult",
    "SimplifyResult",
    "VerifyResult",
    "check",
    "debug",
    "export",
    "load_bundle",
    "simplify",
    "verify",
]

_HOMES = {
    "check": "torch2mobile.pipeline.api",
    "debug": "torch2mobile.pipeline.api",
    "export": "torch2mobile.pipeline.api",
    "verify": "torch2mobile.pipeline.api",
    "simplify": "torch2mobile.pipeline.simplify_file",
    "load_bundle": "torch2mobile.exporter.bundle",
    "CheckResult": "torch2mobile.pipeline.results",
    "DebugResult": "torch2mobile.pipeline.results",
    "ExportResult": "torch2mobile.pipeline.results",
    "SimplifyResult": "torch2mobile.pipeline.results",
    "VerifyResult": "torch2mobile.pipeline.results",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
