"""Which state a module keeps from call to call, and the module with it as inputs and outputs.

Found by calling a copy several times in a row: what a call leaves changed is state.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from torch2mobile import probe_sizes, sampling, sizing, tensors
from torch2mobile.contents import TORCHS_OWN
from torch2mobile.copies import fresh
from torch2mobile.errors import InputError, UsageError
from torch2mobile.exporter.example_call import refused
from torch2mobile.exporter.loading.containers import Path, walk
from torch2mobile.exporter.loading.flat_module import forward_signature
from torch2mobile.exporter.loading.held_state import ONE_FORM, Attribute
from torch2mobile.exporter.loading.inputs import (
    attach_values,
    format_values,
    onnx_name,
    parse_values,
)
from torch2mobile.records import Dim, InputSpec, LoadedModel, StateSpec, Values
from torch2mobile.snapshot import same_tensor

# So many calls in a row tell what is kept.
CALLS = 6
# At so many other sizes it is tried whether the state stays as it is.
_SIZES = 4
_BUDGET = 1 << 13

Leaves = dict[Path, Any]


def values_apart(
    module: torch.nn.Module, texts: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The ``--values`` of inputs, and those that name what a module holds."""
    known = held_names(module)
    parameters = forward_signature(module).parameters
    names = {text: parse_values(text)[0] for text in texts}
    own = [t for t in texts if names[t] in known and names[t] not in parameters]
    return tuple(text for text in texts if text not in own), tuple(own)


def held_names(module: torch.nn.Module) -> set[str]:
    """The names that the parts of what a module holds would have as inputs."""
    return {
        onnx_name((*filter(None, path.split(".")), name, *leaf))
        for (path, name), leaves in _held(module).items()
        for leaf in leaves
    }


def carrying(loaded: LoadedModel, values: Sequence[str] = ()) -> LoadedModel:
    """The model with what it keeps from call to call as further inputs and outputs.

    ``values`` are the ``--values`` of what it keeps.

    Raises UsageError for a saved program, InputError for a module that keeps nothing, or state
    that a file cannot have: no tensor, or of another shape or dtype after a call.
    """
    if loaded.program is not None:
        raise UsageError(
            f"{loaded.name} is captured already, with whatever state it had",
            "Leave out --state, or name the module that it was captured from.",
        )
    rows = _rows(loaded)
    states, seen = _states(loaded, rows)
    if not states:
        raise InputError(
            f"{loaded.name} keeps no state: {CALLS} calls with the example's sizes leave all of it "
            "as it was",
            "Leave out --state (or state = true in pyproject.toml).",
        )
    first = tuple(rows[0][state.module, state.attribute][state.path] for state in states)
    loaded.flat.states = states
    specs = tuple(_spec(state, t, seen[state]) for state, t in zip(states, first, strict=True))
    declared = attach_values(specs, values)
    seen_only = [s for s, d in zip(specs, declared, strict=True) if s.values and s == d]
    shapes = loaded.dynamic_shapes
    start = {state.name: tensors.to_numpy(t) for state, t in zip(states, first, strict=True)}
    carried = replace(
        loaded,
        copies=loaded.copies.anew(),
        tensors=(*loaded.tensors, *first),
        specs=(*loaded.specs, *declared),
        notes=(*loaded.notes, *map(_seen_only, seen_only)),
        dynamic_shapes=shapes and (*shapes, *({} for _ in states)),
        data=tuple({**case, **start} for case in loaded.data),
    )
    _refuse_other_sizes(carried)
    return carried


def _seen_only(spec: InputSpec) -> str:
    assert spec.values is not None
    given = format_values(spec.name, spec.values)
    return (
        f"the values of the state {spec.name} are those that {CALLS} calls in a row leave: "
        f"--values '{given}', unless others are given"
    )


