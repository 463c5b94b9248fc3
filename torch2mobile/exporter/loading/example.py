"""The example call: what stands beside the model, real data, or seeded values for what is declared.

Each gives a :class:`Call`, so that from here on it makes no difference how the user described it.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from torch2mobile import sampling, sizing, tensors, user_code
from torch2mobile.errors import InputError, SourceError, did_you_mean
from torch2mobile.exporter.loading import inputs, npz, shapes
from torch2mobile.exporter.loading.containers import Path as LeafPath
from torch2mobile.exporter.loading.flat_module import (
    Template,
    fill_template,
    forward_signature,
    make_template,
    named_leaves,
    slot_paths,
    template_of,
)
from torch2mobile.exporter.loading.locate import Named
from torch2mobile.records import ConstantSpec, Dim, InputSpec, RealCase

# Elements of a drawn example: a gigabyte of float32.
LARGEST_EXAMPLE = 1 << 28


@dataclass(frozen=True)
class Call:
    """A call of the module: its template with a slot for each tensor, the tensors, their specs.

    ``shapes`` are torch.export's own dynamic_shapes, an entry a tensor, where the user gave them.
    ``notes`` are what the user may not have meant.
    """

    template: Template
    tensors: tuple[torch.Tensor, ...]
    specs: tuple[InputSpec, ...]
    shapes: tuple[Any, ...] | None = None
    drawn: bool = False
    notes: tuple[str, ...] = ()


def beside(named: Named, source: str) -> Template | None:
    """args and kwargs from the example_inputs of the model, or beside it, if there is any."""
    example = getattr(named.module, "example_inputs", None)
    if example is None:
        example = getattr(named.namespace, "example_inputs", None)
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


def _as_call(example: Any) -> Template:
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


def declared(named: Named, name: str, source: str) -> tuple[str, ...]:
    """INPUTS, VALUES or DATA: one text, or several.

    They are attributes of the model itself, or stand beside it: for all models there, or by
    attribute in a dict.
    """
    found = _said(named, name)
    texts = _texts(found)
    if texts is None:
        raise SourceError(
            f"{name} beside {source} is {found!r}",
            "Write it as a tuple of texts, as they are given to --input and --values, or as a dict "
            "of such tuples by attribute.",
        )
    return texts


def texts_of(named: Named, name: str) -> tuple[str, ...] | None:
    """PREPROCESS or TOKENIZER, as :func:`declared`; None for what is no text: a name of its own."""
    found = _texts(_said(named, name))
    if found:
        return found
    there = [getattr(each, name, ()) for each in (named.module, named.namespace)]
    parts = [
        part for each in there for part in (each.values() if isinstance(each, Mapping) else [each])
    ]
    return () if all(part is None or _texts(part) is not None for part in parts) else None


def _said(named: Named, name: str) -> Any:
    own = getattr(named.module, name, None)
    if _texts(own) is not None:
        return own
    found = getattr(named.namespace, name, ())
    return found.get(named.attr, ()) if isinstance(found, Mapping) else found


def _texts(found: Any) -> tuple[str, ...] | None:
    texts = (found,) if isinstance(found, str | Path) else found
    fits = isinstance(texts, tuple | list) and all(isinstance(text, str | Path) for text in texts)
    return tuple(map(str, texts)) if fits else None


def called(
    module: torch.nn.Module, given: Template, dynamic_shapes: Any = None, values: Sequence[str] = ()
) -> Call:
    """A call with tensors in it, with dims from torch.export's dynamic_shapes."""
    template, example = template_of(*given)
    paths = slot_paths(module, template)
    _refuse_names([inputs.onnx_name(path) for path in paths])
    specs = tuple(_spec(path, tensor) for path, tensor in zip(paths, example, strict=True))
    flat = None
    if dynamic_shapes is not None:
        flat = shapes.flatten_dynamic_shapes(module, *given, dynamic_shapes, paths)
        specs = tuple(
            replace(spec, dims=shapes.named_dims(spec.dims, shape))
            for spec, shape in zip(specs, flat, strict=True)
        )
    return Call(template, example, inputs.attach_values(specs, values), flat)


def _spec(path: LeafPath, value: Any) -> InputSpec:
    dims = tuple(Dim(size=int(size)) for size in value.shape)
    return InputSpec(inputs.onnx_name(path), path, tensors.dtype_name(value), dims)


def _refuse_names(names: Sequence[str]) -> None:
    bad = [name for name in names if not name or names.count(name) > 1]
    if bad:
        raise InputError(
            f"more than one input would be called {bad[0]!r}"
            if bad[0]
            else "an input has an empty name",
            "Describe the inputs with names of your own, in inputs=.",
        )


