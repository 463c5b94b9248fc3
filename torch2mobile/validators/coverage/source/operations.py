"""What an operation says by itself, in a captured graph and while it runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch

from torch2mobile.validators.coverage.lint_context import OWN_NAMESPACES

_DTYPES = {torch.float64: "T2M160", torch.bfloat16: "T2M161"}
# Of layers that are quantized, which have a rule of their own.
_PACKED = {"quantized", "_quantized", "onednn"}
# The arguments by which an operator that can be random is not.
_SWITCHES = ("train", "training", "dropout_p")


def found(
    target: Any, args: Sequence[Any], kwargs: Mapping[str, Any], results: Iterable[Any]
) -> Iterator[tuple[str, str]]:
    """The codes of the rules that an operation falls under, each with its message."""
    name = str(target).removesuffix(".default").removeprefix("aten.")
    for result in (each for each in results if isinstance(each, torch.Tensor)):
        code = "T2M111" if result.is_complex() else _DTYPES.get(result.dtype)
        if code:
            yield code, f"{name} gives {result.dtype}"
        if result.layout is not torch.strided:
            yield "T2M112", f"{name} gives a tensor stored as {result.layout}"
    if _is_random(target, args, kwargs):
        yield "T2M131", f"{name} gives other numbers at every call"
    if name == "batch_norm" and argument(target, args, kwargs, "training") is True:
        yield "T2M130", "batch_norm works with the statistics of its input"
    if getattr(target, "namespace", "aten") not in OWN_NAMESPACES | _PACKED:
        yield "T2M170", f"{name} comes from a library"


def written(target: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[torch.Tensor]:
    """The tensors that an operation writes to."""
    for parameter in target._schema.arguments:
        if parameter.alias_info is not None and parameter.alias_info.is_write:
            value = argument(target, args, kwargs, parameter.name)
            for each in value if isinstance(value, tuple | list) else (value,):
                if isinstance(each, torch.Tensor):
                    yield each


def argument(target: Any, args: Sequence[Any], kwargs: Mapping[str, Any], name: str) -> Any:
    """What an operation is given for a parameter of this name, or its default."""
    schema = getattr(target, "_schema", None)
    for index, parameter in enumerate(schema.arguments if schema else ()):
        if parameter.name == name:
            given = args[index] if index < len(args) else parameter.default_value
            return kwargs.get(name, given)
    return None


def _is_random(target: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    if not isinstance(target, torch._ops.OpOverload):
        return False
    if torch.Tag.nondeterministic_seeded not in target.tags:
        return False
    names = {parameter.name for parameter in target._schema.arguments}
    switches = [switch for switch in _SWITCHES if switch in names]
    return all(bool(argument(target, args, kwargs, switch)) for switch in switches)
