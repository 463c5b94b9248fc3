"""What is put into a module: dimensions, values, and specifications of inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

Scalar = bool | int | float | str | None


PathKey = str | int


@dataclass(frozen=True)
class Dim:
    """One dimension of an input: a fixed ``size``, or ``factor * symbol + offset``.

    ``least`` and ``greatest`` bound the symbol (not the size); None means undeclared. ``others``
    are multiples of other symbols that are added: ``P + T``.
    """

    size: int | None = None
    symbol: str | None = None
    factor: int = 1
    least: int | None = None
    greatest: int | None = None
    offset: int = 0
    others: tuple[Dim, ...] = ()

    @property
    def label(self) -> int | str:
        """The dimension as ONNX shows it: ``3``, ``"H"``, ``"8*h"``, ``"P + 1"``."""
        if self.symbol is None:
            return self.size if self.size is not None else -1
        own = self.symbol if self.factor == 1 else f"{self.factor}*{self.symbol}"
        label = " + ".join([own, *(str(other.label) for other in self.others)])
        sign = "-" if self.offset < 0 else "+"
        return f"{label} {sign} {abs(self.offset)}" if self.offset else label

    @property
    def terms(self) -> tuple[Dim, ...]:
        """The multiples of symbols that make the size, without the offset; none if it is fixed."""
        return () if self.symbol is None else (replace(self, offset=0, others=()), *self.others)

    @property
    def ends(self) -> tuple[int, int | None]:
        """The least and greatest size, undeclared symbols being at least 1."""
        if self.symbol is None:
            return self.size or 0, self.size
        low = sum(term.factor * (1 if term.least is None else term.least) for term in self.terms)
        tops = [term.greatest and term.factor * term.greatest for term in self.terms]
        high = None if None in tops else sum(top or 0 for top in tops) + self.offset
        return low + self.offset, high

    def at(self, sizes: Mapping[str, int]) -> int:
        """The size of this dimension when the symbols have these values."""
        if self.symbol is None:
            return self.size if self.size is not None else 0
        own = self.factor * sizes[self.symbol] + self.offset
        return own + sum(other.at(sizes) for other in self.others)

    def solved(self, size: int, sizes: Mapping[str, int]) -> tuple[str, int, int] | None:
        """What the one symbol that ``sizes`` lacks is where this dimension is ``size``.

        Its name, its value and what its factor leaves; None where ``sizes`` lacks none or several.
        """
        unknown = [term for term in self.terms if term.symbol not in sizes]
        if len(unknown) != 1:
            return None
        known = {**sizes, str(unknown[0].symbol): 0}
        return str(unknown[0].symbol), *divmod(size - self.at(known), unknown[0].factor)


KindOfValues = Literal[
    "range", "uniform", "normal", "padding", "causal", "lengths", "offsets", "sorted", "one-hot",
    "nonzero", "choice",
]  # fmt: skip


@dataclass(frozen=True)
class Values:
    """The values an input may take: a closed range, a distribution to draw from, or a form.

    ``low``/``high`` are the ends for ``range`` and ``uniform``, mean and standard deviation
    for ``normal``; of ``sorted`` and ``nonzero`` the ends, none where both are 0. ``numbers`` are
    those of a ``choice``, ``side`` where ``padding`` stands, and ``of`` is the size that
    ``lengths`` and ``offsets`` count. ``suggested`` tells that only the input's name says so.
    """

    kind: KindOfValues
    low: float = 0
    high: float = 0
    numbers: tuple[float, ...] = ()
    side: Literal["left", "right"] = "right"
    of: Dim | None = None
    suggested: bool = False


@dataclass(frozen=True)
class InputSpec:
    """One tensor input: its ONNX name, where it goes in the call, dtype, dimensions, values.

    ``path`` leads to the leaf: a parameter name (or position) of ``forward``, then the keys and
    indices of nested containers. ``dtype`` is numpy's name (``float32``, ``int64``, ``bool`` …).
    """

    name: str
    path: tuple[PathKey, ...]
    dtype: str
    dims: tuple[Dim, ...]
    values: Values | None = None


@dataclass(frozen=True)
class ConstantSpec:
    """An input that is no tensor (None, a Python number, a string): fixed at export."""

    path: tuple[PathKey, ...]
    value: Scalar


@dataclass(frozen=True)
class StateSpec:
    """A tensor that a module keeps from call to call: an input of the file, and an output after it.

    ``name`` is the input's. It is kept in an ``attribute`` of a submodule, or at ``path`` in it.
    """

    name: str
    module: str
    attribute: str
    path: tuple[PathKey, ...] = ()

    @property
    def place(self) -> str:
        """Where the module keeps it, as Python would name it."""
        return ".".join(map(str, (*filter(None, [self.module]), self.attribute, *self.path)))
