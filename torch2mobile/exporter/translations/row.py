"""One mended operator, and how a translation says that it does not cover a call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

FLOATS = ("float16", "float32", "float64")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8")
REALS = (*FLOATS, *INTEGERS)


class Refused(Exception):  # noqa: N818 (what is refused is a call, for a reason)
    """A call that a translation does not cover, nor the exporter's own; the text is the reason."""


@dataclass(frozen=True)
class Row:
    """An operator of PyTorch that torch2mobile translates in place of the exporter.

    ``function`` takes the operator's arguments, tensors as ONNX values, and returns ONNX values. It
    returns NotImplemented for a call that is the exporter's own business, and raises Refused for
    one that nothing covers. ``fault`` says whether the exporter's translation is wrong or missing,
    ``what`` in a few words how. ``dtypes`` are those of the first tensor that it covers, ``since``
    and ``until`` the versions of torch that need it, the last not included.
    """

    name: str
    operators: tuple[str, ...]
    function: Callable[..., Any]
    fault: Literal["wrong", "missing"]
    what: str
    dtypes: tuple[str, ...] = FLOATS
    link: str = ""
    since: str = "2.13"
    until: str = ""

    @property
    def versions(self) -> str:
        """The versions of torch that need it: ``>=2.13``, or ``>=2.13,<2.15``."""
        return f">={self.since}" + (f",<{self.until}" if self.until else "")

    def needed(self, version: str) -> bool:
        """Whether this version of torch, such as ``2.13.0+cpu``, needs it."""
        found = _numbers(version)
        return _numbers(self.since) <= found and not (self.until and found >= _numbers(self.until))


def _numbers(version: str) -> tuple[int, ...]:
    """``2.13.0+cpu`` as (2, 13)."""
    parts = version.split("+", 1)[0].split(".")[:2]
    return tuple(int("".join(c for c in part if c.isdigit()) or 0) for part in parts)
