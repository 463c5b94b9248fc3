"""The worker's side of a process: reads requests, makes calls, sends answers."""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from typing import Any

from torch2mobile import limits
from torch2mobile.errors import (
    MissingToolError,
    Torch2MobileError,
    WorkerCallError,
)

_objects: list[Any] = []


# How native libraries say that there is no memory left.
_NO_MEMORY = ("bad allocation", "bad_alloc", "Failed to allocate memory")


def _resolve(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def make(loader: str, args: tuple[Any, ...]) -> int:
    """Load an artefact and keep it; returns the handle for :func:`method`."""
    _objects.append(_resolve(loader)(*args))
    return len(_objects) - 1


def timed(loader: str, args: tuple[Any, ...]) -> tuple[int, float]:
    """As :func:`make`, with the seconds that it took."""
    start = time.monotonic()
    return make(loader, args), time.monotonic() - start


def method(handle: int, name: str, args: tuple[Any, ...]) -> Any:
    """Call a method of an object kept by :func:`make`."""
    return getattr(_objects[handle], name)(*args)


def layers(handle: int) -> tuple[Any, ...]:
    """The layers of a runner that shows its inside; none for any other."""
    return tuple(getattr(_objects[handle], "layers", tuple)())


def _answer(function: str, args: tuple[Any, ...]) -> tuple[str, Any]:
    try:
        return "value", _resolve(function)(*args)
    except Torch2MobileError as error:
        return "error", error
    except ImportError as error:
        # Not the model's fault: a runtime without its libraries says nothing about the file.
        return "error", MissingToolError(
            f"needs what is not there: {type(error).__name__}: {error}",
            "Install it in the environment where this runs; see 'torch2mobile targets'.",
        )
    except MemoryError:
        return "error", _out_of_memory()
    except Exception as error:  # noqa: BLE001 (whatever a converter raises becomes its verdict)
        traceback.print_exc()
        text = f"{type(error).__name__}: {error}".strip()
        if any(words in text for words in _NO_MEMORY):
            return "error", _out_of_memory()
        return "error", WorkerCallError(text[:2000])


def _out_of_memory() -> WorkerCallError:
    most = limits.size_text(int(sys.argv[2]))
    return WorkerCallError(
        f"ran out of memory: a process may take {most}", "Use smaller sizes, or a larger machine."
    )


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    # With the programs that it has started, where it leads a group of its own.
    if hasattr(os, "killpg") and os.getpgid(0) == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


_SENDING = {"socket.connect", "socket.sendto", "socket.sendmsg"}


def _without_network(event: str, args: tuple[Any, ...]) -> None:
    """Refuse the network to Python's own sockets: some converters tell of every use of them."""
    if event in {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"}:
        asked: Any = args[0]
    elif event == "socket.getnameinfo":
        asked = args[0][0]
    elif event in _SENDING and isinstance(args[1], tuple):
        asked = args[1][0]
    else:
        return
    raise PermissionError(f"there is no network for converters and runtimes: it asked for {asked}")


def serve() -> None:
    """Answer requests from stdin until it closes, or until the parent dies in the middle of one.

    File descriptor 1 is given to stderr: native libraries print there, and would break the pipe.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    if sys.argv[1] == "0":
        sys.modules["torch"] = None  # type: ignore[assignment]
    limits.cap_memory(int(sys.argv[2]))
    sys.addaudithook(_without_network)
    for name in sys.argv[3:]:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    while True:
        try:
            function, args = pickle.load(requests)  # noqa: S301 (our own parent)
        except EOFError:
            break
        pickle.dump(_answer(function, args), answers, protocol=5)
        answers.flush()
    os._exit(0)
