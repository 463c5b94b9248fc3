"""A node as it can be compared with another, and what is different, in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper


@dataclass(frozen=True)
class Portrait:
    """What a node is: ``constants`` and their ``names`` by the input's position."""

    op_type: str
    attributes: Mapping[str, Any]
    inputs: tuple[str, ...]
    constants: Mapping[int, np.ndarray]
    names: Mapping[int, str]


def describe(mine: Portrait, theirs: Portrait) -> list[str]:
    """What is different in ``mine``, one phrase each; empty where nothing is."""
    if mine.op_type != theirs.op_type:
        return [f"{mine.op_type} where the module's own translation has {theirs.op_type}"]
    found = []
    for name in sorted({*mine.attributes, *theirs.attributes}):
        have, want = mine.attributes.get(name), theirs.attributes.get(name)
        if have != want:
            found.append(f"{name} {_shown(have)} instead of {_shown(want)}")
    for place in sorted({*mine.constants, *theirs.constants}):
        found += _constant_difference(mine, theirs, place)
    if len(mine.inputs) != len(theirs.inputs):
        found.append(f"{len(mine.inputs)} inputs instead of {len(theirs.inputs)}")
    elif sorted(mine.inputs) == sorted(theirs.inputs) and mine.inputs != theirs.inputs:
        found.append(
            f"inputs in the order {', '.join(mine.inputs)} instead of {', '.join(theirs.inputs)}"
        )
    elif mine.inputs != theirs.inputs:
        found += [
            f"reads {have} instead of {want}"
            for have, want in zip(mine.inputs, theirs.inputs, strict=True)
            if have and want and have != want
        ]
    return found


def _constant_difference(mine: Portrait, theirs: Portrait, place: int) -> list[str]:
    have, want = mine.constants.get(place), theirs.constants.get(place)
    name = mine.names.get(place) or theirs.names.get(place)
    if have is None or want is None:
        return []
    if have.shape != want.shape or have.dtype != want.dtype:
        return [f"{name} is {have.dtype}{list(have.shape)}, not {want.dtype}{list(want.shape)}"]
    equal = np.isclose(have, want, rtol=0, atol=0, equal_nan=True)
    if equal.all():
        return []
    if have.size <= 8:
        return [f"{name} is {have.tolist()}, not {want.tolist()}"]
    return [f"{name} differs in {int((~equal).sum())} of {have.size} values"]


def _shown(value: Any) -> str:
    if value is None:
        return "missing"
    return f"{value:g}" if isinstance(value, float) else str(value)[:100]


def attribute_of(attribute: Any) -> Any:
    """The value of an attribute, as it can be compared and shown."""
    if attribute.type in {onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS}:
        return "a subgraph of " + ", ".join(
            node.op_type for graph in (attribute.g, *attribute.graphs) for node in graph.node
        )
    if attribute.type == onnx.AttributeProto.TENSOR:
        return numpy_helper.to_array(attribute.t).tolist()
    value = helper.get_attribute_value(attribute)
    return value.decode(errors="replace") if isinstance(value, bytes) else value
