"""A module in memory with its example call, as the API is given it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch2mobile.errors import UsageError
from torch2mobile.pipeline.io_binding import Loader
from torch2mobile.records import LoadedModel, ParityOptions, Request

if TYPE_CHECKING:
    import numpy as np
    import torch


def from_memory(
    module: Any,
    args: Any,
    kwargs: Mapping[str, Any] | None,
    dynamic_shapes: Any,
    request: Request,
    data: Sequence[Mapping[str, np.ndarray]],
) -> LoadedModel:
    """A module with its example call, or with its inputs described, ready to be captured."""
    import torch

    from torch2mobile.exporter.loading import flat_module, source

    if not isinstance(module, torch.nn.Module):
        raise UsageError(
            f"a {type(module).__name__} was given where a torch.nn.Module is needed",
            "Pass the module itself.",
        )
    # One tensor is a common slip for a tuple of one.
    call = (args,) if isinstance(args, torch.Tensor) else tuple(args)
    name = type(module).__name__
    cases = tuple(data)
    if request.inputs:
        if dynamic_shapes is not None:
            raise UsageError(
                "both inputs= and dynamic_shapes= say which dimensions vary",
                "Give one of them.",
            )
        example = (call, dict(kwargs or {})) if call or kwargs else None
        loaded = source.from_specs(
            name, module, request.inputs, request.values, request, cases, example
        )
    else:
        loaded = source.from_call(
            name,
            module,
            call,
            kwargs or {},
            dynamic_shapes=dynamic_shapes,
            data=cases,
            values=request.values,
        )
    return flat_module.dropping(loaded, request.drop_outputs)


def request_for(
    against: torch.nn.Module | str | None,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None,
    dynamic_shapes: Any,
    inputs: Sequence[str],
    values: Sequence[str],
    data: Sequence[Mapping[str, np.ndarray]],
    trust: bool,
    drop_outputs: Sequence[str],
    parity: ParityOptions | None,
) -> tuple[Request, Loader | None]:
    """The request for a module to compare with, and how to load one that is in memory."""
    source = against if isinstance(against, str) else ""
    request = Request(
        source=source,
        inputs=tuple(inputs),
        values=tuple(values),
        trust=trust,
        drop_outputs=tuple(drop_outputs),
        parity=parity or ParityOptions(),
    )
    if against is None or isinstance(against, str):
        return request, None
    refuse_trust(trust)
    return request, lambda own: from_memory(against, args, kwargs, dynamic_shapes, own, data)


def refuse_trust(trust: bool) -> None:
    """``trust`` is about a file."""
    if trust:
        raise UsageError("trust=True is about a .pt2 file, and none was given", "Leave it out.")
