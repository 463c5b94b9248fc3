"""A captured program run node by node, and any value of it once more with other rounding.

With ``sums`` and ``reference``, the part of parity that needs torch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.fx import Node
from torch.fx.node import map_aggregate
from torch.utils import _pytree as pytree

from torch2mobile.tensors import to_numpy
from torch2mobile.validators.parity.sums import CoarseSums

if TYPE_CHECKING:
    import numpy as np
    from torch.export import ExportedProgram

_WIDER = {
    torch.float32: torch.float64,
    torch.float16: torch.float64,
    torch.bfloat16: torch.float64,
    torch.complex64: torch.complex128,
}


class _Missing(Exception):  # noqa: N818 (a signal, not an error)
    """A value that is needed is not kept any more."""


def _same(value: Any) -> Any:
    return value


def _wider(value: Any) -> Any:
    """A value in float64; a dtype that an operator is asked for as well."""
    if isinstance(value, torch.Tensor):
        return value.to(_WIDER.get(value.dtype, value.dtype))
    return _WIDER.get(value, value) if isinstance(value, torch.dtype) else value


class Tape:
    """The values of one run of ``program`` on ``tensors``, in the order of its graph.

    A value is dropped when all that read it have run, unless ``keeps`` says otherwise.
    """

    def __init__(self, program: ExportedProgram, tensors: Sequence[torch.Tensor]) -> None:
        self._module = program.graph_module
        self.nodes: list[Node] = list(program.graph.nodes)
        self._order = {node: number for number, node in enumerate(self.nodes)}
        self._inputs = dict(_inputs(program, tensors))
        self._values: dict[Node, Any] = {}
        self._readers = {node: len(node.users) for node in self.nodes}
        names = {node.name for node in self.nodes}
        given = program.graph_signature.user_outputs
        self.output_names = tuple(str(name) for name in given if name in names)
        self.outputs: list[np.ndarray] = []
        self.keeps: Callable[[Node], bool] = lambda _: False

    def steps(self) -> Iterator[Node]:
        """Run node after node; each is given with its value in place."""
        for node in self.nodes:
            if node.op == "output":
                break
            self._values[node] = self._run(node, self._values, _same)
            if node.name in self.output_names:
                self._inputs["out:" + node.name] = self._values[node]
            yield node
            for source in node.all_input_nodes:
                self._readers[source] -= 1
                self._drop(source)
            self._drop(node)
        self.outputs = [to_numpy(self._inputs["out:" + name]) for name in self.output_names]

    def sweep(self) -> None:
        """Drop all that is neither kept nor still to be read."""
        for node in list(self._values):
            self._drop(node)

    def _drop(self, node: Node) -> None:
        if self._readers[node] <= 0 and node in self._values and not self.keeps(node):
            del self._values[node]

    def has(self, node: Node) -> bool:
        """Whether a node has run and its value is still there."""
        return node in self._values

    def value(self, node: Node) -> np.ndarray:
        """A tensor's value as numpy."""
        return to_numpy(self._values[node])

    def nbytes(self, node: Node) -> int:
        """The size of a tensor's own values; 0 for a view of another and for what is no tensor."""
        value = self._values[node]
        own = isinstance(value, torch.Tensor) and value._base is None
        return value.nbytes if own else 0

    def feedable(self, twins: Mapping[str, str]) -> dict[str, Node]:
        """The nodes of these names that ONNX Runtime can be fed from Python: no bfloat16."""
        by_name = {node.name: node for node in self.nodes}
        found = {name: by_name[twin] for name, twin in twins.items()}
        return {
            name: node
            for name, node in found.items()
            if isinstance(value := node.meta.get("val"), torch.Tensor)
            and value.dtype != torch.bfloat16
        }

    def boundary(self, node: Node, known: Container[Node]) -> tuple[set[Node], set[Node]]:
        """What has to be run anew for a node, and the values which that starts from."""
        anew, start, queue = {node}, set(), [node]
        while queue:
            for source in queue.pop().all_input_nodes:
                if source in anew or source in start:
                    continue
                if source in known or not _computed(source):
                    start.add(source)
                else:
                    anew.add(source)
                    queue.append(source)
        return anew, start

    def exact(self, node: Node, known: Container[Node]) -> np.ndarray | None:
        """The value in float64, from the kept values before it; None where that is impossible."""
        return self._again(node, known, _wider)

    def rough(self, node: Node, known: Container[Node]) -> np.ndarray | None:
        """The value with all sums as coarse as float32 allows; None where that is impossible."""
        with CoarseSums():
            return self._again(node, known, _same)

    def _again(
        self, node: Node, known: Container[Node], change: Callable[[Any], Any]
    ) -> np.ndarray | None:
        anew, _ = self.boundary(node, known)
        values: dict[Node, Any] = {}
        # An operator may have no kernel for the other precision, for whatever reason.
        with contextlib.suppress(Exception):
            for each in sorted(anew, key=self._order.__getitem__):
                values[each] = self._run(each, values, change)
            result: np.ndarray = to_numpy(values[node])
            return result
        return None

    def _run(self, node: Node, values: dict[Node, Any], change: Callable[[Any], Any]) -> Any:
        """One node on what ``values`` has, else on what was kept."""
        if node.op == "placeholder":
            return self._inputs[node.name]
        if node.op == "get_attr":
            return _attribute(self._module, str(node.target))

        def load(argument: Any) -> Any:
            if not isinstance(argument, Node):
                return change(argument)
            if argument in values:
                return values[argument]
            if argument not in self._values:
                raise _Missing
            return pytree.tree_map(change, self._values[argument])

        args = map_aggregate(node.args, load)
        kwargs = map_aggregate(node.kwargs, load)
        assert callable(node.target)
        return node.target(*args, **kwargs)


def _computed(node: Node) -> bool:
    """Whether a node is computed from tensors: inputs, weights and sizes are not."""
    if node.op != "call_function":
        return False
    return not isinstance(node.meta.get("val"), (int, float, bool, torch.SymInt, torch.SymFloat))


def _attribute(module: Any, path: str) -> Any:
    for name in path.split("."):
        module = getattr(module, name)
    return module


def _inputs(program: ExportedProgram, tensors: Sequence[torch.Tensor]) -> Iterator[tuple[str, Any]]:
    """The value of every placeholder: weights, buffers and constants from the program."""
    given = iter(tensors)
    for spec in program.graph_signature.input_specs:
        name, target = str(getattr(spec.arg, "name", "")), spec.target
        if spec.kind.name == "USER_INPUT":
            yield name, next(given)
        elif target in program.state_dict:
            yield name, program.state_dict[str(target)]
        else:
            yield name, program.constants[str(target)]
