"""What became of one mutant, and what has to be known of one that passes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from torch2mobile.validators.parity.faults.catalogue import Mutation
from torch2mobile.validators.parity.mutating.reach import Untaken

Outcome = Literal["caught", "missed", "unreached", "equivalent", "passed", "false alarm"]


@dataclass(frozen=True)
class Verdict:
    """What became of one mutant.

    ``probe`` is the probe or check that caught it, or for a missed one that would have; ``effect``
    is a survivor's greatest difference from the unchanged file, in units of the float32 noise, and
    ``exact`` the same in float64, where it was asked for. ``behind`` is what an unreached one is
    hidden behind, where that is known.
    """

    mutation: Mutation
    outcome: Outcome
    probe: str = ""
    reason: str = ""
    effect: float = 0.0
    exact: float | None = None
    behind: Untaken | None = None


@dataclass(frozen=True)
class Look:
    """What was found out about a survivor on so many probes and searched inputs.

    ``proof`` is what the graph alone shows, ``ends`` where its effect is lost, ``same`` whether
    the output of the node at fault is the same (None where that cannot be seen), and ``behind``
    the decision that may hide it.
    """

    probes: int
    tried: int
    proof: str = ""
    ends: str = ""
    same: bool | None = None
    behind: Untaken | None = None

    @property
    def inputs(self) -> str:
        """What was tried, in words."""
        return f"{self.probes} probes" + (
            f" and {self.tried} searched inputs" if self.tried else ""
        )


def is_small(verdict: Verdict) -> bool:
    """Whether no input showed a survivor, and its effect is below the noise."""
    effect = verdict.effect if verdict.exact is None else min(verdict.effect, verdict.exact)
    return not verdict.probe and effect <= 1


def settled(verdict: Verdict, look: Look) -> Verdict:
    """A survivor whose effect is below the noise is equivalent, if it was looked for."""
    if verdict.probe:
        return verdict
    if not is_small(verdict):
        reason = f"within what is allowed on {look.inputs}, {verdict.effect:.2g} times the noise"
        return replace(verdict, reason=f"{reason} at most")
    blind = "" if look.proof else _unreached(verdict, look)
    if blind:
        return replace(verdict, outcome="unreached", reason=blind, behind=look.behind)
    why = look.proof or look.ends
    because = f": {why}" if why else ""
    if verdict.effect == 0:
        reason = f"the same bits on {look.inputs}{because}"
    elif verdict.effect <= 1:
        reason = f"{verdict.effect:.2g} of the float32 noise at most, on {look.inputs}{because}"
    else:
        reason = (
            f"rounding alone: without it, in float64, {verdict.exact:.2g} of the float32 noise "
            f"where it differs most of {look.inputs}{because}"
        )
    return replace(verdict, outcome="equivalent", reason=reason)


def _unreached(verdict: Verdict, look: Look) -> str:
    """Why a fault without effect may yet have one elsewhere; empty where nothing says so."""
    if look.behind is not None:
        return f"{look.behind.label} on {look.inputs}"
    if verdict.effect == 0 and look.same is None and verdict.mutation.output:
        return f"inside of a branch or loop, without effect on {look.inputs}"
    if look.same is not False and not look.tried:
        return f"without effect on {look.inputs}, and no input was searched for"
    return ""
