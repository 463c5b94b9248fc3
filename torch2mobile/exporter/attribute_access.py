"""The lines of a module's own source that read an input, or write into an attribute."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from torch2mobile import user_code
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
    forward = user_code.function(type(capture.loaded.module).forward)
    if forward is None:
        return ()
    reads = {
        node.lineno
        for node in ast.walk(forward.tree)
        if isinstance(node, ast.Name) and node.id == parameter and isinstance(node.ctx, ast.Load)
    }
    return tuple(user_code.location(forward.file, line) for line in sorted(reads))


def writers_of(module: torch.nn.Module, names: Sequence[str]) -> tuple[Location, ...]:
    """The lines that change these attributes (``"block.count"``), outside of ``__init__``."""
    places: dict[tuple[str, int], Location] = {}
    layers = dict(module.named_modules())
    for name in names:
        path, _, attribute = name.rpartition(".")
        while path not in layers:  # a layer that a call has made
            path, _, attribute = path.rpartition(".")
        owner = type(layers[path])
        methods = [
            m for kind in owner.__mro__ for key, m in vars(kind).items() if key != "__init__"
        ]
        for own in filter(None, map(user_code.function, methods)):
            for line in sorted(set(_writes(own.tree, attribute))):
                where = user_code.location(own.file, line, module=path)
                places.setdefault((own.file, line), where)
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
