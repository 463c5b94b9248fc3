"""An artefact's pieces in a worker process, loaded once; after a crash in another one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch2mobile.isolation import Process
from torch2mobile.validators.parity.locating.portrait import Portrait
from torch2mobile.validators.parity.locating.slices import Glance, Topology

if TYPE_CHECKING:
    import numpy as np

    from torch2mobile.validators.parity.locating.suspects import Question

LOADER = "torch2mobile.validators.parity.locating.slices:Sliced"
PRELOAD = (
    "onnxruntime",
    "onnx.reference.ops._op_list",
    "torch2mobile.validators.parity.locating.slices",
)


def process_of_pieces(timeout: float) -> Process:
    """A process that has begun to import what pieces need."""
    return Process(PRELOAD, timeout)


class Pieces:
    """A :class:`torch2mobile.validators.parity.locating.slices.Sliced` in a process."""

    def __init__(self, path: Path, process: Process) -> None:
        self._path, self._process = path, process
        self._handle, self._generation = -1, -1

    def _call(self, method: str, *args: Any, timeout: float = float("inf")) -> Any:
        process = self._process
        if self._generation != process.generation or not process.alive:
            self._handle = process.call("make", LOADER, (self._path,), timeout=timeout)
            self._generation = process.generation
        return process.call("method", self._handle, method, args, timeout=timeout)

    @cached_property
    def topology(self) -> Topology:
        """Inputs, outputs and nodes."""
        found: Topology = self._call("topology")
        return found

    def run(
        self, numbers: Sequence[int], feeds: Mapping[str, Any], wanted: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """What these nodes give in ONNX Runtime, without its graph optimisations."""
        found: dict[str, np.ndarray] = self._call("run", list(numbers), feeds, list(wanted))
        return found

    def compared(
        self, numbers: Sequence[int], feeds: Mapping[str, Any], wanted: Sequence[str]
    ) -> tuple[dict[str, Glance], dict[str, np.ndarray]]:
        """What :meth:`run` gives: judged where a glance suffices, and else the values."""
        found: tuple[dict[str, Glance], dict[str, np.ndarray]]
        found = self._call("compared", list(numbers), feeds, list(wanted))
        return found

    def evaluate(
        self,
        numbers: Sequence[int],
        feeds: Mapping[str, Any],
        wanted: Sequence[str],
        timeout: float,
    ) -> dict[str, np.ndarray]:
        """The same by onnx's reference implementation; raises what :meth:`run` does."""
        found: dict[str, np.ndarray] = self._call(
            "evaluate", list(numbers), feeds, list(wanted), timeout=timeout
        )
        return found

    def whole(
        self, feeds: Mapping[str, Any], exposed: Sequence[str] = (), *, optimised: bool = True
    ) -> list[tuple[str, np.ndarray]]:
        """The artefact's outputs in its order, then the ``exposed`` inner values."""
        found = self._call("whole", dict(feeds), list(exposed), optimised)
        return list(found.items())

    def forget(self) -> None:
        """Give the memory back in the process, if that is still there."""
        if self._generation == self._process.generation and self._process.alive:
            self._call("forget")

    def portrait(self, value: str) -> Portrait | None:
        """The node that gives a value, to be compared with another; None where there is none."""
        found: Portrait | None = self._call("portrait", value)
        return found


def translations_of(question: Question, process: Process, makers: Collection[str]) -> list[Pieces]:
    """The module's own translations, the one that is more like the artefact first.

    ``makers`` are the values that the artefact makes.
    """

    def likeness(pieces: Pieces) -> int:
        return len({n for info in pieces.topology.nodes for n in info.outputs} & {*makers})

    found = [Pieces(question.fresh, process)] if question.fresh else []
    # Names that the translation does not have: onnxsim may have made them.
    if found and question.simplify and likeness(found[0]) < len(makers):
        simplified = question.simplify()
        found += [Pieces(simplified, process)] if simplified else []
    return sorted(found, key=likeness, reverse=True)
