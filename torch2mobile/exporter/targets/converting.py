"""What targets have in common: what is not installed, what they refuse, files that do not load."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Collection, Iterator

from torch2mobile.errors import ConversionError, ModelFileError
from torch2mobile.records import InputSpec, OnnxModel, OutputSpec


def missing(extra: str, *modules: str) -> list[str]:
    """The command that installs an extra, where a module of it is not there."""
    absent = any(importlib.util.find_spec(name) is None for name in modules)
    return [f"pip install 'torch2mobile[{extra}]'"] if absent else []


def tensors(model: OnnxModel) -> tuple[InputSpec | OutputSpec, ...]:
    """All inputs, then all outputs."""
    return (*model.inputs, *model.outputs)


def other_dtype(model: OnnxModel, known: Collection[str]) -> InputSpec | OutputSpec | None:
    """The first input or output whose dtype is none of these."""
    return next((spec for spec in tensors(model) if spec.dtype not in known), None)


def no_scalars(model: OnnxModel, runtime: str) -> str:
    """Why a runtime that takes no numbers without dimensions has no form for a model, if so."""
    found = next((spec.name for spec in model.inputs if not spec.dims), None)
    return f"{runtime} takes no numbers without dimensions, as {found} is one" if found else ""


def without_end(model: OnnxModel, why: str) -> str:
    """Why a runtime that needs the greatest sizes has no form for a model; empty if it has."""
    for spec in model.inputs:
        for term in (term for dim in spec.dims for term in dim.terms):
            if term.greatest is None:
                return (
                    f"{why}, and {term.symbol} of {spec.name} has none: declare one "
                    f"({term.symbol}=1..8)"
                )
    return ""


def by_position(model: OnnxModel) -> dict[str, str]:
    """The names of a runtime that numbers its inputs and outputs, by the contract's."""
    names = {spec.name: f"in{n}" for n, spec in enumerate(model.inputs)}
    return names | {spec.name: f"out{n}" for n, spec in enumerate(model.outputs)}


def versions(*distributions: str) -> dict[str, str]:
    """The versions of what converted, by distribution."""
    from importlib import metadata  # slow to load, and workers read this module as they start

    return {name: metadata.version(name) for name in distributions}


@contextlib.contextmanager
def has_to_load(remedy: Callable[[ModelFileError], str] = lambda _: "") -> Iterator[None]:
    """ConversionError for a file that was just written and that its runtime does not load."""
    try:
        yield
    except ModelFileError as error:
        told = f"wrote what does not load: {error.message}"
        raise ConversionError(told, remedy(error)) from error
