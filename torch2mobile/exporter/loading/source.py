"""From what the user named to a LoadedModel: locate, weights, example call, flat module.

``package.module:attr``, ``path/to/file.py:attr``, ``sample:NAME``, ``timm:NAME``, ``hf:NAME`` or
``model.pt2``.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.nn.parameter import is_lazy

from torch2mobile import tensors
from torch2mobile.copies import Copies, built
from torch2mobile.errors import InputError, SourceError, did_you_mean, near_path
from torch2mobile.exporter.loading import example, inputs, real_inputs, shapes
from torch2mobile.exporter.loading.cut import Cut, cutting
from torch2mobile.exporter.loading.example import Call
from torch2mobile.exporter.loading.flat_module import (
    FlatModule,
    Slot,
    Template,
    dropping,
    named_leaves,
)
from torch2mobile.exporter.loading.locate import FORMS, Named, importable, locate
from torch2mobile.exporter.loading.moved_module import on_cpu
from torch2mobile.exporter.loading.programs import load_program
from torch2mobile.exporter.loading.real_inputs import Given, Own, Real
from torch2mobile.exporter.loading.state import carrying, held_names, values_apart
from torch2mobile.exporter.loading.weights import load_weights
from torch2mobile.records import LoadedModel, Request, Sample

Anew = Callable[[], torch.nn.Module | None]
_PLAIN = Request(source="")


def load(request: Request, samples: Mapping[str, Sample]) -> LoadedModel:
    """Load what a request names, with its weights, input specifications and example.

    Raises SourceError for what cannot be found or imported, InputError for what does not fit.
    """
    is_program = request.source.endswith(".pt2")
    if request.trust and not is_program:
        raise SourceError(
            f"--trust is about what a .pt2 file holds, and {request.source} is none",
            "Leave it out.",
        )
    return _load_program(request) if is_program else _load_module(request, samples)


def as_asked(loaded: LoadedModel, request: Request) -> LoadedModel:
    """The part that was asked for, without outputs to be left out, and with its state."""
    if request.stop_before or request.output_of:
        cut = Cut(request.stop_before or request.output_of, before=bool(request.stop_before))
        loaded = cutting(loaded, cut)
    loaded = dropping(loaded, request.drop_outputs)
    if not request.state:
        return loaded
    return carrying(loaded, values_apart(loaded.module, request.values)[1])


def for_inputs(request: Request, module: torch.nn.Module) -> Request:
    """The request without what it says of the state, which is no input yet."""
    if not request.state:
        return request
    return replace(request, values=values_apart(module, request.values)[0])


@contextlib.contextmanager
def offering(module: torch.nn.Module, *, carried: bool) -> Iterator[None]:
    """Within it, what is no input in ``--values`` may be meant for the state that is carried."""
    try:
        yield
    except InputError as error:
        name = re.search(r"unknown input '(.+)'", error.message)
        if carried and name:
            near = did_you_mean(name[1], sorted(held_names(module)))
            error.remedy = near if near.startswith("Did") else error.remedy
        raise


def _load_module(request: Request, samples: Mapping[str, Sample]) -> LoadedModel:
    # Importing may build the model already, and then draws its weights.
    with torch.random.fork_rng(devices=[]), importable(request.source):
        torch.default_generator.manual_seed(request.parity.seed)
        named = locate(request.source, samples, download=request.download)
        given = None if request.inputs else example.beside(named, request.source)
    request = replace(request, values=_values(named, request))
    own = for_inputs(request, named.module)
    with offering(named.module, carried=request.state):
        weights = request.weights
        notes = load_weights(named.module, Path(weights)) if weights else named.notes
        loaded = _described(named, own, given, _anew(request, samples, named.module))
    return as_asked(replace(loaded, notes=(*notes, *loaded.notes)), request)


def _described(named: Named, request: Request, given: Template | None, anew: Anew) -> LoadedModel:
    """The module with what is said of its inputs, beside it or by the user, who is stronger."""
    name, module = named.name, named.module
    texts = request.inputs or example.declared(named, "INPUTS", request.source)
    values = request.values
    beside = _from(named, example.declared(named, "DATA", request.source))
    request = replace(request, data=request.data or beside)
    own = _own(named)
    if texts:
        return from_specs(name, module, texts, values, request, (), given, anew=anew, own=own)
    if given is not None:
        call = example.called(module, given, None, values)
        data = real_inputs.read(request, module, call.specs, own)
        if data.cases:
            given = example.with_data(module, given, data.cases[0])
            call = example.called(module, given, None, values)
        return _assembled(name, module, call, data, anew)
    if request.data:
        data = real_inputs.read(request, module, (), own)
        call = example.of_data(module, data.cases[0], values)
        return _assembled(name, module, call, data, anew)
    raise InputError(
        f"nothing says how to call {request.source}",
        "Describe each input, e.g. --input 'image:float32[N=1..8,3,224,224]', give --data "
        "FILE.npz, or write example_inputs() beside the model.",
    )


def _anew(request: Request, samples: Mapping[str, Sample], first: torch.nn.Module) -> Anew:
    """What loads the same module once more; it gives None where the source has but one."""

    def load_again() -> torch.nn.Module | None:
        try:
            with tensors.quiet(), torch.random.fork_rng(devices=[]), importable(request.source):
                torch.default_generator.manual_seed(request.parity.seed)
                module = locate(request.source, samples, download=request.download).module
                module.load_state_dict(first.state_dict())
        except Exception:  # noqa: BLE001 (then it cannot be had anew)
            return None
        return None if module is first else module

    return load_again


def _from(named: Named, texts: Sequence[str]) -> tuple[str, ...]:
    """Paths beside the source, from where its file lies."""
    folder = Path(getattr(named.namespace, "__file__", None) or ".").parent
    return tuple(str(folder / path) for path in texts if path)


def _own(named: Named) -> Own:
    """What the source says itself of images and text, where it says it in texts."""
    steps = example.texts_of(named, "PREPROCESS")
    files = example.texts_of(named, "TOKENIZER")
    return Own(
        ",".join(steps) if steps is not None else None,
        "".join(_from(named, files)) if files is not None and len(files) <= 1 else None,
    )


def _values(named: Named, request: Request) -> tuple[str, ...]:
    """The source's own VALUES, except where the user gave others (or other inputs)."""
    beside = example.declared(named, "VALUES", request.source)
    if request.inputs:
        return request.values
    given = {inputs.parse_values(text)[0] for text in request.values}
    kept = tuple(text for text in beside if inputs.parse_values(text)[0] not in given)
    return kept + request.values


