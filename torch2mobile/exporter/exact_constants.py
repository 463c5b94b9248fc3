"""Keeps small constants in the file, which the exporter's rewriting takes for 0 or for 1."""

from __future__ import annotations

import contextlib
import importlib
import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any


def _isclose(found: float, wanted: float, *, rel_tol: float = 1e-9, abs_tol: float = 0.0) -> bool:  # noqa: ARG001
    """As math.isclose, but nothing else is 0 or 1: ``x + 1e-12`` is not ``x`` where x is 0."""
    if wanted in {0, 1}:
        return found == wanted
    return math.isclose(found, wanted, rel_tol=rel_tol)


@contextlib.contextmanager
def exact_constants() -> Iterator[None]:
    """While a graph is rewritten by onnxscript's rules, constants in them match as they are.

    On an onnxscript that matches otherwise, nothing is replaced.
    """
    matcher: Any = importlib.import_module("onnxscript.rewriter._matcher")
    if getattr(matcher, "math", None) is not math:
        yield
        return
    matcher.math = SimpleNamespace(isclose=_isclose)
    try:
        yield
    finally:
        matcher.math = math
