"""Why the exporter did not translate a graph: the operator, the user's line, and a remedy."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from typing import Any

import torch

from torch2mobile import user_code
from torch2mobile.errors import TranslateError
from torch2mobile.exporter.capture_words import IN_A_LIBRARY, blamed
from torch2mobile.exporter.capture_words import remedy as capture_remedy
from torch2mobile.exporter.loading import flat_module
from torch2mobile.records import Capture, Location
from torch2mobile.sizing import OF_DATA
from torch2mobile.tensors import quiet

_OPERATOR = re.compile(
    r"(aten[.:]+[\w.]+)|OpOverload\(op='([\w:.]+)'|Exporting the operator '(\w+::\w+)'"
)
_NODE = re.compile(r"translating node %(\w+) :")
_ARGUMENT = re.compile(r"Required (?:parameter|attribute) '(\w+)' is not provided")
# As a trace tells a node's frames, from the innermost to the outermost.
_TRACED = re.compile(r"^(.+)\((\d+)\): ", re.MULTILINE)
_UNBACKED = re.compile(r"unbacked symbols")
_COMPLEX = re.compile("complex-valued input")
# An operator that torch cannot follow without numbers: one of aten's on sparse tensors.
_WITHOUT_META = re.compile(r"UnsupportedOperatorException: aten\.")
_PARAMETRIZED = re.compile(r"^(?:(.+)\.)?parametrizations\.([^.]+)")
_ANOTHER = (
    "Write it with operators that ONNX has, or compute it outside the model and give its result."
)
# What to write instead, by what the operator is called: each is tried in tests/test_refusals.
_REMEDIES = (
    (r"^math\.(\w+)", "Compute it as a tensor: torch.{0}(x.new_ones(x.shape[0]).sum())."),
    (r"^builtins\.|^float$", "Compute it on whole numbers: (n + 1) // 2 in place of round(n / 2)."),
    (
        r"sparse",
        "Keep the matrix dense: x.to_dense(), torch.mm; or x.index_add(0, rows, y[columns]).",
    ),
    (r"masked_select", "Write it as an index: x[x > 0] in place of x.masked_select(x > 0)."),
    (
        r"svd|linalg_eigh|\beigh\b",
        "Iterate a fixed number of times: v = a.T @ (a @ v); v = v / v.norm(). Or compute outside.",
    ),
    (r"lstsq", "Solve the normal equations: torch.linalg.solve(a.T @ a, a.T @ b)."),
    (r"quantize|_fq_", "Export the float model and quantize the .onnx, or torch.fake_quantize_*."),
    (r"flex_attention", "F.scaled_dot_product_attention, with the score as its attn_mask."),
    (r"functorch", "Write the derivative as a formula, and what vmap does over the whole batch."),
    (r"while_loop|scan|map_impl", "Loop a fixed number of times, in Python."),
)


def explain(capture: Capture, error: Exception) -> TranslateError:
    """Name the operator that has no ONNX form, and the user's line that calls it."""
    chain: list[str] = []
    link: BaseException | None = error
    while link is not None:
        chain.append(str(link))
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    text = "\n".join(chain)
    root = chain[-1].strip().splitlines()
    reason = root[0][:300] if root else type(error).__name__
    place, told = _operator_location(capture, text), reason
    if place is None and capture.program is None and not _operators(text):
        # The exporter of traces names nothing: what stopped torch.export may.
        told = " ".join([reason, *(attempt.reason for attempt in capture.attempts)])
        place = blamed(capture.attempts)
    untold = place is not None and not place.op and not _operators(told)
    operator = place.op if place and place.op else next(iter(_operators(told)), "")
    place = replace(place, op=operator) if place else None
    sparse = _WITHOUT_META.search(told) and _has_sparse(capture.loaded.module)
    said, remedy = _in_words(told, "sparse" if sparse else operator)
    if place and user_code.is_library(place.file):
        remedy = f"{IN_A_LIBRARY}."
    elif place and (found := _PARAMETRIZED.search(place.module)):
        layer = f"module.get_submodule({found[1] or ''!r}), {found[2]!r}"
        remedy = f"Make it a plain weight: parametrize.remove_parametrizations({layer})."
    elif untold:
        remedy = capture_remedy(capture.loaded, capture.attempts)
    where = f" at {user_code.told(place)}" if place and place.file else ""
    subject = f"the operator {operator}" if operator else "what is computed"
    return TranslateError(
        f"{subject} {said}{where}",
        remedy,
        (place,) if place else (),
        (f"torch.onnx: {reason}",),
    )


