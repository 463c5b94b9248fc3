"""Does the exporter's translation of an operator take the arguments at hand? Read in its source.

It requires some that the operator itself has a default for, and refuses others in its body. What
does not hold for certain is a doubt, which translating settles.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

_PLAIN = frozenset({"int", "float", "str", "bool", "Sequence[int]", "Sequence[float]"})
"""Annotations of what becomes an ONNX attribute, which has to have a value."""


@dataclass(frozen=True)
class _Required:
    """A parameter without a default; ``place`` is its position, None for a keyword alone."""

    name: str
    place: int | None
    attribute: bool

    def given(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
        """Whether a call gives it."""
        if self.place is not None and self.place < len(args):
            return not (self.attribute and args[self.place] is None)
        return self.name in kwargs and not (self.attribute and kwargs[self.name] is None)


@dataclass(frozen=True)
class _Form:
    """What a translation requires, and whether its body can refuse something."""

    required: tuple[_Required, ...]
    refuses: bool


@cache
def _form(text: str) -> _Form:
    """A translation's function, of its text."""
    function = ast.parse(text).body[0]
    assert isinstance(function, ast.FunctionDef)
    given = function.args
    places = [*given.posonlyargs, *given.args]
    count = len(places) - len(given.defaults)
    required = [_required(arg, place) for place, arg in enumerate(places[:count])]
    words = zip(given.kwonlyargs, given.kw_defaults, strict=True)
    required += [_required(arg, None) for arg, default in words if default is None]
    refuses = any(isinstance(node, ast.Raise | ast.Assert) for node in ast.walk(function))
    return _Form(tuple(required), refuses)


def _required(arg: ast.arg, place: int | None) -> _Required:
    attribute = arg.annotation is not None and ast.unparse(arg.annotation) in _PLAIN
    return _Required(arg.arg, place, attribute)


def taken(name: str, texts: Sequence[str], args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether all translations of an operator take a call's arguments for certain.

    ``texts`` are their functions; tensors among the arguments may be without data.
    """
    for text in texts:
        form = _form(text)
        if not all(parameter.given(args, kwargs) for parameter in form.required):
            return False
        if form.refuses and not (name in _ACCEPTED and _ACCEPTED[name](*args, **kwargs)):
            return False
    return True


def _always(*_: Any, **__: Any) -> bool:
    """The body refuses only what PyTorch refuses itself."""
    return True


def _of_one_dtype(x: Any, other: Any, **_: Any) -> bool:
    tensors = isinstance(x, torch.Tensor) and isinstance(other, torch.Tensor)
    return tensors and x.dtype == other.dtype


def _of_whole_numbers(x: Any, other: Any, **_: Any) -> bool:
    return _of_one_dtype(x, other) and not x.is_floating_point()


def _a_number(x: Any, *_: Any, **__: Any) -> bool:
    return isinstance(x, torch.Tensor) and x.dtype != torch.bool


def _concatenated(tensors: Any, *_: Any, **__: Any) -> bool:
    return any(tensor.dim() > 1 or str(tensor.shape[0]) != "0" for tensor in tensors)


def _linear(_: Any, weight: Any, *__: Any, **___: Any) -> bool:
    return bool(weight.dim() == 2)


def _attention(
    query: Any,
    key: Any,
    value: Any,
    mask: Any = None,
    _dropout: float = 0.0,
    is_causal: bool = False,
    **options: Any,
) -> bool:
    heads = [tensor.shape[1] for tensor in (query, key, value) if tensor.dim() == 4]
    masked = options.get("attn_mask", mask) is not None
    return len(heads) == 3 and len(set(heads)) == 1 and not (is_causal and masked)


_ACCEPTED: dict[str, Callable[..., bool]] = {
    "aten::bitwise_and.Tensor": _of_whole_numbers,
    "aten::bitwise_not": lambda x: not x.is_floating_point(),
    "aten::bitwise_or.Tensor": _of_whole_numbers,
    "aten::bitwise_xor.Tensor": _of_whole_numbers,
    "aten::cat": _concatenated,
    "aten::div.Tensor_mode": _a_number,
    "aten::floor_divide": _a_number,
    "aten::index_put": _always,
    "aten::linear": _linear,
    "aten::logical_and": _of_one_dtype,
    "aten::logical_or": _of_one_dtype,
    "aten::logical_xor": _of_one_dtype,
    "aten::roll": _always,
    "aten::scaled_dot_product_attention": _attention,
    "aten::scatter_reduce.two": _always,
    "aten::upsample_bilinear2d.vec": _always,
    "aten::upsample_nearest1d.vec": _always,
    "aten::upsample_nearest2d.vec": _always,
    "aten::upsample_nearest3d.vec": _always,
}
"""Of the translations that can refuse something, for frequent ones what they take for certain."""