def _calls(loaded: LoadedModel) -> Iterator[tuple[torch.Tensor, ...]]:
    """The example, then other values of its sizes."""
    yield tuple(tensor.clone() for tensor in loaded.tensors)
    sizes = sizing.sizes_in(loaded.specs, loaded.tensors)
    rng = np.random.default_rng(0)
    for _ in range(CALLS - 1):
        drawn = [sampling.draw(spec, sizes, "example", rng) for spec in loaded.specs]
        yield tuple(map(tensors.to_torch, drawn))


def _rows(loaded: LoadedModel) -> list[dict[Attribute, Leaves]]:
    """All that the module holds, at first and after each call."""
    with fresh(loaded, "scratch") as own, tensors.quiet():
        torch.manual_seed(0)
        rows = [_held(own.module)]
        for number, given in enumerate(_calls(loaded)):
            try:
                own.flat.call(*given)
            except Exception as error:
                if not number:
                    raise refused(loaded, error) from error
                # Drawn values may be none of the module's.
                own.flat.call(*(tensor.clone() for tensor in loaded.tensors))
            rows.append(_held(own.module))
    return rows


def _held(module: torch.nn.Module) -> dict[Attribute, Leaves]:
    """Every buffer and attribute of a module, as what it is made of."""
    found: dict[Attribute, Leaves] = {}
    for path, child in module.named_modules():
        if isinstance(child, torch.jit.ScriptModule):
            continue
        own = {**child._buffers, **vars(child)}
        for name, value in own.items():
            if name not in TORCHS_OWN:
                found[path, name] = {key: _kept(leaf) for key, leaf in walk(value)}
    return found


def _kept(leaf: Any) -> Any:
    """A leaf as it is now; of what cannot be looked into, which object it is."""
    if isinstance(leaf, torch.nn.Parameter):
        return id(leaf)
    if isinstance(leaf, torch.Tensor):
        return leaf.detach().clone()
    if leaf is None or isinstance(leaf, bool | int | float | complex | str | bytes):
        return leaf
    if isinstance(leaf, np.ndarray):
        return leaf.tobytes()
    if isinstance(leaf, Collection):
        return [repr(item) for item in leaf]
    return id(leaf)


def _states(
    loaded: LoadedModel, rows: Sequence[dict[Attribute, Leaves]]
) -> tuple[tuple[StateSpec, ...], dict[StateSpec, list[torch.Tensor]]]:
    """The tensors that change, and what each was seen to be; InputError for what is no such."""
    taken = {spec.name for spec in loaded.specs}
    found: dict[StateSpec, list[torch.Tensor]] = {}
    for key in dict.fromkeys(key for row in rows for key in row):
        series = [row.get(key, {}) for row in rows]
        changing = [p for leaves in series for p in leaves if not _steady(series, p)]
        for path in dict.fromkeys(changing):
            problem = _problem(key[1], [leaves.get(path, _ABSENT) for leaves in series])
            if problem and _counts(loaded, key):
                place = ".".join(map(str, (*filter(None, key[:1]), key[1], *path)))
                raise InputError(f"--state: {place} {problem[0]}", problem[1])
            if not problem:
                name = onnx_name((*filter(None, key[0].split(".")), key[1], *path))
                name = f"{name}_state" if name in taken else name
                taken.add(name)
                found[StateSpec(name, *key, path)] = [leaves[path] for leaves in series]
    return tuple(found), found


_ABSENT = object()


def _steady(series: Sequence[Leaves], path: Path) -> bool:
    first = series[0].get(path, _ABSENT)
    return all(_same(first, leaves.get(path, _ABSENT)) for leaves in series)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return same_tensor(one, other)
    return type(one) is type(other) and not isinstance(one, torch.Tensor) and one == other


