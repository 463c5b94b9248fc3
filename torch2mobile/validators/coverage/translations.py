"""Which operators of PyTorch the ONNX exporter has a translation for, as it registers them itself.

The exporter's registry takes longer to load than many a module to capture. Its names stand in the
decorators of its source, though, and are read from there first: they say at once what is supported.
Whatever is not found so is looked up in the registry itself.
"""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Callable, Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch

_SOURCES = (
    ("onnxscript", "function_libs/torch_lib/ops"),
    ("torch", "onnx/_internal/exporter/_torchlib/ops"),
)
_DECORATOR = re.compile(r"^@(?:torch_op|onnx_impl)\((.*?)\)\n(?=def |@|class )", re.M | re.S)
_FUNCTION = re.compile(r"^def .*?(?=^[^\s)]|\Z)", re.M | re.S)
_FROM_START = 18
"""The opset of the exporter's library; what came later is looked up in the registry."""

Lookup = Callable[[Any, bool], bool]
"""Whether an FX target has a translation, and, if the flag is set, one for complex numbers."""


def key(target: Any) -> str:
    """An FX target as the exporter names it: ``aten::add.Tensor``, ``_operator::mul``."""
    if isinstance(target, torch._ops.OpOverload):
        return str(target.name())
    if isinstance(target, torch._ops.HigherOrderOperator):
        return f"higher_order::{target._name}"
    return f"{getattr(target, '__module__', '')}::{getattr(target, '__name__', target)}"


@cache
def _sources() -> tuple[str, ...]:
    """The texts of the exporter's modules of translations."""
    found = []
    for package, folder in _SOURCES:
        spec = importlib.util.find_spec(package)
        places = list(spec.submodule_search_locations or ()) if spec else []
        for place in places:
            files = sorted((Path(place) / folder).glob("*.py"))
            found += [file.read_text(encoding="utf-8") for file in files]
    return tuple(found)


@cache
def written() -> Mapping[tuple[str, bool], tuple[str, ...]]:
    """By name, and whether they are for complex numbers, the functions' texts in the source."""
    found: dict[tuple[str, bool], tuple[str, ...]] = {}
    for source in _sources():
        for one, texts in read_decorators(source).items():
            found[one] = (*found.get(one, ()), *texts)
    return found


@cache
def helpers() -> Mapping[str, tuple[str, ...]]:
    """By their Python names, the texts of all functions that a translation can call."""
    found: dict[str, tuple[str, ...]] = {}
    for source in _sources():
        for match in _FUNCTION.finditer(source):
            name = match[0].removeprefix("def ").partition("(")[0]
            found[name] = (*found.get(name, ()), match[0])
    return found


def read_decorators(source: str) -> dict[tuple[str, bool], tuple[str, ...]]:
    """What ``@torch_op(...)`` and ``@onnx_impl(...)`` register in a module's text, and for what."""
    found: dict[tuple[str, bool], tuple[str, ...]] = {}
    for match in _DECORATOR.finditer(source):
        call = ast.parse(f"f({match[1]})", mode="eval").body
        if not isinstance(call, ast.Call) or not call.args:
            continue
        options = {
            word.arg: word.value.value
            for word in call.keywords
            if isinstance(word.value, ast.Constant)
        }
        if options.get("private") or _later(options.get("opset_introduced")):
            continue
        function = _FUNCTION.search(source, match.end())
        text = (function[0],) if function else ()
        first = call.args[0]
        for name in first.elts if isinstance(first, ast.Tuple) else [first]:
            one = _registered(name), bool(options.get("complex"))
            found[one] = (*found.get(one, ()), *text)
    return found


def _later(opset: Any) -> bool:
    return isinstance(opset, int) and opset > _FROM_START


def _registered(name: ast.expr) -> str:
    """``"aten::relu"`` as it is; ``aten.add.Tensor``, ``torch.ops.x.y`` or ``operator.abs``."""
    if isinstance(name, ast.Constant):
        return str(name.value)
    parts = ast.unparse(name).removeprefix("torch.ops.").split(".")
    if parts[-1] == "default":
        parts.pop()
    space = "_operator" if parts[0] == "operator" else parts[0]
    return f"{space}::{'.'.join(parts[1:])}"


def from_source(target: Any, complex_input: bool) -> bool:
    """Whether the exporter's source registers a translation; False says nothing."""
    return (key(target), complex_input) in written()


@cache
def registry() -> Any:
    """The exporter's registry for the opset that it writes when none is asked for."""
    from torch.onnx import _constants
    from torch.onnx._internal.exporter import _registration

    return _registration.ONNXRegistry.from_torchlib(_constants.ONNX_DEFAULT_OPSET)


def from_registry(target: Any, complex_input: bool) -> bool:
    """Whether the exporter's registry has a translation, as its dispatcher looks for one."""
    found = registry().get_decomps(target)
    return any(bool(meta.is_complex) is complex_input for meta in found)


def decompose(
    program: torch.export.ExportedProgram, mended: Collection[Any] = frozenset()
) -> torch.export.ExportedProgram:
    """The program made of the operators that are translated, ``mended`` among them, if it can be.

    As torch.onnx does it.
    """
    from torch.onnx._internal.exporter import _decomp

    whole = {*_decomp.get_onnx_implemented_overloads(registry()), *mended}
    parts: dict[Any, Any] = _decomp.create_onnx_friendly_decomposition_table(whole)
    made: torch.export.ExportedProgram = program.run_decompositions(parts)
    return made
