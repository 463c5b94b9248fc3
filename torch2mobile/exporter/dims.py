"""Dimensions between three worlds: the user's symbols, torch.export's, and ONNX names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.export import Dim as TorchDim

from torch2mobile import sizing
from torch2mobile.errors import CaptureError
from torch2mobile.records import Dim, InputSpec, LoadedModel

SIZE_REMEDY = (
    "Take sizes from the input, as x.shape[i], in place of fixed or stored numbers; or declare "
    "that size narrower or fixed, with --input."
)


def torch_shapes(loaded: LoadedModel, floor: int) -> tuple[Any, ...]:
    """One entry a tensor in torch.export's form, from the symbols of the specs or the user's own.

    ``floor`` raises the least size of every symbol, and its greatest where no two sizes would be
    left: torch makes a constant of a range of one.
    """
    made: dict[str, TorchDim] = {}
    if loaded.dynamic_shapes is not None:
        return tuple(_raised(entry, floor, made) for entry in loaded.dynamic_shapes)
    derived = {
        d.symbol
        for spec in loaded.specs
        for d in spec.dims
        if not d.others and (d.factor, d.offset) != (1, 0)
    }
    shapes = []
    for spec in loaded.specs:
        dims: dict[int, Any] = {}
        for axis, dim in enumerate(spec.dims):
            if dim.others:
                # torch has no name for a sum of symbols; it finds out by itself what it is.
                dims[axis] = TorchDim.AUTO
            elif dim.symbol is not None:
                # torch reads the name of what is derived as a formula, in which N, E, I or S have
                # a meaning of their own; with an underscore none has.
                name = f"{dim.symbol}_" if dim.symbol in derived else dim.symbol
                base: Any = _torch_dim(name, dim.least, dim.greatest, floor, made)
                base = base if dim.factor == 1 else dim.factor * base
                dims[axis] = base + dim.offset if dim.offset else base
        shapes.append(dims or None)
    return tuple(shapes)


def _torch_dim(
    name: str, least: int | None, greatest: int | None, floor: int, made: dict[str, TorchDim]
) -> TorchDim:
    lower = max(least or 0, floor) or None
    if greatest is not None and lower is not None:
        greatest = max(greatest, lower + 1)
    return made.setdefault(name, TorchDim(name, min=lower, max=greatest))


def _raised(entry: Any, floor: int, made: dict[str, TorchDim]) -> Any:
    """One tensor's entry of the user's own with the named dimensions from ``floor`` up."""
    if isinstance(entry, Mapping):
        return {axis: _raised(dim, floor, made) for axis, dim in entry.items()}
    if isinstance(entry, list | tuple):
        return type(entry)(_raised(dim, floor, made) for dim in entry)
    if not isinstance(entry, TorchDim):
        return entry
    root = _root(entry)
    base = _torch_dim(root.__name__, root.min, finite(root.max), floor, made)
    derived: Any = entry
    return base if root is entry else derived.fn(base)


def left_to_torch(entry: Any) -> Any:
    """The same with the named dimensions as hints, which torch solves no guards for."""
    if isinstance(entry, Mapping):
        return {axis: left_to_torch(dim) for axis, dim in entry.items()}
    if isinstance(entry, list | tuple):
        return type(entry)(left_to_torch(dim) for dim in entry)
    if not isinstance(entry, TorchDim):
        return entry
    if _root(entry) is not entry:
        return TorchDim.AUTO
    return TorchDim.AUTO(min=entry.min, max=finite(entry.max))


def _root(dim: Any) -> Any:
    """The dimension itself, or the one that a formula (``4 * h``) is made of."""
    return getattr(dim, "root", dim)


def without_special_sizes(loaded: LoadedModel, shapes: Sequence[Any]) -> tuple[torch.Tensor, ...]:
    """Copies of the example in which no named dimension is 0 or 1, where its range has others.

    torch takes what such a size does for what the module does at that size only.
    """
    tensors = loaded.tensors
    entries = [dict(_axes(entry)) for entry in shapes]
    pairs = list(zip(tensors, entries, strict=True))
    taken = {size for tensor in tensors for size in tensor.shape}
    changed: dict[str, int] = {}
    for tensor, entry in pairs:
        for axis, dim in entry.items():
            root = _root(dim)
            size = next((n for n in (0, 1) if _formula(dim, n) == tensor.shape[axis]), None)
            free = [n for n in range(2, 2 + len(taken) + 1) if root.min <= n <= root.max]
            if size is not None and free:
                new = [n for n in free if n not in taken] or free
                changed.setdefault(root.__name__, new[0])
    return tuple(
        _resized(tensor, {**_of_sums(loaded, number, changed), **_of_roots(entry, changed)})
        for number, (tensor, entry) in enumerate(pairs)
    )


def _of_roots(entry: Mapping[int, Any], changed: Mapping[str, int]) -> dict[int, int]:
    """The new size of each dimension that is made of a changed one."""
    named = {axis: changed.get(_root(dim).__name__) for axis, dim in entry.items()}
    return {axis: _formula(entry[axis], size) for axis, size in named.items() if size is not None}


def _of_sums(loaded: LoadedModel, number: int, changed: Mapping[str, int]) -> dict[int, int]:
    """The new size of each dimension that is a sum of symbols: torch does not know it as such."""
    sums = {axis: dim for axis, dim in enumerate(loaded.specs[number].dims) if dim.others}
    if not sums or not changed:
        return {}
    sizes = sizing.sizes_in(loaded.specs, loaded.tensors)
    new = {name: changed.get(name, changed.get(f"{name}_", n)) for name, n in sizes.items()}
    return {axis: dim.at(new) for axis, dim in sums.items()}


def _axes(entry: Any) -> Iterator[tuple[int, Any]]:
    """The named dimensions of one tensor, by axis."""
    items = entry.items() if isinstance(entry, Mapping) else enumerate(entry or ())
    yield from ((axis, dim) for axis, dim in items if isinstance(dim, TorchDim))


def _formula(dim: Any, root: int) -> int:
    return root if _root(dim) is dim else int(dim.fn(root))


def _resized(tensor: torch.Tensor, sizes: Mapping[int, int]) -> torch.Tensor:
    for axis, new in sizes.items():
        old = max(tensor.shape[axis], 1)
        if tensor.shape[axis] == 0:
            tensor = tensor.new_zeros([*tensor.shape[:axis], 1, *tensor.shape[axis + 1 :]])
        tensor = tensor.index_select(axis, torch.arange(new) % old)
    return tensor.clone()


def final_inputs(
    specs: tuple[InputSpec, ...], program: torch.export.ExportedProgram
) -> tuple[tuple[InputSpec, ...], dict[str, str]]:
    """The specs with the dimensions as captured, and the user's label of each torch symbol."""
    wanted = set(program.graph_signature.user_inputs)
    nodes = [node for node in program.graph.nodes if node.op == "placeholder"]
    values = [n.meta["val"] for n in nodes if n.name in wanted]
    shapes = [value.shape for value in values if isinstance(value, torch.Tensor)]
    found = torch_symbols(specs, shapes)
    symbols = {str(symbol): grouped(dim) for symbol, dim in found.items()}
    final = []
    for spec, shape in zip(specs, shapes, strict=True):
        dims = tuple(
            _final_dim(spec.name, axis, dim, size, symbols, program)
            for axis, (dim, size) in enumerate(zip(spec.dims, shape, strict=True))
        )
        final.append(replace(spec, dims=dims))
    return tuple(final), symbols


