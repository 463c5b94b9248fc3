"""Progress on stderr, and which streams have colour."""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import click

from torch2mobile import interrupts

if TYPE_CHECKING:
    from torch2mobile.records import Check


_COLOURS = {"passed": "green", "failed": "red", "error": "red", "skipped": "yellow"}


def use_colour(stream: Any) -> bool:
    """Colour only on a terminal, and never with NO_COLOR (https://no-color.org)."""
    return not os.environ.get("NO_COLOR") and bool(stream.isatty())


def one_line(text: str) -> str:
    """One printable line of what may hold foreign text."""
    from torch2mobile.reporters import printable

    return printable.one_line(text)


class ProgressObserver:
    """Draws progress on stderr: one changing line on a terminal, one line a stage elsewhere.

    Each has the seconds since the start; the changing line counts them, and the probes. While the
    module runs, what it prints is kept away: the stream is that of the start.
    """

    def __init__(self, verbosity: int) -> None:
        self._verbosity = verbosity
        self._stream = sys.stderr
        self._live = self._stream.isatty() and verbosity == 0
        self._begun = time.monotonic()
        self._stage = self._probes = ""
        self._writing = threading.Lock()
        if self._live:
            threading.Thread(target=self._count, daemon=True).start()
        self.started("import")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()

    def _count(self) -> None:
        while True:
            time.sleep(1)
            self._draw()

    def _draw(self) -> None:
        with self._writing:
            if self._stage:
                text = one_line(f"{self._stage}{self._probes} ... {self._seconds} s")
                self._write(f"\r\x1b[K{text}")

    @property
    def _seconds(self) -> int:
        return int(time.monotonic() - self._begun)

    def started(self, stage: str) -> None:
        """Name the stage that runs now."""
        interrupts.stop_if_asked()
        if self._verbosity < 0:
            return
        if self._live:
            self._stage, self._probes = stage, ""
            self._draw()
        else:
            self._write(f"[{self._seconds:3d} s] {one_line(stage)} ...\n")

    def probed(self, done: int, total: int) -> None:
        """Count the probes of the stage that runs now."""
        interrupts.stop_if_asked()
        if self._live:
            self._probes = f", probe {done + 1} of {total}"
            self._draw()

    def clear(self) -> None:
        """Take the changing line away until the next stage."""
        with self._writing:
            self._stage = ""
            if self._live:
                self._write("\r\x1b[K")

    def finished(self, check: Check) -> None:
        """Clear the line; with -v say what was found."""
        self.clear()
        if not self._live and self._verbosity > 0:
            word = click.style(check.status.value, fg=_COLOURS[check.status.value])
            about = " ".join(filter(None, (check.name, check.target, check.device)))
            text = one_line(f"{about}: {check.summary}")
            self._write(f"  {word if use_colour(sys.stderr) else click.unstyle(word)} {text}\n")
            for found in check.findings:
                if found.suppressed:
                    where = f"{found.location.file}:{found.location.line}"
                    said = one_line(f"suppressed {found.code} at {where}: {found.suppressed}")
                    self._write(f"    {said}\n")


_observers: list[ProgressObserver] = []


def clear_progress() -> None:
    """Nothing may be drawn over what is printed now."""
    while _observers:
        _observers.pop().clear()


def observer_of(options: dict[str, Any]) -> ProgressObserver:
    """The observer for a command's -v and -q."""
    observer = ProgressObserver(-1 if options["quiet"] else int(options["verbose"]))
    _observers.append(observer)
    return observer
