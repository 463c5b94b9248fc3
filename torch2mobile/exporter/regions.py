"""Parts of a captured graph that torch keeps apart for a context, such as ``torch.autocast``."""

from __future__ import annotations

import re

import torch

_KEPT_APART = {"wrap_with_autocast", "wrap_with_set_grad_enabled"}
# The node of such a part, in the line of the code that torch makes of it.
_GENERATED = re.compile(r'File "<eval_with_key>\.\d+", line \d+, in forward\n +(\w+) = .*\Z')


def in_one_graph(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """The program with such parts in line, where each node still has its line of the user's.

    Torch puts them in line with those of the code that it generates for each part.
    """
    calls = program.graph.nodes
    if not any(getattr(node.target, "__name__", "") in _KEPT_APART for node in calls):
        return program
    # What a part takes, and the call of it, are named as other nodes are, and have no lines.
    traces = {
        node.name: node.meta["stack_trace"]
        for graph in _graphs(program)
        for node in graph.nodes
        if "stack_trace" in node.meta
    }
    try:
        whole: torch.export.ExportedProgram = program.run_decompositions({})
    except Exception:  # noqa: BLE001 (what cannot be traced again is refused by its operator)
        return program
    for graph in _graphs(whole):
        for node in graph.nodes:
            found = _GENERATED.search(node.meta.get("stack_trace") or "")
            if found and found[1] in traces:
                node.meta["stack_trace"] = traces[found[1]]
    return whole


def _graphs(program: torch.export.ExportedProgram) -> list[torch.fx.Graph]:
    modules = program.graph_module.modules()
    return [module.graph for module in modules if isinstance(module, torch.fx.GraphModule)]
