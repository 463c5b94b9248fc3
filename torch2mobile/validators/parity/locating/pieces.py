"""An artefact's pieces in a worker process, loaded once; after a crash in another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch2mobile.environments import Worker
from torch2mobile.validators.parity.locating.portrait import Portrait
from torch2mobile.validators.parity.locating.slices import Glance, Topology

if TYPE_CHECKING:
    import numpy as np

LOADER = "torch2mobile.validators.parity.locating.slices:Sliced"
PRELOAD = (
    "onnxruntime",
    "onnx.reference.ops._op_list",
    "torch2mobile.validators.parity.locating.slices",
)


class Process:
    """A worker process without torch, started anew after a crash."""

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self.generation = 0
        self._worker: Worker | None = Worker(preload=PRELOAD)

    def call(self, function: str, *args: Any, timeout: float) -> Any:
        """Call a function in the process."""
        if self._worker is None or not self._worker.alive:
            self.close()
            self._worker = Worker(preload=PRELOAD)
            self.generation += 1
        return self._worker.call(
            f"torch2mobile.worker_process:{function}", *args, timeout=min(timeout, self.timeout)
        )

    @property
    def alive(self) -> bool:
        """Whether what was loaded is still there."""
        return self._worker is not None and self._worker.alive

    def close(self) -> None:
        """End the process."""
        if self._worker is not None:
            self._worker.close()
        self._worker = None

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


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
