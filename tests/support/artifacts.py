"""Artefacts for the gate that are no files: any runner under a label."""

from __future__ import annotations

from typing import Any

from torch2mobile.pipeline.candidates import Candidate
from torch2mobile.records import ArtifactEntry, Variant


def artifact_of(label: str, runner: Any) -> Candidate:
    return Candidate(ArtifactEntry(Variant(label, label)), runner, runner)