def _operators(text: str) -> list[str]:
    """The operators that torch names, in its order."""
    names = ("".join(found.groups(default="")) for found in _OPERATOR.finditer(text))
    return list(dict.fromkeys(name.replace("::", ".").rstrip(".") for name in names))


def _has_sparse(module: torch.nn.Module) -> bool:
    tensors = itertools.chain(module.parameters(), module.buffers())
    return any(tensor.layout is not torch.strided for tensor in tensors)


def _in_words(reason: str, operator: str) -> tuple[str, str]:
    """What the exporter lacks and what to do."""
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
    if _COMPLEX.search(reason):
        return (
            "has no ONNX translation for complex numbers",
            "Keep real and imaginary part in two real tensors, or compute it outside the model.",
        )
    remedy = _remedy(operator)
    if re.search(r"\bdouble\b", reason):
        return "has no ONNX translation in float64", "Compute it in float32: x.float()."
    if reason.startswith(("No ONNX function found", "Exporting the operator")):
        return "has no ONNX translation", remedy
    return "has no ONNX translation for these arguments", remedy


def _remedy(operator: str) -> str:
    for pattern, advice in _REMEDIES:
        found = re.search(pattern, operator)
        if found:
            return advice.format(*found.groups())
    space = operator.partition(".")[0]
    if operator and space not in {"aten", "prims", "math", "builtins", "torch"}:
        return f"It is an operator of {space}: call its form in torch's own operators."
    return _ANOTHER


def _operator_location(capture: Capture, text: str) -> Location | None:
    names = _operators(text)
    if capture.program is None:
        return _traced_location(capture.traced, names)
    nodes = list(_calls(capture.program))
    by_size = _UNBACKED.search(text) is not None
    tests: tuple[Callable[[torch.fx.Node], bool], ...] = (
        lambda node: node.name in _NODE.findall(text),
        lambda node: _is_named(str(node.target), names) or (by_size and _depends_on_data(node)),
        lambda node: any(name.split(".")[1] in str(node.target) for name in names if "." in name),
        lambda node: "functorch" in user_code.operator(node.target),
    )
    for test in tests:
        for node in filter(test, nodes):
            place = user_code.of_node(node)
            if place.file:
                return place
    if "Failed to decompose" in text:
        return next(map(user_code.of_node, _not_taken_apart(capture.program)), None)
    return user_code.from_trace_text(text)


def _not_taken_apart(program: torch.export.ExportedProgram) -> Iterator[torch.fx.Node]:
    """The nodes at which torch fails to write one operator in others."""
    table = torch._decomp.decomposition_table
    for node in program.graph.nodes:
        if node.target in table:
            try:
                with quiet():
                    program.run_decompositions({node.target: table[node.target]})
            except Exception:  # noqa: BLE001 (whatever it is, this is the operator)
                yield node


def _is_named(target: str, names: Collection[str]) -> bool:
    return any(target == name or target.startswith(name + ".") for name in names)


def _traced_location(traced: Any, names: Collection[str]) -> Location | None:
    """The line at which a TorchScript trace has the first of these operators."""
    for node in traced.inlined_graph.nodes():
        name = node.kind().replace("::", ".")
        if name not in names:
            continue
        frames = [(file, int(line)) for file, line in _TRACED.findall(node.sourceRange())]
        # Whoever called the export is further out, and not in the module.
        own = itertools.takewhile(lambda frame: frame[0] != flat_module.__file__, frames)
        place = user_code.from_frames([*own][::-1])
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
        for graph in one.graph_module.modules():
            if isinstance(graph, torch.fx.GraphModule):
                yield from (node for node in graph.graph.nodes if node.op == "call_function")


def _depends_on_data(node: torch.fx.Node) -> bool:
    """Whether a size of what a node gives is torch's symbol of one that data decide."""
    values = torch.utils._pytree.tree_leaves(node.meta.get("val"))
    tensors = [value for value in values if isinstance(value, torch.Tensor)]
    return any(OF_DATA.search(str(size)) for tensor in tensors for size in tensor.shape)
