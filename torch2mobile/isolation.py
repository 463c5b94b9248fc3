"""What is kept in a worker process, and loaded again after a crash: a runtime with its file."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from torch2mobile.environments import HERE, Environment, Worker
from torch2mobile.errors import Torch2MobileError

if TYPE_CHECKING:
    import numpy as np

    from torch2mobile.records import Layer, OutputSpec


class Process:
    """A worker process without torch, started anew after a crash, as ``generation`` counts.

    No call may take longer than ``timeout`` seconds.
    """

    def __init__(self, preload: Sequence[str], timeout: float) -> None:
        self._preload, self._timeout = preload, timeout
        self.generation = 0
        self._worker: Worker | None = Worker(preload=preload)

    def call(self, function: str, *args: Any, timeout: float = float("inf")) -> Any:
        """Call one of :mod:`torch2mobile.worker_process`'s functions."""
        if self._worker is None or not self._worker.alive:
            self.close()
            self._worker = Worker(preload=self._preload)
            self.generation += 1
        return self._worker.call(
            f"torch2mobile.worker_process:{function}", *args, timeout=min(timeout, self._timeout)
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


class IsolatedRunner:
    """A :class:`torch2mobile.interfaces.Runner` whose runtime lives in a worker process.

    ``loader`` names a function that returns a Runner for ``args``. ``worker`` is a process
    to share; else one is started in ``environment``, where it imports the ``preload`` modules.
    After a crash the next call starts a fresh process: one bad input does not hide the rest.
    """

    def __init__(
        self,
        loader: str,
        *args: Any,
        timeout: float,
        worker: Worker | None = None,
        environment: Environment = HERE,
        preload: Sequence[str] = (),
    ) -> None:
        self._environment, self._preload = environment, preload
        self._loader, self._args, self._timeout = loader, args, timeout
        self._worker = worker
        self._shared = worker
        self._handle: int | None = None
        self._begun_at: int | None = None
        self.load_log = ""
        self.load_seconds: float | None = None

    def start(self) -> None:
        """Start the process, which loads its modules meanwhile; what cannot start is told later."""
        with contextlib.suppress(Torch2MobileError):
            self._started()

    def _started(self) -> Worker:
        if self._worker is None:
            self._worker = Worker(preload=self._preload, environment=self._environment)
        return self._worker

    def begin(self) -> None:
        """Send the load without waiting for it; :meth:`load` fetches the answer.

        Runners that share a worker must be loaded in the order in which they began.
        """
        worker = self._started()
        self._begun_at = worker.log_position()
        worker.submit("torch2mobile.worker_process:timed", self._loader, self._args)

    def load(self) -> None:
        """Start the process if there is none, and load the file in it."""
        if self._begun_at is not None and self._worker is not None:
            start, self._begun_at = self._begun_at, None
            self._handle, self.load_seconds = self._worker.result(self._timeout)
            self.load_log = self._worker.log_since(start)
        if self._worker is None or not self._worker.alive:
            self.close()
            self._handle = None
        if self._handle is None:
            self.begin()
            self.load()

    def _call(self, function: str, *args: Any) -> Any:
        self.load()
        name = f"torch2mobile.worker_process:{function}"
        return cast("Worker", self._worker).call(name, self._handle, *args, timeout=self._timeout)

    def _method(self, name: str, *args: Any) -> Any:
        return self._call("method", name, args)

    def inputs(self) -> tuple[OutputSpec, ...]:
        """Names, dtypes and dims of the inputs, as the runtime sees them."""
        return cast("tuple[OutputSpec, ...]", self._method("inputs"))

    def outputs(self) -> tuple[OutputSpec, ...]:
        """Names, dtypes and dims of the outputs, as the runtime sees them."""
        return cast("tuple[OutputSpec, ...]", self._method("outputs"))

    def run(self, feeds: Mapping[str, np.ndarray]) -> list[tuple[str, np.ndarray]]:
        """All outputs in the artefact's order."""
        return cast("list[tuple[str, np.ndarray]]", self._method("run", dict(feeds)))

    def layers(self) -> tuple[Layer, ...]:
        """The runtime's own layers; none where it shows nothing of its inside."""
        return cast("tuple[Layer, ...]", self._call("layers"))

    def values(
        self, feeds: Mapping[str, np.ndarray], names: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """Inner values by the names that :meth:`layers` gives them."""
        return cast("dict[str, np.ndarray]", self._method("values", dict(feeds), list(names)))

    def close(self) -> None:
        """End the process, unless it is shared."""
        if self._worker is not None and self._worker is not self._shared:
            self._worker.close()
        self._worker = None

    def __enter__(self) -> IsolatedRunner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
