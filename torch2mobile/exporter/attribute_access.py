"""The lines of a module's own source that read an input, or write into an attribute."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from torch2mobile.exporter import blame
from torch2mobile.records import Capture, Location

if TYPE_CHECKING:
    import torch

# Methods that change what they are called on, beside torch's own, which end in "_".
_CHANGING = {"add", "append", "appendleft", "clear", "extend", "insert", "pop", "popleft"}
_CHANGING |= {"remove", "setdefault", "update"}


def readers_of(capture: Capture, name: str) -> tuple[Location, ...]:
    """The lines of the module's own forward that read this input."""
    spec = next((spec for spec in capture.inputs if spec.name == name), None)
    if spec is None:
        return ()
    parameter = str(spec.path[0])
    reads = [
        (filename, node.lineno)
        for filename, tree in _source(type(capture.loaded.module).forward)
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and node.id == parameter and isinstance(node.ctx, ast.Load)
    ]
    return tuple(blame.location(*place) for place in sorted(set(reads)))


def writers_of(module: torch.nn.Module, names: Sequence[str]) -> tuple[Location, ...]:
    """The lines that change these attributes (``"block.count"``), outside of ``__init__``."""
    places: dict[tuple[str, int], Location] = {}
    for name in names:
        path, _, attribute = name.rpartition(".")
        owner = type(module.get_submodule(path))
        methods = [
            m for kind in owner.__mro__ for key, m in vars(kind).items() if key != "__init__"
        ]
        for filename, tree in (found for method in methods for found in _source(method)):
            for line in sorted(set(_writes(tree, attribute))):
                where = blame.location(filename, line, module=path)
                places.setdefault((filename, line), where)
    return tuple(places.values())


def _writes(tree: ast.AST, attribute: str) -> Iterator[int]:
    for node in ast.walk(tree):
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AugAssign | ast.AnnAssign):
            targets = [node.target]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            method = node.func.attr
            if method in _CHANGING or (method.endswith("_") and not method.endswith("__")):
                targets = [node.func.value]
        inner = [part for target in targets for part in _parts(target)]
        if any(_is_own(part, attribute) for part in inner):
            yield targets[0].lineno


def _parts(target: ast.expr) -> list[ast.expr]:
    """What a target writes into: ``self.a[0]``, ``self.a.data``, ``self.a, b`` all hold self.a."""
    if isinstance(target, ast.Tuple | ast.List):
        return [part for item in target.elts for part in _parts(item)]
    if isinstance(target, ast.Starred | ast.Subscript | ast.Attribute):
        return [target, *_parts(target.value)]
    return [target]


def _is_own(node: ast.expr, attribute: str) -> bool:
    own = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    return own and node.attr == attribute and node.value.id == "self"  # type: ignore[attr-defined]


def _source(function: Any) -> Iterator[tuple[str, ast.AST]]:
    """The file and the tree, with the file's line numbers, of a function of the user's."""
    try:
        lines, start = inspect.getsourcelines(function)
        filename = inspect.getsourcefile(function) or ""
        tree = ast.parse(textwrap.dedent("".join(lines)))
    except (OSError, TypeError, SyntaxError):
        return
    # Not the code that torch made of a saved program.
    if blame.is_user_file(filename):
        yield filename, ast.increment_lineno(tree, start - 1)
