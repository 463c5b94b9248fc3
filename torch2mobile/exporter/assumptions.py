"""What a captured graph takes for granted about sizes, and the declared sizes where that is wrong.

torch keeps a guard for each decision that the code takes on sizes. Some it cannot prove, and some
it was told to put off: at sizes where one does not hold, the graph may be another function.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import PurePath
from traceback import FrameSummary
from typing import Any

import numpy as np
import sympy
import torch
from torch._dynamo.source import ConstantSource
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import (
    DimDynamic,
    ShapeEnv,
    StatelessSymbolicContext,
)
from torch.utils._sympy.numbers import int_oo
from torch.utils._sympy.printers import PythonPrinter

from torch2mobile import probe_sizes, sampling, sizing, user_code, value_forms
from torch2mobile.copies import fresh
from torch2mobile.exporter.dims import grouped, torch_symbols
from torch2mobile.exporter.fused_attention import attention_in_operators
from torch2mobile.exporter.known_values import TAPES
from torch2mobile.records import Assumption, Capture, Dim, InputSpec, LoadedModel, Location
from torch2mobile.tensors import quiet, to_torch

# The size of a flat module's input, as torch names it.
_SIZE = re.compile(r"\['tensors'\]\[(\d+)\]\.size\(\)\[(\d+)\]")

# A size of 1 is no case of the code's: torch asks for it wherever it broadcasts.
_ALL_BUT_ONE = re.compile(r" != (?![01]$)\d+$")


def assumptions(capture: Capture) -> tuple[Assumption, ...]:
    """The ranges and guards of a captured graph, where they say more than was declared."""
    if capture.program is None:
        return ()
    torchs, environment = _sizes(capture)
    if environment is None:
        return ()
    ranges = [
        relation
        for symbol, bounds in capture.program.range_constraints.items()
        for relation in (sympy.Ge(symbol, bounds.lower), sympy.Le(symbol, bounds.upper))
    ]
    put_off = itertools.chain.from_iterable(environment.deferred_runtime_asserts.values())
    guards = dict.fromkeys(ranges)
    guards |= {guard.expr: _line_of(guard) for guard in (*environment.guards, *put_off)}
    # A guard was written down before torch knew one symbol for a formula of another.
    found = {environment.replace(guard): where for guard, where in reversed(guards.items())}
    return (*_told(dict(reversed(found.items())), torchs), *_reads(environment, torchs))


def _reads(environment: Any, torchs: Mapping[sympy.Symbol, Dim]) -> Iterator[Assumption]:
    """What code has read of values that sizes decide, as it was at the example's."""
    tape = TAPES.get(environment)
    known = {size: environment.replace(size) for size in tape.sizes()} if tape is not None else {}
    free = {symbol for formula in known.values() for symbol in formula.free_symbols}
    if tape is None or not free or not free <= set(torchs):
        return

    def holds(number: int, value: Any, sizes: Mapping[str, int]) -> bool:
        own = {symbol: torchs[symbol].at(sizes) for symbol in free}
        try:
            found = tape.at({size: int(known[size].subs(own)) for size in known})
        except Exception:  # noqa: BLE001 (the code itself would raise: nothing is read)
            return True
        return bool(found[number] == value)

    symbols = tuple(dict.fromkeys(str(t.symbol) for each in free for t in torchs[each].terms))
    near = tuple(tape.constants())
    for line, value, number in tape.reads:
        at = f"{PurePath(line[0]).name}:{line[1]}" if line else "a value"
        text = f"{at} read {value}"
        yield Assumption(text, symbols, partial(holds, number, value), line=line, near=near)


def decided(loaded: LoadedModel) -> tuple[Assumption, ...]:
    """What the module's own code decides by sizes, in one run on the example without values.

    Where values are asked for, what it has decided until then.
    """
    environment = ShapeEnv(specialize_zero_one=False, duck_shape=False)
    mode = FakeTensorMode(shape_env=environment, allow_non_fake_inputs=True)
    torchs: dict[sympy.Symbol, Dim] = {}

    def symbolic(spec: InputSpec, tensor: torch.Tensor) -> torch.Tensor:
        kinds = [DimDynamic.DYNAMIC if dim.terms else DimDynamic.STATIC for dim in spec.dims]
        context: Any = StatelessSymbolicContext(dynamic_sizes=kinds)
        made = mode.from_tensor(tensor, symbolic_context=context, source=ConstantSource(spec.name))
        pairs: list[tuple[Any, Dim]] = list(zip(made.shape, spec.dims, strict=True))
        torchs.update({n.node.expr: dim for n, dim in pairs if isinstance(n, torch.SymInt)})
        return made

    with (
        contextlib.suppress(Exception),
        fresh(loaded, "scratch") as own,
        quiet(),
        attention_in_operators(),
    ):
        # What code outside of the module keeps from a first call is to be real.
        own.flat.call(*(tensor.clone() for tensor in loaded.tensors))
        with mode:
            given = list(map(symbolic, loaded.specs, loaded.tensors))
            if torchs:
                own.flat.call(*given)
    return _told({guard.expr: _line_of(guard) for guard in environment.guards}, torchs)


def _told(
    guards: Mapping[Any, tuple[str, int] | None], torchs: Mapping[sympy.Symbol, Dim]
) -> tuple[Assumption, ...]:
    """The guards on sizes alone, in the user's own symbols."""
    return tuple(
        replace(_assumption(guard, torchs), line=where)
        for guard, where in guards.items()
        if guard.free_symbols and guard.free_symbols <= set(torchs) and not guard.has(int_oo)
    )


