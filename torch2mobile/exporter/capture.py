"""The module as one graph, captured once, by the first strategy that works.

Every attempt is kept as a value: when all fail, the report says what each one met and where.
"""

from __future__ import annotations

import contextlib
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

import torch

from torch2mobile import sizing, user_code
from torch2mobile.copies import fresh
from torch2mobile.errors import CaptureError, InputError, LostOutputError, did_you_mean
from torch2mobile.exporter import assumptions, capture_words
from torch2mobile.exporter.dims import (
    final_inputs,
    left_to_torch,
    torch_shapes,
    without_special_sizes,
)
from torch2mobile.exporter.loading import flat_module
from torch2mobile.exporter.packed import padded_sequences
from torch2mobile.exporter.recurrent import whole_recurrent_layers
from torch2mobile.exporter.sized import by_sizes
from torch2mobile.records import Attempt, Capture, InputSpec, LoadedModel, Location
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


def _non_strict(loaded: LoadedModel) -> torch.export.ExportedProgram:
    return _export(loaded)


def _from_two(loaded: LoadedModel) -> torch.export.ExportedProgram:
    """Without the special cases that torch makes for size 1; the probes prove that 1 works too."""
    return _export(loaded, floor=2)


def _deferred(loaded: LoadedModel) -> torch.export.ExportedProgram:
    """As if every guard held that torch cannot prove; where one does not, the probes decide."""
    return _export(loaded, floor=2, deferred=True)


def _hinted(loaded: LoadedModel) -> torch.export.ExportedProgram:
    """With sizes that torch solves no guards for: it reads (3 * n - 1) // n == 2 as n == 2."""
    return _export(loaded, floor=2, deferred=True, hints=True)


def _strict(loaded: LoadedModel) -> torch.export.ExportedProgram:
    return _export(loaded, strict=True, floor=2, deferred=True)


def _after_a_call(loaded: LoadedModel) -> torch.export.ExportedProgram:
    """On a module whose first call has built what its later calls use, such as hooks and caches."""
    loaded.flat.call(*(tensor.clone() for tensor in loaded.tensors))
    return _export(loaded, strict=False)


def _torchscript(loaded: LoadedModel) -> Any:
    """A trace; anything that the tracer would bake in is an error here, not a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        return torch.jit.trace(loaded.flat, loaded.tensors, check_trace=False)


@contextlib.contextmanager
def _attention_in_operators() -> Iterator[None]:
    """Without the one fused operator of attention layers in eval mode: no exporter knows it."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextlib.contextmanager
def _whole_stack_traces() -> Iterator[None]:
    """Each node with the lines of what ``forward`` calls: torch keeps frames of that name only."""
    from torch.fx.proxy import TracerBase

    def below_the_call(_: TracerBase, found: traceback.StackSummary) -> traceback.StackSummary:
        frames = _below_the_call(found)
        own = [frame for frame in frames if user_code.is_user_file(frame.filename)]
        return traceback.StackSummary.from_list(own)

    original = TracerBase._filter_traceback_frames
    setattr(TracerBase, original.__name__, below_the_call)
    try:
        yield
    finally:
        setattr(TracerBase, original.__name__, original)


STRATEGIES: tuple[tuple[str, Callable[[LoadedModel], Any]], ...] = (
    ("non-strict", _non_strict),
    ("non-strict from size 2", _from_two),
    ("non-strict, guards deferred", _deferred),
    ("non-strict, sizes as hints", _hinted),
    ("non-strict after a call", _after_a_call),
    ("strict", _strict),
    ("torchscript", _torchscript),
)


def check_example(loaded: LoadedModel) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Run the module on its example; returns the output names and notes on what is left out.

    Raises InputError where the module itself refuses the example or returns no tensor, and
    LostOutputError where it returns more than a file can and that was not to be left out.
    """
    with fresh(loaded) as own, quiet():
        try:
            outputs = own.flat.call(*(tensor.clone() for tensor in loaded.tensors))
        except Exception as error:
            where = user_code.from_exception(error)
            shapes = ", ".join(
                f"{s.name}{list(t.shape)}"
                for s, t in zip(loaded.specs, loaded.tensors, strict=True)
            )
            raise InputError(
                f"the module refuses the example input ({shapes}): {type(error).__name__}: {error}",
                "Give inputs that the module itself takes, with --input, --values or --data.",
                (where,) if where else (),
            ) from error
        found = flat_module.flatten_outputs(outputs, loaded.flat.dropped)
    _refuse_lost(loaded, found)
    names = _unique([name for name, _ in found.tensors], loaded.specs)
    absent = [f"the output {name} is None and was left out" for name in found.absent]
    asked = [
        f"the output {name} is left out, as asked for" for name in dict.fromkeys(found.dropped)
    ]
    return tuple(names), (*absent, *asked)


def _forward_of(loaded: LoadedModel) -> tuple[Location, ...]:
    """The line at which the module's own forward begins."""
    own = user_code.function(type(loaded.module).forward)
    return (user_code.location(own.file, own.tree.lineno),) if own is not None else ()


