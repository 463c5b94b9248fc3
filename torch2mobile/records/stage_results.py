"""What one stage hands to the next, from the loaded module to a target's artefact."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from torch2mobile.errors import NotApplicableError
from torch2mobile.records.input_specs import InputSpec, Scalar, StateSpec
from torch2mobile.records.report import Location

if TYPE_CHECKING:
    import numpy as np
    import torch


class FlatCallable(Protocol):
    """A module behind a flat signature: ``exporter.loading.flat_module.FlatModule``.

    The last inputs and outputs are ``states``: without these it starts anew at each call.
    """

    dropped: tuple[str, ...]
    states: tuple[StateSpec, ...]
    cut: Any

    def __call__(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """All outputs for these tensors."""

    def call(self, *tensors: torch.Tensor) -> Any:
        """What the module itself returns for these tensors."""

    def outputs(self, *tensors: torch.Tensor) -> Any:
        """All outputs by name, and what the module returns beside them."""

    def in_use(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """All outputs of a module that keeps its state itself, for all inputs but the state."""

    def held(self) -> list[torch.Tensor]:
        """The state that the module has now."""


class RewrittenFlow(Protocol):
    """Statements that run as operators: ``exporter.control_flow.ControlFlow``."""

    places: dict[Location, str]

    def applied(self) -> AbstractContextManager[None]:
        """The user's functions in their other form, for a while."""


class FreshCopies(Protocol):
    """Copies of a module that is never called; see :class:`torch2mobile.copies.Copies`."""

    changing: bool
    notes: list[str]

    def anew(self) -> FreshCopies:
        """Copies of the module as it is now, with none made yet."""

    def without_float64(self) -> None:
        """Give back the memory of a copy in float64."""

    def lend(
        self, use: Literal["reference", "observed", "float64", "scratch"]
    ) -> AbstractContextManager[Any]:
        """A copy in a fresh state, for a while."""


@dataclass(frozen=True)
class Layer:
    """One layer of a runtime's own graph: its name and kind, and the values it takes and gives.

    With ``channels_last`` values of four dimensions that it gives may have their channels last;
    with ``same_names`` values are called as those of the .onnx are.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    channels_last: bool = False
    same_names: bool = False


@dataclass(frozen=True)
class OutputSpec:
    """One output of the artefact: name, numpy dtype, and dims as ONNX shows them."""

    name: str
    dtype: str
    dims: tuple[int | str, ...]


class RealCase(dict[str, "np.ndarray"]):
    """Real arrays by input name, and what they were made of: a photograph, a line."""

    def __init__(self, arrays: Mapping[str, np.ndarray], origin: str) -> None:
        super().__init__(arrays)
        self.origin = origin


@dataclass(frozen=True)
class LoadedModel:
    """A module ready to be captured, with how to call it.

    ``module`` is what the user passed in: it is looked at, and never called. ``flat`` is the same
    behind a flat signature: ``tensors``, the example, in the order of ``specs`` (the user's), and a
    tuple of tensors out. What runs are ``copies`` of it. ``program`` is there where the source was
    an ExportedProgram. ``dynamic_shapes`` has torch.export's own form, one entry a tensor, where
    the user gave that instead of symbols. ``data`` holds real examples, by input name, and ``real``
    says what they were made of. ``drawn`` tells that the example is one of ours.
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
    real: tuple[str, ...] = ()
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

    ``holds`` tells it for a size of every symbol, ``fixes`` that it leaves one number, and
    ``line`` is the file and line of the code that needs it. ``near`` are numbers by which it may
    stop to hold, where the text does not have them.
    """

    text: str
    symbols: tuple[str, ...]
    holds: Callable[[Mapping[str, int]], bool]
    fixes: bool = False
    line: tuple[str, int] | None = None
    near: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Capture:
    """The module as one graph. ``program`` is None only for a TorchScript trace.

    ``inputs`` carries the final dimensions, ``outputs`` the output names, ``symbols`` the user's
    label for each of torch.export's own symbols (``{"s31": "H"}``). ``control_flow`` has the
    statements of the user's that became operators, where any did; ``assumed`` what was taken for
    granted about sizes when it was made: to translate it can fix more of them.
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
    control_flow: RewrittenFlow | None = None
    assumed: tuple[Assumption, ...] = ()


@dataclass(frozen=True)
class Origin:
    """Where an ONNX value comes from: module paths, source line, and caller as in Location."""

    modules: tuple[str, ...]
    file: str
    line: int
    code: str
    caller: str = ""
    caller_line: int = 0

    def place(self, node: str = "", op: str = "") -> Location:
        """As a place to look at, with the name and operator of the node that it is asked for."""
        module = self.modules[0] if self.modules else ""
        place = (module, self.file, self.line, self.code, node, op)
        return Location(*place, self.caller, self.caller_line)


@dataclass(frozen=True)
class NodeOrigins:
    """One node of a bundle's .onnx: its name, operator, output values, and where they come from."""

    node: str
    op: str
    outputs: tuple[str, ...]
    origins: tuple[Origin, ...]


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
class Limits:
    """What all files of a target can take, in words; ``float16`` is where that is computed in."""

    dtypes: str
    dimensions: str = "any"
    float16: str = "-"
    operators: str = ""


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

    def captured(self, converter: str) -> Path:
        """The saved program; NotApplicableError where the module was traced and has none."""
        if self.program is None:
            raise NotApplicableError(
                f"{converter} takes a captured program, and this module was traced",
                "Rewrite what torch.export refuses; the report's attempts have it.",
            )
        return self.program


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
