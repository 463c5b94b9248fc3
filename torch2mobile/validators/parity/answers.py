"""What an artefact gave on the probes, and which of them it cannot take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch2mobile.errors import (
    DeviceError,
    MissingToolError,
    ProbeRefusedError,
    Torch2MobileError,
    WorkerTimeoutError,
)
from torch2mobile.interfaces import Runner
from torch2mobile.records import Check, Status
from torch2mobile.validators.parity.expected import Expected
from torch2mobile.validators.parity.probes import Probe

if TYPE_CHECKING:
    import numpy as np

    from torch2mobile.interfaces import Outputs


Answers = list["Outputs | Torch2MobileError"]


def run_probes(
    runner: Runner, expected: Sequence[Expected], told: Callable[[int, int], None] | None = None
) -> Answers:
    """The artefact's outputs for every probe; an error in place of those it did not give.

    ``told`` is given how many are done, of how many.
    """
    answers: Answers = []
    for case in expected:
        if told is not None:
            told(len(answers), len(expected))
        try:
            answers.append(runner.run(_carried(case.probe, answers)))
        except (WorkerTimeoutError, MissingToolError, DeviceError):
            raise  # of the machine, not of the file
        except Torch2MobileError as error:
            answers.append(error)
    return answers


def _carried(probe: Probe, answers: Answers) -> Mapping[str, np.ndarray]:
    """The inputs of a probe, with what the artefact gave before in place of its state."""
    if not probe.carries:
        return probe.feeds
    before = answers[-1] if answers else Torch2MobileError("there was no call before")
    if isinstance(before, Torch2MobileError):
        raise before
    given = dict(before)
    lost = [output for output in probe.carries.values() if output not in given]
    if lost:
        raise Torch2MobileError(f"it gave no {lost[0]} in the call before")
    return {**probe.feeds, **{name: given[output] for name, output in probe.carries.items()}}


@dataclass(frozen=True)
class Refusals:
    """The probes that an artefact cannot take, by what its variant is: skipped, and counted."""

    count: int
    of: int
    reasons: tuple[str, ...]

    @property
    def all(self) -> bool:
        """Whether none is left to compare."""
        return 0 < self.of == self.count

    @property
    def notes(self) -> tuple[str, ...]:
        """What a report says of them."""
        if not self.count:
            return ()
        return (f"{self.count} of {self.of} probes skipped: {'; '.join(self.reasons)}",)


def refusals(answers: Answers) -> Refusals:
    """The probes that an artefact refused, with each reason once."""
    found = [answer.message for answer in answers if isinstance(answer, ProbeRefusedError)]
    return Refusals(len(found), len(answers), tuple(dict.fromkeys(found)))


def none_fits(name: str, target: str, skipped: Refusals) -> Check:
    """Nothing could be compared: an ERROR, which is neither the file's fault nor a pass."""
    return Check(
        name,
        Status.ERROR,
        f"none of the {skipped.of} probes fits the artefact: {'; '.join(skipped.reasons)}",
        target=target,
        hint="Give real inputs of a size that it takes, with --data.",
    )
