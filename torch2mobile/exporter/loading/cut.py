"""A part of a module: up to what goes into one of its calls, or what comes out of it.

The call is watched in the module as it is and ends there, so that reference, float64 and capture
all are the same cut.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from torch2mobile.copies import fresh
from torch2mobile.errors import InputError, UsageError, did_you_mean, some_of
from torch2mobile.exporter.loading.containers import walk
from torch2mobile.exporter.loading.inputs import onnx_name
from torch2mobile.records import LoadedModel
from torch2mobile.tensors import quiet

Call = tuple[tuple[Any, ...], dict[str, Any]]
# So many layers that are left out are told by name.
_SHOWN = 4


class _Ended(BaseException):
    """Ends a call of the module with what the cut gives."""

    def __init__(self, value: Any) -> None:
        self.value = value


@dataclass(frozen=True)
class Cut:
    """Where a call of a module ends: ``before`` or after the call of a submodule or function.

    ``place`` is a submodule's path, a method of one, or a function as Python imports it, or as the
    module's own file calls it.
    """

    place: str
    before: bool

    @property
    def option(self) -> str:
        """The option that asks for it."""
        return "--stop-before" if self.before else "--output-of"

    def returned(self, module: torch.nn.Module, call: Call) -> Any:
        """What the cut gives for a call of the module; InputError where it is never reached."""

        def ending(original: Callable[..., Any], args: Any, kwargs: Any) -> Any:
            given = _given(original, args, kwargs)[0] if self.before else None
            raise _Ended(original(*args, **kwargs) if given is None else given)

        entered = _layers_entered()
        depth = len(entered)
        with _watching(module, self.place, ending):
            try:
                module(*call[0], **call[1])
            except _Ended as ended:
                # torch.export leaves a layer only where its call returns.
                while len(entered) > depth:
                    entered.popitem()
                return ended.value
        raise InputError(f"{self.option}: {self.place} is not called on this input", _CALLED)


def _layers_entered() -> dict[str, Any]:
    """The layers that torch.export is in while it captures; none where it does not."""
    tracer: Any = getattr(get_proxy_mode(), "tracer", None)
    entered: dict[str, Any] = getattr(tracer, "module_stack", {})
    return entered


_CALLED = (
    "Name what every call of forward calls once, and a function as it is written there: nms, or "
    "ops.nms."
)


def _given(
    original: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors that a call is given, by its parameters' names, and all else."""
    try:
        arguments = inspect.signature(original).bind(*args, **kwargs).arguments
    except (TypeError, ValueError):  # a function of C's
        arguments = {**{f"input_{n}": value for n, value in enumerate(args)}, **kwargs}
    leaves = {onnx_name(path): leaf for path, leaf in walk(arguments)}
    tensors = {name: leaf for name, leaf in leaves.items() if isinstance(leaf, torch.Tensor)}
    return tensors, {name: leaf for name, leaf in leaves.items() if name not in tensors}


@contextlib.contextmanager
def _watching(
    module: torch.nn.Module, place: str, watch: Callable[[Callable[..., Any], Any, Any], Any]
) -> Iterator[None]:
    """``watch`` in place of a call, which is given what would be called, and with what."""
    owner, name = _owner_of(module, place)
    original = getattr(owner, name)
    own = vars(owner).get(name, _NOTHING)

    def watched(*args: Any, **kwargs: Any) -> Any:
        return watch(original, args, kwargs)

    vars(owner)[name] = watched
    try:
        yield
    finally:
        if own is _NOTHING:
            del vars(owner)[name]
        else:
            vars(owner)[name] = own


_NOTHING = object()