def grouped(dim: Dim) -> str:
    """A dimension's name as it stands in a formula."""
    return f"({dim.label})" if dim.others or dim.offset else str(dim.label)


def torch_symbols(specs: Sequence[InputSpec], shapes: Sequence[Any]) -> dict[Any, Dim]:
    """The user's dimension behind each of torch's symbols.

    torch's may stand for ``h`` of ``8*h``, or for all of it.
    """
    dims = [dim for spec in specs for dim in spec.dims]
    pairs = zip(dims, [size for shape in shapes for size in shape], strict=True)
    found: dict[Any, Dim] = {}
    # Sums last: what they are made of stands elsewhere.
    for dim, size in sorted(pairs, key=lambda pair: len(pair[0].others)):
        if dim.symbol is None or not hasattr(size, "node"):
            continue
        whole = size.node.expr
        if whole.is_symbol:
            found.setdefault(whole, dim)
        elif not dim.others:
            for symbol in whole.free_symbols:
                found.setdefault(symbol, _behind(dim, whole, symbol))
    return found


def _behind(dim: Dim, whole: Any, symbol: Any) -> Dim:
    """What torch's symbol is where ``whole``, which is linear in it, is this dimension."""
    factor, rest = whole.coeff(symbol, 1), whole.coeff(symbol, 0)
    if factor and rest.is_number and not (dim.factor % factor or (dim.offset - rest) % factor):
        return replace(
            dim, factor=int(dim.factor / factor), offset=int((dim.offset - rest) / factor)
        )
    return replace(dim, factor=1, offset=0)


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
