"""The mended translations as torch.onnx.export takes them, and which of them a model used."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir
import torch

from torch2mobile.errors import TranslateError
from torch2mobile.exporter.translations import ROWS
from torch2mobile.exporter.translations.row import Refused, Row

TESTED = ">=2.13,<2.14"
"""The versions of torch whose registration API this is."""
_ARGUMENT = "custom_translation_table"


class RegistrationError(TranslateError):
    """The installed torch takes translations in another way."""


@dataclass
class Table:
    """One translation's table; ``used`` has the rows that translated something, by name."""

    used: dict[str, Row] = field(default_factory=dict)
    _exporters: Any = None

    @contextlib.contextmanager
    def overhearing(self) -> Iterator[None]:
        """What the exporter reads of its own translations, while it runs, serves here too."""
        from torch.onnx._internal.exporter import _registration

        registry: Any = _registration.ONNXRegistry
        original = vars(registry)["from_torchlib"]
        read = registry.from_torchlib

        def kept(*opset: int, **named: int) -> Any:
            self._exporters = read(*opset, **named)
            return self._exporters

        registry.from_torchlib = staticmethod(kept)
        try:
            yield
        finally:
            registry.from_torchlib = original

    def functions(self) -> dict[Any, Callable[..., Any]]:
        """By operator, what translates it; RegistrationError on a torch that takes no such table.

        Rows of operators that this torch does not have or need are left out.
        """
        if _ARGUMENT not in inspect.signature(torch.onnx.export).parameters:
            raise RegistrationError(
                f"torch.onnx.export of torch {torch.__version__} takes no {_ARGUMENT}, "
                "by which operators are mended",
                f"Install torch{TESTED}, or leave them as they are with --no-mend.",
            )
        return {target: self._function(row, target) for row, target in _targets()}

    def _function(self, row: Row, target: Any) -> Callable[..., Any]:
        def translate(*args: Any, **kwargs: Any) -> Any:
            found: Any = NotImplemented
            if _covered(row, (*args, *kwargs.values())):
                found = row.function(*args, **kwargs)
            if found is NotImplemented:
                return self._upstream(row, target, args, kwargs)(*args, **kwargs)
            self.used[row.name] = row
            return found

        return translate

    def _upstream(self, row: Row, target: Any, args: Any, kwargs: Any) -> Callable[..., Any]:
        """The exporter's own translation; Refused where it has none."""
        for meta in self._exporters.get_decomps(target):
            if not (meta.is_complex or meta.is_custom):
                function: Callable[..., Any] = meta.onnx_function
                return function
        tensors = [value for value in _flat((*args, *kwargs.values())) if _is_value(value)]
        shown = ", ".join(str(value.dtype).lower() for value in tensors)
        raise Refused(f"{row.name} of {shown} with these arguments is not covered")


def operators() -> dict[Any, Row]:
    """The operators that are mended in the installed torch."""
    return {target: row for row, target in _targets()}


def _targets() -> Iterator[tuple[Row, Any]]:
    for row in ROWS:
        if not row.needed(torch.__version__):
            continue
        for name in row.operators:
            target = _overload(name)
            if target is not None:
                yield row, target


def _overload(name: str) -> Any:
    """``aten::sort.stable`` as torch's operator; None where it has none of that name."""
    space, _, rest = name.partition("::")
    packet, _, overload = rest.partition(".")
    found = getattr(getattr(torch.ops, space), packet, None)
    return getattr(found, overload or "default", None)


def _is_value(argument: Any) -> bool:
    return isinstance(argument, ir.Value)


def _flat(arguments: Any) -> Iterator[Any]:
    for argument in arguments:
        if isinstance(argument, list | tuple):
            yield from _flat(argument)
        else:
            yield argument


def _covered(row: Row, arguments: Any) -> bool:
    """Whether the first tensor's dtype is one that the row covers."""
    first = next((value for value in _flat(arguments) if _is_value(value)), None)
    if first is None:
        return True
    return first.dtype is not None and _name(first.dtype) in row.dtypes


def _name(dtype: ir.DataType) -> str:
    """numpy's name of a dtype, as rows have it."""
    return {"FLOAT": "float32", "DOUBLE": "float64"}.get(dtype.name, dtype.name.lower())
