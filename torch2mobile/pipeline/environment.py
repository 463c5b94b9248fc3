"""What is installed: versions of every tool that touches a model, and what is missing."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
from collections.abc import Mapping
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Installed:
    """One tool: its version, or None and the command that installs it."""

    name: str
    version: str | None
    command: str


@functools.cache
def tool_versions() -> Mapping[str, str]:
    """The versions of Python and of the tools that are installed, read once a process."""
    found = {"python": platform.python_version()}
    found |= {tool.name: tool.version for tool in installed() if tool.version}
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
