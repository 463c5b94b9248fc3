"""A suspect looked at closely: which of its nodes, whose fault, and the error around it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from torch2mobile.errors import Torch2MobileError
from torch2mobile.validators.parity.channels import is_float, wide
from torch2mobile.validators.parity.golden import greatest_difference
from torch2mobile.validators.parity.locating.pieces import Pieces
from torch2mobile.validators.parity.locating.portrait import describe
from torch2mobile.validators.parity.locating.slices import NodeInfo, Topology
from torch2mobile.validators.parity.locating.suspects import Suspect
from torch2mobile.validators.parity.tolerance import USUAL

if TYPE_CHECKING:
    from collections.abc import Container

    from torch2mobile.interfaces import Feeds


# onnx's reference implementation is written to be read, not to be fast.
_REFERENCE_SECONDS = 10.0
_REFERENCE_ELEMENTS = 1 << 21


def span(
    topology: Topology, value: str, stops: Container[str], makers: Mapping[str, NodeInfo]
) -> tuple[NodeInfo, ...]:
    """The nodes between the nearest of the ``stops`` and a value, in the file's order."""
    found = {makers[value].index}
    queue = [makers[value]]
    while queue:
        for source in queue.pop().inputs:
            maker = makers.get(source)
            if maker is not None and source not in stops and maker.index not in found:
                found.add(maker.index)
                queue.append(maker)
    return tuple(topology.nodes[index] for index in sorted(found))


