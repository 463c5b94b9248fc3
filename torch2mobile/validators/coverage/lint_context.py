"""What there is to look at, and what looking gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from torch2mobile.records import (
    Capture,
    Finding,
    InputSpec,
    LoadedModel,
    Location,
    Metric,
    Origin,
    Table,
)

if TYPE_CHECKING:
    import onnx
    import torch

    from torch2mobile.errors import CaptureError, TranslateError
    from torch2mobile.validators.coverage.graph import Model, Node


# Of PyTorch itself; any other is that of a library of custom operators.
OWN_NAMESPACES = frozenset(
    {
        *("aten", "prim", "prims", "higher_order", "symbolic_shapes_op"),
        *("_operator", "math", "torch"),
    }
)


@dataclass(frozen=True)
class ModuleSubject:
    """A module under ``check``: captured, or with the ``error`` that says why it could not be.

    ``call`` is forward's args and kwargs with an InputSpec for each tensor. ``mended`` has the
    operators that export translates in place of the exporter, and what is wrong with its own.
    ``refusal`` gives the exporter's error where its translation fails, for which it may have to
    translate.
    """

    loaded: LoadedModel
    call: tuple[tuple[Any, ...], dict[str, Any]]
    mended: Mapping[Any, str]
    refusal: Callable[[], TranslateError | None]
    capture: Capture | None = None
    error: CaptureError | None = None

    @property
    def program(self) -> torch.export.ExportedProgram | None:
        """The captured graph, not decomposed."""
        return self.capture.program if self.capture else None


@dataclass(frozen=True)
class OnnxSubject:
    """The ONNX under ``check``, a file's or a module's; ``inputs`` are a bundle's.

    ``origins`` are there where a bundle has them, or the module is known.
    """

    model: onnx.ModelProto
    origins: Mapping[str, tuple[Origin, ...]] = field(default_factory=dict)
    inputs: tuple[InputSpec, ...] = ()

    @cached_property
    def graph(self) -> Model:
        """The model with its shapes inferred; ModelFileError where that cannot be done."""
        from torch2mobile.validators.coverage import graph

        return graph.read(self.model)

    def place_of(self, node: Node) -> Location:
        """The module and line behind an ONNX node, where its origin is known, and the node."""
        known = (self.origins.get(name, ()) for name in node.proto.output)
        first = next((found[0] for found in known if found), Origin((), "", 0, ""))
        return first.place(node.label, node.op)


@dataclass(frozen=True)
class Subject:
    """What is under ``check``, and what was asked: a module, an ONNX model, or one as the other.

    ``no_model`` says why a module has no ONNX model where one was asked for. ``fixed`` are sizes
    for symbols; ``ort_version`` is the app's pinned runtime, or None for the installed one.
    """

    module: ModuleSubject | None = None
    onnx: OnnxSubject | None = None
    no_model: str = ""
    providers: tuple[str, ...] = ()
    ort_version: str | None = None
    fixed: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Section:
    """What one level found, or why it was ``skipped``; becomes a Check of the same name.

    ``failure`` says what went wrong where something did, for which the errors stand: with all of
    them left out there is nothing that has passed. ``instead`` stands in place of how much was
    found, where that is told elsewhere.
    """

    name: str
    findings: tuple[Finding, ...] = ()
    summary: str = ""
    target: str = ""
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()
    skipped: str = ""
    failure: str = ""
    instead: str = ""


Level = Callable[[Subject], Iterator[Section]]
