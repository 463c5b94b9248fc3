"""The user's line behind a symptom: the first NaN, a random operator, an input that got lost."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch.fx import Interpreter, Node

from torch2mobile.exporter import blame
from torch2mobile.records import Capture, Location
from torch2mobile.tensors import quiet, to_torch

if TYPE_CHECKING:
    import numpy as np

# The arguments by which an operator that can be random is not.
_SWITCHES = ("train", "training", "dropout_p")


class _Found(Exception):  # noqa: N818 (a signal out of the interpreter, not an error)
    def __init__(self, node: Node) -> None:
        super().__init__(node.name)
        self.node = node


class _NanWatch(Interpreter):
    """Stops at the first operator that makes NaN from inputs without any."""

    def run_node(self, n: Node) -> Any:
        result = super().run_node(n)
        floating = isinstance(result, torch.Tensor) and result.is_floating_point()
        if n.op == "call_function" and floating and bool(torch.isnan(result).any()):
            raise _Found(n)
        return result


def _location(node: Node) -> Location | None:
    place = blame.from_trace_text(node.meta.get("stack_trace") or "")
    if place is None:
        return None
    scopes = node.meta.get("nn_module_stack") or {}
    path = [str(entry[0]) for entry in scopes.values()][-1:]
    module = (
        path[0].removeprefix("L['self'].").removeprefix("inner").removeprefix(".") if path else ""
    )
    return Location(
        module=module, file=place.file, line=place.line, code=place.code, op=str(node.target)
    )


def first_nan(capture: Capture, feeds: Mapping[str, np.ndarray]) -> tuple[Location, ...]:
    """The line whose operator first gives NaN on these inputs."""
    if capture.program is None:
        return ()
    module = capture.program.module(check_guards=False)
    tensors = [to_torch(feeds[spec.name]) for spec in capture.inputs]
    try:
        with torch.no_grad(), quiet():
            _NanWatch(module).run(*tensors)
    except _Found as found:
        place = _location(found.node)
        return (place,) if place else ()
    except Exception:  # noqa: BLE001 (a search for a hint must not become a failure of its own)
        return ()
    return ()


def random_operators(capture: Capture) -> tuple[Location, ...]:
    """The lines that call an operator with random results."""
    if capture.program is None:
        return ()
    nodes = [node for node in capture.program.graph.nodes if _is_random(node)]
    return tuple(dict.fromkeys(place for node in nodes if (place := _location(node))))


def _is_random(node: Node) -> bool:
    operator = node.target
    if not isinstance(operator, torch._ops.OpOverload):
        return False
    if torch.Tag.nondeterministic_seeded not in operator.tags:
        return False
    for index, argument in enumerate(operator._schema.arguments):
        if argument.name in _SWITCHES:
            given = node.args[index] if index < len(node.args) else argument.default_value
            return bool(node.kwargs.get(argument.name, given))
    return True


def readers_of(capture: Capture, name: str) -> tuple[Location, ...]:
    """The lines of the module's own forward that read this input."""
    spec = next((spec for spec in capture.inputs if spec.name == name), None)
    module = capture.loaded.module
    if spec is None:
        return ()
    parameter = str(spec.path[0])
    try:
        lines, start = inspect.getsourcelines(type(module).forward)
        filename = inspect.getsourcefile(type(module).forward) or ""
        tree = ast.parse(textwrap.dedent("".join(lines)))
    except (OSError, TypeError, SyntaxError):
        return ()
    if not blame.is_user_file(filename):
        return ()  # the code that torch made of a saved program
    numbers = sorted(
        {
            node.lineno
            for node in ast.walk(tree)
            if isinstance(node, ast.Name)
            and node.id == parameter
            and isinstance(node.ctx, ast.Load)
        }
    )
    return tuple(blame.location(filename, start + number - 1) for number in numbers)
