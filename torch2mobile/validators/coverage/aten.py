"""ATen to ONNX: has every operator of the captured graph a translation? Without translating.

An operator without one may consist of others that have: those it is made of for the shapes and
types at hand are found by running its decomposition on them, with no data. If any is missing even
so, the whole graph is decomposed as the exporter does it, and what is left is what export refuses.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch

from torch2mobile.validators.coverage import translations
from torch2mobile.validators.coverage.parts import instead_of, is_known, is_taken, parts_of
from torch2mobile.validators.coverage.translations import Lookup

# Taken apart in one way or another, as sizes are: where these vary, only translating tells.
_BY_SIZE = frozenset({"aten::isin.Tensor_Tensor"})
# The same parts for all sizes: in a network of many of these, sizes that vary are slow to compute.
_SIZELESS = frozenset({"aten::batch_norm"})


@dataclass(frozen=True)
class Missing:
    """An operator without a translation: its name, the FX node, and whether numbers are complex.

    ``called`` is what the module called, which may consist of this one; ``instead`` are the
    operators that it could be written with, all of which have one.
    """

    name: str
    node: torch.fx.Node
    complex_input: bool
    called: str = ""
    instead: tuple[str, ...] = ()

    @property
    def namespace(self) -> str:
        """``aten``, or that of a library of custom operators."""
        return self.name.split("::", 1)[0]

    @property
    def overload(self) -> str:
        """How Python calls it: ``torch.ops.aten.add.Tensor``."""
        space, _, name = self.name.partition("::")
        return f"torch.ops.{space}.{name if '.' in name else name + '.default'}"


@dataclass(frozen=True)
class Survey:
    """The operators that the exporter cannot translate, one entry a node.

    ``doubtful`` says that a translation may refuse its arguments, which only translating tells.
    ``mended`` are the operators that export translates in place of the exporter.
    """

    missing: list[Missing]
    doubtful: bool = False
    mended: tuple[Any, ...] = ()


class _Answer(Enum):
    YES, PERHAPS, NO = range(3)


def survey(program: torch.export.ExportedProgram, mended: Collection[Any] = frozenset()) -> Survey:
    """Whether each operator of a program has a translation; ``mended`` are operators with ours."""
    source = _with(mended, translations.from_source)
    seen: dict[Any, _Answer] = {}
    used: dict[Any, None] = {}
    for node in calls(program):
        signature = _signature(node)
        if signature not in seen:
            seen[signature] = _translated(node, source)
        if node.target in mended:
            used[node.target] = None
    doubtful = _Answer.PERHAPS in seen.values()
    if _Answer.NO not in seen.values():
        return Survey([], doubtful, tuple(used))
    try:
        decomposed = translations.decompose(program, mended)
    except Exception:  # noqa: BLE001 (whatever torch meets here, the exporter meets and refuses)
        return Survey([], True, tuple(used))
    registry = _with(mended, translations.from_registry)
    found = []
    for node in calls(decomposed):
        target, complex_input = node.target, _complex(node)
        if not is_known(target, complex_input, registry):
            name = translations.key(target)
            original = node.meta.get("original_aten")
            called = name if original is None else translations.key(original)
            instead = instead_of(node, registry)
            found.append(Missing(name, node, complex_input, called, instead))
        elif not is_known(target, complex_input, source):
            doubtful = True  # its source was not found
    return Survey(found, doubtful, tuple(used))


def _with(mended: Collection[Any], lookup: Lookup) -> Lookup:
    """The lookup, for which mended operators have a translation too, for real numbers."""
    names = {translations.key(target) for target in mended}

    def found(target: Any, complex_input: bool) -> bool:
        ours = not complex_input and translations.key(target) in names
        return ours or lookup(target, complex_input)

    return found


def calls(program: torch.export.ExportedProgram) -> Iterator[torch.fx.Node]:
    """Every call of an operator, those of subgraphs included."""
    for module in program.graph_module.modules():
        graph = getattr(module, "graph", None)
        if not isinstance(graph, torch.fx.Graph):
            continue
        for node in graph.nodes:
            if node.op == "call_function" and node.target is not operator.getitem:
                yield node


def _signature(node: torch.fx.Node) -> str:
    """What decides about an operator's parts: the types and sizes around it, not the values."""
    sizeless = translations.key(node.target) in _SIZELESS

    def shown(argument: torch.fx.Node) -> Any:
        value = argument.meta.get("val")
        if isinstance(value, torch.Tensor):
            sizes = value.dim() if sizeless else [str(size) for size in value.shape]
            return f"{value.dtype} of {sizes}"
        # A size that varies is of the graph: what its parts are may hang on which one it is.
        return str(value) if isinstance(value, torch.SymInt) else type(value).__name__

    arguments = torch.fx.node.map_arg((node.args, node.kwargs), shown)
    return f"{translations.key(node.target)} {arguments}"


def _translated(node: torch.fx.Node, source: Lookup) -> _Answer:
    """Whether an operator, or all that it consists of, stands in the exporter's source."""
    complex_input = _complex(node)
    if is_known(node.target, complex_input, source):
        args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), lambda n: n.meta.get("val"))
        sure = is_taken(node.target, complex_input, args, kwargs)
        return _Answer.YES if sure else _Answer.PERHAPS
    parts = parts_of(node, source)
    if parts is None or parts.missing:
        return _Answer.NO
    by_size = translations.key(node.target) in _BY_SIZE and _varies(node)
    return _Answer.PERHAPS if parts.doubtful or by_size else _Answer.YES


def _varies(node: torch.fx.Node) -> bool:
    """Whether a size of an argument varies."""
    values = [argument.meta.get("val") for argument in node.all_input_nodes]
    tensors = [value for value in values if isinstance(value, torch.Tensor)]
    return any(isinstance(size, torch.SymInt) for tensor in tensors for size in tensor.shape)


def _complex(node: torch.fx.Node) -> bool:
    """Whether an argument is complex, by the exporter's own way of looking (lists included)."""
    from torch.onnx._internal.exporter import _dispatching

    arguments = (*node.args, *node.kwargs.values())
    return any(bool(_dispatching._arg_has_complex_dtype(arg)) for arg in arguments)
