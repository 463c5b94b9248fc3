"""One artefact against what the module gave: parity, and inputs that are baked in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from torch2mobile.errors import Torch2MobileError
from torch2mobile.pipeline.candidates import Candidate
from torch2mobile.pipeline.stages import Stages, error_check
from torch2mobile.records import (
    Capture,
    Location,
    ParityOptions,
    Status,
)

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from torch2mobile.pipeline.localising import Localiser
    from torch2mobile.validators.parity.answers import Answers
    from torch2mobile.validators.parity.expected import Expected


def judge(
    stages: Stages,
    artifact: Candidate,
    expected: Sequence[Expected],
    options: ParityOptions,
    capture: Capture | None,
    localiser: Localiser | None = None,
    told: Callable[[Answers], None] | None = None,
    known: Answers | None = None,
) -> bool:
    """Parity and baked values of one artefact; True where it passed.

    ``localiser`` adds to a failure where it starts; ``told`` is given the artefact's answers, for
    a caller who measures more of them; ``known`` are those of a caller who has them.
    """
    from torch2mobile.validators.parity import baked, gate
    from torch2mobile.validators.parity.answers import run_probes

    target = artifact.label
    stages.observer.started(f"parity {target}")
    held = artifact.gate(options)
    try:
        answers = known or run_probes(artifact.runner, expected, stages.probed)
    except Torch2MobileError as error:
        stages.add(error_check("parity", error, target=target))
        return False
    if told is not None:
        told(answers)
    parity = artifact.verdict(gate.parity_check(target, expected, answers, held), held)
    if localiser is not None:
        parity = localiser.explain(parity, expected, artifact.runner)
    stages.add(parity)
    follows = baked.baked_check(target, expected, answers, lossy=artifact.entry.variant.lossy)
    if follows.status is Status.FAILED and capture is not None:
        follows = replace(follows, locations=_readers(follows.metrics, capture))
    stages.add(follows)
    return parity.status is Status.PASSED and follows.status is not Status.FAILED


def look_up(stages: Stages, path: Path, module: torch.nn.Module) -> None:
    """Every row of the tables of an .onnx, if it has any, beside the module's."""
    from torch2mobile.validators.tables import tables_check

    check = stages.attempt("tables", lambda: tables_check(path, module), target="onnx")
    if check is not None:
        stages.add(check)


def _readers(metrics: Mapping[str, object], capture: Capture) -> tuple[Location, ...]:
    from torch2mobile.exporter import attribute_access

    names = str(metrics["inputs"]).split(", ")
    return tuple(place for name in names for place in attribute_access.readers_of(capture, name))
