"""Where a failed artefact starts to differ: the first node that is wrong on the right inputs.

The program that was captured is run node by node. Its values are lined up by name with the
artefact's, whose graph is cut at each of them, so that every node computes from the program's
values and shows the error that is its own. What another node passed on cannot be blamed on it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch2mobile.copies import first_line
from torch2mobile.errors import Torch2MobileError, WorkerCrashError
from torch2mobile.isolation import Process
from torch2mobile.tensors import quiet, to_torch
from torch2mobile.validators.parity import gate
from torch2mobile.validators.parity.compare import Judged
from torch2mobile.validators.parity.evidence import closeness
from torch2mobile.validators.parity.locating import own_error
from torch2mobile.validators.parity.locating.examine import Examination, span
from torch2mobile.validators.parity.locating.pieces import (
    Pieces,
    process_of_pieces,
    translations_of,
)
from torch2mobile.validators.parity.locating.slices import Glance, NodeInfo
from torch2mobile.validators.parity.locating.suspects import (
    DOES_NOT_RUN,
    Located,
    Question,
    Suspect,
)
from torch2mobile.validators.parity.locating.tape import Tape

if TYPE_CHECKING:
    import numpy as np
    from torch.fx import Node

    from torch2mobile.records import Mismatch

# The values and weights of one slice, in bytes: what is held on either side at a time.
SLICE_BYTES = 4 << 20
# So many nodes with the largest errors are named where none is at fault.
SHOWN = 5


def localise(question: Question, process: Process | None = None) -> Located:
    """Find the first node whose own error, on the program's inputs, is above its floor.

    ``process`` is one for the artefact's pieces that was started ahead of time.
    """
    import torch

    with quiet(), torch.no_grad(), torch.random.fork_rng(devices=[]):
        if process is not None:
            return _Search(question, process).run()
        with process_of_pieces(question.timeout) as own:
            return _Search(question, own).run()


class _Search:
    def __init__(self, question: Question, process: Process) -> None:
        self.question, self.process = question, process
        self.pieces = Pieces(question.artifact, process)
        self.topology = self.pieces.topology
        feeds = question.case.probe.feeds
        self.tape = Tape(question.program, [to_torch(feeds[name]) for name in question.inputs])
        self.known = self._known()
        self.nodes = frozenset(self.known.values())
        self.makers = {name: info for info in self.topology.nodes for name in info.outputs}
        uses = ((name, info.index) for info in self.topology.nodes for name in info.inputs)
        self.last_use = dict(uses)
        self.needed = self._needed()
        self.tape.keeps = lambda node: self.needed.get(node, -1) >= self.next
        self.next = 0
        self.carried: dict[str, object] = {}
        self.compared: list[Suspect] = []
        self.found: list[Suspect] = []

    # --- what is known ------------------------------------------------------------------------

    def _known(self) -> dict[str, Node]:
        """The program's node of every value of the artefact that has one."""
        twins = dict(self.question.twins)
        own, outputs = self.topology.outputs, self.tape.output_names
        if not set(own) <= set(twins) and len(own) == len(outputs):
            twins.update(zip(own, outputs, strict=True))
        made = {name for info in self.topology.nodes for name in info.outputs}
        return self.tape.feedable({name: twin for name, twin in twins.items() if name in made})

    def _needed(self) -> dict[Node, int]:
        """Up to which node of the artefact a value of the program has to be kept."""
        needed: dict[Node, int] = {}
        for name, node in self.known.items():
            index = self.makers[name].index
            _, start = self.tape.boundary(node, self.nodes)
            for each, until in [
                (node, max(index, self.last_use.get(name, 0))),
                *((s, index) for s in start),
            ]:
                needed[each] = max(needed.get(each, -1), until)
        return needed

    # --- the pass -----------------------------------------------------------------------------

    def run(self) -> Located:
        """The program once, and the artefact beside it, slice by slice."""
        names = [name for name, _ in self.question.case.outputs]
        if list(self.topology.outputs) != names:
            given = ", ".join(self.topology.outputs)
            return self._finding("interface", f"the outputs are {given}, not {', '.join(names)}")
        held, steps = 0, self.tape.steps()
        while True:
            try:
                node = next(steps, None)
            except Exception as error:  # noqa: BLE001 (whatever an operator of the program raises)
                return self._finding("capture", f"the captured program raises {first_line(error)}")
            if node is None:
                break
            held += self.tape.nbytes(node) if node in self.nodes else 0
            if held > SLICE_BYTES:
                self._advance(final=False)
                held = 0
        self._advance(final=True)
        return self._verdict()

    def _advance(self, *, final: bool) -> None:
        """Judge all nodes of the artefact whose known values the program has by now."""
        infos = self.topology.nodes
        while self.next < len(infos) and not self.found:
            stop, weights = self.next, 0
            while stop < len(infos) and self._ready(infos[stop]) and weights <= SLICE_BYTES:
                weights += infos[stop].weights
                stop += 1
            if stop == self.next:
                break
            self._judge(range(self.next, stop))
            self.next = stop
        if self.found or final:
            self.next = len(infos)
        self.tape.sweep()

    def _ready(self, info: NodeInfo) -> bool:
        names = [name for name in (*info.inputs, *info.outputs) if name in self.known]
        return all(self.tape.has(self.known[name]) for name in names)

    def _judge(self, numbers: range) -> None:
        """Run these nodes, and judge what they give; where that fails, each half alone."""
        try:
            clear, answers = self._answers(numbers)
        except WorkerCrashError as error:
            self._halve(numbers, f"the runtime {error.message}")
            return
        except Torch2MobileError as error:
            self._halve(numbers, error.message)
            return
        wrong = []
        for number in numbers:
            for name in self.topology.nodes[number].outputs:
                if name in clear:
                    self._compared(Judged(name, self.question.case.probe.label, *clear[name]))
                elif name in self.known:
                    judged = self._compared(self._own(name, answers.pop(name)))
                    wrong += [judged] if judged.problem else []
        self.carried.update(answers)
        past = [name for name in self.carried if self.last_use.get(name, 0) <= numbers[-1]]
        for name in past:
            del self.carried[name]
        if wrong:
            self.found = [self._examined(wrong[0]), *wrong[1:SHOWN]]

    def _halve(self, numbers: range, problem: str) -> None:
        if len(numbers) > 1:
            middle = len(numbers) // 2
            self._judge(numbers[:middle])
            if not self.found:
                self._judge(numbers[middle:])
            return
        info = self.topology.nodes[numbers[0]]
        if any(name not in self._feeds(numbers) for name in info.inputs):
            return  # fed by a node that failed before it
        value = info.outputs[0] if info.outputs else ""
        infinite = float("inf")
        nodes = span(self.topology, value, self.known, self.makers) if value else (info,)
        suspect = Suspect(nodes, value, infinite, 0.0, 0.0, f"{DOES_NOT_RUN}: {problem}")
        self.found = [self._examined(suspect)]

    def _answers(self, numbers: range) -> tuple[dict[str, Glance], dict[str, np.ndarray]]:
        end = numbers[-1]
        wanted = [
            name
            for number in numbers
            for name in self.topology.nodes[number].outputs
            if name in self.known or self.last_use.get(name, 0) > end
        ]
        if not wanted:
            return {}, {}
        return self.pieces.compared(numbers, self._feeds(numbers), wanted)

    def _feeds(self, numbers: Sequence[int]) -> dict[str, object]:
        """The program's values for these nodes, the probe's inputs, and what was carried over."""
        feeds: dict[str, object] = {}
        probe = self.question.case.probe.feeds
        for number in numbers:
            for name in self.topology.nodes[number].inputs:
                if name in self.known:
                    feeds[name] = self.tape.value(self.known[name])
                elif name in probe:
                    feeds[name] = probe[name]
                elif name in self.carried:
                    feeds[name] = self.carried[name]
        return feeds

    # --- one value ----------------------------------------------------------------------------

    def _own(self, name: str, got: np.ndarray) -> Judged:
        label = self.question.case.probe.label
        return own_error.judge(self.tape, self.known[name], self.nodes, (name, label), got)

    def _compared(self, judged: Judged) -> Suspect:
        suspect = Suspect(
            nodes=span(self.topology, judged.output, self.known, self.makers),
            value=judged.output,
            error=judged.error,
            allowed=judged.allowed,
            floor=judged.floor,
            problem=judged.mismatch.problem if judged.mismatch else "",
        )
        self.compared.append(suspect)
        return suspect

    # --- the first suspect, looked at closely -------------------------------------------------

    def _examined(self, suspect: Suspect) -> Suspect:
        question = self.question
        around = {name for info in suspect.nodes for name in (*info.inputs, *info.outputs)}
        translations = translations_of(question, self.process, self.makers)
        for each in translations:
            around.update(name for info in each.topology.nodes for name in info.inputs)
        values = {
            name: self.tape.value(self.known[name])
            for name in around
            if name in self.known and self.tape.has(self.known[name])
        }
        look = Examination(
            self.pieces,
            self.topology,
            suspect,
            values,
            question.case.probe.feeds,
            lambda name, got: self._own(name, got).mismatch is None,
        )
        return look.closely(translations, self.known)

    def _finding(self, verdict: str, detail: str = "", **rest: Sequence[Suspect]) -> Located:
        values = sum(len(info.outputs) for info in self.topology.nodes)
        suspects = tuple(rest.get("suspects", self.found))
        probe = self.question.case.probe.label
        return Located(verdict, probe, suspects, detail, len(self.compared), values)

    def _wrong(self, answer: Sequence[tuple[str, np.ndarray]]) -> str:
        """What the gate finds wrong with outputs; empty where nothing."""
        wrong = self._mismatches(answer)
        return f"{wrong[0].output}: {wrong[0].problem}".removeprefix(": ") if wrong else ""

    def _mismatches(self, answer: Sequence[tuple[str, np.ndarray]]) -> list[Mismatch]:
        case, question = self.question.case, self.question
        return gate.judge_probe(case, list(answer), question.usual, question.tolerances)[1]

    def _compensated(self, feeds: Mapping[str, np.ndarray]) -> bool:
        """Whether the file is right as a whole: simplifying may move a factor past a value."""
        try:
            return self.found[0].fault == "graph" and not self._wrong(self.pieces.whole(feeds))
        except Torch2MobileError:
            return False

    def _verdict(self) -> Located:
        captured = self._wrong(list(zip(self.topology.outputs, self.tape.outputs, strict=False)))
        if captured:
            return self._finding("capture", captured)
        feeds = self.question.case.probe.feeds
        if self.found:
            right = self._compensated(feeds)
            return self._finding("nothing", suspects=()) if right else self._finding("node")
        try:
            plain = self._wrong(self.pieces.whole(feeds, optimised=False))
            answer = self.pieces.whole(feeds)
            whole = self._wrong(answer)
        except Torch2MobileError as error:
            return self._finding("refused", error.message)
        if not whole:
            return self._finding("nothing")
        if not plain:
            return self._finding("optimizer", whole)
        largest = sorted(self.compared, key=closeness, reverse=True)[:SHOWN]
        tolerable = self._mismatches(answer)[0].least_atol not in {None, math.inf}
        return self._finding("accumulated" if tolerable else "unstable", whole, suspects=largest)
