"""The mobile runtimes: one module each, one row in TARGETS.

Nothing here imports torch, so that workers and ``torch2mobile targets`` start at once.
"""

from __future__ import annotations

from pathlib import Path

from torch2mobile.exporter.targets.ort import OrtTarget
from torch2mobile.interfaces import Runner, Target
from torch2mobile.records import Artifact, OnnxModel

TARGETS: dict[str, Target] = {
    "ort": OrtTarget(),
}


def convert(target: Target, model: OnnxModel, program: Path | None, out: Path) -> Artifact:
    """What a worker calls to convert; the target travels there by name of its class."""
    return target.convert(model, program, out)


def load(target: Target, path: Path) -> Runner:
    """What a worker calls to load an artefact."""
    return target.load(path)