def _line_of(guard: Any) -> tuple[str, int] | None:
    """The file and line of the user's for which torch keeps a guard."""
    place = getattr(getattr(guard, "sloc", None), "framework_loc", None)
    return (place.filename, place.lineno or 0) if isinstance(place, FrameSummary) else None


def broken(capture: Capture, feeds: Mapping[str, np.ndarray]) -> dict[str, Location]:
    """The sizes for which a graph was captured where these inputs have others, with the lines.

    What the code made a number of is meant, as ``int(size)`` does, or has for one size alone, and
    not that one side of a branch was taken.
    """
    sizes = sizing.sizes_of(capture.inputs, {n: array.shape for n, array in feeds.items()})
    alone = [each for each in capture.assumed if each.fixes or _ALL_BUT_ONE.search(each.text)]
    wrong = {each.text: each.line for each in alone if not each.holds(sizes)}
    if None in wrong.values():
        # What was put off until the graph runs has no line, and TorchDynamo keeps none.
        wrong |= {each.text: each.line for each in decided(capture.loaded) if each.text in wrong}
    traces = [user_code.frames_in(n.meta.get("stack_trace") or "") for n in _nodes(capture)]
    found = {}
    for text, line in wrong.items():
        if line is not None:
            through = [t[: t.index(line) + 1] for t in traces if line in t]
            place = user_code.from_frames(through[0] if through else [line])
            if place is not None:
                found[text] = place
    return found


def _nodes(capture: Capture) -> Sequence[Any]:
    return list(capture.program.graph.nodes) if capture.program is not None else []


def _sizes(capture: Capture) -> tuple[dict[sympy.Symbol, Dim], Any]:
    """The user's dimension behind each of torch's symbols, and where torch keeps its guards."""
    assert capture.program is not None
    wanted = set(capture.program.graph_signature.user_inputs)
    nodes = [n for n in capture.program.graph.nodes if n.op == "placeholder" and n.name in wanted]
    values = [n.meta["val"] for n in nodes if isinstance(n.meta["val"], torch.Tensor)]
    shapes = [value.shape for value in values]
    sizes = [size for shape in shapes for size in shape if hasattr(size, "node")]
    environment = sizes[0].node.shape_env if sizes else None
    return torch_symbols(capture.inputs, shapes), environment


def _assumption(guard: Any, torchs: Mapping[sympy.Symbol, Dim]) -> Assumption:
    free = sorted(guard.free_symbols, key=str)
    dims = [torchs[symbol] for symbol in free]
    function = sympy.lambdify(
        free, guard, modules=[{"math": math, "torch": torch}, "math"], printer=PythonPrinter
    )
    named = guard.xreplace({s: sympy.Symbol(grouped(torchs[s])) for s in free})

    def holds(sizes: Mapping[str, int]) -> bool:
        try:
            return bool(function(*(dim.at(sizes) for dim in dims)))
        except ArithmeticError:  # the guard says nothing of such sizes
            return True

    symbols = tuple(dict.fromkeys(str(term.symbol) for dim in dims for term in dim.terms))
    fixes = isinstance(guard, sympy.Eq) and any(side.is_number for side in guard.args)
    return Assumption(PythonPrinter().doprint(named), symbols, holds, fixes)


def broken_guard(
    loaded: LoadedModel,
    environment: Any,
    prefix: str,  # noqa: ARG001
    guard: Any,
    *_: Any,
) -> Assumption | None:
    """A guard, as torch logs it while it captures, where it is not so at every declared size."""
    torchs: dict[sympy.Symbol, Dim] = {}
    for symbol in guard.free_symbols:
        for source in environment.var_to_sources.get(symbol, ()):
            place = _SIZE.search(source.name if isinstance(source.name, str) else source.name())
            if place:
                dim = loaded.specs[int(place[1])].dims[int(place[2])]
                if dim.symbol is not None:
                    torchs.setdefault(symbol, dim)
    if not torchs or guard.free_symbols != set(torchs):
        return None
    assumed = _assumption(guard, torchs)
    return assumed if not_always_so(loaded.specs, loaded.tensors, [assumed]) else None


def example_at(loaded: LoadedModel, sizes: Mapping[str, int]) -> tuple[torch.Tensor, ...]:
    """The example cut or repeated to other sizes of some symbols; what is of a form is drawn."""
    sizes = {**sizing.sizes_in(loaded.specs, loaded.tensors), **sizes}
    found, rng = [], np.random.default_rng(0)
    for spec, tensor in zip(loaded.specs, loaded.tensors, strict=True):
        if value_forms.has_form(spec.values):
            found.append(to_torch(sampling.draw(spec, sizes, "example", rng)))
            continue
        for axis, dim in enumerate(spec.dims):
            if any(term.symbol in sizes for term in dim.terms):
                rows = torch.arange(dim.at(sizes)) % max(tensor.shape[axis], 1)
                tensor = tensor.index_select(axis, rows)  # noqa: PLW2901
        found.append(tensor.clone())
    return tuple(found)


def exceptions(capture: Capture) -> list[tuple[Assumption, dict[str, int]]]:
    """What :func:`not_always_so` gives for what a capture assumed."""
    return not_always_so(capture.inputs, capture.loaded.tensors, capture.assumed)


def not_always_so(
    specs: Sequence[InputSpec], tensors: Sequence[torch.Tensor], assumed: Sequence[Assumption]
) -> list[tuple[Assumption, dict[str, int]]]:
    """The assumptions that are not so at every size, and the smallest sizes of which that is so."""
    sizes = sizing.sizes_in(specs, tensors)
    pairs = [(each, probe_sizes.exception(specs, sizes, each)) for each in assumed]
    return [(each, found) for each, found in pairs if found is not None]