def _refuse_lost(loaded: LoadedModel, found: flat_module.Outputs) -> None:
    """Refuse to lose an output in silence, and to be asked for what is not there."""
    dropped = loaded.flat.dropped
    names = [name for name, _ in found.tensors]
    unknown = sorted(set(dropped) - set(found.dropped))
    if unknown:
        raise InputError(
            f"the module returns no {unknown[0]!r}, which was to be left out",
            did_you_mean(unknown[0], [*names, *found.lost]),
        )
    if not names:
        raise InputError(
            "the module returns no tensor for the example input",
            "Return at least one tensor from forward.",
            _forward_of(loaded),
        )
    if found.lost:
        lost = " and ".join(f"{name} ({kind})" for name, kind in found.lost.items())
        options = " ".join(f"--drop-output {name}" for name in found.lost)
        raise LostOutputError(
            f"the module returns {lost}, which is no tensor: the file would go without it",
            f"Return tensors from forward, or let it go: {options} (drop_outputs in Python).",
            _forward_of(loaded),
        )


def _unique(names: list[str], specs: tuple[InputSpec, ...]) -> list[str]:
    """Output names that clash with no input and no other output: all live in one namespace."""
    taken = {spec.name for spec in specs}
    result = []
    for name in names:
        candidate, number = name, 1
        while candidate in taken:
            candidate = f"{name}_out" if number == 1 else f"{name}_out{number}"
            number += 1
        taken.add(candidate)
        result.append(candidate)
    return result


def capture(loaded: LoadedModel) -> Capture:
    """Capture the module once, by the first of STRATEGIES that works; raises as captures() does."""
    return next(captures(loaded, []))


def captures(loaded: LoadedModel, attempts: list[Attempt]) -> Iterator[Capture]:
    """The module as captured by each of STRATEGIES that works; the next one once it is asked for.

    What does not work is added to ``attempts``, to which the caller may add as well. Raises
    InputError for an example that the module refuses, CaptureError when nothing works; its
    locations are the user's lines at fault.
    """
    outputs, notes = check_example(loaded)
    if loaded.module.training and loaded.program is None:
        notes = (*notes, "the module was in train mode; it was exported in eval mode")
    if loaded.program is not None:
        yield _finish(loaded, "exported program", loaded.program, outputs, (), notes)
        return
    worked = False
    for name, strategy in STRATEGIES:
        if _is_pointless(strategy, loaded, attempts):
            continue
        if strategy is _torchscript and _is_users_fault(attempts):
            reason = "not tried: a trace would fix in the file what the others refuse"
            attempts.append(Attempt(name, succeeded=False, reason=reason))
            continue
        try:
            with (
                fresh(loaded, "scratch") as own,
                quiet(),
                _attention_in_operators(),
                _whole_stack_traces(),
            ):
                captured = strategy(own)
            made = _finish(loaded, name, captured, outputs, (), notes)
        except Exception as error:  # noqa: BLE001 (an attempt is a value, whatever it met)
            attempts.append(_failed(loaded, name, error))
            continue
        refused = _refused_size(made)
        if refused is not None:
            attempts.append(refused)
            continue
        worked = True
        yield replace(made, attempts=(*attempts, Attempt(name, succeeded=True)))
    if not worked:
        raise _all_failed(loaded, attempts)


# So many sizes that a graph was not captured for are tried on the module.
_TRIED = 4


def _refused_size(made: Capture) -> Attempt | None:
    """A failed attempt where the module itself refuses a declared size that the graph leaves out.

    What is wrong is then the code's, at its own line, and nothing that other sizes could prove.
    """
    ranges = {
        dim.symbol
        for spec in made.inputs
        for dim in spec.dims
        if dim.least is not None or dim.greatest is not None
    }
    sizes = [found for each, found in assumptions.exceptions(made) if set(each.symbols) <= ranges]
    for found in list({sizing.label_of(one): one for one in sizes}.values())[:_TRIED]:
        tensors = assumptions.example_at(made.loaded, found)
        try:
            with fresh(made.loaded) as own, quiet():
                own.flat.call(*tensors)
        except Exception as error:  # noqa: BLE001 (the module is the user's code)
            where = user_code.from_exception(error)
            reason = (
                f"the module refuses {sizing.label_of(found)}, which the inputs declare: "
                f"{type(error).__name__}: {error}"
            )[:400]
            return Attempt(made.strategy, False, reason, (where,) if where else ())
    return None


