"""From what the user typed to a module and an example call.

``package.module:attr``, ``path/to/file.py:attr``, ``sample:NAME`` or ``model.pt2``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch.nn.parameter import is_lazy

from torch2mobile import sampling, sizing, tensors, user_code
from torch2mobile.copies import Copies, built
from torch2mobile.errors import InputError, SourceError, did_you_mean
from torch2mobile.exporter import arrays, inputs
from torch2mobile.exporter.flat_module import (
    FlatModule,
    Slot,
    Template,
    dropping,
    fill_template,
    make_template,
    named_leaves,
    slot_paths,
    template_of,
)
from torch2mobile.exporter.flat_module import (
    Path as LeafPath,
)
from torch2mobile.exporter.locate import (
    FORMS,
    as_module,
    attribute,
    importable,
    locate,
)
from torch2mobile.exporter.programs import load_program
from torch2mobile.exporter.weights import load_weights
from torch2mobile.records import ConstantSpec, Dim, InputSpec, LoadedModel, Request, Sample

# Elements of a drawn example: a gigabyte of float32.
LARGEST_EXAMPLE = 1 << 28


def load(request: Request, samples: Mapping[str, Sample]) -> LoadedModel:
    """Load what a request names, with its weights, input specifications and example.

    Raises SourceError for what cannot be found or imported, InputError for what does not fit.
    """
    return dropping(_load(request, samples), request.drop_outputs)


def _load(request: Request, samples: Mapping[str, Sample]) -> LoadedModel:
    if request.source.endswith(".pt2"):
        return _load_program(request)
    if request.trust:
        raise SourceError(
            f"--trust is about what a .pt2 file holds, and {request.source} is none",
            "Leave it out.",
        )
    # Importing may build the model already, and then draws its weights.
    with torch.random.fork_rng(devices=[]), importable(request.source):
        torch.default_generator.manual_seed(request.parity.seed)
        name, namespace, attr = locate(request.source, samples)
        module = as_module(attribute(namespace, attr, request.source), request.source)
        call = None if request.inputs else _example_call(namespace, request.source)
    if request.weights:
        load_weights(module, Path(request.weights))
    texts = request.inputs or _declared(namespace, "INPUTS", request.source)
    values = _merge_values(_declared(namespace, "VALUES", request.source), request)
    data = arrays.load_all(request.data)
    anew = _anew(request, samples, module)
    if texts:
        return from_specs(name, module, texts, values, request, data, call, anew=anew)
    if call is not None:
        if data:
            call = _with_data(module, call, data[0])
        return from_call(name, module, *call, data=data, values=values, anew=anew)
    if data:
        shaped = inputs.attach_values(
            [
                InputSpec(key, (key,), tensors.dtype_name(a), tuple(Dim(size=n) for n in a.shape))
                for key, a in data[0].items()
            ],
            values,
        )
        return _assemble(name, module, shaped, (), data[0], data, anew)
    raise InputError(
        f"nothing says how to call {request.source}",
        "Describe each input, e.g. --input 'image:float32[N=1..8,3,224,224]', give --data "
        "FILE.npz, or write example_inputs() beside the model.",
    )


Anew = Callable[[], torch.nn.Module | None]


def _anew(request: Request, samples: Mapping[str, Sample], first: torch.nn.Module) -> Anew:
    """What loads the same module once more; it gives None where the source has but one."""

    def load_again() -> torch.nn.Module | None:
        try:
            with tensors.quiet(), torch.random.fork_rng(devices=[]), importable(request.source):
                torch.default_generator.manual_seed(request.parity.seed)
                _, namespace, attr = locate(request.source, samples)
                module = as_module(attribute(namespace, attr, request.source), request.source)
                module.load_state_dict(first.state_dict())
        except Exception:  # noqa: BLE001 (then it cannot be had anew)
            return None
        return None if module is first else module

    return load_again


def _declared(namespace: ModuleType, name: str, source: str) -> tuple[str, ...]:
    """INPUTS or VALUES beside the model: one text, or several."""
    found = getattr(namespace, name, ())
    texts = (found,) if isinstance(found, str) else found
    if not isinstance(texts, (tuple, list)) or not all(isinstance(text, str) for text in texts):
        raise SourceError(
            f"{name} beside {source} is {found!r}",
            "Write it as a tuple of texts, as they are given to --input and --values.",
        )
    return tuple(texts)


def _example_call(namespace: ModuleType, source: str) -> Template | None:
    """args and kwargs from the example_inputs beside the model, if there is any."""
    example = getattr(namespace, "example_inputs", None)
    if not callable(example):
        return None if example is None else _as_call(example)
    try:
        return _as_call(example())
    except (Exception, SystemExit) as error:
        where = user_code.from_exception(error)
        raise SourceError(
            f"example_inputs() beside {source} raised {type(error).__name__}: {error}",
            "Let it return a tuple and/or dict of tensors, or describe each input with --input.",
            (where,) if where else (),
        ) from error


def _with_data(module: torch.nn.Module, call: Template, case: Mapping[str, np.ndarray]) -> Template:
    """The example call with real data in place of its tensors, of their dtypes and ranks."""
    template, example = template_of(*call)
    names = [inputs.onnx_name(path) for path in slot_paths(module, template)]
    fed = []
    for name, tensor in zip(names, example, strict=True):
        array = arrays.pick(case, name)
        if (str(array.dtype), array.ndim) != (tensors.dtype_name(tensor), tensor.ndim):
            raise InputError(
                f"the data has {array.dtype} of {array.ndim} dimensions for the input {name!r}, "
                f"example_inputs() has {tensors.dtype_name(tensor)} of {tensor.ndim}",
                "Save the data as the module takes it.",
            )
        fed.append(tensors.to_torch(array))
    return fill_template(template, fed)


def _merge_values(declared: tuple[str, ...], request: Request) -> tuple[str, ...]:
    """The source's own VALUES, except where the user gave others (or other inputs)."""
    if request.inputs:
        return request.values
    given = {inputs.parse_values(text)[0] for text in request.values}
    kept = tuple(text for text in declared if inputs.parse_values(text)[0] not in given)
    return kept + request.values


