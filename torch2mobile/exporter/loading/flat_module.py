"""The call of a module as a flat list of tensors in, and a flat list of named tensors out."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from torch2mobile.errors import InputError, UsageError
from torch2mobile.exporter.loading.containers import (
    Path,
    as_declared,
    replace,
    takes_cache,
    walk,
)
from torch2mobile.exporter.loading.cut import Cut
from torch2mobile.exporter.loading.held_state import held, holding
from torch2mobile.exporter.loading.inputs import onnx_name
from torch2mobile.records import ConstantSpec, LoadedModel, PathKey, StateSpec

Template = tuple[tuple[Any, ...], dict[str, Any]]
_KIND = inspect.Parameter
KINDS = (
    _KIND.POSITIONAL_ONLY,
    _KIND.POSITIONAL_OR_KEYWORD,
    _KIND.VAR_POSITIONAL,
    _KIND.KEYWORD_ONLY,
    _KIND.VAR_KEYWORD,
)


class Slot:
    """Stands in a call's template where a tensor goes."""

    def __init__(self, index: int) -> None:
        self.index = index


def forward_signature(module: torch.nn.Module) -> inspect.Signature:
    """The signature of the module's own ``forward``; InputError where it has none."""
    try:
        return inspect.signature(module.forward)
    except ValueError:
        raise InputError(
            f"the forward of {type(module).__name__} does not say which inputs it takes",
            "Give the module that was traced, or call this one from a module of your own.",
        ) from None


