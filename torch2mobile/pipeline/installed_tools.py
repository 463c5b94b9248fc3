"""What is installed: versions of every tool that touches a model, and what is missing."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

TOOLS = (
    "torch2mobile",
    "torch",
    "onnx",
    "onnxscript",
    "onnx-ir",
    "onnxsim",
    "onnxruntime",
    "numpy",
)

# Instruction sets for which ONNX Runtime and PyTorch have kernels of their own, as /proc/cpuinfo
# calls them: x86 before ARM.
CPU_FEATURES = (
    *("avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16"),
    *("avx512_fp16", "avx_vnni", "amx_int8", "amx_bf16"),
    *("asimd", "fphp", "asimdhp", "asimddp", "asimdfhm", "i8mm", "bf16", "sve", "sve2", "sme"),
)


@dataclass(frozen=True)
class Installed:
    """One tool: its version, or None and the command that installs it."""

    name: str
    version: str | None
    command: str
    needed: bool = True


@functools.cache
def tool_versions() -> Mapping[str, str]:
    """The versions of Python and of the tools that are installed, read once a process."""
    found = {"python": platform.python_version()}
    found |= {tool.name: tool.version for tool in installed() if tool.version}
    return found


def machine() -> dict[str, str]:
    """What of this machine can change results: system, architecture, instruction sets (Linux)."""
    found = {"system": platform.system(), "architecture": platform.machine()}
    with contextlib.suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        flags = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
        if flags:
            known = set(flags[1].split())
            found["instructions"] = " ".join(name for name in CPU_FEATURES if name in known)
    return found


def installed() -> list[Installed]:
    """Every tool that export needs, with its version or how to get it."""
    result = []
    for name in TOOLS:
        try:
            version: str | None = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            version = None
        result.append(Installed(name, version, f"pip install -c constraints.txt {name}"))
    return result
