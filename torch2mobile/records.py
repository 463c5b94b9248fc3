"""The records that flow between the stages: frozen and typed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from torch2mobile.errors import ExitCode

if TYPE_CHECKING:
    import numpy as np
    import torch

SCHEMA_VERSION = 1

Scalar = bool | int | float | str | None
PathKey = str | int


# --- what goes in -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Dim:
    """One dimension of an input: a fixed ``size``, or ``factor * symbol + offset``.

    ``least`` and ``greatest`` bound the symbol (not the size); None means undeclared. ``others``
    are multiples of other symbols that are added: ``P + T``.
    """

    size: int | None = None
    symbol: str | None = None
    factor: int = 1
    least: int | None = None
    greatest: int | None = None
    offset: int = 0
    others: tuple[Dim, ...] = ()

    @property
    def label(self) -> int | str:
        """The dimension as ONNX shows it: ``3``, ``"H"``, ``"8*h"``, ``"P + 1"``."""
        if self.symbol is None:
            return self.size if self.size is not None else -1
        own = self.symbol if self.factor == 1 else f"{self.factor}*{self.symbol}"
        label = " + ".join([own, *(str(other.label) for other in self.others)])
        sign = "-" if self.offset < 0 else "+"
        return f"{label} {sign} {abs(self.offset)}" if self.offset else label

    @property
    def terms(self) -> tuple[Dim, ...]:
        """The multiples of symbols that make the size, without the offset; none if it is fixed."""
        return () if self.symbol is None else (replace(self, offset=0, others=()), *self.others)

    @property
    def ends(self) -> tuple[int, int | None]:
        """The least and greatest size, undeclared symbols being at least 1."""
        if self.symbol is None:
            return self.size or 0, self.size
        low = sum(term.factor * (1 if term.least is None else term.least) for term in self.terms)
        tops = [term.greatest and term.factor * term.greatest for term in self.terms]
        high = None if None in tops else sum(top or 0 for top in tops) + self.offset
        return low + self.offset, high

    def at(self, sizes: Mapping[str, int]) -> int:
        """The size of this dimension when the symbols have these values."""
        if self.symbol is None:
            return self.size if self.size is not None else 0
        own = self.factor * sizes[self.symbol] + self.offset
        return own + sum(other.at(sizes) for other in self.others)

    def solved(self, size: int, sizes: Mapping[str, int]) -> tuple[str, int, int] | None:
        """What the one symbol that ``sizes`` lacks is where this dimension is ``size``.

        Its name, its value and what its factor leaves; None where ``sizes`` lacks none or several.
        """
        unknown = [term for term in self.terms if term.symbol not in sizes]
        if len(unknown) != 1:
            return None
        known = {**sizes, str(unknown[0].symbol): 0}
        return str(unknown[0].symbol), *divmod(size - self.at(known), unknown[0].factor)


@dataclass(frozen=True)
class Values:
    """The values an input may take: a closed range, a distribution to draw from, or a form.

    ``low``/``high`` are the ends for ``range`` and ``uniform``, mean and standard deviation
    for ``normal``; of ``sorted`` and ``nonzero`` the ends, none where both are 0. ``numbers`` are
    those of a ``choice``, ``side`` where ``padding`` stands, and ``of`` is the size that
    ``lengths`` and ``offsets`` count. ``suggested`` tells that only the input's name says so.
    """

    kind: Literal[
        "range",
        "uniform",
        "normal",
        "padding",
        "causal",
        "lengths",
        "offsets",
        "sorted",
        "one-hot",
        "nonzero",
        "choice",
    ]
    low: float = 0
    high: float = 0
    numbers: tuple[float, ...] = ()
    side: Literal["left", "right"] = "right"
    of: Dim | None = None
    suggested: bool = False


@dataclass(frozen=True)
class InputSpec:
    """One tensor input: its ONNX name, where it goes in the call, dtype, dimensions, values.

    ``path`` leads to the leaf: a parameter name (or position) of ``forward``, then the keys and
    indices of nested containers. ``dtype`` is numpy's name (``float32``, ``int64``, ``bool`` …).
    """

    name: str
    path: tuple[PathKey, ...]
    dtype: str
    dims: tuple[Dim, ...]
    values: Values | None = None


@dataclass(frozen=True)
class ConstantSpec:
    """An input that is no tensor (None, a Python number, a string): fixed at export."""

    path: tuple[PathKey, ...]
    value: Scalar


@dataclass(frozen=True)
class Tolerance:
    """A user's own tolerance: ``|artefact - reference| <= atol + rtol * |reference|``."""

    atol: float = 0.0
    rtol: float = 0.0


