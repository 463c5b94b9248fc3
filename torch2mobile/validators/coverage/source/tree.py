"""What the module tree shows before anything runs: modes, hooks, layouts, packed weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from torch2mobile import user_code
from torch2mobile.records import Finding, InputSpec, Location
from torch2mobile.validators.coverage.lint_context import ModuleSubject
from torch2mobile.validators.coverage.rules import RULES

# What behaves differently in training.
_MODAL = (
    torch.nn.modules.batchnorm._NormBase,
    torch.nn.modules.dropout._DropoutNd,
    torch.nn.RReLU,
)


def look(subject: ModuleSubject) -> Iterator[Finding]:
    """The findings of the module tree and of the call."""
    module = subject.loaded.module
    packed: tuple[str, ...] = ()
    for path, child in module.named_modules():
        if isinstance(child, torch.jit.ScriptModule):
            continue
        if isinstance(child, _MODAL) and child.training and not module.training:
            kind = type(child).__name__
            message = f"{kind} is in train mode, and exported in eval mode like all others"
            yield RULES["T2M130"].found(Location(module=path, op=kind), message)
        yield from _hooks(path, child)
        if _is_quantized(child) and not path.startswith(packed):
            packed = (*packed, f"{path}.")
            kind = type(child).__name__
            yield RULES["T2M113"].found(
                Location(module=path, op=kind), f"{kind} holds packed integer weights"
            )
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.layout is not torch.strided:
            where = Location(module=name.rpartition(".")[0])
            yield RULES["T2M112"].found(where, f"{name} is stored as {tensor.layout}")
    yield from _constants(subject)


def _hooks(path: str, module: torch.nn.Module) -> Iterator[Finding]:
    """Hooks of the user's; those of a library, such as spectral norm, are part of its layers."""
    for hook in (*module._forward_pre_hooks.values(), *module._forward_hooks.values()):
        code = user_code.function(hook) or user_code.function(vars(type(hook)).get("__call__"))
        if code is not None and not user_code.is_library(code.file):
            where = user_code.location(code.file, code.tree.lineno, module=path)
            yield RULES["T2M140"].found(
                where, f"the hook {code.tree.name} runs with {path or 'it'}"
            )


def _is_quantized(module: torch.nn.Module) -> bool:
    parts = type(module).__module__.split(".")
    torchs = parts[0] in {"torch", "torchao"} and "quantized" in parts
    return torchs and "qat" not in parts and "reference" not in parts


def _constants(subject: ModuleSubject) -> Iterator[Finding]:
    """Python values in the call: they are no inputs of the file."""
    args, kwargs = subject.call
    for value in _leaves([*args, *kwargs.values()]):
        if not isinstance(value, InputSpec) and value is not None:
            yield RULES["T2M153"].found(Location(), f"{value!r} is given to forward, and no tensor")


def _leaves(values: Any) -> Iterator[Any]:
    if isinstance(values, dict):
        values = list(values.values())
    if isinstance(values, list | tuple):
        for value in values:
            yield from _leaves(value)
    else:
        yield values
