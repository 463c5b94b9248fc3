"""The module as one graph, captured once, by the first strategy that works.

Every attempt is kept as a value: when all fail, the report says what each one met and where.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from torch2mobile import sizing, torch_refusals, user_code
from torch2mobile.errors import CaptureError
from torch2mobile.exporter import assumptions, capture_words, taken_sizes
from torch2mobile.exporter.control_flow import stopping_statements as flows
from torch2mobile.exporter.dims import final_inputs
from torch2mobile.exporter.example_call import check_example
from torch2mobile.exporter.lost_sizes import (
    Guard,
    OneLostError,
    Watch,
    lost_at,
    specialised_at,
    watched,
)
from torch2mobile.exporter.strategies import (
    KNOWN_VALUES,
    STRATEGIES,
    after_a_call,
    deferred,
    hinted,
    known_values,
    non_strict,
    strict,
    torchscript,
    tried,
)
from torch2mobile.records import Attempt, Capture, LoadedModel


def capture(loaded: LoadedModel) -> Capture:
    """Capture the module once, by the first of STRATEGIES that works; raises as captures() does."""
    return next(captures(loaded, []))


def captures(
    loaded: LoadedModel, attempts: list[Attempt], rewrites: Sequence[str] = ()
) -> Iterator[Capture]:
    """The module as captured by each of STRATEGIES that works; the next one once it is asked for.

    Statements that stop it and are of the rules ``rewrites`` become operators of control flow. What
    does not work is added to ``attempts``, to which the caller may add as well. A graph that is for
    one size of many comes last. Raises InputError for an example that the module refuses,
    CaptureError when nothing works; its locations are the user's lines at fault.
    """
    outputs, notes = check_example(loaded)
    if loaded.module.training and loaded.program is None:
        notes = (*notes, "the module was in train mode; it was exported in eval mode")
    if loaded.program is not None:
        yield _finish(loaded, "exported program", loaded.program, outputs, notes)
        return
    worked, held = False, None
    found = flows.find(loaded, rewrites, partial(specialised_at, loaded))
    attempts.extend(flows.refused(found))
    flow = found if found is not None and found.places else None
    finish = partial(_finish, outputs=outputs, notes=notes)
    make = partial(_made, loaded, flow=flow, finish=finish)
    for name, strategy in STRATEGIES:
        if _is_pointless(strategy, loaded, attempts, held):
            continue
        if strategy is torchscript and _is_users_fault(attempts):
            reason = "not tried: a trace would fix in the file what the others refuse"
            attempts.append(Attempt(name, succeeded=False, reason=reason))
            continue
        made = make(name, strategy)
        if isinstance(made, Attempt):
            attempts.append(made)
            _say_all(attempts, make)
        elif (fixing := _fixing(made)) is not None:
            held = held or made
            attempts.append(fixing)
        else:
            worked = True
            yield replace(made, attempts=(*attempts, Attempt(name, succeeded=True)))
    if held is not None:
        attempts[:] = [each for each in attempts if each.strategy != held.strategy]
        yield replace(held, attempts=(*attempts, Attempt(held.strategy, succeeded=True)))
    if not worked and held is None:
        raise _all_failed(loaded, attempts)


def _made(
    loaded: LoadedModel,
    name: str,
    strategy: Any,
    *,
    flow: Any,
    finish: Callable[..., Capture],
    stops: bool = True,
) -> Capture | Attempt:
    """What a strategy makes of the module, or how it failed; the first ``stops`` at size 1."""
    watch: AbstractContextManager[Watch] = (
        watched(loaded if stops else None) if strategy is non_strict else nullcontext(Watch())
    )
    made: Capture | Attempt
    with watch as seen, suppress(OneLostError):
        try:
            made = finish(loaded, name, tried(loaded, strategy, flow))
        except Exception as error:  # noqa: BLE001 (an attempt is a value, whatever it met)
            made = _failed(loaded, name, error, seen.guards)
    if seen.lost is not None:  # also where the module's own code has caught it
        return Attempt(name, False, str(seen.lost), (seen.lost.place,) if seen.lost.place else ())
    if isinstance(made, Attempt):
        return made
    return _refused_size(made) or replace(made, control_flow=flow)


def _say_all(attempts: list[Attempt], make: Callable[..., Capture | Attempt]) -> None:
    """What stopped the first strategy besides size 1, once another has failed without that."""
    for number, attempt in enumerate(attempts[:-1]):
        if attempt.reason.startswith(OneLostError.said):
            made = make(attempt.strategy, non_strict, stops=False)
            attempts[number] = made if isinstance(made, Attempt) else attempt


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
        error = taken_sizes.refusal_at(made.loaded, found)
        if error is not None:
            where = user_code.from_exception(error)
            taken = taken_sizes.multiples(made.loaded, found)
            reason = (
                f"the module refuses {sizing.label_of(found)}, which the inputs declare"
                f"{taken and f' ({taken})'}: {type(error).__name__}: {error}"
            )[:400]
            return Attempt(made.strategy, False, reason, (where,) if where else ())
    return None


def _fixing(made: Capture) -> Attempt | None:
    """A failed attempt where code makes a number of a declared size, as ``int(size)`` does."""
    found = [each for each, _ in assumptions.exceptions(made) if each.fixes]
    if not found:
        return None
    lines = [each.line for each in found if each.line is not None]
    where = user_code.from_frames(lines)
    reason = f"captured for {', '.join(each.text for each in found)} alone"
    return Attempt(made.strategy, False, reason, (where,) if where else ())


def _failed(
    loaded: LoadedModel, strategy: str, error: Exception, guards: Sequence[Guard]
) -> Attempt:
    where = user_code.from_exception(error)
    if where is None:
        where = lost_at(loaded, error, guards)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    useful = [line for line in lines if not line.endswith(":")] or lines
    reason = f"{type(error).__name__}: {' '.join(useful[:2])}".replace(_TORCH_LOGS, "")[:400]
    return Attempt(strategy, succeeded=False, reason=reason, locations=(where,) if where else ())


_TORCH_LOGS = ' For more information, run with TORCH_LOGS="+dynamic".'


def _is_pointless(
    strategy: Any, loaded: LoadedModel, attempts: Sequence[Attempt], held: Capture | None
) -> bool:
    """Whether what a strategy does differently is not what stopped the others."""
    if held is not None:
        return strategy is not strict  # which alone reads int() of a size as a size
    if strategy is deferred:
        return not _stopped_by_guards(attempts)
    if strategy is hinted:
        return not _taken_for_constant(attempts)
    if strategy is known_values:
        return torch_refusals.about([attempt.reason for attempt in attempts]) != "data"
    return strategy is after_a_call and not loaded.copies.changing


def _stopped_by_guards(attempts: Sequence[Attempt]) -> bool:
    """Whether putting guards off could help."""
    return any("Constraints violated" in attempt.reason for attempt in attempts)


def _taken_for_constant(attempts: Sequence[Attempt]) -> bool:
    """Whether torch's solver found a single size where guards are put off: it may misread them."""
    return bool(attempts) and "Specializations unexpectedly" in attempts[-1].reason