def with_data(module: torch.nn.Module, given: Template, case: Mapping[str, np.ndarray]) -> Template:
    """The example call with real data in place of its tensors, of their dtypes and ranks."""
    template, example = template_of(*given)
    names = [inputs.onnx_name(path) for path in slot_paths(module, template)]
    fed = []
    for name, tensor in zip(names, example, strict=True):
        array = npz.pick(case, name)
        if (str(array.dtype), array.ndim) != (tensors.dtype_name(tensor), tensor.ndim):
            raise InputError(
                f"the data has {array.dtype} of {array.ndim} dimensions for the input {name!r}, "
                f"example_inputs() has {tensors.dtype_name(tensor)} of {tensor.ndim}",
                "Save the data as the module takes it.",
            )
        fed.append(tensors.to_torch(array))
    return fill_template(template, fed)


def of_data(module: torch.nn.Module, case: Mapping[str, np.ndarray], values: Sequence[str]) -> Call:
    """A call with arrays by input name, of whose sizes none varies."""
    specs = [_spec((name,), array) for name, array in case.items()]
    return _placed(module, inputs.attach_values(specs, values), (), case)


def described(
    module: torch.nn.Module,
    texts: Sequence[str],
    values: Sequence[str],
    case: Mapping[str, np.ndarray] | None,
    given: Template | None,
    seed: int,
) -> Call:
    """A call as input specifications say: with real data, the given tensors, or drawn ones."""
    specs, constants = inputs.resolve(texts, values)
    if case is not None:
        return _placed(module, specs, constants, case)
    if given is not None:
        leaves = dict(named_leaves(module, *given))
        constants += tuple(
            ConstantSpec(p, v) for p, v in leaves.items() if not isinstance(v, torch.Tensor)
        )
        return _placed(module, specs, constants, _given(module, specs, constants, leaves))
    rng = np.random.default_rng(seed)
    sizes = sizing.example_sizes(specs)
    _refuse_huge(specs, sizes)
    drawn = {spec.name: sampling.draw(spec, sizes, "example", rng) for spec in specs}
    return replace(_placed(module, specs, constants, drawn), drawn=True)


def _given(
    module: torch.nn.Module,
    specs: Sequence[InputSpec],
    constants: Sequence[ConstantSpec],
    leaves: Mapping[LeafPath, Any],
) -> dict[str, np.ndarray]:
    """The tensors of an example call under the names of the specs."""
    template = make_template(module, [spec.path for spec in specs], constants)
    feeds = {}
    for spec, path in zip(specs, slot_paths(module, template), strict=True):
        if not isinstance(leaves.get(path), torch.Tensor):
            raise InputError(
                f"example_inputs() gives no tensor for the input {spec.name}",
                did_you_mean(spec.name, [inputs.onnx_name(p) for p in leaves]),
            )
        feeds[spec.name] = tensors.to_numpy(leaves[path])
    return feeds


def _placed(
    module: torch.nn.Module,
    specs: tuple[InputSpec, ...],
    constants: Sequence[ConstantSpec],
    feeds: Mapping[str, np.ndarray],
) -> Call:
    """The call in which each spec, and each constant, has its place in ``forward``."""
    check_case(specs, feeds)
    template = make_template(module, [spec.path for spec in specs], constants)
    paths = slot_paths(module, template)
    placed = tuple(replace(spec, path=path) for spec, path in zip(specs, paths, strict=True))
    example = tuple(tensors.to_torch(feeds[spec.name]) for spec in specs)
    return Call(template, example, placed, notes=_misspelt(module, specs, paths))


def _misspelt(
    module: torch.nn.Module, specs: Sequence[InputSpec], paths: Sequence[LeafPath]
) -> tuple[str, ...]:
    """What is said of names that went by position, and are nearly those of a parameter."""
    moved = dict.fromkeys(
        (str(spec.path[0]), str(p[0])) for spec, p in zip(specs, paths, strict=True)
    )
    known = list(forward_signature(module).parameters)
    near = {name: difflib.get_close_matches(name, known, n=1) for name, _ in moved}
    return tuple(
        f"forward has no parameter {name}: the input is given as {taker}, and keeps its name in "
        f"the file; did you mean {near[name][0]}?"
        for name, taker in moved
        if name not in known and near[name]
    )


def check_case(specs: Sequence[InputSpec], case: Mapping[str, np.ndarray]) -> None:
    """InputError where real data lacks an input, or has one that is not as declared."""
    names = [spec.name for spec in specs]
    strange = [name for name in case if name not in names]
    if isinstance(case, npz.OfFiles) and strange:
        raise InputError(
            f"the file {strange[0]}.npy fits no input", did_you_mean(strange[0], names)
        )
    found = {spec.name: npz.pick(case, spec.name) for spec in specs}
    try:
        inputs.check_against_example(
            specs, {name: (tensors.dtype_name(a), a.shape) for name, a in found.items()}
        )
    except InputError as error:
        if isinstance(case, RealCase):
            raise InputError(f"{case.origin}: {error.message}", error.remedy) from None
        raise


def _refuse_huge(specs: Sequence[InputSpec], sizes: Mapping[str, int]) -> None:
    for spec in specs:
        elements = math.prod(dim.at(sizes) for dim in spec.dims)
        if elements > LARGEST_EXAMPLE:
            raise InputError(
                f"the example of {spec.name} would have {elements:,} elements",
                f"At most {LARGEST_EXAMPLE:,}: give smaller sizes, or real data with --data.",
            )
