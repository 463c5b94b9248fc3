"""The user's functions as syntax trees with the line numbers of their files."""

from __future__ import annotations

import ast
import inspect
import textwrap
from dataclasses import dataclass, field
from typing import Any

from torch2mobile.validators.coverage.lint_context import Blame


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

    blame: Blame
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
        try:
            file = inspect.getsourcefile(function) or ""
            if not self.blame.is_user_file(file):
                return None
            lines, start = inspect.getsourcelines(function)
            tree = ast.parse(textwrap.dedent("".join(lines))).body[0]
        except (OSError, TypeError, SyntaxError, IndexError):
            return None
        if not isinstance(tree, ast.FunctionDef):
            return None
        ast.increment_lineno(tree, start - 1)
        return Code(file, tree, _names(function), _defaults(function))


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