def _load_program(request: Request) -> LoadedModel:
    """A saved ExportedProgram: captured already, so its own dims and example hold."""
    path = Path(request.source)
    if not path.is_file():
        raise SourceError(f"there is no file {path}", near_path(path, FORMS))
    if request.weights or request.inputs:
        raise SourceError(
            f"{path} is captured already: its weights and inputs are fixed",
            "Leave out --weights and --input, or name the module that it was captured from.",
        )
    program = load_program(path, trust=request.trust)
    return as_asked(from_program(path.stem, program, request.values, request), request)


def from_program(
    name: str,
    program: torch.export.ExportedProgram,
    values: Sequence[str] = (),
    request: Request = _PLAIN,
) -> LoadedModel:
    """A loaded model from what torch.export gave; InputError where it holds no example."""
    if program.example_inputs is None:
        raise InputError(f"{name} holds no example inputs", "Save it with its example inputs.")
    module = program.module()
    call = example.called(module, program.example_inputs)
    specs = inputs.attach_values(shapes.program_dims(call.specs, program), values)
    data = real_inputs.read(request, module, specs)
    return _assembled(name, module, replace(call, specs=specs), data, program=program)


def from_specs(
    name: str,
    module: torch.nn.Module,
    texts: Sequence[str],
    values: Sequence[str],
    request: Request,
    data: Given,
    given: Template | None = None,
    *,
    anew: Anew | None = None,
    own: Own | None = None,
) -> LoadedModel:
    """A loaded model from input specifications; the example is real data, given, or drawn."""
    real = real_inputs.read(request, module, inputs.resolve(texts, values)[0], own, data)
    case = real.cases[0] if real.cases else None
    call = example.described(module, texts, values, case, given, request.parity.seed)
    return _assembled(name, module, call, real, anew)


def from_call(
    name: str,
    module: torch.nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    dynamic_shapes: Any = None,
    data: Given = (),
    values: Sequence[str] = (),
    request: Request = _PLAIN,
) -> LoadedModel:
    """A loaded model from a call with tensors in it; dims from torch.export's dynamic_shapes."""
    call = example.called(module, (tuple(args), dict(kwargs)), dynamic_shapes, values)
    return _assembled(name, module, call, real_inputs.read(request, module, call.specs, None, data))


def _assembled(
    name: str,
    module: torch.nn.Module,
    call: Call,
    data: Real,
    anew: Anew | None = None,
    program: torch.export.ExportedProgram | None = None,
) -> LoadedModel:
    """The model behind a flat signature; InputError for data that does not fit the call."""
    module, call, moved = on_cpu(module, call)
    for case in data.cases:
        example.check_case(call.specs, case)
    flat, copies = _copies(module, call, anew)
    notes = tuple(
        f"the input {inputs.onnx_name(path)} is {value!r}, no tensor: it is fixed in the file"
        for path, value in named_leaves(module, *call.template)
        if not isinstance(value, Slot)
    )
    return LoadedModel(
        name=name,
        module=flat.inner,
        flat=flat,
        tensors=call.tensors,
        specs=call.specs,
        copies=copies,
        program=program,
        dynamic_shapes=call.shapes,
        data=data.cases,
        real=data.notes,
        notes=(*moved, *call.notes, *notes, *inputs.suggestions(call.specs)),
        drawn=call.drawn,
    )


def _copies(module: torch.nn.Module, call: Call, anew: Anew | None) -> tuple[FlatModule, Copies]:
    """The module behind a flat signature, and what copies it."""
    flat = FlatModule(module, call.template)
    weights: list[tuple[str, Any]] = list(module.named_parameters())
    lazy = [name for name, value in weights if is_lazy(value)]
    if lazy:
        flat = built(flat, call.tensors)

    def again() -> FlatModule | None:
        other = anew() if anew is not None else None
        return flat.around(other) if other is not None else None

    copies = Copies(flat, again=again)
    if flat.inner is not module:
        note = f"{lazy[0]} had no values yet: one call of a copy, on the example, drew them"
        copies.notes.append(note)
    return flat, copies