@dataclass(frozen=True)
class ParityOptions:
    """How hard to look: number of value probes, seed, tolerances, the longest call in seconds.

    ``accept_constant``: outputs that no probe changes are no fault.
    Tolerances are by output name (``""`` for all), artefact (``"@ncnn-fp16"``), or both
    (``"logits@ncnn-fp16"``); what is said of an artefact comes first.
    """

    probes: int = 8
    seed: int = 0
    tolerances: Mapping[str, Tolerance] = field(default_factory=dict)
    timeout: float = 300.0
    accept_constant: bool = False

    def for_artifact(self, label: str) -> ParityOptions:
        """With the tolerances that hold for one artefact, by output name."""
        common = {name: given for name, given in self.tolerances.items() if "@" not in name}
        own = {
            name.rpartition("@")[0]: given
            for name, given in self.tolerances.items()
            if "@" in name and name.rpartition("@")[2] == label
        }
        return replace(self, tolerances=own if "" in own else {**common, **own})


# The least share of mutants that the gate has to catch, where the user gives none.
MIN_CAUGHT = 0.95


@dataclass(frozen=True)
class Request:
    """What the user asked ``export`` for; written into the report as it is."""

    source: str
    weights: str | None = None
    inputs: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    trust: bool = False
    download: bool = False
    drop_outputs: tuple[str, ...] = ()
    opset: int | None = None
    simplify: bool = True
    simplify_timeout: float = 120.0
    external_data: bool = False
    targets: tuple[str, ...] = ("ort",)
    devices: tuple[str, ...] = ()
    rewrites: tuple[str, ...] = ()
    mend: bool = True
    parity: ParityOptions = field(default_factory=ParityOptions)


class FlatCallable(Protocol):
    """A module behind a flat signature: ``exporter.loading.flat_module.FlatModule``."""

    dropped: tuple[str, ...]

    def call(self, *tensors: torch.Tensor) -> Any:
        """What the module itself returns for these tensors."""


class FreshCopies(Protocol):
    """Copies of a module that is never called; see :class:`torch2mobile.copies.Copies`."""

    changing: bool
    notes: list[str]

    def lend(
        self, use: Literal["reference", "observed", "float64", "scratch"]
    ) -> AbstractContextManager[Any]:
        """A copy in a fresh state, for a while."""


# --- what flows -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Location:
    """A place to look at: module path, source file, line and text, ONNX node and operator.

    ``caller`` and ``caller_line`` are the user's own line that calls it, where ``file`` is that of
    an installed library.
    """

    def __str__(self) -> str:
        return f"{self.file}:{self.line}  {self.code}"

    module: str = ""
    file: str = ""
    line: int = 0
    code: str = ""
    node: str = ""
    op: str = ""
    caller: str = ""
    caller_line: int = 0


@dataclass(frozen=True)
class OutputSpec:
    """One output of the artefact: name, numpy dtype, and dims as ONNX shows them."""

    name: str
    dtype: str
    dims: tuple[int | str, ...]


@dataclass(frozen=True)
class LoadedModel:
    """A module ready to be captured, with how to call it.

    ``module`` is what the user passed in: it is looked at, and never called. ``flat`` is the same
    behind a flat signature: ``tensors``, the example, in the order of ``specs`` (the user's), and a
    tuple of tensors out. What runs are ``copies`` of it. ``program`` is there where the source was
    an ExportedProgram. ``dynamic_shapes`` has torch.export's own form, one entry a tensor, where
    the user gave that instead of symbols. ``data`` holds real examples, by input name. ``drawn``
    tells that the example is one of ours.
    """

    name: str
    module: torch.nn.Module
    flat: FlatCallable
    tensors: tuple[torch.Tensor, ...]
    specs: tuple[InputSpec, ...]
    copies: FreshCopies
    program: torch.export.ExportedProgram | None = None
    dynamic_shapes: tuple[Any, ...] | None = None
    data: tuple[Mapping[str, np.ndarray], ...] = ()
    notes: tuple[str, ...] = ()
    drawn: bool = False


