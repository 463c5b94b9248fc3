"""What an artefact is held to: the module's outputs on every probe, and what is usual for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from torch2mobile.validators.parity import tolerance
from torch2mobile.validators.parity.channels import Yardstick
from torch2mobile.validators.parity.probes import Probe
from torch2mobile.validators.parity.tolerance import Case, Roundings

if TYPE_CHECKING:
    import numpy as np

    from torch2mobile.validators.parity.order import Order
    from torch2mobile.validators.parity.picks import Pick


class Rough:
    """The module's outputs computed in another way: evaluated once, when needed."""

    def __init__(self, run: Callable[[], Sequence[np.ndarray] | None]) -> None:
        self._run = run
        self.known: Sequence[np.ndarray] | None = None
        self.done = False

    def __call__(self) -> Sequence[np.ndarray] | None:
        """The outputs, or None where the module cannot be run in this way."""
        if not self.done:
            self.known, self.done = self._run(), True
        return self.known


Picks = Callable[[], "Sequence[Pick | None]"]


@dataclass(frozen=True)
class Expected:
    """What one probe must give: the module's outputs, and the float64 truth where there is one.

    ``later`` gives the truth where it was not needed so far; ``rough`` the outputs with all sums
    taken in a plain loop; ``roundings`` stand in for a truth where there is none; ``picks`` gives
    by output what its indices pick; ``order`` the outputs with equal values in another order.
    ``heavy`` tells that a run of the module takes long.
    """

    probe: Probe
    outputs: Sequence[tuple[str, np.ndarray]]
    truth: Sequence[np.ndarray] | None = None
    rough: Rough | None = None
    roundings: Roundings | None = None
    later: Rough | None = None
    picks: Picks | None = None
    order: Order | None = None
    heavy: bool = False

    @property
    def case(self) -> Case:
        """What the limits are taken from: all that is known so far."""
        known = self.later.known if self.later is not None else None
        late = self.later is not None and not self.later.done
        truth = self.truth if self.truth is not None else known
        rough = self.rough.known if self.rough is not None else None
        return Case(self.outputs, truth, self.probe.magnitude, self.roundings, late, rough)

    def instead(self, outputs: Sequence[tuple[str, np.ndarray]]) -> Expected:
        """The probe with other outputs, held to what noise is usual: the truth is of its own."""
        return Expected(self.probe, outputs, later=Rough(lambda: None))

    def sure(self) -> Expected:
        """The same with its truth evaluated."""
        if self.later is not None:
            self.later()
        return self


class Usual(dict[str, Yardstick]):
    """The yardstick of every output, from these probes."""

    def __init__(self, built: Sequence[Expected]) -> None:
        self._built = built
        super().__init__(tolerance.yardsticks([_measured(case) for case in built]))

    @cached_property
    def coarse(self) -> Mapping[str, Yardstick]:
        """The same with all sums in a plain loop as well: luck on one probe may be luck on all."""
        cases = [_measured(case) for case in self._built]
        pairs = list(zip(cases, self._built, strict=True))
        return tolerance.yardsticks(
            [
                replace(case, rough=built.rough())
                if built.rough is not None and (case.truth or case.roundings)
                else case
                for case, built in pairs
            ]
        )


def _measured(case: Expected) -> Case:
    return Case(case.outputs, case.truth, case.probe.magnitude, case.roundings)


def typical_of(expected: Sequence[Expected]) -> Usual:
    """What is usual for each output, over the probes with ordinary values.

    From what was measured on all of them alike: a truth that was asked for later plays no part.
    Nor do searched probes, which go where the module is at its worst: a search must not loosen
    what the others are held to.
    """
    return Usual([c for c in expected if not c.probe.searched])
