"""What an operator consists of: its decomposition run on the shapes and types at hand."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from torch2mobile.dispatch import Operations
from torch2mobile.validators.coverage import arguments, translations
from torch2mobile.validators.coverage.translations import Lookup


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
        if is_known(plain, complex_input, self._lookup):
            self.parts.translated[name] = None
            self.parts.doubtful |= not is_taken(plain, complex_input, args, kwargs)
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


def parts_of(
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


def instead_of(node: torch.fx.Node, registry: Lookup) -> tuple[str, ...]:
    """What an operator could be written with: torch's own description, if all of it translates."""
    parts = parts_of(node, registry, _reference)
    if parts is None or parts.missing:
        return ()
    return tuple(parts.translated)


def is_known(target: Any, complex_input: bool, lookup: Lookup) -> bool:
    """Whether an operator has a translation, or needs none."""
    return _free(translations.key(target)) or lookup(target, complex_input)


def is_taken(target: Any, complex_input: bool, args: Any, kwargs: Any) -> bool:
    """Whether its translation is sure to take these arguments."""
    name = translations.key(target)
    texts = translations.written().get((name, complex_input), ())
    if not texts and not _free(name):
        return False  # ours, which may not cover them
    return arguments.taken(name, texts, args, kwargs)


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


def _free(name: str) -> bool:
    """Whether it needs no translation: operators of ONNX itself, torch.onnx.ops, go in as such."""
    return name in _ASSERTIONS or name.startswith("onnx::")
