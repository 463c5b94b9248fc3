"""Runs stages one by one, keeps their checks, and tells the observer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from torch2mobile.errors import ExitCode, NotApplicableError, NotInstalledError, Torch2MobileError
from torch2mobile.interfaces import Observer, ProbeObserver
from torch2mobile.records import NOT_INSTALLED, Check, Location, Metric, Status

T = TypeVar("T")


class Stages:
    """The checks of one run so far, in order."""

    def __init__(self, observer: Observer) -> None:
        self.observer = observer
        self.checks: list[Check] = []
        self._since = time.monotonic()

    def add(self, check: Check, *, later: float = 0.0) -> Check:
        """Keep a check, with the seconds since the one before, and tell the observer.

        ``later`` are those of them that belong to the next one.
        """
        now = time.monotonic() - later
        check = replace(check, seconds=round(now - self._since, 3))
        self._since = now
        self.checks.append(check)
        self.observer.finished(check)
        return check

    def extend(self, checks: Iterable[Check]) -> None:
        """Keep checks that were made earlier."""
        for check in checks:
            self.add(check)

    def probed(self, done: int, total: int) -> None:
        """Tell an observer that listens to it how many probes are done."""
        if isinstance(self.observer, ProbeObserver):
            self.observer.probed(done, total)

    def attempt(self, name: str, action: Callable[[], T], *, target: str = "") -> T | None:
        """Run a stage; None and an ERROR check where it could not finish.

        Errors of usage are the caller's: they end the run.
        """
        self.observer.started(f"{name} {target}".strip())
        try:
            return action()
        except Torch2MobileError as error:
            if error.exit_code is ExitCode.USAGE:
                raise
            self.add(error_check(name, error, target=target))
            return None


_RAW = ("--format json has what torch said of each way that was tried",)


def tried(details: Sequence[str]) -> dict[str, Metric]:
    """What each attempt met, in torch's own words, which no text shows."""
    parts = (text.partition(": ") for text in details)
    return {f"tried {name}": reason for name, _, reason in parts}


def error_check(name: str, error: Torch2MobileError, *, target: str = "") -> Check:
    """An exception as a Check."""
    status = Status.FAILED if error.exit_code is ExitCode.FAILED else Status.ERROR
    return Check(
        name,
        Status.SKIPPED if isinstance(error, NotApplicableError) else status,
        error.message,
        target=target,
        hint=error.remedy,
        locations=tuple(place for place in error.locations if isinstance(place, Location)),
        metrics=tried(error.details)
        | ({NOT_INSTALLED: error.remedy} if isinstance(error, NotInstalledError) else {}),
        notes=_RAW if error.details else (),
    )
