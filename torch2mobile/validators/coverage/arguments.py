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

from torch2mobile.validators.coverage import translations

_SYMBOLS = (torch.SymInt, torch.SymFloat, torch.SymBool)
_PLAIN = frozenset({"int", "float", "str", "bool", "Sequence[int]", "Sequence[float]"})
"""Annotations of what becomes an ONNX attribute, which has to have a value."""


@dataclass(frozen=True)
class _Parameter:
    """A parameter; ``place`` is its position, None for a keyword alone."""

    name: str
    place: int | None
    attribute: bool
    required: bool

    def takes(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
        """Whether a call gives it what it needs: an attribute is a value, and no varying size."""
        if self.place is not None and self.place < len(args):
            value = args[self.place]
        elif self.name in kwargs:
            value = kwargs[self.name]
        else:
            return not self.required
        if not self.attribute:
            return True
        if value is None:
            return not self.required
        return not any(isinstance(x, _SYMBOLS) for x in torch.utils._pytree.tree_leaves(value))


@dataclass(frozen=True)
class _Form:
    """A translation's parameters, and whether it can refuse something."""

    parameters: tuple[_Parameter, ...]
    refuses: bool


@cache
def _form(text: str) -> _Form:
    """A translation's function, of its text."""
    function = ast.parse(text).body[0]
    assert isinstance(function, ast.FunctionDef)
    given = function.args
    places = [*given.posonlyargs, *given.args]
    count = len(places) - len(given.defaults)
    parameters = [_parameter(arg, n, required=n < count) for n, arg in enumerate(places)]
    words = zip(given.kwonlyargs, given.kw_defaults, strict=True)
    parameters += [_parameter(arg, None, required=default is None) for arg, default in words]
    return _Form(tuple(parameters), _refuses(function, frozenset()))


def _parameter(arg: ast.arg, place: int | None, *, required: bool) -> _Parameter:
    said = "" if arg.annotation is None else ast.unparse(arg.annotation)
    plain = said[len("Optional[") : -1] if said.startswith("Optional[") else said
    return _Parameter(arg.arg, place, plain.removesuffix(" | None") in _PLAIN, required)


def _refuses(function: ast.AST, seen: frozenset[str]) -> bool:
    """Whether a body can raise, or that of a function of the exporter's that it calls."""
    for node in ast.walk(function):
        if isinstance(node, ast.Raise | ast.Assert):
            return True
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            name = node.func.id
            texts = () if name in seen else translations.helpers().get(name, ())
            if any(_refuses(ast.parse(text), seen | {name}) for text in texts):
                return True
    return False


def taken(name: str, texts: Sequence[str], args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether all translations of an operator take a call's arguments for certain.

    ``texts`` are their functions; tensors among the arguments may be without data.
    """
    if name in _SPLITS and not _static_shape(args[0]):
        return False
    for text in texts:
        form = _form(text)
        if not all(parameter.takes(args, kwargs) for parameter in form.parameters):
            return False
        if form.refuses and not (name in _ACCEPTED and _ACCEPTED[name](*args, **kwargs)):
            return False
    return True


def _always(*_: Any, **__: Any) -> bool:
    """The body refuses only what PyTorch refuses itself."""
    return True


def _static(*args: Any, **kwargs: Any) -> bool:
    """No size among the arguments varies."""
    leaves = torch.utils._pytree.tree_leaves((args, kwargs))
    return not any(isinstance(leaf, _SYMBOLS) for leaf in leaves)


def _static_shape(x: Any) -> bool:
    return isinstance(x, torch.Tensor) and not any(isinstance(n, torch.SymInt) for n in x.shape)


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


# How many parts there are is not known where a size varies.
_SPLITS = frozenset({"aten::split.Tensor", "aten::split_with_sizes", "aten::chunk"})
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
    "aten::pad": _always,
    "aten::roll": _static,
    "aten::scaled_dot_product_attention": _attention,
    "aten::scatter_reduce.two": _always,
    "aten::upsample_bilinear2d.vec": _always,
    "aten::upsample_nearest1d.vec": _always,
    "aten::upsample_nearest2d.vec": _always,
    "aten::upsample_nearest3d.vec": _always,
}
"""Of the translations that can refuse something, for frequent ones what they take for certain."""