def _problem(name: str, values: Sequence[Any]) -> tuple[str, str] | None:
    """Why a value cannot be an input and an output of a file, and what to do; None where it can."""
    first, later = values[0], next(v for v in values[1:] if not _same(values[0], v))
    if isinstance(first, torch.Tensor) and isinstance(later, torch.Tensor):
        other = next((v for v in values if _form(v) != _form(first)), None)
        if other is None:
            return None
        return f"is {_form(first)} at first and {_form(other)} after a call", ONE_FORM
    if isinstance(later, torch.Tensor):
        was = "None" if first is None else "no tensor" if first is not _ABSENT else "not there"
        shape = ", ".join(map(str, later.shape))
        return f"is {was} at first and a tensor after a call", (
            "Give it its first value where the module is built, in place of what stands there: "
            f'self.register_buffer("{name}", torch.zeros({shape})).'
        )
    if isinstance(later, bool | int | float):
        return f"is a Python number that changes ({first} at first, then {later})", (
            "Keep it as a tensor, in place of what stands where the module is built: "
            f'self.register_buffer("{name}", torch.zeros((), dtype=torch.int64)), and let forward '
            "compute with it."
        )
    kind = "not there any more" if later is _ABSENT else "no tensor"
    return f"changes from call to call and is {kind}", "Keep it as a tensor of one shape."


def _form(value: Any) -> str:
    if not isinstance(value, torch.Tensor):
        return "no tensor"
    return f"{tensors.dtype_name(value)}{list(value.shape)}"


def _counts(loaded: LoadedModel, key: Attribute) -> bool:
    """Whether outputs follow an attribute: whether it makes a difference to put it back."""
    outputs = []
    for back in (False, True):
        with fresh(loaded, "scratch") as own, tensors.quiet():
            torch.manual_seed(0)
            owner = own.module.get_submodule(key[0])
            box = owner._buffers if key[1] in owner._buffers else vars(owner)
            kept = {name: copy.deepcopy(v) for name, v in box.items() if name == key[1]}
            given = []
            try:
                for tensors_ in _calls(loaded):
                    given += [t.detach().clone() for t in own.flat(*tensors_)]
                    if back:
                        box.pop(key[1], None)
                        box.update(copy.deepcopy(kept))
            except Exception:  # noqa: BLE001 (the module is the user's code)
                return True
            outputs.append(given)
    return len(outputs[0]) != len(outputs[1]) or not all(map(same_tensor, *outputs))


def _spec(state: StateSpec, first: torch.Tensor, seen: Sequence[torch.Tensor]) -> InputSpec:
    """Whole numbers are what they were seen to be; other values nobody has declared."""
    dims = tuple(Dim(size=int(size)) for size in first.shape)
    dtype = tensors.dtype_name(first)
    values = None
    if first.numel() and not (first.is_floating_point() or first.dtype == torch.bool):
        ends = int(min(t.min() for t in seen)), int(max(t.max() for t in seen))
        values = Values("range", *ends)
    return InputSpec(state.name, (state.name,), dtype, dims, values)


def _refuse_other_sizes(loaded: LoadedModel) -> None:
    """InputError where the state has another shape at another declared size."""
    example = sizing.sizes_in(loaded.specs, loaded.tensors)
    budget = max(_BUDGET, 2 * sum(t.numel() for t in loaded.tensors))
    cases = [c for c in probe_sizes.size_cases(loaded.specs, example, budget, ()) if c[2]]
    rng = np.random.default_rng(0)
    for label, sizes, _ in cases[:_SIZES]:
        drawn = {s.name: sampling.draw(s, sizes, "example", rng) for s in loaded.specs}
        _refuse_other_form(loaded, label, drawn)


def _refuse_other_form(loaded: LoadedModel, label: str, feeds: Mapping[str, np.ndarray]) -> None:
    given = [tensors.to_torch(feeds[spec.name]) for spec in loaded.specs]
    count = len(loaded.flat.states)
    given[-count:] = [tensor.clone() for tensor in loaded.tensors[-count:]]
    with fresh(loaded, "scratch") as own, tensors.quiet():
        try:
            own.flat(*given)
        except InputError as error:
            raise InputError(f"--state: at {label} {error.message}", error.remedy) from None
        except Exception:  # noqa: BLE001 (a refused size is reported with the probes)
            return