def _is_users_fault(attempts: Sequence[Attempt]) -> bool:
    """Whether the code depends on data, fixes a size or leaves torch: no exporter can mend that."""
    return bool(torch_refusals.about([attempt.reason for attempt in attempts]))


def _all_failed(loaded: LoadedModel, attempts: list[Attempt]) -> CaptureError:
    first = next((a for a in attempts if a.locations), attempts[0])
    place = capture_words.blamed(attempts)
    where = f" at {user_code.told(place)}" if place is not None else ""
    can_be = place is not None and _is_users_fault(attempts)
    offered = "".join(f" {each.reason}" for each in attempts if each.strategy == flows.REWRITTEN)
    if can_be and not offered:
        offered = flows.offer(loaded, partial(specialised_at, loaded))
    return CaptureError(
        f"the module could not be captured as a graph{where}",
        capture_words.remedy(loaded, attempts) + offered,
        first.locations,
        tuple(f"{attempt.strategy}: {attempt.reason}" for attempt in attempts),
    )


def _finish(
    loaded: LoadedModel,
    strategy: str,
    captured: Any,
    outputs: tuple[str, ...],
    notes: tuple[str, ...],
) -> Capture:
    program = captured if isinstance(captured, torch.export.ExportedProgram) else None
    if program is None:
        notes = (*notes, "captured by a TorchScript trace, which fixes Python values; check twice")
    if strategy == KNOWN_VALUES:
        notes = (*notes, "values that code reads and no input decides are those of the example")
    inputs, symbols = (loaded.specs, {}) if program is None else final_inputs(loaded.specs, program)
    traced = None if program is not None else captured
    made = Capture(
        loaded=loaded,
        strategy=strategy,
        program=program,
        traced=traced,
        inputs=inputs,
        outputs=outputs,
        symbols=symbols,
        attempts=(),
        notes=notes,
    )
    return replace(made, assumed=assumptions.assumptions(made))
