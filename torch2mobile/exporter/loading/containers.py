"""What holds tensors in a call: mappings, sequences, dataclasses and the caches of transformers."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import sys
import typing
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

import torch

from torch2mobile.errors import InputError
from torch2mobile.records import PathKey

Path = tuple[PathKey, ...]
# The two caches in one of an encoder and decoder, by what their keys and values are of.
_SIDES = {"decoder": "self_attention_cache", "encoder": "cross_attention_cache"}
_STATES = {"key": "keys", "value": "values"}


def walk(value: Any, path: Path = ()) -> list[tuple[Path, Any]]:
    """All leaves of nested containers, with the path to each."""
    items = _children(value)
    if items is None:
        return [(path, value)]
    return [leaf for key, child in items for leaf in walk(child, (*path, key))]


def _children(value: Any) -> list[tuple[PathKey, Any]] | None:
    if isinstance(value, Mapping):
        return [(key if isinstance(key, int) else str(key), item) for key, item in value.items()]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return [(name, getattr(value, name)) for name in value._fields]
    if isinstance(value, (list, tuple)) and not isinstance(value, torch.Size):
        return list(enumerate(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    layers = _layers(value)
    if layers is not None:
        return list(enumerate(layers))
    parts = _parts(value)
    return None if parts is None else [(k, getattr(value, name)) for k, name in parts.items()]


def _parts(value: Any) -> dict[str, str] | None:
    """The attributes that hold a cache's contents, by how a path calls them."""
    if not type(value).__module__.startswith("transformers."):
        return None
    for parts in (_SIDES, _STATES):
        if all(hasattr(value, name) for name in parts.values()):
            return parts
    return None


def _layers(value: Any) -> list[Any] | None:
    """The layers of a cache, each of which holds a key and a value."""
    layers = getattr(value, "layers", None)
    if not type(value).__module__.startswith("transformers.") or not isinstance(layers, list):
        return None
    return layers if all(_parts(layer) for layer in layers) else None


def replace(value: Any, leaf: Any) -> Any:
    """A copy of a nested value in which every leaf ``x`` is ``leaf(x)``."""
    if isinstance(value, Mapping):
        items = {key: replace(item, leaf) for key, item in value.items()}
        if type(value) is dict or not isinstance(value, MutableMapping):
            return items
        mapping = copy.copy(value)
        mapping.update(items)
        return mapping
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(replace(item, leaf) for item in value))
    if isinstance(value, (list, tuple)) and not isinstance(value, torch.Size):
        return type(value)([replace(item, leaf) for item in value])
    names = _held(value)
    if names is None:
        return leaf(value)
    # Not through its constructor, which may compute and would do so a second time.
    record = copy.copy(value)
    for name in names:
        object.__setattr__(record, name, replace(getattr(value, name), leaf))
    return record


def _held(value: Any) -> Sequence[str] | None:
    """The attributes of a dataclass or cache that a copy of it has for itself."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [field.name for field in dataclasses.fields(value)]
    if _layers(value) is not None:
        return ["layers"]
    parts = _parts(value)
    return None if parts is None else [*parts.values(), *({"is_updated"} & set(vars(value)))]


def as_declared(value: Any, parameter: inspect.Parameter, module: torch.nn.Module) -> Any:
    """Nested dicts and tuples as what a parameter is annotated with: a dataclass, or a cache.

    Raises InputError for fields that a dataclass lacks, or that have no value.
    """
    if takes_cache(value, parameter):
        return _cache(value, sys.modules["transformers.cache_utils"])
    kind = _annotation(parameter, module)
    return _record(kind, value, parameter.name) if isinstance(value, dict) and kind else value


def takes_cache(value: Any, parameter: inspect.Parameter) -> bool:
    """Whether nested dicts and tuples are a cache's, and a parameter takes one."""
    sides = value.values() if isinstance(value, dict) and set(value) == set(_SIDES) else [value]
    layers = [layer for side in sides if isinstance(side, tuple) for layer in side]
    like = all(isinstance(layer, dict) and set(layer) == set(_STATES) for layer in layers)
    known = "transformers.cache_utils" in sys.modules and "Cache" in str(parameter.annotation)
    return known and like and bool(layers)


def _cache(value: Any, library: Any) -> Any:
    if isinstance(value, dict):
        sides = [_cache(value[name], library) for name in _SIDES]
        made = library.EncoderDecoderCache(library.DynamicCache(), library.DynamicCache())
        made.self_attention_cache, made.cross_attention_cache = sides
        made.is_updated = dict.fromkeys(range(len(sides[1].layers)), True)
        return made
    made = library.DynamicCache()
    for layer in value:
        made.layers.append(library.DynamicLayer())
        made.layers[-1].keys, made.layers[-1].values = layer["key"], layer["value"]
        made.layers[-1].is_initialized = True
    return made


def _annotation(parameter: inspect.Parameter, module: torch.nn.Module) -> type | None:
    """The dataclass that a parameter takes, if it is one, or one or None."""
    try:
        kind = typing.get_type_hints(module.forward).get(parameter.name)
    except Exception:  # noqa: BLE001 (the annotations are the user's code)
        return None
    kinds = [one for one in (kind, *typing.get_args(kind)) if isinstance(one, type)]
    return next((one for one in kinds if dataclasses.is_dataclass(one)), None)


def _record(kind: Any, values: Mapping[str, Any], name: str) -> Any:
    fields = {field.name: field for field in dataclasses.fields(kind)}
    unknown = [key for key in values if key not in fields]
    if unknown:
        raise InputError(
            f"{name} is of type {kind.__name__}, which has no field {unknown[0]!r}",
            f"Its fields are {', '.join(fields)}.",
        )
    record = object.__new__(kind)
    for key, field in fields.items():
        if key in values:
            found = values[key]
        elif field.default is not dataclasses.MISSING:
            found = field.default
        elif field.default_factory is not dataclasses.MISSING:
            found = field.default_factory()
        else:
            raise InputError(
                f"{name} is of type {kind.__name__}, whose field {key!r} has no value",
                f"Describe it too, for example --input '{name}.{key}:float32[3]', or =None.",
            )
        object.__setattr__(record, key, found)
    return record
