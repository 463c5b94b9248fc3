"""What an observed call leaves behind: rules seen at lines, and what ran."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from types import CodeType, FrameType
from typing import TYPE_CHECKING

from torch2mobile import user_code

if TYPE_CHECKING:
    import torch

Frames = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Place:
    """A line of the user's, the layer that it runs in, and the user's lines that led to it."""

    file: str
    line: int
    module: str
    frames: Frames = field(default=(), compare=False)


@dataclass(frozen=True)
class Sighting:
    """A rule's code at a place."""

    code: str
    place: Place
    message: str = ""


@dataclass(frozen=True)
class Read:
    """A tensor's data became a Python value at a place, by a method of this name."""

    name: str
    place: Place


class Stack:
    """Finds the user's lines among the frames of a call of ``root``, which ``stop`` begins."""

    def __init__(self, root: torch.nn.Module, stop: CodeType) -> None:
        self.paths = {id(module): path for path, module in root.named_modules()}
        self._stop = stop
        self._files: dict[str, bool] = {}

    def is_users(self, code: CodeType) -> bool:
        """Whether a function stands in a file of the user's, or of a library that it uses."""
        name = code.co_filename
        if name not in self._files:
            self._files[name] = user_code.is_user_file(name)
        return self._files[name]

    def up(self, frame: FrameType | None) -> Iterator[FrameType]:
        """The frames of the call from this one outwards."""
        return user_code.running(frame, self._stop)

    def lines(self, frame: FrameType | None) -> Iterator[tuple[str, int]]:
        """The user's lines that are running, from the innermost outwards."""
        for each in self.up(frame):
            if self.is_users(each.f_code):
                yield each.f_code.co_filename, each.f_lineno

    def place(self, frame: FrameType | None) -> Place | None:
        """The innermost of the user's lines that are running."""
        found: list[tuple[str, int]] = []
        module: str | None = None
        for each in self.up(frame):
            if self.is_users(each.f_code):
                found.append((each.f_code.co_filename, each.f_lineno))
            if found and module is None:
                module = self.paths.get(id(each.f_locals.get("self")))
        return Place(*found[0], module or "", tuple(reversed(found))) if found else None


@dataclass
class Observation:
    """All that one call showed.

    ``uses`` are the lines that read an input, by name; ``kept`` what may hold something for a later
    call: a layer's path, an attribute and where it is set; ``ran`` the user's functions, with the
    place of their first call; ``touched`` the lines that work on tensors. ``failure`` is what the
    call ended with before its end, if it did.
    """

    sightings: dict[Sighting, None] = field(default_factory=dict)
    reads: dict[Read, None] = field(default_factory=dict)
    uses: dict[str, set[tuple[str, int]]] = field(default_factory=dict)
    kept: list[tuple[str, str, Sighting]] = field(default_factory=list)
    ran: dict[CodeType, Place] = field(default_factory=dict)
    touched: set[tuple[str, int]] = field(default_factory=set)
    failure: str = ""

    def see(self, code: str, place: Place | None, message: str = "") -> Sighting | None:
        """Keep a sighting, once; none where no line of the user's led to it."""
        if place is None:
            return None
        sighting = Sighting(code, place, message)
        self.sightings.setdefault(sighting)
        return sighting
