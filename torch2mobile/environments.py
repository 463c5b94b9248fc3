"""Where code runs: calls in a fresh process, so that a crash, a hang or a stray import stays there.

A worker is a new Python that reads pickled requests from its parent and answers them one by one.
Both ends are this same file; nothing but this package's own parent ever writes to the pipe.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

from torch2mobile import limits
from torch2mobile.errors import (
    DeviceError,
    MissingToolError,
    WorkerCrashError,
    WorkerTimeoutError,
)
from torch2mobile.watchdog import Watchdog

# What a worker that replays a bundle can import before it knows which.
REPLAY_MODULES = ("onnxruntime", "torch2mobile.exporter.targets")

_PACKAGE_ROOT = str(Path(__file__).resolve().parent.parent)
# Of what stands beside this package another Python sees nothing: that is made for this one.
_BOOT = """
import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
root, own = sys.argv.pop(1), sys.argv.pop(1)
sys.path[:] = filter(None, [root if own else "", *sys.path])
spec = PathFinder.find_spec("torch2mobile", [root])
sys.modules[spec.name] = module_from_spec(spec)
spec.loader.exec_module(sys.modules[spec.name])
from torch2mobile.worker_process import serve
serve()
"""


@dataclass(frozen=True)
class Environment:
    """Where a converter or a runtime runs: an interpreter, what starts it, what it sees.

    ``python`` is an interpreter's path (this one where it is empty), ``launcher`` a command put
    before it (an emulator with its options), ``variables`` are added to the process's own. Without
    ``torch`` that module cannot be imported there: onnxsim would, for seconds, and never use it.
    ``memory`` is the most bytes that a process may take there, where the system has such a limit.
    ``needs`` are folders that it cannot do without, and ``install`` is the command that makes what
    is not there. Calls may take ``patience`` times as long there. ``stand_in`` says what computes
    where the runtime itself does not run.
    """

    name: str = "this Python"
    python: str = ""
    launcher: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    torch: bool = False
    memory: int = field(default_factory=limits.worker_memory)
    needs: tuple[str, ...] = ()
    install: str = ""
    patience: float = 1.0
    stand_in: str = ""

    def command(self, *arguments: str) -> list[str]:
        """The command of its interpreter; MissingToolError where a part of it is not there."""
        python = self.python or sys.executable
        programs = (*self.launcher[:1], python)
        absent = [program for program in programs if shutil.which(program) is None]
        absent += [folder for folder in self.needs if not Path(folder).is_dir()]
        if absent:
            raise MissingToolError(
                f"{self.name} needs {absent[0]}, which is not there",
                f"Run: {self.install}" if self.install else "Install it, or check its path.",
            )
        return [*self.launcher, python, *arguments]


HERE = Environment()


def describe_exit(code: int) -> str:
    """The exit of a process in words: the signal's name, or its status."""
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"died of {signal.Signals(-code).name}"
    return f"exited with status {code}"


class Worker:
    """A fresh Python process that calls functions by name (``"package.module:function"``).

    ``preload`` modules are imported at once, while the parent goes on. Raises MissingToolError
    where the environment is not there.
    """

    def __init__(self, *, preload: Sequence[str] = (), environment: Environment = HERE) -> None:
        allowed = (str(int(environment.torch)), str(environment.memory))
        own = "" if environment.python else "1"
        start = ("-c", _BOOT, _PACKAGE_ROOT, own, *allowed, *preload)
        command = environment.command(*start)
        self.environment = environment
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the worker)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, "PYTHONSAFEPATH": "1", **environment.variables},
            start_new_session=True,
        )
        self._pending = 0
        self._watchdog: Watchdog | None = None

    def submit(self, function: str, *args: Any) -> None:
        """Send a call without waiting; :meth:`result` fetches the answers in order."""
        try:
            stdin = cast("BinaryIO", self._process.stdin)
            pickle.dump((function, args), stdin, protocol=5)
            stdin.flush()
        except (BrokenPipeError, ValueError):
            # The worker is dead; result() says how it died.
            pass
        self._pending += 1

    def result(self, timeout: float) -> Any:
        """Wait at most ``timeout`` seconds for the oldest answer.

        Raises WorkerTimeoutError, WorkerCrashError, the call's own Torch2MobileError, or
        WorkerCallError for any other exception.
        """
        self._pending -= 1
        if self._watchdog is None:
            self._watchdog = Watchdog(self._kill)
        timeout *= self.environment.patience
        self._watchdog.guard(timeout)
        try:
            kind, value = pickle.load(cast("BinaryIO", self._process.stdout))  # noqa: S301 (our own worker)
        except (EOFError, pickle.UnpicklingError, OSError, ValueError):
            code = self._process.wait()
            if self._watchdog.bit:
                self._watchdog.bit = False
                raise WorkerTimeoutError(
                    f"gave no answer within {timeout:g} s and was stopped{self._tail()}",
                    "Allow more time with --timeout, or look at what makes it slow.",
                ) from None
            if self.environment.launcher:
                raise DeviceError(
                    f"{self.environment.name} {describe_exit(code)}{self._tail()}",
                    self.environment.install and f"Make it anew: {self.environment.install}",
                ) from None
            raise WorkerCrashError(
                f"the worker process {describe_exit(code)}{self._tail()}",
                "A native library crashed on this model; the rest of the run is not affected.",
            ) from None
        finally:
            self._watchdog.rest()
        if kind == "error":
            raise value
        return value

    def call(self, function: str, *args: Any, timeout: float) -> Any:
        """Submit and wait."""
        self.submit(function, *args)
        return self.result(timeout)

    @property
    def alive(self) -> bool:
        """Whether the process is still there to take a call."""
        return self._process.poll() is None

    def log_position(self) -> int:
        """How much the worker has written to its stderr so far, in bytes."""
        return os.fstat(self._log.fileno()).st_size

    def log_since(self, position: int) -> str:
        """What the worker wrote to its stderr after ``position``."""
        size = self.log_position() - position
        return os.pread(self._log.fileno(), size, position).decode(errors="replace")

    def _tail(self) -> str:
        lines = [line for line in self.log_since(0).splitlines() if line.strip()]
        return f" ({lines[-1].strip()[:300]})" if lines else ""

    def _kill(self) -> None:
        """End the process, and the programs that it has started: they would run on."""
        if hasattr(os, "killpg"):
            with contextlib.suppress(OSError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()

    def close(self) -> None:
        """End the process; a call still running in it is abandoned."""
        if self._watchdog is not None:
            self._watchdog.close()
        if self._process.poll() is None:
            if self._pending:
                self._kill()
            with contextlib.suppress(BrokenPipeError):
                cast("BinaryIO", self._process.stdin).close()
            try:
                self._process.wait(timeout=2)
            except subprocess.TimeoutExpired:
                self._kill()
                self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        self._log.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
