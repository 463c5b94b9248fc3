"""What a bundle holds, and the samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch2mobile.records.input_specs import InputSpec
from torch2mobile.records.report import SCHEMA_VERSION
from torch2mobile.records.request import Request
from torch2mobile.records.stage_results import NodeOrigins, OutputSpec, Variant


@dataclass(frozen=True)
class Provenance:
    """What ``provenance.json`` of a bundle holds."""

    schema_version: int
    nodes: tuple[NodeOrigins, ...]


@dataclass(frozen=True)
class FileEntry:
    """One file of a bundle, as it was written."""

    sha256: str
    size: int


@dataclass(frozen=True)
class GoldenCase:
    """One replay: the .npz with inputs and the module's outputs, and what may differ by output.

    ``errors`` has by artefact and output how far it was off when it was exported; ``limits`` what
    is allowed for artefacts that are held to something else. ``carries`` has inputs that are what
    the artefact gave for the case before, by the output: such cases are calls in a row.
    """

    file: str
    probe: str
    allowed: Mapping[str, float]
    errors: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    limits: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    carries: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class StateEntry:
    """One input that an app gives what the ``output`` was in the call before.

    At first it is ``size`` bytes of ``state.bin`` from ``offset`` on, little-endian and row by row.
    ``place`` is where the module keeps it.
    """

    input: str
    output: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    size: int
    place: str


@dataclass(frozen=True)
class ArtifactEntry:
    """How one artefact of a bundle was made, and how it is fed; see :class:`Artifact`."""

    variant: Variant
    tools: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Fingerprint:
    """SHA-256 of something and of its parts by name; empty where it is not known."""

    sha256: str = ""
    parts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """What a bundle holds and how it was made.

    ``targets`` lists each artefact's files by its label, ``artifacts`` how it was made (bundles of
    0.1 have none of these).
    """

    name: str
    source: str
    strategy: str
    opset: int
    simplified: bool
    seed: int
    inputs: tuple[InputSpec, ...]
    outputs: tuple[OutputSpec, ...]
    targets: Mapping[str, tuple[str, ...]]
    golden: tuple[GoldenCase, ...]
    versions: Mapping[str, str]
    files: Mapping[str, FileEntry]
    request: Request | None = None
    weights: Fingerprint = field(default_factory=Fingerprint)
    sources: Fingerprint = field(default_factory=Fingerprint)
    machine: Mapping[str, str] = field(default_factory=dict)
    artifacts: Mapping[str, ArtifactEntry] = field(default_factory=dict)
    state: tuple[StateEntry, ...] = ()
    kind: str = "torch2mobile bundle"
    schema_version: int = SCHEMA_VERSION


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk."""

    path: Path
    manifest: Manifest = field(repr=False)

    def file(self, name: str) -> Path:
        """The full path of one of its files."""
        return self.path / name


@dataclass(frozen=True)
class Sample:
    """One row of ``SAMPLES``: where the model lives and how an export of it must end.

    ``expect_line`` is a piece of the source line that a failing sample's report must name.
    """

    name: str
    module: str
    title: str
    expect_exit: int = 0
    expect_line: str = ""
    attr: str = "build"

    @property
    def ordinary(self) -> bool:
        """Whether an export of it must pass."""
        return self.expect_exit == 0