def _owner_of(module: torch.nn.Module, place: str) -> tuple[Any, str]:
    """What holds the function that is called, and its name there; InputError for no such place."""
    layers = dict(module.named_modules())
    if place in layers and place:
        return layers[place], "forward"
    path, _, name = place.rpartition(".")
    if path in layers and callable(getattr(type(layers[path]), name, None)):
        return layers[path], name
    homes = [sys.modules.get(path)] if path else []
    homes += [sys.modules.get(type(layer).__module__) for layer in layers.values() if not path]
    for home in homes:
        if callable(vars(home).get(name) if home is not None else None):
            return home, name
    known = list(layers)[1:]
    near = did_you_mean(place, [*known, *_functions_of(type(module))])
    remedy = near if near.startswith("Did") else did_you_mean(place, known)
    raise InputError(f"{place!r} is no submodule and no function", remedy)


def _functions_of(kind: type[torch.nn.Module]) -> list[str]:
    """The functions of a class of the user's, and of the file that it stands in."""
    homes = [vars(kind), vars(sys.modules.get(kind.__module__, types.ModuleType("")))]
    named = [item for home in homes for item in home.items()]
    return [name for name, value in named if isinstance(value, types.FunctionType)]


def cutting(loaded: LoadedModel, cut: Cut) -> LoadedModel:
    """The model up to the cut.

    Raises UsageError for a saved program, InputError for a place that is not there, that no call,
    or more than one, reaches, or that is given no tensor.
    """
    if loaded.program is not None:
        raise UsageError(
            f"{loaded.name} is captured already, as a whole",
            f"Leave out {cut.option}, or name the module that it was captured from.",
        )
    calls: list[tuple[dict[str, torch.Tensor], dict[str, Any]]] = []
    after: list[torch.nn.Module] = []

    def seen(original: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        calls.append(_given(original, args, kwargs))
        try:
            return original(*args, **kwargs)
        finally:
            after.clear()

    refused = False
    with fresh(loaded, "scratch") as own, quiet(), contextlib.ExitStack() as stack:
        paths = {id(layer): path for path, layer in own.module.named_modules()}

        def ran(layer: torch.nn.Module, *_: Any) -> None:
            after.append(layer)

        watching = torch.nn.modules.module.register_module_forward_pre_hook(ran)
        stack.callback(watching.remove)
        stack.enter_context(_watching(own.module, cut.place, seen))
        try:
            own.flat.call(*(tensor.clone() for tensor in loaded.tensors))
        except Exception:  # noqa: BLE001 (what follows may not run here, such as a missing NMS)
            refused = True
    loaded.flat.cut = cut
    if refused and not calls:  # the example is reported as any that the module refuses
        return replace(loaded, copies=loaded.copies.anew())
    _refuse_calls(cut, calls)
    left = [paths[id(layer)] for layer in after if paths.get(id(layer))]
    notes = (*loaded.notes, *_notes(cut, left, calls[0][1]))
    return replace(loaded, copies=loaded.copies.anew(), notes=notes)


def _refuse_calls(cut: Cut, calls: Sequence[tuple[Any, Any]]) -> None:
    if not calls:
        raise InputError(f"{cut.option}: {cut.place} is not called on the example", _CALLED)
    if len(calls) > 1:
        raise InputError(
            f"{cut.option}: {cut.place} is called {len(calls)} times in one call of the module",
            "Name what is called once: what is around it, or one of several.",
        )
    if cut.before and not calls[0][0]:
        raise InputError(
            f"{cut.option}: {cut.place} is given no tensor",
            "Name another call, or --output-of what comes before it.",
        )


def _notes(cut: Cut, left: Sequence[str], constants: Mapping[str, Any]) -> Iterator[str]:
    """What the file does without, and what the app has to give to it."""
    outer = [p for p in dict.fromkeys(left) if not any(p.startswith(f"{o}.") for o in left)]
    names = [*([cut.place] if cut.before else []), *outer]
    shown = some_of(names, _SHOWN)
    rest = f"; left out, with whatever follows: {shown}" if shown else "; what follows is left out"
    what = "what goes into" if cut.before else "what comes out of"
    yield f"the outputs are {what} {cut.place}{rest}"
    if cut.before and constants:
        values = ", ".join(f"{name}={value!r}"[:60] for name, value in constants.items())
        yield f"{cut.place} is also given {values}, no tensor: the app has to give it"
