"""Why the exporter did not translate a graph: the operator, the user's line, and a remedy."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Any

import torch

from torch2mobile import user_code
from torch2mobile.errors import TranslateError
from torch2mobile.records import Capture, Location
from torch2mobile.sizing import OF_DATA
from torch2mobile.tensors import quiet

_OPERATOR = re.compile(r"aten[.:]+[\w.]+|OpOverload\(op='([\w:.]+)'")
_ARGUMENT = re.compile(r"Required (?:parameter|attribute) '(\w+)' is not provided")
# As a trace tells a node's frames, from the innermost to the outermost.
_TRACED = re.compile(r"^(.+)\((\d+)\): ", re.MULTILINE)
_UNBACKED = re.compile(r"unbacked symbols")


def explain(capture: Capture, error: Exception) -> TranslateError:
    """Name the operator that has no ONNX form, and the user's line that calls it."""
    chain: list[str] = []
    link: BaseException | None = error
    while link is not None:
        chain.append(str(link))
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    text = "\n".join(chain)
    place = _operator_location(capture, text)
    root = chain[-1].strip().splitlines()
    reason = root[0][:300] if root else type(error).__name__
    where = f" at {place.file}:{place.line}: {place.code}" if place and place.file else ""
    operator = f" {place.op}" if place and place.op else ""
    said, remedy = _in_words(reason)
    return TranslateError(
        f"the operator{operator} {said}{where}", remedy, (place,) if place else ()
    )


def _in_words(reason: str) -> tuple[str, str]:
    """The exporter's reason and what to do; its own words where no others are known."""
    argument = _ARGUMENT.search(reason)
    if argument:
        name = argument[1]
        remedy = f"Give it {name}, or write it with another operator: the exporter has no default."
        return f"has no ONNX translation without {name}", remedy
    if _UNBACKED.search(reason):
        return (
            "cannot be translated: the shape of its result depends on data",
            "Keep the shape: torch.where with a neutral value, a fixed topk, a mask.",
        )
    remedy = "Write it with operators that ONNX has, or compute it outside the model."
    if "complex-valued input" in reason:
        remedy = (
            "Keep real and imaginary part in two real tensors, or compute it outside the model."
        )
        return "has no ONNX translation for complex numbers", remedy
    if reason.startswith("No ONNX function found"):
        return "has no ONNX translation", remedy
    return f"has no ONNX translation ({reason})", remedy


def _operator_location(capture: Capture, text: str) -> Location | None:
    names = {found.group(1) or found.group(0) for found in _OPERATOR.finditer(text)}
    names = {name.replace("::", ".").rstrip(".") for name in names}
    if capture.program is None:
        return _traced_location(capture.traced, names)
    by_size = _UNBACKED.search(text) is not None
    for node in _calls(capture.program):
        target = str(node.target)
        named = any(target == name or target.startswith(name + ".") for name in names)
        if named or (by_size and _depends_on_data(node)):
            place = user_code.of_node(node)
            if place.file:
                return place
    return user_code.from_trace_text(text)


def _traced_location(traced: Any, names: Collection[str]) -> Location | None:
    """The line at which a TorchScript trace has the first of these operators."""
    for node in traced.inlined_graph.nodes():
        name = node.kind().replace("::", ".")
        frames = [(file, int(line)) for file, line in _TRACED.findall(node.sourceRange())]
        place = user_code.from_frames(frames[::-1]) if name in names else None
        if place is not None:
            return replace(place, op=name)
    return None


def _calls(program: torch.export.ExportedProgram) -> Iterator[torch.fx.Node]:
    """The operators, and those that they are made of, by less and by more of torch's own rules."""
    tables: tuple[dict[Any, Any] | None, ...] = ({}, None)
    programs = [program]
    for table in tables:
        with contextlib.suppress(Exception), quiet():
            programs.append(program.run_decompositions(table))
    for one in programs:
        yield from (node for node in one.graph.nodes if node.op == "call_function")


def _depends_on_data(node: torch.fx.Node) -> bool:
    """Whether a size of what a node gives is torch's symbol of one that data decide."""
    values = torch.utils._pytree.tree_leaves(node.meta.get("val"))
    tensors = [value for value in values if isinstance(value, torch.Tensor)]
    return any(OF_DATA.search(str(size)) for tensor in tensors for size in tensor.shape)
