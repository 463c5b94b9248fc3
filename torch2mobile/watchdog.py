"""A limit on the time of calls, kept by one thread for all of them."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable


class Watchdog:
    """Calls ``bite`` if a guarded time runs out.

    One thread for all calls: starting one for each takes longer than a small model runs. It sleeps
    towards the end of the earliest call that it knew of, and is woken for an earlier one only.
    """

    def __init__(self, bite: Callable[[], None]) -> None:
        self._bite, self.bit = bite, False
        self._end = self._asleep_until = math.inf
        self._busy = self._over = False
        self._news = threading.Condition()
        threading.Thread(target=self._watch, daemon=True).start()

    def guard(self, seconds: float) -> None:
        """Bite in so many seconds from now."""
        with self._news:
            self._busy, self._end = True, time.monotonic() + seconds
            if self._end < self._asleep_until:
                self._news.notify()

    def rest(self) -> None:
        """The call has ended."""
        with self._news:
            self._busy = False

    def close(self) -> None:
        """There will be no more calls."""
        with self._news:
            self._over = True
            self._news.notify()

    def _watch(self) -> None:
        with self._news:
            while not self._over:
                left = self._end - time.monotonic()
                if left <= 0 and self._busy:
                    self.bit = self._over = True
                    self._bite()
                    return
                # Idle: the next call wakes it.
                self._asleep_until = self._end if left > 0 else math.inf
                endless = self._asleep_until == math.inf
                self._news.wait(None if endless else min(left, threading.TIMEOUT_MAX))
