"""What the described inputs mean together: shared symbols, values, and whether arrays fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from torch2mobile import sizing
from torch2mobile.errors import InputError, did_you_mean
from torch2mobile.exporter.loading import value_fit
from torch2mobile.exporter.loading.grammar import (
    DTYPES,
    dim_text,
    dotted,
    error,
    format_input,
    onnx_name,
    parse_input,
    range_text,
)
from torch2mobile.exporter.loading.value_grammar import format_values, parse_values
from torch2mobile.records import ConstantSpec, Dim, InputSpec, Values

__all__ = [
    "attach_values",
    "check_against_example",
    "fill_ranges",
    "format_input",
    "format_values",
    "onnx_name",
    "parse_input",
    "parse_values",
    "resolve",
    "suggestions",
]


def resolve(
    inputs: Sequence[str], values: Sequence[str]
) -> tuple[tuple[InputSpec, ...], tuple[ConstantSpec, ...]]:
    """Read all ``--input`` and ``--values`` together, in the user's order.

    Raises:
        InputError: a text cannot be read, two of them contradict each other, or values name an
            unknown input or do not fit its dtype.
    """
    items: list[InputSpec | ConstantSpec] = []
    for text in inputs:
        item = parse_input(text)
        for other in items:
            _refuse_clash(text, item, other)
        items.append(item)
    constants = tuple(item for item in items if isinstance(item, ConstantSpec))
    specs = fill_ranges([item for item in items if isinstance(item, InputSpec)])
    _refuse_sizes(specs)
    return attach_values(specs, values, constants), constants


def _refuse_clash(
    text: str, item: InputSpec | ConstantSpec, other: InputSpec | ConstantSpec
) -> None:
    new, old = item.path, other.path
    shared = min(len(new), len(old))
    both_tensors = isinstance(item, InputSpec) and isinstance(other, InputSpec)
    if new == old:
        problem = f"the input {dotted(new)} is given twice"
    elif new[:shared] == old[:shared]:
        whole = dotted(new[:shared])
        problem = (
            f"{whole} is given as a whole and as a container, {dotted(max(new, old, key=len))}"
        )
    elif both_tensors and onnx_name(new) == onnx_name(old):
        problem = f"{dotted(new)} and {dotted(old)} would both be {onnx_name(new)} in the file"
    else:
        return
    raise error("--input", problem, text, _indent(text), "Name every input once, and uniquely.")


def _indent(text: str) -> int:
    return len(text) - len(text.lstrip())


def fill_ranges(specs: Iterable[InputSpec]) -> tuple[InputSpec, ...]:
    """Give every use of a symbol the range that was declared at one of its uses.

    Raises:
        InputError: a symbol has two different ranges.
    """
    specs = tuple(specs)
    found: dict[str, tuple[Dim, str]] = {}
    for spec in specs:
        for dim in spec.dims:
            if dim.symbol is None or (dim.least is None and dim.greatest is None):
                continue
            first, owner = found.setdefault(dim.symbol, (dim, spec.name))
            if (first.least, first.greatest) != (dim.least, dim.greatest):
                raise InputError(
                    f"--input: the symbol {dim.symbol} has two ranges: "
                    f"{range_text(first)} in {owner}, {range_text(dim)} in {spec.name}",
                    "Give a symbol's range once; it holds wherever the symbol stands.",
                )

    def filled(dim: Dim) -> Dim:
        dim = replace(dim, others=tuple(map(filled, dim.others)))
        if dim.symbol is None or dim.symbol not in found:
            return dim
        first = found[dim.symbol][0]
        return replace(dim, least=first.least, greatest=first.greatest)

    return tuple(replace(spec, dims=tuple(map(filled, spec.dims))) for spec in specs)


def _refuse_sizes(specs: Sequence[InputSpec]) -> None:
    """InputError for a size that can be below 1, or symbols whose sizes no shape would tell."""
    known = sizing.sizes_of(specs, {s.name: tuple(d.ends[0] for d in s.dims) for s in specs})
    for spec in specs:
        for dim in spec.dims:
            lost = [term.symbol for term in dim.terms if term.symbol not in known]
            if lost:
                raise InputError(
                    f"--input: {' and '.join(map(str, lost))} stand nowhere but in {dim.label} "
                    f"of {spec.name}",
                    "Give one of them a dimension of its own, or call the whole by one name.",
                )
            if dim.offset < 0 and dim.ends[0] < 1:
                raise InputError(
                    f"--input: {dim.label} of {spec.name} would be {dim.ends[0]} at the least",
                    f"Begin the range of {dim.symbol} higher.",
                )


def attach_values(
    specs: Sequence[InputSpec], values: Sequence[str], constants: Sequence[ConstantSpec] = ()
) -> tuple[InputSpec, ...]:
    """The specs with the declared ``--values``, or those that their names suggest.

    ``constants`` only sharpen the error message.

    Raises:
        InputError: a text cannot be read, names no input or one twice, or does not fit its dtype
            or dimensions.
    """
    known = {spec.name: spec for spec in specs}
    given: dict[str, Values] = {}
    for text in values:
        name, drawn = parse_values(text)
        at, remedy, problem = _indent(text), did_you_mean(name, list(known)), ""
        if name in {onnx_name(constant.path) for constant in constants}:
            problem = f"{name} is a constant and takes no values"
        elif name not in known:
            problem = f"unknown input {name!r}"
        elif name in given:
            problem, remedy = f"the values of {name} are given twice", "Keep one of them."
        else:
            drawn = value_fit.counting(drawn, known[name], specs)
            problem, remedy = value_fit.misfit(known[name], drawn, specs), ""
            problem = problem and f"{name}: {problem}"
            remedy = f"It is {format_input(known[name])}."
            at = text.index("=") + 1
            at += _indent(text[at:])
        if problem:
            raise error("--values", problem, text, at, remedy)
        given[name] = drawn
    return tuple(
        replace(spec, values=given.get(spec.name) or spec.values or value_fit.suggested(spec))
        for spec in specs
    )


def suggestions(specs: Sequence[InputSpec]) -> tuple[str, ...]:
    """What is said of inputs whose values follow from their names alone."""
    return tuple(
        f"the values of {spec.name} follow from its name: --values "
        f"'{format_values(spec.name, spec.values)}', unless others are given"
        for spec in specs
        if spec.values is not None and spec.values.suggested
    )


def check_against_example(
    specs: Sequence[InputSpec], shapes_dtypes: Mapping[str, tuple[str, tuple[int, ...]]]
) -> dict[str, int]:
    """The size of every symbol in real arrays, given as (dtype, shape) by input name.

    Raises:
        InputError: a name, dtype, rank or size differs from what is declared; the message names
            the input and dimension, what was expected and what was found.
    """
    known = [spec.name for spec in specs]
    for name in shapes_dtypes:
        if name not in known:
            raise InputError(
                f"the example has an unknown input {name!r}", did_you_mean(name, known)
            )
    found: list[tuple[InputSpec, int, Dim, int]] = []
    for spec in specs:
        if spec.name not in shapes_dtypes:
            raise InputError(
                f"the example lacks the input {spec.name!r}",
                f"Declared is {format_input(spec)}. The example has: {', '.join(shapes_dtypes)}.",
            )
        dtype, shape = shapes_dtypes[spec.name]
        _check_form(spec, dtype, shape)
        found += [
            (spec, axis, *pair) for axis, pair in enumerate(zip(spec.dims, shape, strict=True))
        ]
    sizes: dict[str, int] = {}
    owners: dict[str, str] = {}
    # Sums last: what they are made of stands elsewhere.
    for spec, axis, dim, size in sorted(found, key=lambda each: len(each[2].others)):
        problem = _size_problem(dim, size, sizes, owners)
        if problem:
            raise _unlike(spec, f", dimension {axis}: {problem}, got {size}")
        new = dim.solved(size, sizes)
        if new is not None:
            sizes[new[0]] = new[1]
            owners[new[0]] = f"{spec.name}, dimension {axis}"
    return sizes


def _unlike(spec: InputSpec, problem: str) -> InputError:
    remedy = f"Declared is {format_input(spec)}: change the declaration or the example."
    return InputError(f"input {spec.name!r}{problem}", remedy)


def _check_form(spec: InputSpec, dtype: str, shape: tuple[int, ...]) -> None:
    name = dtype.removeprefix("torch.")
    if DTYPES.get(name, name) != spec.dtype:
        raise _unlike(spec, f": expected dtype {spec.dtype}, got {dtype}")
    if len(shape) != len(spec.dims):
        expected = f"{len(spec.dims)} dimensions [{','.join(map(dim_text, spec.dims))}]"
        raise _unlike(spec, f": expected {expected}, got {len(shape)} {list(shape)}")


def _size_problem(dim: Dim, size: int, sizes: Mapping[str, int], owners: Mapping[str, str]) -> str:
    """What was expected of this size instead; empty if it fits."""
    if dim.symbol is None:
        return "" if size == dim.size else f"expected {dim.size}"
    unknown = {str(term.symbol): term for term in dim.terms if term.symbol not in sizes}
    new = dim.solved(size, sizes)
    if new is not None:
        (symbol, term), (_, value, rest) = *unknown.items(), new
        if rest and dim.label == term.label:
            return f"expected a multiple of {dim.factor} ({dim.label})"
        least = 1 if term.least is None else term.least
        if rest or value < least or (term.greatest is not None and value > term.greatest):
            return f"expected {dim.label} with {symbol} in {range_text(term)}"
    elif not unknown and dim.at(sizes) != size:
        names = [str(term.symbol) for term in dim.terms]
        known = " and ".join(f"{name} is {sizes[name]} in {owners[name]}" for name in names)
        return f"expected {dim.at(sizes)}, as {known}"
    return ""