@dataclass(frozen=True)
class Attempt:
    """One try at capturing: the strategy, whether it worked, and if not, why and where."""

    strategy: str
    succeeded: bool
    reason: str = ""
    locations: tuple[Location, ...] = ()


@dataclass(frozen=True)
class Assumption:
    """What a captured graph takes for granted about the symbols' sizes, in the user's names.

    ``holds`` tells it for a size of every symbol.
    """

    text: str
    symbols: tuple[str, ...]
    holds: Callable[[Mapping[str, int]], bool]


@dataclass(frozen=True)
class Capture:
    """The module as one graph. ``program`` is None only for a TorchScript trace.

    ``inputs`` carries the final dimensions, ``outputs`` the output names, ``symbols`` the user's
    label for each of torch.export's own symbols (``{"s31": "H"}``).
    """

    loaded: LoadedModel
    strategy: str
    program: torch.export.ExportedProgram | None
    traced: torch.jit.ScriptModule | None
    inputs: tuple[InputSpec, ...]
    outputs: tuple[str, ...]
    symbols: Mapping[str, str]
    attempts: tuple[Attempt, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Origin:
    """Where an ONNX value comes from: module paths and the user's own source line."""

    modules: tuple[str, ...]
    file: str
    line: int
    code: str

    def place(self, node: str = "", op: str = "") -> Location:
        """As a place to look at, with the name and operator of the node that it is asked for."""
        module = self.modules[0] if self.modules else ""
        return Location(module, self.file, self.line, self.code, node, op)


@dataclass(frozen=True)
class NodeOrigins:
    """One node of a bundle's .onnx: its name, operator, output values, and where they come from."""

    node: str
    op: str
    outputs: tuple[str, ...]
    origins: tuple[Origin, ...]


@dataclass(frozen=True)
class Provenance:
    """What ``provenance.json`` of a bundle holds."""

    schema_version: int
    nodes: tuple[NodeOrigins, ...]


@dataclass(frozen=True)
class OnnxModel:
    """An ONNX file on disk, its opset, interface and the origin of each of its values."""

    path: Path
    opset: int
    inputs: tuple[InputSpec, ...]
    outputs: tuple[OutputSpec, ...]
    origins: Mapping[str, tuple[Origin, ...]]
    simplified: bool = False


@dataclass(frozen=True)
class Variant:
    """One form of a target's artefact: what the converter is asked for, and what the file can take.

    ``label`` names it (``"ncnn-fp16"``) and is unique over all targets. ``static`` files have the
    example's sizes; without ``batch`` the first dimension is 1. In layout ``NHWC`` the file has the
    channels of its rank-4 inputs and outputs last. ``dtypes`` has what the file takes and gives in
    place of the module's (``{"int64": "int32"}``). With ``own_names`` the runtime's inputs and
    outputs may be called otherwise. ``settings`` are the converter's and the runtime's own.
    """

    label: str
    target: str
    precision: Literal["float32", "float16", "int8"] = "float32"
    source: Literal["onnx", "program"] = "onnx"
    static: bool = False
    batch: bool = True
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    dtypes: Mapping[str, str] = field(default_factory=dict)
    own_names: bool = False
    settings: Mapping[str, Scalar] = field(default_factory=dict)

    @property
    def lossy(self) -> bool:
        """Whether it computes less exactly than the module: then only the user's gate holds it."""
        return self.precision != "float32"


@dataclass(frozen=True)
class Job:
    """What a converter is given: the proven .onnx, the saved ExportedProgram, the folder to fill.

    ``program`` is there for variants with that source. ``shapes`` are the example's, by input.
    """

    model: OnnxModel
    variant: Variant
    program: Path | None
    out: Path
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def path(self, suffix: str) -> Path:
        """Where a file of this variant goes: its label tells it from the others of its target."""
        infix = "" if self.variant.label == self.variant.target else f".{self.variant.label}"
        return self.out / f"{self.model.path.stem}{infix}{suffix}"


@dataclass(frozen=True)
class Artifact:
    """What a converter wrote: ``files[0]`` is what the runtime loads.

    ``names`` has the runtime's own name of an input or output, where it is another; ``shapes`` the
    sizes that are fixed in the file, by input.
    """

    variant: Variant
    files: tuple[Path, ...]
    tools: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


# --- what comes out ---------------------------------------------------------------------------


class Status(str, Enum):
    """The verdict of one check. SKIPPED and ERROR are never shown as passed."""

    PASSED = "passed"
    FAILED = "failed"
    ERROR = "error"
    SKIPPED = "skipped"


Metric = bool | int | float | str


@dataclass(frozen=True)
class Mismatch:
    """One output that differs on one probe: where, both values, and what would have passed."""

    output: str
    probe: str
    problem: str
    index: tuple[int, ...] = ()
    expected: str = ""
    actual: str = ""
    allowed: float | None = None
    least_atol: float | None = None
    least_rtol: float | None = None


@dataclass(frozen=True)
class Table:
    """Figures of one check that belong side by side, such as one row an output.

    With ``detail`` the text has it below a passed check only where everything was asked for.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Metric | None, ...], ...]
    detail: bool = False

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError("a row has not as many figures as there are columns")


class Severity(str, Enum):
    """How much a finding matters: ERROR stands in the way, WARNING may, INFO is worth knowing."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True)
class RuleInfo:
    """What a rule of ``check`` says to a reader: its stable code, its name, why, what to do."""

    code: str
    name: str
    severity: Severity
    summary: str
    reason: str
    remedy: str


@dataclass(frozen=True)
class Finding:
    """One place at which a rule of ``check`` found something.

    ``suppressed`` is the reason that the configuration gives for not counting it.
    """

    code: str
    severity: Severity
    message: str
    location: Location
    remedy: str = ""
    target: str = ""
    suppressed: str = ""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at, and what was found.

    ``device`` is where the artefact ran, where that was not this machine.
    """

    name: str
    status: Status
    summary: str
    target: str = ""
    device: str = ""
    hint: str = ""
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    locations: tuple[Location, ...] = ()
    mismatches: tuple[Mismatch, ...] = ()
    tables: tuple[Table, ...] = ()
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """All checks of one run; its JSON form is canonical, every other format is drawn from it.

    ``rules`` are those with a finding.
    """

    command: str
    subject: str
    checks: tuple[Check, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    request: Request | None = None
    rules: tuple[RuleInfo, ...] = ()
    schema_version: int = SCHEMA_VERSION

    @property
    def status(self) -> Status:
        """FAILED before ERROR before PASSED; a run in which nothing passed is an ERROR."""
        found = {check.status for check in self.checks}
        for status in (Status.FAILED, Status.ERROR, Status.PASSED):
            if status in found:
                return status
        return Status.ERROR

    @property
    def exit_code(self) -> ExitCode:
        """The process exit code that this report means."""
        return {
            Status.PASSED: ExitCode.PASSED,
            Status.FAILED: ExitCode.FAILED,
        }.get(self.status, ExitCode.STAGE)


@dataclass(frozen=True)
class FileEntry:
    """One file of a bundle, as it was written."""

    sha256: str
    size: int


@dataclass(frozen=True)
class GoldenCase:
    """One replay: the .npz with inputs and the module's outputs, and what may differ by output.

    ``errors`` has by artefact and output how far it was off when it was exported; ``limits`` what
    is allowed for artefacts that are held to something else.
    """

    file: str
    probe: str
    allowed: Mapping[str, float]
    errors: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    limits: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


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
    kind: str = "torch2mobile bundle"
    schema_version: int = SCHEMA_VERSION


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk."""

    path: Path
    manifest: Manifest

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
