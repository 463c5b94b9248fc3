"""The layers of a runtime's file that lie between its inputs and its outputs."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from torch2mobile.records import Layer

INPUT = "Input"


def connected(operators: Iterable[Layer], outputs: Collection[str]) -> tuple[Layer, ...]:
    """All layers of the kind INPUT, and operators on what they give, as far as outputs need them.

    Weights are left out, and so is what is made of weights alone, and what nothing reads: a value
    that the .onnx has not, as the mean of a normalization, could not be compared. An operator may
    have what it gives among what it reads, as it has where it writes into its arguments.
    """
    made: set[str] = set()
    fed = []
    for one in operators:
        read = tuple(name for name in dict.fromkeys(one.inputs) if name in made)
        given = tuple(name for name in dict.fromkeys(one.outputs) if name not in made)
        if given and (read or one.kind == INPUT):
            fed.append(replace(one, inputs=read, outputs=given))
            made.update(given)
    needed, kept = set(outputs), []
    for one in reversed(fed):
        given = tuple(name for name in one.outputs if name in needed)
        if given:
            kept.append(replace(one, outputs=given))
            needed.update(one.inputs)
    return tuple(reversed(kept))
