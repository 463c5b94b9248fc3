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

    What is on ``meta`` has no values: its layers draw them anew. Raises InputError for one that
    cannot.
    """
    weights: list[torch.Tensor] = [*module.parameters(), *module.buffers()]
    places = sorted({each.device.type for each in (*weights, *call.tensors)} - {"cpu"})
    if not places:
        return module, call, ()
    memo: dict[int, Any] = {id(each): _moved(each) for each in weights if not is_lazy(each)}
    copied = copy.deepcopy(module, memo)
    moved = tuple(tensor.detach().cpu() for tensor in call.tensors if tensor.device.type != "meta")
    if len(moved) != len(call.tensors):
        raise InputError("the example is on meta, and has no values", "Give one on the CPU.")
    note = f"the module is on {' and '.join(places)}: a copy of it on the CPU was exported"
    if "meta" in places:
        _draw(module, copied)
        note += ", with weights drawn anew, as meta has none"
    return copied, replace(call, tensors=moved), (note,)


def _moved(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor on the CPU, without values where it has none."""
    on_meta = tensor.device.type == "meta"
    plain = torch.zeros_like(tensor, device="cpu") if on_meta else tensor.detach().cpu()
    if isinstance(tensor, torch.nn.Parameter):
        return torch.nn.Parameter(plain, requires_grad=tensor.requires_grad)
    return plain


def _draw(module: torch.nn.Module, copied: torch.nn.Module) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        for (path, original), child in zip(module.named_modules(), copied.modules(), strict=True):
            held = [*original.parameters(recurse=False), *original.buffers(recurse=False)]
            if not any(each.device.type == "meta" for each in held):
                continue
            reset: Any = getattr(child, "reset_parameters", None)
            if reset is None:
                raise InputError(
                    f"{path or type(module).__name__} is on meta, and has no values",
                    "Build the module on the CPU, or load its weights before.",
                )
            reset()
