"""ATen to ONNX: has every operator of the captured graph a translation? Without translating.

An operator without one may consist of others that have: those it is made of for the shapes and
types at hand are found by running its decomposition on them, with no data. If any is missing even
so, the whole graph is decomposed as the exporter does it, and what is left is what export refuses.
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import torch

from torch2mobile.dispatch import Operations
from torch2mobile.validators.coverage import arguments, translations
from torch2mobile.validators.coverage.translations import Lookup

# The exporter removes these (torch.onnx's _fx_passes.remove_assertion_nodes): sizes are checked.
_ASSERTIONS = frozenset(
    {
        "aten::sym_constrain_range_for_size",
        "aten::_assert_async",
        "aten::_assert_async.msg",
        "aten::_assert_scalar",
        "aten::_assert_tensor_metadata",
    }
)


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
        if not _known(target, complex_input, registry):
            name = translations.key(target)
            original = node.meta.get("original_aten")
            called = name if original is None else translations.key(original)
            instead = _instead(node, registry)
            found.append(Missing(name, node, complex_input, called, instead))
        elif not _known(target, complex_input, source):
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


def _known(target: Any, complex_input: bool, lookup: Lookup) -> bool:
    return _free(translations.key(target)) or lookup(target, complex_input)


def _free(name: str) -> bool:
    """Whether it needs no translation: operators of ONNX itself, torch.onnx.ops, go in as such."""
    return name in _ASSERTIONS or name.startswith("onnx::")


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
    if _known(node.target, complex_input, source):
        args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), lambda n: n.meta.get("val"))
        sure = _taken(node.target, complex_input, args, kwargs)
        return _Answer.YES if sure else _Answer.PERHAPS
    parts = _parts(node, source)
    if parts is None or parts.missing:
        return _Answer.NO
    by_size = translations.key(node.target) in _BY_SIZE and _varies(node)
    return _Answer.PERHAPS if parts.doubtful or by_size else _Answer.YES


def _varies(node: torch.fx.Node) -> bool:
    """Whether a size of an argument varies."""
    values = [argument.meta.get("val") for argument in node.all_input_nodes]
    tensors = [value for value in values if isinstance(value, torch.Tensor)]
    return any(isinstance(size, torch.SymInt) for tensor in tensors for size in tensor.shape)


def _taken(target: Any, complex_input: bool, args: Any, kwargs: Any) -> bool:
    name = translations.key(target)
    texts = translations.written().get((name, complex_input), ())
    if not texts and not _free(name):
        return False  # ours, which may not cover them
    return arguments.taken(name, texts, args, kwargs)


def _complex(node: torch.fx.Node) -> bool:
    """Whether an argument is complex, by the exporter's own way of looking (lists included)."""
    from torch.onnx._internal.exporter import _dispatching

    arguments = (*node.args, *node.kwargs.values())
    return any(bool(_dispatching._arg_has_complex_dtype(arg)) for arg in arguments)


@dataclass
class Parts:
    """What an operator consists of: the names that have a translation, and those that have not.

    ``doubtful`` says that one may refuse its arguments.
    """

    translated: dict[str, None] = field(default_factory=dict)
    missing: dict[str, None] = field(default_factory=dict)
    doubtful: bool = False


class _Watch(Operations):
    """Sees the operators that run, takes apart those without a translation, and notes the rest."""

    def __init__(self, lookup: Lookup, table: Callable[[Any], Any]) -> None:
        super().__init__()
        self.parts = Parts()
        self._lookup, self._table = lookup, table

    def operation(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        plain = _functional(func)
        complex_input = any(
            isinstance(value, torch.Tensor) and value.is_complex()
            for value in torch.utils._pytree.tree_leaves((args, kwargs))
        )
        name = translations.key(plain)
        if name.startswith("prim::"):  # asks a tensor for its device, and is no part of a graph
            return func(*args, **kwargs)
        if _known(plain, complex_input, self._lookup):
            self.parts.translated[name] = None
            self.parts.doubtful |= not _taken(plain, complex_input, args, kwargs)
            return func(*args, **kwargs)
        taken_apart = self.decomposed(plain, args, kwargs)
        if taken_apart is not NotImplemented:
            return taken_apart if plain is func else func(*args, **kwargs)
        self.parts.missing[name] = None
        return func(*args, **kwargs)

    def decomposed(self, func: Any, args: Any, kwargs: Any) -> Any:
        """What it gives when it is taken apart by a rule or its own; NotImplemented without one."""
        rule = self._table(func)
        with self:
            if rule is not None:
                return rule(*args, **kwargs)
            return func.decompose(*args, **kwargs) if func._can_decompose() else NotImplemented


def _functional(func: Any) -> Any:
    """``add_`` as ``add``: the exporter has replaced what writes into its input by then."""
    name = func._schema.name.split("::")[1]
    if not func._schema.is_mutable or not name.endswith("_"):
        return func
    plain = getattr(getattr(torch.ops, func.namespace), name[:-1], None)
    return func if plain is None else getattr(plain, func._overloadname, func)


def _rule(func: Any) -> Any:
    return torch._decomp.decomposition_table.get(func)


def _reference(func: Any) -> Any:
    """torch's own description of an operator in Python, which export does not use."""
    import torch._refs

    rule = _rule(func)
    return rule or getattr(torch._refs, func._schema.name.split("::")[1], None)


def _parts(
    node: torch.fx.Node, lookup: Lookup, table: Callable[[Any], Any] = _rule
) -> Parts | None:
    """What an operator consists of for the shapes at hand; None where it cannot be run so."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return None
    args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), lambda n: n.meta.get("val"))
    fake = torch._guards.detect_fake_mode([args, kwargs])
    if fake is None:
        return None
    watch = _Watch(lookup, table)
    try:
        with _unseen(fake.shape_env), fake, watch:
            if table is _rule:
                node.target(*args, **kwargs)
            else:
                watch.decomposed(node.target, args, kwargs)
    except Exception:  # noqa: BLE001 (what a decomposition meets here says nothing about export)
        return None
    return watch.parts


@contextlib.contextmanager
def _unseen(shapes: Any) -> Iterator[None]:
    """Leave no trace in the graph's symbols: neither conditions on them nor new ones."""
    if shapes is None:
        yield
        return
    with shapes.suppress_guards(), shapes.ignore_fresh_unbacked_symbols():
        yield


def _instead(node: torch.fx.Node, registry: Lookup) -> tuple[str, ...]:
    """What an operator could be written with: torch's own description, if all of it translates."""
    parts = _parts(node, registry, _reference)
    if parts is None or parts.missing:
        return ()
    return tuple(parts.translated)
