"""What has changed between two bundles, and which of it a drift can come from: no more is said."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["runtime", "torch", "tool", "weights", "source", "request"]
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Change:
    """One thing that is not as it was: in the earlier bundle, in this one, and here and now.

    ``bundle`` or ``here`` is None where the thing plays no part there. ``said`` is how a sentence
    names the change, if not as ``what then -> now``.
    """

    kind: Kind
    what: str
    then: str
    bundle: str | None = None
    here: str | None = None
    said: str = ""

    @property
    def known(self) -> bool:
        """Whether it is known what it was then."""
        return self.then != UNKNOWN

    def __str__(self) -> str:
        now = self.here if self.here is not None else self.bundle
        return self.said or f"{self.what} {self.then} -> {now}"


@dataclass(frozen=True)
class Moved:
    """Which parts of an output's drift are beyond what is allowed; None for one not measured."""

    before: bool | None
    files: bool | None
    modules: bool | None


@dataclass(frozen=True)
class Changes:
    """All changes between an earlier bundle, this one, and the place where both are run."""

    found: tuple[Change, ...] = ()

    def of(self, *kinds: Kind) -> list[Change]:
        """The changes of these kinds, and what is unknown of them."""
        return [change for change in self.found if change.kind in kinds]

    def running(self) -> str:
        """What can make the same file give other results."""
        return _said(self.of("runtime")) or "onnxruntime and the machine are as recorded"

    def commit(self) -> list[Change]:
        """What a user's own change is."""
        return self.of("weights", "source", "request")


def _said(changes: Iterable[Change], joint: str = " or ") -> str:
    known = [str(change) for change in changes if change.known]
    unknown = [change.what for change in changes if not change.known]
    if unknown:
        known.append(f"{', '.join(unknown)} (not recorded then)")
    return joint.join(known)


@dataclass(frozen=True)
class Cause:
    """Where a drift comes from: in one word for a table, and in one sentence."""

    word: str
    sentence: str


def cause_of(moved: Moved, changes: Changes) -> Cause:
    """Where a drift comes from, as far as what was measured supports it."""
    if moved.before is None:
        every = _said(changes.found, ", ") or "nothing that is recorded"
        text = f"not told apart, since the earlier file was not run; changed: {every}"
        return Cause("unknown", text)
    if moved.before and not moved.files:
        return Cause("runtime", f"{changes.running()}, not your commit")
    file = _file(moved, changes)
    if moved.files and not moved.before:
        return file
    both = f"{changes.running()}, and {file.sentence}"
    text = both if moved.before else f"neither alone, but together: {both}"
    return Cause(f"runtime, {file.word}", text)


def _file(moved: Moved, changes: Changes) -> Cause:
    """What made the file another one."""
    if moved.modules is None:
        every = _said([c for c in changes.found if c.kind != "runtime"], ", ")
        return Cause("file", f"another file; changed: {every or 'nothing that is recorded'}")
    if not moved.modules:
        tools = _said(changes.of("torch", "tool", "request")) or "all is as recorded"
        text = f"the conversion, since the module itself has not moved: {tools}"
        return Cause("conversion", text)
    own, torch = changes.of("weights", "source"), changes.of("torch")
    text = "the module gives other results"
    if not own and not torch:
        return Cause("module", f"{text}, though its weights, its source and torch are as recorded")
    if not own:
        return Cause("torch", f"{_said(torch)}: {text} with the same weights and source")
    known = any(change.known for change in own)
    text = f"your commit: {_said(own, ' and ')} changed" if known else f"{text}: {_said(own)}"
    word = "commit" if known else "module"
    return Cause(f"{word} or torch", f"{text}, or {_said(torch)}") if torch else Cause(word, text)


def hint_of(moved: Sequence[Moved], changes: Changes) -> str:
    """What to do about drifts of these kinds."""
    if all(one.before and not one.files for one in moved):
        return (
            "The earlier file gives this too. Pin what changed, or export again with it and keep "
            "that bundle as the baseline."
        )
    if changes.of("torch") and any(c.kind in {"weights", "source"} for c in changes.found):
        return (
            "To tell torch from your change, export the earlier commit with this torch and compare "
            "that. If the change is meant, keep this bundle as the baseline."
        )
    return "If the change is meant, keep this bundle as the baseline."
