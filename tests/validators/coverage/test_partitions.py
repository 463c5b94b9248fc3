"""The pieces against onnxruntime's own counter, and the joining set against all others."""

import itertools
import random

import onnx
import pytest
from onnx import TensorProto, helper

from torch2mobile.validators.coverage import partitions

usability = pytest.importorskip("onnxruntime.tools.mobile_helpers.usability_checker")


class _Only:
    """A list of operators for the usability checker: Relu, and nothing else."""

    def is_op_supported(self, node: onnx.NodeProto) -> bool:
        return node.op_type in ("Relu", "Add")


def _random_graph(seed: int, count: int) -> onnx.ModelProto:
    """Nodes that read one or two earlier values, half of them not supported."""
    draw = random.Random(seed)
    values, nodes = ["x"], []
    for number in range(count):
        two = draw.random() < 0.5
        op = draw.choice(["Add", "Mul"] if two else ["Relu", "Sigmoid"])
        reads = [draw.choice(values[-6:]) for _ in range(2 if two else 1)]
        nodes.append(helper.make_node(op, reads, [f"v{number}"], name=f"n{number}"))
        values.append(f"v{number}")
    info = helper.make_tensor_value_info
    inputs, outputs = ([info(name, TensorProto.FLOAT, [2])] for name in ("x", values[-1]))
    return helper.make_model(helper.make_graph(nodes, "g", inputs, outputs))


@pytest.mark.parametrize("seed", range(40))
def test_pieces_are_those_of_onnxruntimes_own_checker(seed: int) -> None:
    model = _random_graph(seed, 5 + seed)
    nodes = list(model.graph.node)
    taken = [node.op_type in ("Relu", "Add") for node in nodes]
    theirs = usability.check_partitioning(model.graph, _Only(), False)
    ours = partitions.sizes(partitions.edges(nodes), taken)
    assert len(ours) == theirs.num_partitions
    assert ours == [len(group) for group in theirs.supported_groups]


@pytest.mark.parametrize("seed", range(30))
def test_the_joining_set_is_the_smallest_of_all(seed: int) -> None:
    draw = random.Random(seed)
    count = 9
    sources = [
        sorted({draw.randrange(number) for _ in range(2)}) if number else []
        for number in range(count)
    ]
    taken = [draw.random() < 0.5 for _ in range(count)]
    others = [number for number in range(count) if not taken[number]]

    def pieces(extra: tuple[int, ...]) -> int:
        return len(partitions.sizes(sources, [t or n in extra for n, t in enumerate(taken)]))

    found = tuple(partitions.between(sources, taken))
    assert pieces(found) <= 1
    smaller = [
        chosen
        for size in range(len(found) + 1)
        for chosen in itertools.combinations(others, size)
        if pieces(chosen) <= 1 and chosen != found
    ]
    # Where nothing is taken, there is nothing to join.
    assert not smaller or not any(taken)


def test_nothing_taken_is_no_piece_and_all_taken_is_one() -> None:
    chain = [[], [0], [1]]
    assert partitions.sizes(chain, [False] * 3) == []
    assert partitions.sizes(chain, [True] * 3) == [3]
    assert partitions.between(chain, [False] * 3) == []


def test_one_node_in_the_middle_makes_two_pieces() -> None:
    chain = [[], [0], [1]]
    assert partitions.sizes(chain, [True, False, True]) == [1, 1]
    assert partitions.between(chain, [True, False, True]) == [1]


def test_a_subgraph_that_reads_a_value_is_behind_it() -> None:
    inner = helper.make_graph(
        [helper.make_node("Relu", ["a"], ["b"])],
        "inner",
        [],
        [helper.make_tensor_value_info("b", TensorProto.FLOAT, None)],
    )
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("If", ["c"], ["d"], then_branch=inner, else_branch=inner),
    ]
    assert partitions.edges(nodes) == [[], [0]]
