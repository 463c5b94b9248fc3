"""From the proven .onnx to a target's own files, in a worker process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch2mobile.environments import Environment, Worker
from torch2mobile.errors import (
    ConversionError,
    MissingToolError,
    NotApplicableError,
    Torch2MobileError,
    UsageError,
    did_you_mean,
)
from torch2mobile.exporter.targets import TARGETS
from torch2mobile.interfaces import Target
from torch2mobile.records import Artifact, OnnxModel


def find_targets(names: Sequence[str]) -> list[Target]:
    """The targets of these names; UsageError for an unknown one."""
    unknown = [name for name in names if name not in TARGETS]
    if unknown:
        from torch2mobile.validators.coverage.levels import TARGETS as CHECKED

        if unknown[0] in CHECKED:
            raise UsageError(
                f"{unknown[0]!r} is a target that only check knows: nothing is converted for it",
                f"Use check --target {unknown[0]}; export has {', '.join(TARGETS)}.",
            )
        raise UsageError(
            f"there is no target {unknown[0]!r}", did_you_mean(unknown[0], list(TARGETS))
        )
    return [TARGETS[name] for name in dict.fromkeys(names)]


def convert(
    target: Target,
    model: OnnxModel,
    program: Path | None,
    folder: Path,
    tools: Worker,
    timeout: float,
) -> Artifact:
    """Write a target's files into ``folder``, by the worker ``tools`` or one of the target's own.

    Raises MissingToolError, NotApplicableError where the target has no form for this model, and
    ConversionError for whatever else its converter does.
    """
    missing = target.missing()
    if missing:
        raise MissingToolError(f"{target.name} is not installed", f"Run: {'; '.join(missing)}")
    own = target.wants_program or not tools.alive
    worker = Worker(environment=Environment(torch=True)) if own else tools
    try:
        artifact: Artifact = worker.call(
            "torch2mobile.exporter.targets:convert",
            target,
            replace(model, origins={}),
            program if target.wants_program else None,
            folder,
            timeout=timeout,
        )
    except NotApplicableError:
        raise
    except Torch2MobileError as error:
        raise ConversionError(
            f"the converter for {target.name} {error.message}", error.remedy
        ) from error
    finally:
        if own:
            worker.close()
    return artifact
