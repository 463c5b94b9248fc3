"""Ctrl-C, SIGTERM, SIGHUP: before a result is in its place they leave nothing, afterwards all.

Handlers belong to the process, and so does the state here. They are Python's to call in the main
thread only; elsewhere nothing is done, as nothing arrives there.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

# A terminal that closes sends SIGHUP, to this process alone: workers are sessions of their own.
SIGNALS = (
    signal.SIGINT,
    signal.SIGTERM,
    *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []),
)


class Stop:
    """What signals asked of a command; called as their handler.

    A first signal that comes after a result is in its place is kept to itself, since the command
    is at its end; a second one stops it there too.
    """

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.settled = False
        self._late = 0

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        """Take a signal."""
        self.asked.append(number)
        self._late += self.settled
        if self._late != 1:
            raise KeyboardInterrupt

    @property
    def exit_code(self) -> int:
        """What a shell makes of a process that the signal ended: 130, 143."""
        return 128 + (self.asked[-1] if self.asked else signal.SIGINT)


_stop = Stop()


@contextlib.contextmanager
def handled() -> Iterator[Stop]:
    """The others raise KeyboardInterrupt as SIGINT does, for the length of a command."""
    global _stop  # noqa: PLW0603 (the process has one handler a signal)
    _stop = stop = Stop()
    try:
        with _handlers(stop):
            yield stop
    finally:
        _stop = Stop()


def stop_if_asked() -> None:
    """Raise again what code between here and the signal has swallowed."""
    if _stop.asked and not _stop.settled:
        raise KeyboardInterrupt


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Signals wait for the end of the block."""
    came: list[int] = []
    try:
        with _handlers(lambda number, _: came.append(number)):
            yield
    finally:
        for number in came:
            signal.raise_signal(number)


@contextlib.contextmanager
def exchange() -> Iterator[None]:
    """The block that puts a result in its place: it is done whole or, by a signal, not begun."""
    with held():
        stop_if_asked()
        yield
        _stop.settled = True


@contextlib.contextmanager
def _handlers(handler: signal._HANDLER) -> Iterator[None]:
    """This handler in place of those there are; a signal that is ignored stays so."""
    before: dict[int, signal._HANDLER] = {}
    try:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                old = signal.getsignal(number)
                # None is a handler that is not Python's, and could not be put back.
                if old not in {None, signal.SIG_IGN}:
                    before[number] = old
                    signal.signal(number, handler)
        yield
    finally:
        for known, old in before.items():
            signal.signal(known, old)
