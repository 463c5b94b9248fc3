"""Dimensions between three worlds: the user's symbols, torch.export's, and ONNX names."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch.export import Dim as TorchDim

from torch2mobile.errors import CaptureError
from torch2mobile.records import Dim, InputSpec, LoadedModel

SIZE_REMEDY = (
    "A size that was declared dynamic is fixed in the code: keep sizes as x.shape[i] (no int(), "
    "no stored batch size), narrow its range as suggested, or declare the dimension fixed."
)


def torch_shapes(loaded: LoadedModel, floor: int) -> tuple[Any, ...]:
    """One entry a tensor in torch.export's form, from the symbols of the specs.

    ``floor`` raises the least size of every symbol, where its range allows.
    """
    if loaded.dynamic_shapes is not None:
        return loaded.dynamic_shapes
    multiplied = {d.symbol for spec in loaded.specs for d in spec.dims if d.factor != 1}
    made: dict[str, Any] = {}
    shapes = []
    for spec in loaded.specs:
        dims: dict[int, Any] = {}
        for axis, dim in enumerate(spec.dims):
            if dim.symbol is not None:
                least = max(dim.least or 0, floor) or None
                if dim.greatest is not None and least is not None and dim.greatest <= least:
                    least = dim.least
                # torch reads the name of a multiple as a formula, in which N, E, I or S have a
                # meaning of their own; with an underscore none has.
                name = f"{dim.symbol}_" if dim.symbol in multiplied else dim.symbol
                base = made.setdefault(dim.symbol, TorchDim(name, min=least, max=dim.greatest))
                dims[axis] = base if dim.factor == 1 else dim.factor * base
        shapes.append(dims or None)
    return tuple(shapes)


def final_inputs(
    specs: tuple[InputSpec, ...], program: torch.export.ExportedProgram
) -> tuple[tuple[InputSpec, ...], dict[str, str]]:
    """The specs with the dimensions as captured, and the user's label of each torch symbol."""
    wanted = set(program.graph_signature.user_inputs)
    nodes = [node for node in program.graph.nodes if node.op == "placeholder"]
    values = [n.meta["val"] for n in nodes if n.name in wanted]
    shapes = [value.shape for value in values if isinstance(value, torch.Tensor)]
    symbols: dict[str, str] = {}
    for spec, shape in zip(specs, shapes, strict=True):
        for dim, size in zip(spec.dims, shape, strict=True):
            if hasattr(size, "node") and dim.symbol:
                for name in size.node.expr.free_symbols:
                    whole = str(size.node.expr) == str(name)
                    symbols.setdefault(str(name), str(dim.label) if whole else dim.symbol)
    final = []
    for spec, shape in zip(specs, shapes, strict=True):
        dims = tuple(
            _final_dim(spec.name, axis, dim, size, symbols, program)
            for axis, (dim, size) in enumerate(zip(spec.dims, shape, strict=True))
        )
        final.append(replace(spec, dims=dims))
    return tuple(final), symbols


def _final_dim(
    name: str,
    axis: int,
    dim: Dim,
    size: Any,
    symbols: dict[str, str],
    program: torch.export.ExportedProgram,
) -> Dim:
    """One dimension as captured; dimensions left to torch (Dim.AUTO) get a name of their own."""
    # A symbol for which only one value turned out to work counts as that value.
    if not hasattr(size, "node") or size.node.expr.is_number:
        if dim.symbol is not None and dim.least != dim.greatest:
            raise CaptureError(
                f"dimension {axis} of {name} was declared dynamic ({dim.label}) but was captured "
                f"as the constant {int(size)}",
                SIZE_REMEDY,
            )
        return Dim(size=int(size))
    if dim.symbol is not None:
        return dim
    expression = size.node.expr
    key = str(expression)
    symbol = symbols.setdefault(key, f"{name}_dim{axis}")
    bounds = program.range_constraints.get(expression)
    least = int(bounds.lower) if bounds is not None and bounds.lower > 1 else None
    greatest = finite(bounds.upper) if bounds is not None else None
    return Dim(symbol=symbol, least=least, greatest=greatest)


def finite(bound: Any) -> int | None:
    """The upper bound of a torch dimension; None for torch's infinities."""
    return int(bound) if bound < 2**31 else None
