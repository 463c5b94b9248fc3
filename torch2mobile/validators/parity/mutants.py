"""Can the gate fail? Mutants of the artefact, each judged as the artefact itself is.

A mutant that the gate passes is no proof of a gap: it may be the same function. So whatever passes
is looked at further, on inputs that are searched for it, and its effect is measured against the
float32 noise of the module.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from torch2mobile.errors import ModelFileError, Torch2MobileError
from torch2mobile.records import Mismatch, ParityOptions
from torch2mobile.validators.parity.expected import Expected
from torch2mobile.validators.parity.faults.catalogue import KINDS, Mutation, plan
from torch2mobile.validators.parity.faults.graph_changes import Graph, Patch, apply, symbol_sizes
from torch2mobile.validators.parity.mutating import float64, search
from torch2mobile.validators.parity.mutating.bench import Bench, pack, split
from torch2mobile.validators.parity.mutating.equivalence import exposed, proof, where_it_ends
from torch2mobile.validators.parity.mutating.judge import Judge, relative_difference
from torch2mobile.validators.parity.mutating.outcomes import (
    Look,
    Outcome,
    Verdict,
    is_small,
    settled,
)
from torch2mobile.validators.parity.mutating.ranges import ranges_of
from torch2mobile.validators.parity.mutating.reach import Reach, Untaken
from torch2mobile.validators.parity.probes import Probe

if TYPE_CHECKING:
    import onnx

    from torch2mobile.interfaces import Feeds
    from torch2mobile.records import InputSpec

# The module on more probes; those that it refuses are left out.
Evaluate = Callable[[Sequence[Probe]], Sequence[Expected]]

# Inputs that are tried on one survivor. A change of this share of the output's scale is enough to
# be sure that the gate sees it.
SEARCH_BUDGET = 64
_CLEAR = 1e-4
# Kernels of other fused nodes round otherwise; a fault of a value is greater.
_SAME = 1e-6
# The unchanged model among the variants, and the same with every value as an output.
_BASE, _ALL = -1, -2


@dataclass(frozen=True)
class Trial:
    """All mutants of one file.

    ``found`` has the inputs that show what the probes missed; ``wrong`` is where the unchanged
    file itself is not the module on a searched input.
    """

    verdicts: tuple[Verdict, ...]
    asked: int
    found: tuple[Expected, ...] = ()
    wrong: tuple[Mismatch, ...] = ()

    def count(self, *outcomes: Outcome) -> int:
        """How many had one of these outcomes."""
        return sum(verdict.outcome in outcomes for verdict in self.verdicts)

    @property
    def share(self) -> float:
        """The share of those caught among all that are neither equivalent nor a control.

        A fault that no input reached may be one that is missed: it counts as not caught.
        """
        judged = self.count("caught", "missed", "unreached")
        return self.count("caught") / judged if judged else 1.0


def run(
    model: onnx.ModelProto,
    specs: Sequence[InputSpec],
    expected: Sequence[Expected],
    options: ParityOptions,
    *,
    count: int,
    evaluate: Evaluate | None,
    kinds: Sequence[str] | None = None,
    untaken: Sequence[Untaken] = (),
    budget: int = SEARCH_BUDGET,
) -> Trial:
    """Judge ``count`` mutants of a model that carries its weights, and is emptied of them.

    ``evaluate`` runs the module on searched inputs; without it nothing is searched. ``untaken``
    are the sides of decisions that no input took, though declared values may.

    Raises ModelFileError where the unchanged model does not pass its own gate.
    """
    skeleton, weights = split(model)
    sizes = symbol_sizes(model, expected[0].probe.feeds)
    feeds = [case.probe.feeds for case in expected]
    if not search.every_size(specs, feeds):
        kinds = [kind for kind in (KINDS if kinds is None else kinds) if kind != "one_size"]
    drawn = plan(
        skeleton, seed=options.seed, count=count, kinds=kinds, sizes=sizes, weights=weights
    )
    with Bench(weights, feeds, options.timeout) as bench:
        study = _Study(bench, skeleton, expected, options)
        verdicts = [study.first_look(number, *each) for number, each in enumerate(drawn)]
        survivors = [n for n, one in enumerate(verdicts) if one.outcome == "missed"]
        found: list[Expected] = []
        graph = Graph(skeleton, sizes, weights)
        ranges, reach = ranges_of(graph, specs), Reach(graph, untaken)
        for number in survivors:
            mutation, patch = drawn[number]
            extra: list[Expected] = []
            if evaluate is not None:
                space = search.Space(specs, search.small_first(feeds), options.seed)
                extra, verdicts[number] = study.look_further(
                    number, patch, verdicts[number], space, evaluate, budget
                )
            if not verdicts[number].probe and verdicts[number].effect > 1:
                verdicts[number] = study.without_rounding(verdicts[number], patch, weights)
            # Inputs that the module refuses say nothing.
            look = Look(len(expected), budget if extra else 0)
            if is_small(verdicts[number]):
                look = replace(look, proof=proof(graph, mutation, ranges))
                look = study.closer(number, mutation, patch, look, reach, extra)
            verdicts[number] = settled(verdicts[number], look)
            found += extra if verdicts[number].probe else []
    return Trial(tuple(verdicts), count, tuple(found), tuple(study.wrong))


class _Study:
    """One file's mutants on the bench, beside the file itself."""

    def __init__(
        self,
        bench: Bench,
        skeleton: onnx.ModelProto,
        expected: Sequence[Expected],
        options: ParityOptions,
    ) -> None:
        self._bench, self._skeleton, self._expected = bench, skeleton, expected
        self._judge = Judge(expected, options)
        bench.open(_BASE, pack(skeleton))
        self._base = bench.run(_BASE, range(len(expected)))
        for case, answer in zip(expected, self._base, strict=True):
            problem = self._judge.problem(case, answer)
            if problem:
                raise ModelFileError(
                    f"the unchanged file does not pass on {case.probe.label}: {problem}",
                    "Look at the check parity first.",
                )
        # The cheap probes first: most mutants fail on any.
        elements = [case.probe.elements for case in expected]
        self._order = sorted(range(len(expected)), key=lambda number: elements[number])
        self._known: dict[bytes, Any] = {}
        self._worst: dict[Mutation, Expected] = {}
        self.wrong: list[Mismatch] = []

    def _mutant(self, patch: Patch) -> onnx.ModelProto:
        import onnx

        mutant = onnx.ModelProto()
        mutant.CopyFrom(self._skeleton)
        apply(mutant, patch)
        return mutant

    def first_look(self, number: int, mutation: Mutation, patch: Patch) -> Verdict:
        """A mutant on the probes, up to the first that catches it.

        Survivors come back as missed, with their greatest effect.
        """
        first, *rest = self._order
        caught: Outcome = "false alarm" if mutation.control else "caught"
        with self._bench.variant(number, pack(self._mutant(patch)), [first]) as answers:
            by_probe = {first: answers[0]}
            problem = self._judge.problem(self._expected[first], answers[0])
            if problem:
                return Verdict(mutation, caught, self._expected[first].probe.label, problem)
            for which in rest:
                (by_probe[which],) = self._bench.run(number, [which])
                problem = self._judge.problem(self._expected[which], by_probe[which])
                if problem:
                    return Verdict(mutation, caught, self._expected[which].probe.label, problem)
        if self._judge.baked([by_probe[which] for which in range(len(by_probe))]):
            return Verdict(mutation, caught, "check baked", "the output does not follow an input")
        verdict = Verdict(mutation, "passed" if mutation.control else "missed")
        for which, case in enumerate(self._expected):
            effect = self._judge.effect(case, self._base[which], by_probe[which])
            verdict = self._worse(verdict, case, effect)
        return verdict

    def _worse(self, verdict: Verdict, case: Expected, effect: float) -> Verdict:
        """The verdict with an effect, if it is the greatest so far."""
        if effect <= verdict.effect:
            return verdict
        self._worst[verdict.mutation] = case
        return replace(verdict, effect=effect)

    def look_further(
        self,
        number: int,
        patch: Patch,
        verdict: Verdict,
        space: search.Space,
        evaluate: Evaluate,
        budget: int,
    ) -> tuple[list[Expected], Verdict]:
        """A survivor on searched inputs; the one that shows it most is judged as a probe is."""
        with self._bench.variant(number, pack(self._mutant(patch)), []):
            (best,) = search.search(
                lambda feeds: self._difference(number, feeds), space, 1, budget=budget
            )
            mutation = verdict.mutation
            label = f"search {mutation.kind} {mutation.output}".rstrip()
            cases = evaluate([Probe(f"{label} {best.run}", best.feeds, searched=True)])
            for case in cases:
                (base,) = self._bench.run(_BASE, [case.probe.feeds])
                (answer,) = self._bench.run(number, [case.probe.feeds])
                self.wrong += self._judge.mismatches(case, base)
                problem = self._judge.problem(case, answer)
                verdict = self._worse(verdict, case, self._judge.effect(case, base, answer))
                if problem:
                    verdict = replace(verdict, probe=case.probe.label, reason=problem)
        return list(cases), verdict

    def without_rounding(self, verdict: Verdict, patch: Patch, weights: Feeds) -> Verdict:
        """A survivor's effect in float64, on the input where it differs most."""
        case = self._worst[verdict.mutation]
        before, after = (
            float64.outputs(model, weights, case.probe.feeds)
            for model in (self._skeleton, self._mutant(patch))
        )
        if before is None or after is None:
            return verdict
        return replace(verdict, exact=self._judge.effect(case, before, after))

    def closer(
        self,
        number: int,
        mutation: Mutation,
        patch: Patch,
        look: Look,
        reach: Reach,
        extra: Sequence[Expected],
    ) -> Look:
        """Where a survivor's effect is lost, and whether it was reached at all."""
        same = self._same_there(number, mutation, patch, extra)
        behind = reach.hidden(patch.address) if same is False else reach.unfed(patch.address)
        ends = self.where_it_ends(number, mutation, patch)
        return replace(look, same=same, behind=behind, ends=ends)

    def _same_there(
        self, number: int, mutation: Mutation, patch: Patch, extra: Sequence[Expected]
    ) -> bool | None:
        """Whether the node at fault gives the same on all inputs; None where it cannot be seen."""
        if len(patch.address) != 1:
            return None
        inputs = [*range(len(self._expected)), *(case.probe.feeds for case in extra)]
        before, after = (
            pack(exposed(model, mutation.output)) for model in (self._skeleton, self._mutant(patch))
        )
        with self._bench.variant(_ALL, before, []), self._bench.variant(number, after, []):
            for each in inputs:
                (a,), (b,) = (self._bench.run(key, [each]) for key in (_ALL, number))
                if relative_difference(a, b) > _SAME:
                    return False
        return True

    def where_it_ends(self, number: int, mutation: Mutation, patch: Patch) -> str:
        """In which nodes the effect of a fault is lost on the example; empty where unknown."""
        with (
            self._bench.variant(_ALL, pack(exposed(self._skeleton)), [0]) as before,
            self._bench.variant(number, pack(exposed(self._mutant(patch))), [0]) as after,
        ):
            answers = (before[0], after[0])
        if any(isinstance(answer, Torch2MobileError) for answer in answers):
            return ""
        return where_it_ends(self._skeleton, mutation.output, *answers)

    def _difference(self, number: int, feeds: Sequence[Feeds]) -> np.ndarray:
        """How far a mutant is from the file on inputs, as a share of the output's scale."""
        after = self._bench.run(number, feeds)
        pairs = zip(self._unchanged(feeds), after, strict=True)
        return np.array([relative_difference(a, b) - _CLEAR for a, b in pairs])

    def _unchanged(self, feeds: Sequence[Feeds]) -> Iterator[Any]:
        """The file itself on inputs; the same patterns come for every survivor."""
        for each in feeds:
            parts = (str(array.shape).encode() + array.tobytes() for array in each.values())
            key = hashlib.sha256(b"".join(parts)).digest()
            if key not in self._known:
                (self._known[key],) = self._bench.run(_BASE, [each])
            yield self._known[key]
