"""How well the gate looks: decisions taken both ways, inputs searched for, mutants caught."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from torch2mobile.errors import Torch2MobileError, UsageError
from torch2mobile.onnx_files import read_whole
from torch2mobile.pipeline.inspection import provenance_of
from torch2mobile.pipeline.stages import Stages, error_check
from torch2mobile.records import (
    Check,
    LoadedModel,
    Location,
    ParityOptions,
    Scrutiny,
    Status,
)

if TYPE_CHECKING:
    import numpy as np
    import onnx

    from torch2mobile.validators.parity.expected import Expected
    from torch2mobile.validators.parity.mutating.decisions import Decision, Instrumented
    from torch2mobile.validators.parity.mutating.reach import Untaken
    from torch2mobile.validators.parity.probes import Probe

# Inputs that a search for the sides of decisions tries, and how many of them are kept as probes.
DECISION_BUDGET = 512
_KEPT = 12


class Scrutinizer:
    """The stages that look at the gate, for one .onnx and the module."""

    def __init__(
        self,
        stages: Stages,
        path: Path,
        loaded: LoadedModel,
        names: Sequence[str],
        options: ParityOptions,
        scrutiny: Scrutiny,
    ) -> None:
        self._stages, self.path, self._loaded = stages, path, loaded
        self._names, self._options, self._scrutiny = names, options, scrutiny
        self._untaken: list[Untaken] = []

    @cached_property
    def _places(self) -> dict[str, Location]:
        return places(self.path.parent)

    def _evaluate(self, probes: Sequence[Probe]) -> list[Expected]:
        """The module on more probes; those that it refuses are left out."""
        from torch2mobile.validators.parity import reference

        return reference.accepted(reference.evaluate(self._loaded, self._names, probes))

    def decisions(self, expected: Sequence[Expected]) -> list[Expected]:
        """Which decisions the probes took both ways; the probes and those that a search added.

        Only where it was asked for.
        """
        if not self._scrutiny.asked or not expected:
            return list(expected)
        self._stages.observer.started("decisions onnx")
        try:
            return self._decisions(expected)
        except Torch2MobileError as error:
            self._stages.add(error_check("decisions", error, target="onnx"))
            return list(expected)

    def _decisions(self, expected: Sequence[Expected]) -> list[Expected]:
        from torch2mobile.validators.parity.mutating import decisions
        from torch2mobile.validators.parity.mutating.bench import Bench, pack, split

        model, weights = split(read_whole(self.path))
        found = decisions.find(model, weights)
        made = decisions.instrument(model, found)
        extra: list[Expected] = []
        tried = len(expected)
        feeds = [case.probe.feeds for case in expected]
        with Bench(weights, feeds, self._options.timeout) as bench:
            bench.open(0, pack(made.model))

            def margins(inputs: Sequence[int | Mapping[str, np.ndarray]]) -> list[np.ndarray]:
                return [_margins(made, answer) for answer in bench.run(0, inputs)]

            best = _greatest(margins(range(len(feeds))), len(found))
            if self._scrutiny.searches and (best <= 0).any():
                extra = self._searched(found, best, feeds, margins)
                reached = margins([case.probe.feeds for case in extra])
                best = _greatest([best, *reached], len(found))
                tried += DECISION_BUDGET
        self._untaken = self._untaken_of(model, weights, found, best)
        self._stages.add(
            decisions.decisions_check("onnx", found, best, tried, len(extra), self._places)
        )
        return [*expected, *extra]

    def _searched(
        self,
        found: Sequence[Decision],
        best: np.ndarray,
        feeds: Sequence[Mapping[str, np.ndarray]],
        margins: Callable[[Sequence[Mapping[str, np.ndarray]]], list[np.ndarray]],
    ) -> list[Expected]:
        """The inputs found for sides that no probe took, with what the module gives on them."""
        import numpy as np

        from torch2mobile.validators.parity.mutating.search import Space, search, small_first
        from torch2mobile.validators.parity.probes import Probe

        targets = [tuple(map(int, at)) for at in np.argwhere(best <= 0)]
        rows, columns = (list(each) for each in zip(*targets, strict=True))

        def score(inputs: Sequence[Mapping[str, np.ndarray]]) -> np.ndarray:
            return np.array([one[rows, columns] for one in margins(inputs)])

        space = Space(self._loaded.specs, small_first(feeds), self._options.seed)
        results = search(score, space, len(targets), budget=DECISION_BUDGET)
        labels: dict[int, tuple[str, Mapping[str, np.ndarray]]] = {}
        for (row, side), result in zip(targets, results, strict=True):
            if result.score > 0:
                labels.setdefault(result.run, (found[row].label(side), result.feeds))
        probes = [
            Probe(f"search {label}", inputs, searched=True) for label, inputs in labels.values()
        ]
        return self._evaluate(probes[:_KEPT])

    def _untaken_of(
        self,
        model: onnx.ModelProto,
        weights: Mapping[str, np.ndarray],
        found: Sequence[Decision],
        best: np.ndarray,
    ) -> list[Untaken]:
        """The sides that no input took, except those that no declared input can take."""
        from torch2mobile.validators.parity.faults.graph_changes import Graph
        from torch2mobile.validators.parity.mutating.ranges import impossible, ranges_of
        from torch2mobile.validators.parity.mutating.reach import Untaken

        known = ranges_of(Graph(model, weights=weights), self._loaded.specs)
        return [
            Untaken(decision, side)
            for decision, margins in zip(found, best, strict=True)
            for side in (0, 1)
            if margins[side] <= 0 and side not in impossible(decision, known)
        ]

    def mutants(self, expected: Sequence[Expected], *, passed: bool) -> None:
        """Mutants of the file, judged as it was; skipped where it does not pass itself."""
        if not self._scrutiny.mutants:
            return
        if not passed or not expected:
            reason = "the file itself does not pass, so its mutants say nothing"
            self._stages.add(Check("mutants", Status.SKIPPED, reason, target="onnx"))
            return
        self._stages.observer.started("mutants onnx")
        try:
            self._mutants(expected)
        except Torch2MobileError as error:
            self._stages.add(error_check("mutants", error, target="onnx"))

    def _mutants(self, expected: Sequence[Expected]) -> None:
        from torch2mobile.validators.parity import mutants
        from torch2mobile.validators.parity.mutating.mutants_check import mutants_check

        trial = mutants.run(
            read_whole(self.path),
            self._loaded.specs,
            expected,
            self._options,
            count=self._scrutiny.mutants,
            evaluate=self._evaluate if self._scrutiny.searches else None,
            untaken=self._untaken,
        )
        least = self._scrutiny.min_caught
        self._stages.add(mutants_check("onnx", trial, least, self._places))


def _margins(made: Instrumented, answer: object) -> np.ndarray:
    """The margins of one run; none where the file does not take the input."""
    import numpy as np

    if isinstance(answer, Torch2MobileError):
        return np.full((len(made.decisions), 2), -np.inf)
    assert isinstance(answer, list)
    return made.margins(answer)


def _greatest(margins: Sequence[np.ndarray], count: int) -> np.ndarray:
    import numpy as np

    nothing = np.full((count, 2), -np.inf)
    return np.asarray(np.max([nothing, *margins], axis=0))


def places(folder: Path) -> dict[str, Location]:
    """Where each value comes from, by its name, as a bundle's provenance has it; else nothing."""
    from torch2mobile.user_code import shown_path

    try:
        entries = provenance_of(folder)
    except UsageError:
        return {}
    return {
        output: replace(
            origin.place(entry.node, entry.op),
            file=shown_path(origin.file),
            caller=shown_path(origin.caller),
        )
        for entry in entries
        for output in entry.outputs
        for origin in entry.origins[:1]
    }
