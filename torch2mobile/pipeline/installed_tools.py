"""What is installed: versions of every tool that touches a model, and what is missing."""

from __future__ import annotations

import contextlib
import functools
import platform
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch2mobile import beside

TOOLS = (
    "torch",
    "onnx",
    "onnxscript",
    "onnx-ir",
    "onnxsim",
    "onnxruntime",
    "numpy",
)

# The distributions that each extra is for.
EXTRAS: Mapping[str, tuple[str, ...]] = {
    "ncnn": ("ncnn", "pnnx"),
    "executorch": ("executorch", "torchao"),
    "mnn": ("MNN",),
    "coreml": ("coremltools",),
    "qnn": ("onnxruntime-qnn",),
    "litert": ("ai-edge-litert", "ai-edge-quantizer", "litert-torch"),
    "timm": ("timm",),
    "hf": ("transformers",),
    "images": ("pillow",),
    "text": ("tokenizers",),
}

# Instruction sets for which ONNX Runtime and PyTorch have kernels of their own, as /proc/cpuinfo
# calls them: x86 before ARM.
CPU_FEATURES = (
    *("avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16"),
    *("avx512_fp16", "avx_vnni", "amx_int8", "amx_bf16"),
    *("asimd", "fphp", "asimdhp", "asimddp", "asimdfhm", "i8mm", "bf16", "sve", "sve2", "sme"),
)


@dataclass(frozen=True)
class Installed:
    """One tool: its version, or None, and the command that installs it or what it lacks."""

    name: str
    version: str | None
    command: str
    needed: bool = True
    whole: bool = True


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
    """This program and every tool that export needs, with its version or how to get it."""
    # Run from a checkout it is no distribution that is installed, and there all the same.
    # Its version is in the package itself, which imports what is above this.
    version = sys.modules["torch2mobile"].__version__
    own = Installed("torch2mobile", version, "pip install torch2mobile")
    command = "pip install -c constraints.txt"
    tools = (Installed(name, beside.own_version(name), f"{command} {name}") for name in TOOLS)
    return [own, *tools]


def extras() -> list[Installed]:
    """Every extra, with the versions of what it is for, or how to get it."""
    found = []
    for name, parts in EXTRAS.items():
        pins = beside.PINS.get(name, {})
        versions = [(beside.version if p in pins else beside.own_version)(p) for p in parts]
        told = ", ".join(f"{part} {v}" for part, v in zip(parts, versions, strict=True))
        command = beside.command(name) if pins else f"pip install 'torch2mobile[{name}]'"
        found.append(Installed(f"[{name}]", told if all(versions) else None, command, needed=False))
    return found
