"""The user's functions as syntax trees with the line numbers of their files."""

from __future__ import annotations

import ast
import inspect
from dataclasses import dataclass, field
from typing import Any

from torch2mobile import user_code


@dataclass(frozen=True)
class Code:
    """One function of the user's: where it stands, its tree, and the names that it sees."""

    file: str
    tree: ast.FunctionDef
    names: dict[str, Any]
    defaults: dict[str, Any]


@dataclass
class Library:
    """Finds functions' code, each once."""

    _known: dict[Any, Code | None] = field(default_factory=dict)

    def find(self, function: Any) -> Code | None:
        """The code of a function or method; None where it is not the user's or has no source."""
        plain = inspect.unwrap(getattr(function, "__func__", function))
        key = getattr(plain, "__code__", None)
        if key is None:
            return None
        # Functions made in a loop share their code, but not what they close over.
        closed = tuple(id(cell) for cell in plain.__closure__ or ())
        if (key, closed) not in self._known:
            self._known[key, closed] = self._read(plain)
        return self._known[key, closed]

    def _read(self, function: Any) -> Code | None:
        found = user_code.function(function)
        if found is None:
            return None
        return Code(found.file, found.tree, _names(function), _defaults(function))


def _names(function: Any) -> dict[str, Any]:
    """Globals, overlaid by what the function closes over."""
    closed = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            closed[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    return {**function.__globals__, **closed}


def _defaults(function: Any) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}