def _failed(loaded: LoadedModel, strategy: str, error: Exception) -> Attempt:
    where = user_code.from_exception(error)
    if where is None and strategy == "non-strict":
        where = _specialised_at(loaded, error)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    useful = [line for line in lines if not line.endswith(":")] or lines
    reason = f"{type(error).__name__}: {' '.join(useful[:2])}".replace(_TORCH_LOGS, "")[:400]
    return Attempt(strategy, succeeded=False, reason=reason, locations=(where,) if where else ())


def _specialised_at(loaded: LoadedModel, error: Exception) -> Location | None:
    """Where a dimension lost sizes, which torch's error does not say: watch it happen again.

    The first guard that is not so at every declared size, else the first one of all.
    """
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    found: list[tuple[bool, Location]] = []

    def watching(original: Any, wanted: Callable[..., bool]) -> Any:
        def watch(*args: Any, **options: Any) -> Any:
            place = _line_in_forward()
            is_it = False
            with contextlib.suppress(Exception):  # the capture that is watched has to go on
                is_it = place is not None and wanted(*args)
            found.extend([(is_it, place)] if place else [])
            return original(*args, **options)

        return watch

    with contextlib.ExitStack() as stack, fresh(loaded, "scratch") as own, quiet():
        if "Not all values" in str(error):
            name, wanted = "_log_guard", lambda *args: assumptions.is_broken(loaded, *args)
        elif "specialized" in str(error):
            name, wanted = "_set_replacement", lambda *args: args[2].is_number
        else:
            return None
        original = getattr(ShapeEnv, name)
        stack.callback(setattr, ShapeEnv, name, original)
        setattr(ShapeEnv, name, watching(original, wanted))
        # The same failure again; only the watching matters.
        with contextlib.suppress(Exception), _attention_in_operators():
            _non_strict(own)
    ranked = sorted(found, key=lambda pair: not pair[0])
    return ranked[0][1] if ranked else None


def _line_in_forward() -> Location | None:
    """The deepest line of the user's on the stack, below the call of the module itself."""
    below = _below_the_call(traceback.extract_stack())
    return user_code.from_frames([(frame.filename, frame.lineno or 0) for frame in below])


def _below_the_call(frames: Sequence[traceback.FrameSummary]) -> Sequence[traceback.FrameSummary]:
    called = [n for n, frame in enumerate(frames) if frame.filename == flat_module.__file__]
    return frames[called[-1] :] if called else []


_TORCH_LOGS = ' For more information, run with TORCH_LOGS="+dynamic".'


def _is_pointless(strategy: Any, loaded: LoadedModel, attempts: Sequence[Attempt]) -> bool:
    """Whether what a strategy does differently is not what stopped the others."""
    if strategy is _deferred:
        return not _stopped_by_guards(attempts)
    if strategy is _hinted:
        return not _taken_for_constant(attempts)
    return strategy is _after_a_call and not loaded.copies.changing


def _stopped_by_guards(attempts: Sequence[Attempt]) -> bool:
    """Whether putting guards off could help."""
    return any("Constraints violated" in attempt.reason for attempt in attempts)


def _taken_for_constant(attempts: Sequence[Attempt]) -> bool:
    """Whether torch's solver found a single size where guards are put off: it may misread them."""
    return bool(attempts) and "Specializations unexpectedly" in attempts[-1].reason


def _is_users_fault(attempts: Sequence[Attempt]) -> bool:
    """Whether the code depends on data, fixes a size or leaves torch: no exporter can mend that."""
    text = " ".join(attempt.reason for attempt in attempts)
    marks = (*capture_words.ON_DATA, *capture_words.ON_SIZES, *capture_words.NUMPY)
    return any(mark in text for mark in marks)


def _all_failed(loaded: LoadedModel, attempts: list[Attempt]) -> CaptureError:
    first = next((a for a in attempts if a.locations), attempts[0])
    place = capture_words.blamed(attempts)
    where = f" at {user_code.told(place)}" if place is not None else ""
    return CaptureError(
        f"the module could not be captured as a graph{where}",
        capture_words.remedy(loaded, attempts),
        first.locations,
        tuple(f"{attempt.strategy}: {attempt.reason}" for attempt in attempts),
    )


def _finish(
    loaded: LoadedModel,
    strategy: str,
    captured: Any,
    outputs: tuple[str, ...],
    attempts: tuple[Attempt, ...],
    notes: tuple[str, ...],
) -> Capture:
    program = captured if isinstance(captured, torch.export.ExportedProgram) else None
    if program is None:
        notes = (*notes, "captured by a TorchScript trace, which fixes Python values; check twice")
    inputs, symbols = (loaded.specs, {}) if program is None else final_inputs(loaded.specs, program)
    traced = None if program is not None else captured
    return Capture(
        loaded=loaded,
        strategy=strategy,
        program=program,
        traced=traced,
        inputs=inputs,
        outputs=outputs,
        symbols=symbols,
        attempts=attempts,
        notes=notes,
    )
