"""The module as the first graph that translates: a translation that fails is an attempt too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from torch2mobile import sizing
from torch2mobile.errors import CaptureError, ExitCode, Torch2MobileError
from torch2mobile.pipeline.stages import tried
from torch2mobile.records import Attempt, Capture, Check, LoadedModel, Location, Status

if TYPE_CHECKING:
    import torch

    from torch2mobile.exporter.translate import Translation

# So many sizes that a graph was not captured for are tried.
_TRIED = 4
T = TypeVar("T")


@dataclass(frozen=True)
class Captured(Generic[T]):
    """A capture with its translation, or with what the exporter said of it."""

    capture: Capture
    translation: T | None
    refusal: Torch2MobileError | None = None

    def given(self) -> T:
        """The translation; raises the refusal where there is none."""
        if self.refusal is not None or self.translation is None:
            raise self.refusal or AssertionError("a translation or a refusal")
        return self.translation


def captured(
    loaded: LoadedModel, translate: Callable[[Capture], T], rewrites: Sequence[str] = ()
) -> Captured[T]:
    """The first capture that translates; where none does the first one, with its refusal.

    ``rewrites`` are codes of rules whose statements may become operators. Raises what capturing
    raises, and errors of usage.
    """
    from torch2mobile.exporter.capture import captures

    attempts: list[Attempt] = []
    graphs: set[str] = set()
    first: Captured[T] | None = None
    for made in captures(loaded, attempts, rewrites):
        graph = made.program.graph_module.code if made.program is not None else made.strategy
        if graph in graphs:
            attempts.append(Attempt(made.strategy, False, "the same graph: it does not translate"))
            continue
        graphs.add(graph)
        try:
            found = translate(made)
        except Torch2MobileError as error:
            if error.exit_code is ExitCode.USAGE:
                raise
            first = first or Captured(made, None, error)
            places = tuple(place for place in error.locations if isinstance(place, Location))
            reason = "; ".join((f"it does not translate: {error.message}", *error.details))
            attempts.append(Attempt(made.strategy, False, reason, places))
        else:
            ways = (*attempts, Attempt(made.strategy, succeeded=True))
            return Captured(replace(made, attempts=ways), found)
    assert first is not None, "captures() gives one, or raises"
    assert first.refusal is not None
    if len(attempts) > 1:
        first.refusal.details = tuple(f"{one.strategy}: {one.reason}" for one in attempts)
    return first


def refuse_other_sizes(capture: Capture) -> None:
    """CaptureError where the graph is not the module's function at a size that it leaves out.

    What the probes of an export decide, for a check, which has none.
    """
    from torch2mobile.exporter import assumptions
    from torch2mobile.exporter.dims import SIZE_REMEDY
    from torch2mobile.pipeline.places import departures
    from torch2mobile.tensors import to_numpy

    found = {sizing.label_of(sizes): sizes for _, sizes in assumptions.exceptions(capture)}
    for label, sizes in list(found.items())[:_TRIED]:
        tensors = assumptions.example_at(capture.loaded, sizes)
        if not _same_function(capture, tensors):
            names = [spec.name for spec in capture.inputs]
            feeds = dict(zip(names, map(to_numpy, tensors), strict=True))
            raise CaptureError(
                f"the graph is another function than the module at {label}, which the inputs allow",
                SIZE_REMEDY,
                departures(capture, feeds),
            )


def _same_function(capture: Capture, tensors: Sequence[torch.Tensor]) -> bool:
    """Whether both give the same, coarsely; True where the module takes no such size."""
    import torch

    from torch2mobile.copies import fresh
    from torch2mobile.tensors import quiet

    assert capture.program is not None
    results: list[Any] = []
    for graph in (None, capture.program.module(check_guards=False)):
        with fresh(capture.loaded) as own, quiet():
            torch.manual_seed(0)
            call: Any = graph or own.flat
            try:
                results.append(call(*(tensor.clone() for tensor in tensors)))
            except Exception:  # noqa: BLE001 (the module is the user's code)
                return not results
    ours, graphs = results
    return len(ours) == len(graphs) and all(map(_close, ours, graphs))


def _close(one: torch.Tensor, other: torch.Tensor) -> bool:
    import torch

    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return False
    if not one.is_floating_point():
        return torch.equal(one, other)
    scale = float(one.nan_to_num().abs().max()) if one.numel() else 0.0
    return torch.allclose(one, other, rtol=1e-2, atol=1e-3 * scale, equal_nan=True)


def capture_check(found: Capture) -> Check:
    """How the module was captured, what was noted, and which strategies failed before."""
    failed = [attempt for attempt in found.attempts if not attempt.succeeded]
    how = f"torch.export, {found.strategy}" if found.program else found.strategy
    notes = (*found.loaded.notes, *found.notes, *map(_failed, failed))
    metrics = tried([f"{attempt.strategy}: {attempt.reason}" for attempt in failed])
    return Check("capture", Status.PASSED, how, metrics=metrics, notes=notes)


def _failed(attempt: Attempt) -> str:
    where = f" at {attempt.locations[0]}" if attempt.locations else ""
    return f"{attempt.strategy} failed{where}"


def translate_check(found: Translation) -> Check:
    """What the module became, and which operators were put right."""
    model = found.model
    dims = "; ".join(f"{s.name} {[d.label for d in s.dims]}" for s in model.inputs)
    mended = ", ".join(row.name for row in found.mended)
    return Check(
        "translate",
        Status.PASSED,
        f"ONNX opset {model.opset}, {dims}",
        metrics={"mended": mended} if mended else {},
        notes=tuple(f"mended {row.name} (torch.onnx: {row.what})" for row in found.mended),
    )