class Examination:
    """One suspect in the artefact, with the program's ``values`` around it.

    ``values`` has those of its inputs and, where it is known, that of what it gives; ``feeds`` are
    the probe's inputs; ``right`` tells whether an array is what a known value should be.
    """

    def __init__(
        self,
        pieces: Pieces,
        topology: Topology,
        suspect: Suspect,
        values: Feeds,
        feeds: Feeds,
        right: Callable[[str, np.ndarray], bool],
    ) -> None:
        self.pieces, self.topology, self.suspect = pieces, topology, suspect
        self.values, self.feeds, self.right = dict(values), feeds, right
        self.known = frozenset(values)
        self.makers = {name: info for info in topology.nodes for name in info.outputs}

    def closely(self, translations: Sequence[Pieces], known: Container[str]) -> Suspect:
        """The suspect with all that can be known of it; the translations are read once."""
        for each in translations:
            self.narrow_by_translation(each, known)
        for each in translations[:1]:
            self.compare_with(each)
        for each in translations:
            each.forget()
        self.blame()
        self.around()
        return self.suspect

    def narrow_by_translation(self, fresh: Pieces, known: Container[str]) -> None:
        """With a translation that gives the right value here, its inner values are right too."""
        topology = fresh.topology
        makers = {name: info for info in topology.nodes for name in info.outputs}
        value = self.suspect.value
        if len(self.suspect.nodes) < 2 or value not in makers:
            return
        stops = {n for n in makers if n in known and n in self.values and n != value}
        nodes = span(topology, value, stops, makers)
        wanted = [name for info in nodes for name in info.outputs if name not in stops]
        answers = _attempt(fresh.run, nodes, self._inputs(nodes), wanted)
        if answers is None or (value in self.values and not self._is_right(answers[value])):
            return
        self._narrow({**answers, **self.values}, share=USUAL["float32"].rtol)

    def blame(self) -> None:
        """Ask onnx's reference implementation whether the kernel or the graph is at fault."""
        suspect = self.suspect
        nodes, value = suspect.nodes, suspect.value
        feeds = self._inputs(nodes)
        size = sum(np.asarray(array).size for array in feeds.values())
        if value not in self.values or size > _REFERENCE_ELEMENTS:
            return
        wanted = [name for info in nodes for name in info.outputs if name not in feeds]
        wanted = list(dict.fromkeys([*wanted, value]))
        answers = _attempt(self.pieces.evaluate, nodes, feeds, wanted, _REFERENCE_SECONDS)
        if answers is None:
            return
        own = _attempt(self.pieces.run, nodes, feeds, [value])
        got = own[value] if own else None
        to_torch = _distance(self.values[value], answers[value])
        to_kernel = float("inf") if got is None else _distance(got, answers[value])
        if to_torch < to_kernel and self._is_right(answers[value]):
            self.suspect = replace(suspect, fault="kernel")
            self._narrow(answers, share=USUAL["float32"].atol)
        elif got is not None and to_kernel <= self._allowed():
            self.suspect = replace(suspect, fault="graph")

    def compare_with(self, fresh: Pieces) -> None:
        """Say how the node differs from the one that gives the same value in a translation."""
        value = self.suspect.value
        theirs = fresh.portrait(value)
        if theirs is None:
            return
        known = {name for info in fresh.topology.nodes for name in info.outputs}
        added = [
            info.op_type
            for info in self.suspect.nodes
            if known.isdisjoint({*info.outputs} - {value}) and self._reads_new(info, known)
        ]
        mine = self.pieces.portrait(value) if len(self.suspect.nodes) == 1 else None
        found: tuple[str, ...] = ()
        if added and (mine is None or mine.op_type != theirs.op_type):
            found = (f"{', '.join(added)}, which the module's own translation does not have",)
        elif mine is not None:
            found = tuple(describe(mine, theirs))
        self.suspect = replace(self.suspect, differences=found)

    def _reads_new(self, info: NodeInfo, known: Container[str]) -> bool:
        return any(name in self.makers and name not in known for name in info.inputs)

    def around(self) -> None:
        """The errors before and after the suspect when the artefact runs as a whole."""
        suspect = self.suspect
        inputs = [
            name
            for name in dict.fromkeys(name for info in suspect.nodes for name in info.inputs)
            if name in self.values and name in self.makers
        ]
        exposed = [*inputs, suspect.value] if suspect.value in self.values else inputs
        try:
            answers = dict(self.pieces.whole(self.feeds, exposed))
        except Torch2MobileError:
            return
        before = [_distance(self.values[name], answers[name]) for name in inputs]
        after = None
        if suspect.value in self.values:
            after = _distance(self.values[suspect.value], answers[suspect.value])
        self.suspect = replace(suspect, before=max(before, default=0.0), after=after)

    # --- helpers ------------------------------------------------------------------------------

    def _inputs(self, nodes: Sequence[NodeInfo]) -> dict[str, Any]:
        names = dict.fromkeys(name for info in nodes for name in info.inputs)
        known = {name: self.values[name] for name in names if name in self.values}
        return {**{name: self.feeds[name] for name in names if name in self.feeds}, **known}

    def _is_right(self, got: np.ndarray) -> bool:
        """Whether this is what the suspect should give: the program's value, or a translation's."""
        value = self.suspect.value
        if value in self.known:
            return self.right(value, got)
        return _alike(self.values[value], got, USUAL["float32"].atol)

    def _allowed(self) -> float:
        """How far two ways to compute the suspect may be apart; a shape or NaN has no scale."""
        want = self.values[self.suspect.value]
        if not is_float(want):
            return 0.0
        share = USUAL["float32"].rtol if self.suspect.allowed else USUAL["float32"].atol
        return max(self.suspect.allowed, share * _scale(want))

    def _narrow(self, right: Feeds, share: float) -> None:
        """The first of the suspect's nodes that is off when each is fed what is right.

        A value without a right one of its name is fine where it equals any other right one: a
        node that was put in between has left it whole.
        """
        nodes = self.suspect.nodes
        shared = {name for info in nodes for name in info.outputs if name in right}
        if len(nodes) < 2 or not shared:
            return
        feeds = {**{name: right[name] for name in shared}, **self._inputs(nodes)}
        answers = self._each(nodes, feeds)
        if answers is None:
            return
        inner = list(answers)
        equal = {
            name: answers[name]
            for name in inner
            if name not in shared
            and any(_alike(each, answers[name], share) for each in right.values())
        }
        fine = {*self.values, *shared, *equal}
        for name in inner:
            if name in shared and not _alike(right[name], answers[name], share):
                found = span(self.topology, name, fine, self.makers)
                self.values = {**right, **equal, **self.values}
                self.suspect = replace(self.suspect, nodes=found, value=name)
                return
        if not self.suspect.runs and fine.issuperset(inner):
            self.suspect = replace(self.suspect, nodes=nodes[-1:])

    def _each(
        self, nodes: Sequence[NodeInfo], feeds: Mapping[str, Any]
    ) -> dict[str, np.ndarray] | None:
        """What each of the nodes gives; without the last one where that one does not run."""
        inner = [name for info in nodes for name in info.outputs]
        answers = _attempt(self.pieces.run, nodes, feeds, inner)
        if answers is None and not self.suspect.runs:
            inner = [name for info in nodes[:-1] for name in info.outputs]
            answers = _attempt(self.pieces.run, nodes[:-1], feeds, inner)
        return answers


def _attempt(call: Any, nodes: Sequence[NodeInfo], *args: Any) -> dict[str, np.ndarray] | None:
    """What a piece gives; None where it does not run."""
    try:
        answers: dict[str, np.ndarray] = call([info.index for info in nodes], *args)
    except Torch2MobileError:
        return None
    return answers


def _scale(array: np.ndarray) -> float:
    finite = np.abs(wide(array)[np.isfinite(wide(array))])
    return float(finite.max(initial=0.0))


def _distance(want: np.ndarray, got: np.ndarray) -> float:
    """The greatest difference; infinite for another shape, dtype or place of NaN and infinities."""
    if want.shape != got.shape or want.dtype != got.dtype:
        return float("inf")
    a, b = wide(want), wide(got)
    both = np.isfinite(a) & np.isfinite(b)
    if not np.array_equal(a[~both], b[~both], equal_nan=True):
        return float("inf")
    return greatest_difference(want, got)


def _alike(want: Any, got: Any, share: float) -> bool:
    if not isinstance(want, np.ndarray) or not isinstance(got, np.ndarray):
        return False  # a sequence of tensors
    return _distance(want, got) <= (share * _scale(want) if is_float(want) else 0.0)
