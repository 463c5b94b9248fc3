"""A failed parity check of a runtime with layers of its own, told at which of them it starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from torch2mobile.records import Check, Metric

if TYPE_CHECKING:
    import numpy as np

    from torch2mobile.exporter.provenance import Origins
    from torch2mobile.interfaces import LayeredRunner
    from torch2mobile.validators.parity.locating.layers import WrongLayer


def find(
    runner: LayeredRunner, model: Path, feeds: Mapping[str, np.ndarray], timeout: float
) -> WrongLayer | str:
    """The first layer that goes wrong on an input, by what the .onnx gives; or why none is named.

    Raises a Torch2MobileError where one of them does not run.
    """
    from torch2mobile.validators.parity.locating.layers import first_wrong
    from torch2mobile.validators.parity.locating.pieces import Pieces, process_of_pieces

    layers = runner.layers()
    if not layers:
        return "its runtime shows no inner values"
    shown = runner.values(feeds, [name for layer in layers for name in layer.outputs])
    with process_of_pieces(timeout) as process:
        pieces = Pieces(model, process)
        names = [name for node in pieces.topology.nodes for name in node.outputs if name]
        wanted = {**feeds, **dict(pieces.whole(feeds, names, optimised=False))}
        nodes = pieces.topology.nodes
    found = first_wrong(layers, shown, wanted)
    if found is None:
        return "no layer goes wrong by itself: rounding adds up, or all is right with values kept"
    if found.value:
        return found
    # Nothing is alike what it gives: it begins with the node that reads what it reads.
    reader = max(nodes, key=lambda node: len(set(node.inputs) & set(found.reads)), default=None)
    return replace(found, value=reader.outputs[0] if reader else "")


def told(check: Check, found: WrongLayer, probe: str, origins: Origins) -> Check:
    """The check with the layer, its lines, and the errors before and after it."""
    layer = found.layer
    if found.after is None:
        after, stands = "its value is none of the .onnx", f", which begins with {found.value}"
    else:
        after, stands = f"off by {found.after:.2g}", f", which stands for {found.value}"
    note = (
        f"it starts at the layer {layer.name} ({layer.kind}){stands}, on probe {probe}: {after}, "
        f"where what it reads is off by {found.before:.2g}"
    )
    metrics: dict[str, Metric] = {"layer": layer.name, "layer kind": layer.kind}
    metrics |= {"layer value": found.value, "before": found.before}
    if found.after is not None:
        metrics["after"] = found.after
    places = tuple(one.place(layer.name, layer.kind) for one in origins.get(found.value, ()))
    return replace(
        check,
        locations=(*check.locations, *places),
        metrics={**check.metrics, **metrics},
        notes=(*check.notes, note),
    )
