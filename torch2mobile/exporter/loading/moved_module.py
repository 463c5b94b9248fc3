"""A module on another device, as a copy on the CPU; the original stays where it is."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from torch.nn.parameter import is_lazy

from torch2mobile.errors import InputError
from torch2mobile.exporter.loading.example import Call


def on_cpu(module: torch.nn.Module, call: Call) -> tuple[torch.nn.Module, Call, tuple[str, ...]]:
    """The module and its call on the CPU, with a note where they were elsewhere.

    Raises InputError for what is on ``meta``, which has no values to take along.
    """
    named = [*module.named_parameters(), *module.named_buffers()]
    for name, tensor in (*named, *(("the example", each) for each in call.tensors)):
        if tensor.device.type == "meta":
            raise InputError(
                f"{name} is on the meta device, and has no values",
                "Build the module on the CPU, with its weights loaded, and give an example there.",
            )
    weights = [tensor for _, tensor in named]
    places = sorted({each.device.type for each in (*weights, *call.tensors)} - {"cpu"})
    if not places:
        return module, call, ()
    memo: dict[int, Any] = {id(each): _moved(each) for each in weights if not is_lazy(each)}
    note = f"the module is on {' and '.join(places)}: a copy of it on the CPU was exported"
    moved = tuple(tensor.detach().cpu() for tensor in call.tensors)
    return copy.deepcopy(module, memo), replace(call, tensors=moved), (note,)


def _moved(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor on the CPU."""
    plain = tensor.detach().cpu()
    if isinstance(tensor, torch.nn.Parameter):
        return torch.nn.Parameter(plain, requires_grad=tensor.requires_grad)
    return plain
