"""Does the module give the same on the same input, and if not, why and where?

Three causes are told apart: randomness, state kept between calls, and what neither explains: a data
race, or something outside the module such as the time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from torch2mobile.contents import TORCHS_OWN
from torch2mobile.copies import fresh
from torch2mobile.errors import Torch2MobileError
from torch2mobile.records import LoadedModel
from torch2mobile.tensors import quiet
from torch2mobile.validators.parity import recorder
from torch2mobile.validators.parity.answers import Answers
from torch2mobile.validators.parity.calls import named, rewinder, run, tensors_of
from torch2mobile.validators.parity.expected import Expected
from torch2mobile.validators.parity.probes import Probe
from torch2mobile.validators.parity.recorder import Step

if TYPE_CHECKING:
    from torch2mobile.interfaces import Outputs


Cause = Literal["random", "state", "outside"]

# So many calls in a row are compared with calls of a fresh module.
CALLS = 6


@dataclass(frozen=True)
class Unsteady:
    """Why two runs differ, the operations that make it so, and the state that a call changes."""

    cause: Cause
    steps: tuple[Step, ...]
    changed: tuple[str, ...] = ()


def diagnose(loaded: LoadedModel, probe: Probe) -> Unsteady:
    """Find out why the module gives something else on a second call with this probe.

    First from the same state with the same seed, then with that seed in the state that a call
    leaves behind: the first of these that changes an operation is the cause. What is left is
    randomness.
    """
    tensors = tensors_of(loaded, probe.feeds)
    changed = changed_state(loaded, probe)
    with fresh(loaded, "observed") as own:
        first = recorder.record(own, tensors)
    with fresh(loaded, "observed") as own:
        again = recorder.record(own, tensors)
    outside = recorder.first_difference(first, again)
    if outside is not None:
        return Unsteady("outside", _either(outside), changed)
    with fresh(loaded, "observed") as own:
        rewind = rewinder()
        recorder.record(own, tensors)
        rewind()
        later = recorder.record(own, tensors)
    kept = recorder.first_difference(first, later)
    if kept is not None:
        return Unsteady("state", _either(kept), changed)
    drawn = tuple(step for step in first.steps if step.random)
    if not drawn:  # by Python or NumPy: nothing of torch's shows it but what it gives
        with fresh(loaded, "observed") as own:
            recorder.record(own, tensors)
            drawn = _either(recorder.first_difference(first, recorder.record(own, tensors)) or ())
    return Unsteady("random", drawn, changed)


def _either(pair: Sequence[Step | None]) -> tuple[Step, ...]:
    return tuple(step for step in pair if step is not None)[-1:]


def first_nan(loaded: LoadedModel, probe: Probe) -> Step | None:
    """The first operation of the module that makes NaN out of numbers on this probe."""
    with fresh(loaded, "observed") as own:
        steps = recorder.record(own, tensors_of(loaded, probe.feeds)).steps
    return next((step for step in steps if step.nan), None)


# --- state that a call leaves behind ------------------------------------------------------------


def changed_state(loaded: LoadedModel, probe: Probe) -> tuple[str, ...]:
    """The names of buffers and attributes that one call leaves changed."""
    tensors = tensors_of(loaded, probe.feeds)
    with fresh(loaded) as own, quiet():
        before = dict(_state(own.module))
        try:
            own.flat.call(*(tensor.clone() for tensor in tensors))
        except Exception:  # noqa: BLE001 (a refused probe is reported elsewhere)
            return ()
        after = dict(_state(own.module))
    # A layer that was made has no hooks, and that is none of its state.
    return tuple(name for name in after if before.get(name, 0) != after[name])


def makes_weights(loaded: LoadedModel, probe: Probe) -> bool:
    """Whether a call makes a layer with weights."""
    with fresh(loaded) as own, quiet():
        before = len(list(own.module.parameters()))
        own.flat.call(*tensors_of(loaded, probe.feeds))
        return len(list(own.module.parameters())) > before


def _state(module: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    """A print of everything that a module can keep: buffers, parameters, its own attributes."""
    for path, child in module.named_modules():
        prefix = f"{path}." if path else ""
        if isinstance(child, torch.jit.ScriptModule):
            continue
        for name, value in vars(child).items():
            if name == "_parameters":
                # Not by their values: there may be gigabytes, and forward hardly writes there.
                for key, tensor in value.items():
                    yield prefix + key, (id(tensor), getattr(tensor, "_version", 0))
            elif name == "_buffers":
                for key, tensor in value.items():
                    yield prefix + key, _print_of(tensor)
            elif name.endswith("_hooks") and name in TORCHS_OWN:
                yield prefix + name, len(value)
            elif name not in TORCHS_OWN:
                yield prefix + name, _print_of(value)


def _print_of(value: Any, depth: int = 3) -> Any:
    """Something that is equal for equal contents: numbers, digests, and nested ones of these."""
    if isinstance(value, torch.Tensor):
        return recorder.digest(value)
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        return repr(value)
    if depth and isinstance(value, Mapping):
        return [(repr(key), _print_of(item, depth - 1)) for key, item in value.items()]
    # Lists, sets, deques: whatever has a length and can be looked through without using it up.
    if depth and isinstance(value, Collection):
        return len(value), [_print_of(item, depth - 1) for item in value]
    return id(value)


def writers(loaded: LoadedModel, probe: Probe, names: Sequence[str]) -> dict[str, Step]:
    """The first operation that writes into each of these buffers in place."""
    tensors = tensors_of(loaded, probe.feeds)
    with fresh(loaded, "observed") as own:
        buffers = dict(own.module.named_buffers())
        watched = [(name, buffers[name]) for name in names if name in buffers]
        steps = recorder.record(own, tensors, watched=watched).steps
    found: dict[str, Step] = {}
    for step in steps:
        for name in step.wrote:
            found.setdefault(name, step)
    return found


def sequence(loaded: LoadedModel, expected: Sequence[Expected]) -> tuple[list[Expected], Answers]:
    """The module called again and again without a fresh start; the last call has another shape.

    Returns what a fresh module gives in each of these calls, and what the module in use gave. The
    first probe is called twice, so that state shows that only counts; the smallest of another shape
    comes last, so that it shows what was kept of the first one's sizes.
    """
    first = expected[0]
    shapes = first.probe.shapes
    usual = [case for case in expected if not case.probe.extreme]
    alike = [case for case in usual if case.probe.shapes == shapes]
    others = [case for case in usual if case.probe.shapes != shapes and case.probe.declared]
    cases = [first, first, *alike[1:], first][:CALLS]
    cases += sorted(others, key=lambda case: case.probe.elements)[:1]
    answers: Answers = []
    with fresh(loaded) as own, quiet():
        rewind = rewinder()
        for case in cases:
            rewind()
            answers.append(_called(own, case))
    return cases, answers


def left_in_train_mode(loaded: LoadedModel) -> tuple[str, ...]:
    """The outermost submodules in train mode of a module that itself is in eval mode."""
    if loaded.module.training:
        return ()
    found: list[str] = []
    for path, child in loaded.module.named_modules():
        inside = any(path.startswith(f"{outer}.") for outer in found)
        # A container does nothing itself.
        if child.training and not inside and not isinstance(child, _CONTAINERS):
            found.append(path)
    return tuple(found)


_CONTAINERS = (torch.nn.ModuleList, torch.nn.ModuleDict)


def in_its_own_modes(loaded: LoadedModel, case: Expected) -> Outputs | Torch2MobileError:
    """What a module gives with each submodule in the mode in which it was passed in."""
    with fresh(loaded, "scratch") as own, quiet():
        for given, child in zip(loaded.module.modules(), own.module.modules(), strict=True):
            child.training = given.training
        return _called(own, case)


def _called(loaded: LoadedModel, case: Expected) -> Outputs | Torch2MobileError:
    names = [name for name, _ in case.outputs]
    try:
        return named(names, run(loaded.flat, tensors_of(loaded, case.probe.feeds)))
    except Exception as error:  # noqa: BLE001 (the module is the user's code)
        return Torch2MobileError(f"{type(error).__name__}: {error}"[:300])
