"""The mobile runtimes: one module each, one row in TARGETS.

Nothing here imports torch, so that workers and ``torch2mobile targets`` start at once.
"""

from __future__ import annotations

from pathlib import Path

from torch2mobile.errors import MissingToolError, NotInstalledError, UsageError, did_you_mean
from torch2mobile.exporter.targets.coreml import CoremlTarget
from torch2mobile.exporter.targets.executorch import ExecutorchTarget
from torch2mobile.exporter.targets.litert import LitertTarget
from torch2mobile.exporter.targets.mlpackage import model_name
from torch2mobile.exporter.targets.mnn import MnnTarget
from torch2mobile.exporter.targets.ncnn import NcnnTarget
from torch2mobile.exporter.targets.ort import ONNX, OrtTarget
from torch2mobile.exporter.targets.qnn import QnnTarget
from torch2mobile.interfaces import Runner, Target
from torch2mobile.records import Artifact, Job, Variant

TARGETS: dict[str, Target] = {
    "ort": OrtTarget(),
    "ncnn": NcnnTarget(),
    "executorch": ExecutorchTarget(),
    "mnn": MnnTarget(),
    "coreml": CoremlTarget(),
    "qnn": QnnTarget(),
    "litert": LitertTarget(),
}


def variants() -> dict[str, Variant]:
    """All variants of all targets, by label."""
    return {variant.label: variant for target in TARGETS.values() for variant in target.variants}


def suffixes() -> tuple[str, ...]:
    """The endings of all files that some target loads."""
    return tuple(dict.fromkeys(s for target in TARGETS.values() for s in target.suffixes))


def find_variant(label: str) -> Variant:
    """The variant of this label (a target's name is its first variant's); else UsageError."""
    known = variants()
    if label not in known:
        raise UsageError(f"there is no target {label!r}", did_you_mean(label, list(known)))
    return known[label]


def variant_of(path: Path) -> Variant | None:
    """Whose file this is, by its ending, and by the label in its name; None for any other."""
    endings = {end: target for target in TARGETS.values() for end in target.suffixes}
    ending = max((end for end in endings if path.name.endswith(end)), key=len, default="")
    if ending in {"", ".onnx"}:
        return ONNX if ending else None
    name, target = model_name(path), endings[ending]
    named = [variant for variant in target.variants if f".{variant.label}." in name]
    return (named or list(target.variants))[0]


def refuse_missing(variant: Variant) -> None:
    """NotInstalledError with the commands for what a variant's target needs and is not there."""
    missing = TARGETS[variant.target].missing()
    if missing:
        raise NotInstalledError(f"{variant.label} is not installed", f"Run: {'; '.join(missing)}")


def convert(target: Target, job: Job) -> Artifact:
    """What a worker calls to convert; the target travels there by name of its class."""
    return target.convert(job)


def load(target: Target, path: Path, variant: Variant) -> Runner:
    """What a worker calls to load an artefact; MissingToolError with the command that installs."""
    try:
        return target.load(path, variant)
    except ImportError as error:
        commands = target.missing()
        if not commands:
            raise
        raise MissingToolError(
            f"needs what is not there: {error}", f"Run: {'; '.join(commands)}"
        ) from error
