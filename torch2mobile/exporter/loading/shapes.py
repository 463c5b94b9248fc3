"""Dimensions that vary, from torch.export's own forms: dynamic_shapes, and a saved program."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from torch2mobile.errors import InputError
from torch2mobile.exporter.dims import finite
from torch2mobile.exporter.loading import inputs
from torch2mobile.exporter.loading.containers import Path as LeafPath
from torch2mobile.exporter.loading.containers import walk
from torch2mobile.exporter.loading.flat_module import forward_signature
from torch2mobile.records import Dim, InputSpec

_AUTOMATIC = type(torch.export.Dim.AUTO)


def flatten_dynamic_shapes(
    module: torch.nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    shapes: Any,
    paths: Sequence[LeafPath],
) -> tuple[Any, ...]:
    """torch.export's dynamic_shapes as one entry a tensor, in the order of the call's tensors.

    Accepts a mapping by parameter name or a sequence by position, nested as the inputs are.
    """
    signature = forward_signature(module)
    parameters = signature.parameters
    bound = signature.bind(*args, **kwargs).arguments
    if isinstance(shapes, torch.export.ShapesCollection):
        shapes = shapes.dynamic_shapes(module, tuple(args), dict(kwargs))
    if not isinstance(shapes, Mapping):
        if not isinstance(shapes, Sequence) or len(shapes) != len(bound):
            raise InputError(
                f"dynamic_shapes is {shapes!r}, for the inputs {', '.join(bound)}",
                "Give one entry for each input; None for those whose sizes are all fixed.",
            )
        shapes = dict(zip(bound, shapes, strict=True))
    entries = {}
    for name, value in bound.items():
        if name in shapes:
            collects = parameters[name].kind is inspect.Parameter.VAR_KEYWORD
            for path, tensor in walk(value):
                if isinstance(tensor, torch.Tensor):
                    # The leaves of **kwargs go by their own names, as in named_leaves().
                    whole = path if collects else (name, *path)
                    entries[whole] = _shape_entry(shapes[name], path)
    unknown = set(shapes) - set(bound)
    if unknown:
        raise InputError(
            f"dynamic_shapes names {', '.join(sorted(map(str, unknown)))}, which is no input",
            f"The inputs are {', '.join(bound)}.",
        )
    return tuple(entries.get(path) for path in paths)


def _shape_entry(shapes: Any, path: LeafPath) -> Any:
    for key in path:
        if shapes is None:
            return None
        try:
            shapes = shapes[key]
        except (KeyError, IndexError, TypeError):
            raise InputError(
                f"dynamic_shapes has no entry at {inputs.onnx_name(path)}",
                "Nest dynamic_shapes exactly as the inputs are nested; None for static tensors.",
            ) from None
    return shapes


def named_dims(dims: tuple[Dim, ...], entry: Any) -> tuple[Dim, ...]:
    """The dims of one tensor with the symbols that a dynamic_shapes entry names."""
    if entry is None:
        return dims
    if not isinstance(entry, (Mapping, Sequence)) or isinstance(entry, str):
        raise _no_dim(entry)
    items = entry.items() if isinstance(entry, Mapping) else enumerate(entry)
    result = list(dims)
    for axis, dim in items:
        if not -len(dims) <= axis < len(dims):
            raise InputError(
                f"dynamic_shapes names dimension {axis} of a tensor with {len(dims)}",
                "Count dimensions from 0.",
            )
        result[axis] = _named_dim(dim, dims[axis])
    return tuple(result)


def _named_dim(dim: Any, static: Dim) -> Dim:
    if dim is None or isinstance(dim, (int, _AUTOMATIC)):
        return static
    root = getattr(dim, "root", dim)
    if not isinstance(root, torch.export.Dim):
        raise _no_dim(dim)
    offset = 0 if root is dim else int(dim.fn(0))
    return Dim(
        symbol=root.__name__,
        factor=1 if root is dim else int(dim.fn(1)) - offset,
        offset=offset,
        least=int(root.min) or None,
        greatest=finite(root.max),
    )


def _no_dim(entry: Any) -> InputError:
    return InputError(
        f"dynamic_shapes holds {entry!r}, which is no dimension",
        "Give torch.export.Dim('N'), Dim.AUTO, or None for a fixed size, by axis.",
    )


def program_dims(
    specs: Sequence[InputSpec], program: torch.export.ExportedProgram
) -> tuple[InputSpec, ...]:
    """The specs of a saved program with the dims that were dynamic when it was captured."""
    wanted = set(program.graph_signature.user_inputs)
    nodes = [n for n in program.graph.nodes if n.op == "placeholder" and n.name in wanted]
    shapes = [n.meta["val"].shape for n in nodes if isinstance(n.meta["val"], torch.Tensor)]
    ranges = {str(key): bound for key, bound in program.range_constraints.items()}
    return tuple(
        replace(spec, dims=tuple(_program_dim(size, ranges) for size in shape))
        for spec, shape in zip(specs, shapes, strict=True)
    )


def _program_dim(size: Any, ranges: Mapping[str, Any]) -> Dim:
    if not isinstance(size, torch.SymInt):
        return Dim(size=int(size))
    expression = size.node.expr
    factors = {s: expression.coeff(s, 1) for s in sorted(expression.free_symbols, key=str)}
    offset = expression - sum(factor * symbol for symbol, factor in factors.items())
    if not offset.is_Integer or not all(f.is_Integer and f > 0 for f in factors.values()):
        return Dim(size=int(size))
    own, *others = (_program_term(str(s), int(f), ranges) for s, f in factors.items())
    return replace(own, offset=int(offset), others=tuple(others))


def _program_term(symbol: str, factor: int, ranges: Mapping[str, Any]) -> Dim:
    bounds = ranges.get(symbol)
    least = int(bounds.lower) if bounds is not None and bounds.lower >= 1 else None
    greatest = finite(bounds.upper) if bounds is not None else None
    return Dim(symbol=symbol, factor=factor, least=least, greatest=greatest)