def _as_call(example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """args and kwargs from what example_inputs() returned: a tuple, a dict, or (tuple, dict)."""
    if isinstance(example, Mapping):
        return (), dict(example)
    if not isinstance(example, (tuple, list)):
        return (example,), {}
    last_is_kwargs = (
        len(example) == 2 and isinstance(example[0], tuple) and isinstance(example[1], Mapping)
    )
    if last_is_kwargs:
        return tuple(example[0]), dict(example[1])
    return tuple(example), {}


def from_specs(
    name: str,
    module: torch.nn.Module,
    texts: Sequence[str],
    values: Sequence[str],
    request: Request,
    data: tuple[Mapping[str, np.ndarray], ...],
    call: Template | None = None,
    *,
    anew: Anew | None = None,
) -> LoadedModel:
    """A loaded model from input specifications; the example is real data, given, or drawn."""
    specs, constants = inputs.resolve(texts, values)
    if data:
        feeds = {spec.name: arrays.pick(data[0], spec.name) for spec in specs}
    elif call is not None:
        leaves = dict(named_leaves(module, *call))
        constants += tuple(
            ConstantSpec(p, v) for p, v in leaves.items() if not isinstance(v, torch.Tensor)
        )
        template = make_template(module, [spec.path for spec in specs], constants)
        feeds = {}
        for spec, path in zip(specs, slot_paths(module, template), strict=True):
            if not isinstance(leaves.get(path), torch.Tensor):
                raise InputError(
                    f"example_inputs() gives no tensor for the input {spec.name}",
                    did_you_mean(spec.name, [inputs.onnx_name(p) for p in leaves]),
                )
            feeds[spec.name] = tensors.to_numpy(leaves[path])
    else:
        rng = np.random.default_rng(request.parity.seed)
        sizes = sizing.example_sizes(specs)
        _refuse_huge(specs, sizes)
        feeds = {spec.name: sampling.draw(spec, sizes, "example", rng) for spec in specs}
    loaded = _assemble(name, module, specs, constants, feeds, data, anew)
    return replace(loaded, drawn=not data and call is None)


def _refuse_huge(specs: Sequence[InputSpec], sizes: Mapping[str, int]) -> None:
    for spec in specs:
        elements = math.prod(dim.at(sizes) for dim in spec.dims)
        if elements > LARGEST_EXAMPLE:
            raise InputError(
                f"the example of {spec.name} would have {elements:,} elements",
                f"At most {LARGEST_EXAMPLE:,}: give smaller sizes, or real data with --data.",
            )


def _assemble(
    name: str,
    module: torch.nn.Module,
    specs: tuple[InputSpec, ...],
    constants: tuple[ConstantSpec, ...],
    feeds: Mapping[str, np.ndarray],
    data: tuple[Mapping[str, np.ndarray], ...],
    anew: Anew | None,
) -> LoadedModel:
    _check_cases(specs, data or (feeds,))
    template = make_template(module, [spec.path for spec in specs], constants)
    paths = slot_paths(module, template)
    specs = tuple(replace(spec, path=path) for spec, path in zip(specs, paths, strict=True))
    example = tuple(tensors.to_torch(feeds[spec.name]) for spec in specs)
    flat, copies = _copies(module, template, example, anew)
    return LoadedModel(
        name=name,
        module=flat.inner,
        flat=flat,
        tensors=example,
        specs=specs,
        copies=copies,
        data=data,
        notes=_constant_notes(module, template),
    )


def _copies(
    module: torch.nn.Module, template: Template, example: Sequence[torch.Tensor], anew: Anew | None
) -> tuple[FlatModule, Copies]:
    """The module behind a flat signature, and what copies it."""
    flat = FlatModule(module, template)
    weights: list[tuple[str, Any]] = list(module.named_parameters())
    lazy = [name for name, value in weights if is_lazy(value)]
    if lazy:
        flat = built(flat, example)

    def again() -> FlatModule | None:
        other = anew() if anew is not None else None
        return FlatModule(other, template, flat.dropped) if other is not None else None

    copies = Copies(flat, again=again)
    if flat.inner is not module:
        note = f"{lazy[0]} had no values yet: one call of a copy, on the example, drew them"
        copies.notes.append(note)
    return flat, copies


def _refuse_call(
    module: torch.nn.Module, paths: Sequence[LeafPath], example: Sequence[torch.Tensor]
) -> None:
    """InputError for names that clash or are empty, and for what is not on the CPU."""
    names = [inputs.onnx_name(path) for path in paths]
    bad = [name for name in names if not name or names.count(name) > 1]
    if bad:
        raise InputError(
            f"more than one input would be called {bad[0]!r}"
            if bad[0]
            else "an input has an empty name",
            "Describe the inputs with names of your own, in inputs=.",
        )
    weights = [*module.parameters(), *module.buffers(), *example]
    away = next((str(t.device) for t in weights if t.device.type != "cpu"), None)
    if away:
        raise InputError(
            f"the module or its example is on {away}",
            "Move both to the CPU, where they are compared: module.cpu(), tensor.cpu().",
        )


def _check_cases(specs: Sequence[InputSpec], cases: Sequence[Mapping[str, np.ndarray]]) -> None:
    """InputError where a case lacks an input, or has one that is not as declared."""
    for case in cases:
        found = {spec.name: arrays.pick(case, spec.name) for spec in specs}
        inputs.check_against_example(
            specs, {name: (tensors.dtype_name(a), a.shape) for name, a in found.items()}
        )


def _constant_notes(module: torch.nn.Module, template: Any) -> tuple[str, ...]:
    return tuple(
        f"the input {inputs.onnx_name(path)} is {value!r}, no tensor: it is fixed in the file"
        for path, value in named_leaves(module, *template)
        if not isinstance(value, Slot)
    )


def from_call(
    name: str,
    module: torch.nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    dynamic_shapes: Any = None,
    data: tuple[Mapping[str, np.ndarray], ...] = (),
    program: torch.export.ExportedProgram | None = None,
    values: Sequence[str] = (),
    anew: Anew | None = None,
) -> LoadedModel:
    """A loaded model from a call with tensors in it; dims from torch.export's dynamic_shapes."""
    template, example = template_of(args, kwargs)
    paths = slot_paths(module, template)
    _refuse_call(module, paths, example)
    specs = tuple(
        InputSpec(
            name=inputs.onnx_name(path),
            path=path,
            dtype=tensors.dtype_name(tensor),
            dims=tuple(Dim(size=int(size)) for size in tensor.shape),
        )
        for path, tensor in zip(paths, example, strict=True)
    )
    flat_shapes = None
    if dynamic_shapes is not None:
        flat_shapes = arrays.flatten_dynamic_shapes(module, args, kwargs, dynamic_shapes, paths)
        specs = tuple(
            replace(spec, dims=arrays.named_dims(spec.dims, shape))
            for spec, shape in zip(specs, flat_shapes, strict=True)
        )
    if values:
        specs = inputs.attach_values(specs, values)
    if program is None:
        _check_cases(specs, data)
    flat, copies = _copies(module, template, example, anew)
    return LoadedModel(
        name=name,
        module=flat.inner,
        flat=flat,
        tensors=example,
        specs=specs,
        copies=copies,
        program=program,
        dynamic_shapes=flat_shapes,
        data=data,
        notes=_constant_notes(module, template),
    )


def _load_program(request: Request) -> LoadedModel:
    """A saved ExportedProgram: captured already, so its own dims and example hold."""
    path = Path(request.source)
    if not path.is_file():
        raise SourceError(f"there is no file {path}", FORMS)
    if request.weights or request.inputs:
        raise SourceError(
            f"{path} is captured already: its weights and inputs are fixed",
            "Leave out --weights and --input, or name the module that it was captured from.",
        )
    program = load_program(path, trust=request.trust)
    if program.example_inputs is None:
        raise InputError(f"{path} holds no example inputs", "Save it with its example inputs.")
    args, kwargs = program.example_inputs
    data = arrays.load_all(request.data)
    module = program.module()
    loaded = arrays.with_program_dims(
        from_call(path.stem, module, args, kwargs, data=data, program=program), request.values
    )
    _check_cases(loaded.specs, data)
    return loaded
