"""A module in memory with its example call, as the API is given it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from torch2mobile.errors import UsageError
from torch2mobile.pipeline.io_binding import Loader
from torch2mobile.records import LoadedModel, Request

if TYPE_CHECKING:
    import numpy as np
    import torch

Data: TypeAlias = "Sequence[Mapping[str, np.ndarray] | str | Path] | str | Path"
"""Real inputs: arrays by input name, and paths of such, of images and of text."""


def several(given: Sequence[str]) -> tuple[str, ...]:
    """One string is one of them, and not its letters."""
    return (given,) if isinstance(given, str) else tuple(given)


def named(data: Data, preprocess: str, tokenizer: str | Path) -> dict[str, Any]:
    """What a request has of real inputs: the paths among them, and how they are read."""
    paths = tuple(str(each) for each in _listed(data) if isinstance(each, str | Path))
    return {"data": paths, "preprocess": preprocess, "tokenizer": str(tokenizer)}


def arrays_of(data: Data) -> tuple[Mapping[str, np.ndarray], ...]:
    """The arrays among real inputs."""
    return tuple(each for each in _listed(data) if not isinstance(each, str | Path))


def _listed(data: Data) -> Sequence[Mapping[str, np.ndarray] | str | Path]:
    return (data,) if isinstance(data, str | Path) else data


def from_memory(
    module: Any,
    args: Any,
    kwargs: Mapping[str, Any] | None,
    dynamic_shapes: Any,
    request: Request,
    data: Data,
) -> LoadedModel:
    """A module with its example call, or with its inputs described, ready to be captured."""
    import torch

    from torch2mobile.exporter.loading import source

    if not isinstance(module, torch.nn.Module):
        raise UsageError(
            f"a {type(module).__name__} was given where a torch.nn.Module is needed",
            "Pass the module itself.",
        )
    # One tensor is a common slip for a tuple of one.
    call = (args,) if isinstance(args, torch.Tensor) else tuple(args)
    name = type(module).__name__
    own = source.for_inputs(request, module)
    with source.offering(module, carried=request.state):
        if request.inputs:
            if dynamic_shapes is not None:
                raise UsageError(
                    "both inputs= and dynamic_shapes= say which dimensions vary",
                    "Give one of them.",
                )
            example = (call, dict(kwargs or {})) if call or kwargs else None
            loaded = source.from_specs(
                name, module, request.inputs, own.values, request, _listed(data), example
            )
        else:
            loaded = source.from_call(
                name,
                module,
                call,
                kwargs or {},
                dynamic_shapes=dynamic_shapes,
                data=_listed(data),
                values=own.values,
                request=request,
            )
    return source.as_asked(loaded, request)


def loader_of(
    against: torch.nn.Module | str | None,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None,
    dynamic_shapes: Any,
    data: Data,
    request: Request,
) -> Loader | None:
    """How to load a module in memory to compare with; None for one that the request names."""
    if against is None or isinstance(against, str):
        if arrays_of(data):
            raise UsageError(
                "arrays in data go with a module in memory", "Give the path of an .npz in data."
            )
        return None
    refuse_file_options(request)

    def load(own: Request) -> LoadedModel:
        # Arrays that are given are all of the data: what was recorded at export is not read.
        if arrays_of(data):
            own = replace(own, data=request.data)
        if not own.data:
            own = replace(own, preprocess=request.preprocess, tokenizer=request.tokenizer)
        return from_memory(against, args, kwargs, dynamic_shapes, own, data)

    return load


def refuse_file_options(request: Request) -> None:
    """``trust`` and ``download`` are about what a source names."""
    if request.trust:
        raise UsageError("trust=True is about a .pt2 file, and none was given", "Leave it out.")
    if request.download:
        raise UsageError(
            "download=True is about a timm: or hf: model, and none was named", "Leave it out."
        )