def named_leaves(
    module: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> list[tuple[Path, Any]]:
    """The leaves of a call, each under the name of the parameter that takes it.

    Raises InputError where the call does not fit ``forward``.
    """
    signature = forward_signature(module)
    try:
        bound = signature.bind(*args, **kwargs).arguments
    except TypeError as error:
        raise InputError(
            f"forward{signature} does not take these inputs: {error}",
            "Name every input after its parameter, and give all that have no default.",
        ) from None
    leaves: list[tuple[Path, Any]] = []
    for name, value in bound.items():
        if signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            leaves += [leaf for key, item in value.items() for leaf in walk(item, (key,))]
        else:
            leaves += walk(value, (name,))
    return leaves


def _nest(entries: Sequence[tuple[Path, Any]]) -> Any:
    """The value whose leaves these are: integer keys make tuples, others dicts."""
    if not entries[0][0]:
        return entries[0][1]
    groups: dict[PathKey, list[tuple[Path, Any]]] = {}
    for path, value in entries:
        groups.setdefault(path[0], []).append((path[1:], value))
    nested = {key: _nest(group) for key, group in groups.items()}
    if all(isinstance(key, int) for key in nested):
        return tuple(nested[key] for key in sorted(nested, key=int))
    return nested


def make_template(
    module: torch.nn.Module, paths: Sequence[Path], constants: Sequence[ConstantSpec]
) -> Template:
    """The (args, kwargs) with a Slot for each path and each constant in its place.

    A first key that is a parameter's name goes there; other names fill the remaining positional
    parameters in order, a cache the one that takes it, so that an ONNX name need not be the
    parameter's. Raises InputError for
    a name that has no place.
    """
    groups: dict[PathKey, list[tuple[Path, Any]]] = {}
    for index, path in enumerate(paths):
        groups.setdefault(path[0], []).append((path[1:], Slot(index)))
    for constant in constants:
        groups.setdefault(constant.path[0], []).append((constant.path[1:], constant.value))
    values = {str(key): _nest(group) for key, group in groups.items()}
    parameters = forward_signature(module).parameters
    kinds = inspect.Parameter
    by_kind = {kind: [n for n, p in parameters.items() if p.kind is kind] for kind in KINDS}
    positional = by_kind[kinds.POSITIONAL_ONLY] + by_kind[kinds.POSITIONAL_OR_KEYWORD]
    if not by_kind[kinds.VAR_KEYWORD]:
        _refuse_strange_constants(constants, list(parameters))
    free = [name for name in positional if name not in values]
    placed: dict[str, Any] = {}
    extra: list[Any] = []
    for key, value in values.items():
        if key in positional or key in by_kind[kinds.KEYWORD_ONLY]:
            placed[key] = value
        elif free:
            taker = next((n for n in free if takes_cache(value, parameters[n])), free[0])
            placed[taker] = value
            free.remove(taker)
        elif by_kind[kinds.VAR_POSITIONAL]:
            extra.append(value)
        elif by_kind[kinds.VAR_KEYWORD]:
            placed[key] = value
        else:
            raise InputError(
                f"forward({', '.join(parameters)}) has no place for the input {key!r}",
                f"Name the inputs after its parameters: {', '.join(parameters) or 'it has none'}.",
            )
    placed = {
        key: as_declared(value, parameters[key], module) if key in parameters else value
        for key, value in placed.items()
    }
    args = [placed.pop(n) for n in itertools.takewhile(lambda n: n in placed, positional)]
    return (*args, *extra), placed


def _refuse_strange_constants(constants: Sequence[ConstantSpec], known: Sequence[str]) -> None:
    """A constant has no name in the file, so a name that no parameter has is a slip."""
    for constant in constants:
        name = str(constant.path[0])
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            raise InputError(
                f"forward({', '.join(known)}) has no parameter {name!r} for the constant",
                f"Did you mean {close[0]}?" if close else "Name the constant after its parameter.",
            )


def template_of(
    args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[Template, tuple[torch.Tensor, ...]]:
    """A call with its tensors taken out: the template with Slots, and the tensors in order."""
    tensors: list[torch.Tensor] = []

    def leaf(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        tensors.append(value)
        return Slot(len(tensors) - 1)

    template = (replace(tuple(args), leaf), replace(dict(kwargs), leaf))
    return template, tuple(tensors)


def fill_template(template: Template, tensors: Sequence[Any]) -> Template:
    """The call with the tensors in their slots."""

    def leaf(value: Any) -> Any:
        return tensors[value.index] if isinstance(value, Slot) else value

    args, kwargs = template
    return replace(args, leaf), replace(kwargs, leaf)


def slot_paths(module: torch.nn.Module, template: Template) -> list[Path]:
    """The path of every Slot under its parameter's name, in the order of the slots' numbers."""
    leaves = named_leaves(module, *template)
    slots = [(value.index, path) for path, value in leaves if isinstance(value, Slot)]
    return [path for _, path in sorted(slots, key=lambda item: item[0])]


@dataclasses.dataclass(frozen=True)
class FlatOutputs:
    """A module's return value as a file can give it: ``tensors`` by name, and what is not there.

    ``absent`` are None, ``dropped`` as asked for, ``lost`` no tensors, with their types.
    """

    tensors: list[tuple[str, torch.Tensor]]
    absent: list[str]
    dropped: list[str]
    lost: dict[str, str]


def flatten_outputs(value: Any, dropped: Sequence[str] = ()) -> FlatOutputs:
    """Named tensors of a module's return value, and what is not among them.

    A single tensor is ``output``, tuple items ``output_0`` …, mapping keys, named-tuple and
    dataclass fields keep their names, nested keys are joined with ``_``. ``dropped`` names outputs,
    or what holds them, that are left out.
    """
    found = FlatOutputs([], [], [], {})
    for leaf_path, leaf in walk(value):
        anonymous = not leaf_path or isinstance(leaf_path[0], int)
        path = ("output", *leaf_path) if anonymous else leaf_path
        holders = [onnx_name(path[:length]) for length in range(1, len(path) + 1)]
        asked = [name for name in holders if name in dropped]
        if asked:
            found.dropped.append(asked[0])
        elif isinstance(leaf, torch.Tensor):
            found.tensors.append((holders[-1], leaf))
        elif leaf is None:
            found.absent.append(holders[-1])
        else:
            found.lost[holders[-1]] = type(leaf).__name__
    return found


class FlatModule(torch.nn.Module):
    """A module behind a flat signature: tensors in, a tuple of tensors out.

    ``template`` is the (args, kwargs) of the call with a :class:`Slot` for each tensor. Keyword
    arguments, nesting, None and Python numbers thereby look the same to every exporter.
    ``dropped`` are the outputs that the user asked to leave out. With ``states`` the last inputs
    are the state before a call, and the last outputs that after it; a call leaves none. A ``cut``
    ends the call before the module's own end.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        template: Template,
        dropped: Sequence[str] = (),
        states: Sequence[StateSpec] = (),
        cut: Cut | None = None,
    ) -> None:
        super().__init__()
        # A new module starts in train mode; this one is as its inner one.
        self.training = module.training
        self.inner = module
        self.template = template
        self.dropped = tuple(dropped)
        self.states = tuple(states)
        self.cut = cut

    def around(self, module: torch.nn.Module) -> FlatModule:
        """Another module behind the same signature."""
        return FlatModule(module, self.template, self.dropped, self.states, self.cut)

    def _returned(self, tensors: Sequence[torch.Tensor]) -> Any:
        args, kwargs = fill_template(self.template, tensors)
        if self.cut is not None:
            return self.cut.returned(self.inner, (args, kwargs))
        return self.inner(*args, **kwargs)

    def call(self, *tensors: torch.Tensor) -> Any:
        """What the module itself returns for these tensors."""
        count = len(tensors) - len(self.states)
        with holding(self.inner, self.states, tensors[count:]):
            return self._returned(tensors[:count])

    def outputs(self, *tensors: torch.Tensor) -> FlatOutputs:
        """The named tensors of the module's return value, then its state, and what is lost."""
        count = len(tensors) - len(self.states)
        with holding(self.inner, self.states, tensors[count:]) as after:
            found = flatten_outputs(self._returned(tensors[:count]), self.dropped)
            names = [f"{state.name}_next" for state in self.states]
            return dataclasses.replace(
                found, tensors=[*found.tensors, *zip(names, after(), strict=True)]
            )

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The tensors of the module's return value, in order, then its state."""
        return tuple(tensor for _, tensor in self.outputs(*tensors).tensors)

    def held(self) -> list[torch.Tensor]:
        """The state that the module has now."""
        return [tensor.detach().clone() for tensor in held(self.inner, self.states)]

    def in_use(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """All outputs of a module that keeps its state itself, for all inputs but the state."""
        found = flatten_outputs(self._returned(tensors), self.dropped)
        return (*(tensor for _, tensor in found.tensors), *self.held())


def dropping(loaded: LoadedModel, names: Sequence[str]) -> LoadedModel:
    """The model without these outputs; UsageError where they are fixed already."""
    if names and loaded.program is not None:
        raise UsageError(
            f"{loaded.name} is captured already: its outputs are fixed",
            "Leave out --drop-output, or name the module that it was captured from.",
        )
    loaded.flat.dropped = tuple(names)
    return loaded
