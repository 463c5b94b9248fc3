"""The seams: what a target, a runner, a reporter and an observer have to offer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from torch2mobile.records import (
    Artifact,
    Check,
    Job,
    Layer,
    Limits,
    OnnxModel,
    OutputSpec,
    Report,
    Variant,
)

if TYPE_CHECKING:
    import numpy as np

    from torch2mobile.environments import Environment

    Feeds = Mapping[str, np.ndarray]
    Outputs = Sequence[tuple[str, np.ndarray]]


class Runner(Protocol):
    """A loaded artefact: named numpy arrays in, named numpy arrays out, in the file's order."""

    def inputs(self) -> tuple[OutputSpec, ...]:
        """Names, dtypes and dims of the inputs as the runtime sees them."""

    def outputs(self) -> tuple[OutputSpec, ...]:
        """Names, dtypes and dims of the outputs as the runtime sees them."""

    def run(self, feeds: Feeds) -> list[tuple[str, np.ndarray]]:
        """All outputs, as (name, array) in the artefact's own order."""


class LayeredRunner(Runner, Protocol):
    """A runner that shows its inside, so that a mismatch can be told where it starts."""

    def layers(self) -> tuple[Layer, ...]:
        """The runtime's own layers, each after those that it reads from."""

    def values(self, feeds: Feeds, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Inner values by the names that :meth:`layers` gives them."""


class Target(Protocol):
    """One mobile runtime: a converter to its file format and a runner for the result."""

    name: str
    title: str
    suffixes: tuple[str, ...]
    """The endings of the files that it loads."""
    variants: tuple[Variant, ...]
    """What it can make; the first has the target's own name."""
    limits: Limits
    """What its files can take."""
    environment: Environment
    """Where its converter and its runtime run."""
    packages: tuple[str, ...]
    """The distributions that its runtime is, for devices that have Pythons of their own."""

    def missing(self) -> Sequence[str]:
        """The commands that install what is missing; empty when all is there."""

    def accepts(self, model: OnnxModel, variant: Variant) -> str:
        """Why it has no form for this model, in words; empty where it may have one."""

    def convert(self, job: Job) -> Artifact:
        """Write the variant's files into the job's folder; runs in a worker process."""

    def load(self, path: Path, variant: Variant) -> Runner:
        """Load what :meth:`convert` wrote; runs in a worker process."""


class Reporter(Protocol):
    """Draws a report; ``colour`` and ``verbose`` only where the format makes a difference.

    ``verbose`` is for tables that are a detail.
    """

    def __call__(self, report: Report, *, colour: bool = False, verbose: bool = False) -> str:
        """The report as text, with a newline at the end."""


class Observer(Protocol):
    """Is told how a run gets on; the library itself never prints."""

    def started(self, stage: str) -> None:
        """A stage has begun."""

    def finished(self, check: Check) -> None:
        """A check was made."""


@runtime_checkable
class ProbeObserver(Observer, Protocol):
    """An observer that is told of probes too."""

    def probed(self, done: int, total: int) -> None:
        """So many of the running stage's probes are done."""


class SilentObserver:
    """The observer of a caller who gave none."""

    def started(self, stage: str) -> None:
        """Ignore the start of a stage."""

    def finished(self, check: Check) -> None:
        """Ignore the end of a stage."""
