"""Lists, dicts and sets that outlive a call: whether it changed them, and where."""

from __future__ import annotations

import collections
import types
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch

from torch2mobile.validators.coverage.source import syntax
from torch2mobile.validators.coverage.source.sightings import Observation

_KINDS = (list, dict, set, bytearray, collections.deque)
_LEFT_ALONE = (type, types.ModuleType, torch.nn.Module, torch.Tensor)
_DEEPEST = 3


@dataclass(frozen=True)
class _Held:
    """One of them as it was: by a layer's path and attribute, or by a global's name alone."""

    path: str | None
    name: str
    box: Any
    items: list[Any]

    def changed(self) -> bool:
        """Whether it holds something else now."""
        now = _items(self.box)
        pairs = zip(now, self.items, strict=False)
        return len(now) != len(self.items) or any(one is not other for one, other in pairs)


class Containers:
    """What a module's layers hold, and what its functions name, as it was before."""

    def __init__(self, root: torch.nn.Module) -> None:
        self._known: dict[int, _Held] = {}
        own = vars(torch.nn.Module())
        for path, module in root.named_modules():
            for name, value in vars(module).items():
                if name not in own:
                    self._add(path, name, value, 0)

    def add_globals(self, frame: FrameType) -> None:
        """The globals, and the variables around it, that a function names."""
        for name in frame.f_code.co_names:
            if name in frame.f_globals:
                self._add(None, name, frame.f_globals[name], _DEEPEST)
        for name in frame.f_code.co_freevars:
            self._add(None, name, frame.f_locals.get(name), _DEEPEST)

    def _add(self, path: str | None, name: str, value: Any, depth: int) -> None:
        if id(value) in self._known or isinstance(value, _LEFT_ALONE):
            return
        if isinstance(value, _KINDS):
            self._known[id(value)] = _Held(path, name, value, _items(value))
            inner = [(name, each) for each in _items(value)] if len(value) < 100 else []
        else:
            held = getattr(value, "__dict__", None)
            inner = [*held.items()] if isinstance(held, dict) and not callable(value) else []
        if depth < _DEEPEST:
            for inner_name, each in inner:
                self._add(path, inner_name, each, depth + 1)

    def note(self, seen: Observation) -> None:
        """Keep a sighting for each that is not as it was, at the lines that change it."""
        for held in [held for held in self._known.values() if held.changed()]:
            kind = "a global" if held.path is None else "an attribute"
            for place in syntax.changes(seen, held.name):
                sighting = seen.see("T2M142", place, f"{held.name}, {kind}, is changed")
                if sighting is not None and held.path is not None:
                    seen.kept.append((held.path, held.name, sighting))


def _items(box: Any) -> list[Any]:
    return [*box.keys(), *box.values()] if isinstance(box, dict) else list(_sorted(box))


def _sorted(box: Any) -> Iterator[Any]:
    # A set has no order to compare by.
    return iter(sorted(box, key=id)) if isinstance(box, set) else iter(box)
