"""The ways in which a module is captured, in the order in which they are tried."""

from __future__ import annotations

import contextlib
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch

from torch2mobile import user_code
from torch2mobile.copies import fresh
from torch2mobile.exporter.dims import (
    left_to_torch,
    torch_shapes,
    without_special_sizes,
)
from torch2mobile.exporter.fused_attention import attention_in_operators
from torch2mobile.exporter.known_values import KnownValues
from torch2mobile.exporter.loading import flat_module
from torch2mobile.exporter.packed import padded_sequences
from torch2mobile.exporter.recurrent_layers import whole_recurrent_layers
from torch2mobile.exporter.regions import in_one_graph
from torch2mobile.exporter.sized import by_sizes, with_powers
from torch2mobile.records import LoadedModel, RewrittenFlow
from torch2mobile.tensors import quiet


def _export(
    loaded: LoadedModel,
    *,
    strict: bool = False,
    floor: int = 0,
    deferred: bool = False,
    hints: bool = False,
) -> torch.export.ExportedProgram:
    shapes = torch_shapes(loaded, floor)
    tensors = without_special_sizes(loaded, shapes)
    shapes = left_to_torch(shapes) if hints else shapes
    # As torch.onnx sets it: a size of 1 is no special case, unless the code makes it one.
    from torch.fx.experimental import _config

    # TorchDynamo, which strict mode is, would look into these.
    sized = contextlib.nullcontext() if strict else by_sizes()
    oblivious = _config.patch(backed_size_oblivious=True)  # type: ignore[attr-defined]
    with whole_recurrent_layers(), padded_sequences(), oblivious, sized:
        return torch.export.export(
            cast("torch.nn.Module", loaded.flat),
            tensors,
            dynamic_shapes=(shapes,) if tensors else None,
            strict=strict,
            prefer_deferred_runtime_asserts_over_guards=deferred,
        )


def non_strict(loaded: LoadedModel) -> torch.export.ExportedProgram:
    """The module's Python as it runs on the example."""
    return _export(loaded)


def _from_two(loaded: LoadedModel) -> torch.export.ExportedProgram:
    """Without the special cases that torch makes for size 1; the probes prove that 1 works too."""
    return _export(loaded, floor=2)


def deferred(loaded: LoadedModel) -> torch.export.ExportedProgram:
    """As if every guard held that torch cannot prove; where one does not, the probes decide."""
    return _export(loaded, floor=2, deferred=True)


def hinted(loaded: LoadedModel) -> torch.export.ExportedProgram:
    """With sizes that torch solves no guards for: it reads (3 * n - 1) // n == 2 as n == 2."""
    return _export(loaded, floor=2, deferred=True, hints=True)


def strict(loaded: LoadedModel) -> torch.export.ExportedProgram:
    """By TorchDynamo, which reads the code, but for what a first call alone does."""
    if loaded.copies.changing:
        loaded.flat.call(*(tensor.clone() for tensor in loaded.tensors))
    return with_powers(_export(loaded, strict=True, floor=2, deferred=True))


def after_a_call(loaded: LoadedModel) -> torch.export.ExportedProgram:
    """On a module whose first call has built what its later calls use, such as hooks and caches."""
    loaded.flat.call(*(tensor.clone() for tensor in loaded.tensors))
    return _export(loaded, strict=False)


def known_values(loaded: LoadedModel) -> torch.export.ExportedProgram:
    """With the values that code reads and no input decides, as they are on the example."""
    with KnownValues():
        return _export(loaded, floor=2)


def torchscript(loaded: LoadedModel) -> Any:
    """A trace; anything that the tracer would bake in is an error here, not a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        return torch.jit.trace(loaded.flat, loaded.tensors, check_trace=False)


@contextlib.contextmanager
def whole_stack_traces() -> Iterator[None]:
    """Each node with the lines of what ``forward`` calls: torch keeps frames of that name only."""
    from torch.fx.proxy import TracerBase

    def users(_: TracerBase, found: traceback.StackSummary) -> traceback.StackSummary:
        frames = below_the_call(found)
        own = [frame for frame in frames if user_code.is_user_file(frame.filename)]
        return traceback.StackSummary.from_list(own)

    original = TracerBase._filter_traceback_frames
    setattr(TracerBase, original.__name__, users)
    try:
        yield
    finally:
        setattr(TracerBase, original.__name__, original)


def tried(
    loaded: LoadedModel, strategy: Callable[[LoadedModel], Any], flow: RewrittenFlow | None = None
) -> Any:
    """What a strategy makes of a copy, with the user's code in another form where that is given."""
    with (
        fresh(loaded, "scratch") as own,
        quiet(),
        attention_in_operators(),
        whole_stack_traces(),
        flow.applied() if flow is not None else contextlib.nullcontext(),
    ):
        made = strategy(own)
    if not isinstance(made, torch.export.ExportedProgram):
        return made
    with quiet():
        return in_one_graph(made)


KNOWN_VALUES = "non-strict, known values"

STRATEGIES: tuple[tuple[str, Callable[[LoadedModel], Any]], ...] = (
    ("non-strict", non_strict),
    ("non-strict from size 2", _from_two),
    ("non-strict, guards deferred", deferred),
    ("non-strict, sizes as hints", hinted),
    ("non-strict after a call", after_a_call),
    (KNOWN_VALUES, known_values),
    ("strict", strict),
    ("torchscript", torchscript),
)


def below_the_call(frames: Sequence[traceback.FrameSummary]) -> Sequence[traceback.FrameSummary]:
    """The frames of what the module's own call calls."""
    called = [n for n, frame in enumerate(frames) if frame.filename == flat_module.__file__]
    return frames[called[-1] :] if called else []
