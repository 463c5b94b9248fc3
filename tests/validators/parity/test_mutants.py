"""Mutants judged by the gate: what is caught, missed, equivalent, or a false alarm, and why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from torch2mobile.errors import ModelFileError, WorkerCrashError
from torch2mobile.records import Location, ParityOptions, Status, Tolerance
from torch2mobile.validators.parity import mutants
from torch2mobile.validators.parity.faults.catalogue import Mutation
from torch2mobile.validators.parity.faults.graph_changes import Graph
from torch2mobile.validators.parity.mutants import Trial
from torch2mobile.validators.parity.mutating import bench, decisions, float64
from torch2mobile.validators.parity.mutating.mutants_check import mutants_check
from torch2mobile.validators.parity.mutating.outcomes import Verdict
from torch2mobile.validators.parity.mutating.ranges import impossible, ranges_of
from torch2mobile.validators.parity.mutating.reach import Reach, Untaken

ROWS = ("x:float32[N=1..3,4]",)
LINE = "(float[N,4] x) => (float[N,4] y)"


def array(*shape: int) -> Any:
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


@pytest.fixture(scope="session")
def net(tiny: Callable[..., Any]) -> Any:
    nodes = "h = MatMul(x, w) s = Add(h, b) y = HardSwish(s)"
    return tiny(f"{LINE} {{ {nodes} }}", ROWS, w=array(4, 4), b=array(4))


def trial(
    model: Any,
    *kinds: str,
    count: int = 100,
    search: bool = True,
    untaken: Sequence[Untaken] = (),
    **options: Any,
) -> Trial:
    return mutants.run(
        model.copy(),
        model.specs,
        model.expected,
        ParityOptions(**options),
        count=count,
        kinds=kinds or None,
        evaluate=model.evaluate if search else None,
        untaken=untaken,
        budget=24,
    )


def test_all_are_caught_on_the_probes_whatever_their_order(net: Any) -> None:
    found = trial(net)
    assert found.share == 1
    assert found.count("caught") == 10
    assert found.count("passed") == 2
    assert not found.count("false alarm", "missed")
    turned = replace(net, expected=[net.expected[0], *reversed(net.expected[1:])])
    again = trial(turned)
    assert [(v.mutation, v.outcome) for v in found.verdicts] == [
        (v.mutation, v.outcome) for v in again.verdicts
    ]


def test_a_fault_at_one_size_is_drawn_where_every_size_is_tried(net: Any) -> None:
    tried = trial(net, "one_size")
    assert [one.outcome for one in tried.verdicts] == ["caught"] * len(tried.verdicts) != []
    some = replace(net, expected=[each for each in net.expected if len(each.probe.feeds["x"]) < 3])
    assert not trial(some, "one_size").verdicts


def test_a_gate_that_is_too_strict_is_a_false_alarm(net: Any) -> None:
    # The file is its own reference here, so it passes under no tolerance at all.
    found = trial(net, "ulp", tolerances={"": Tolerance()})
    assert found.count("false alarm")
    check = mutants_check("onnx", found, 0.0, {})
    assert check.status is Status.FAILED
    assert [table.title for table in check.tables][-1] == "false alarms"


def test_a_gate_that_lets_anything_pass_misses_them_and_the_share_fails(net: Any) -> None:
    found = trial(net, "weight_float16", "kernel_flip", "swish_form", tolerances={"": Tolerance(9)})
    assert [v.outcome for v in found.verdicts] == ["missed", "missed"]
    for verdict in found.verdicts:
        assert verdict.effect > 1
        assert "within what is allowed" in verdict.reason
    place = Location(module="act", file="net.py", line=3)
    check = mutants_check("onnx", found, 0.95, {"y": place})
    assert check.status is Status.FAILED
    assert check.summary.startswith("0 of 2 caught")
    assert check.locations == (place,)
    assert "net.py:3" in check.tables[1].rows[0] or "net.py:3" in check.tables[1].rows[1]
    assert mutants_check("onnx", found, 0.0, {}).status is Status.PASSED


RARE = "m = ReduceMean(x, k) c = Greater(m, t) r = Neg(x) y = Where(c, r, x)"


def test_a_missed_mutant_names_the_input_that_would_catch_it(tiny: Callable[..., Any]) -> None:
    # Whether the whole row is nearly 1 decides: the probes that say so are taken away.
    model = tiny(f"{LINE} {{ {RARE} }}", ROWS, ["x=0..1"], k=np.array([1]), t=np.float32(0.9))
    dull = [case for case in model.expected if case.probe.feeds["x"].mean(axis=1).max() < 0.9]
    assert len(dull) < len(model.expected)
    blind = replace(model, expected=dull)
    found = trial(blind, "operand_order")
    missed = [v for v in found.verdicts if v.mutation.op == "Greater"]
    assert [v.outcome for v in missed] == ["caught"]
    found = trial(replace(blind, model=_without(model)), "comparison_strictness", "relu_slope")
    (verdict,) = [v for v in found.verdicts if v.mutation.kind == "relu_slope"]
    assert verdict.outcome == "missed"
    assert verdict.probe.startswith("search relu_slope z ")
    (case,) = found.found
    assert case.probe.label == verdict.probe
    assert case.probe.feeds["x"].mean(axis=1).max() > 0.9
    (again,) = [
        v
        for v in trial(replace(model, model=_without(model)), "relu_slope").verdicts
        if v.mutation.kind == "relu_slope"
    ]
    assert again.outcome == "caught"


def _without(model: Any) -> Any:
    """The same function with a Relu that matters only in the rare branch."""
    import onnx

    changed = model.copy()
    for node in changed.graph.node:
        if node.op_type == "Neg":
            node.output[0] = "n"
    relu = onnx.helper.make_node("Relu", ["n"], ["z"], name="z")
    back = onnx.helper.make_node("Add", ["z", "n"], ["r"], name="back")
    changed.graph.node.insert(3, relu)
    changed.graph.node.insert(4, back)
    return changed


def test_a_searched_input_on_which_the_file_itself_is_wrong_fails(tiny: Callable[..., Any]) -> None:
    model = tiny(f"{LINE} {{ a = Abs(x) y = Relu(a) }}", ROWS)

    def other(probes: Any) -> list[Any]:
        return [
            replace(case, outputs=[(name, a + 1) for name, a in case.outputs], truth=None)
            for case in model.evaluate(probes)
        ]

    found = mutants.run(
        model.copy(),
        model.specs,
        model.expected,
        ParityOptions(),
        count=1,
        kinds=["relu_slope"],
        evaluate=other,
        budget=8,
    )
    check = mutants_check("onnx", found, 0.0, {})
    assert check.status is Status.FAILED
    assert "the file itself is not the module" in check.summary
    assert check.mismatches[0].probe.startswith("search relu_slope y")


def test_what_the_graph_shows_needs_no_search(tiny: Callable[..., Any]) -> None:
    model = tiny(f"{LINE} {{ a = Abs(x) y = Relu(a) }}", ROWS)
    (verdict,) = trial(model, "relu_slope", search=False).verdicts
    assert verdict.outcome == "equivalent"
    assert "searched" not in verdict.reason
    assert verdict.reason.endswith("no declared input takes its data below 0")


def test_without_a_search_the_same_bits_are_no_reason(tiny: Callable[..., Any]) -> None:
    text = f"{LINE} {{ a = Mul(x, x) b = MatMul(a, w) y = Relu(b) }}"
    model = tiny(text, ROWS, w=np.abs(array(4, 4)))
    (verdict,) = trial(model, "relu_slope", search=False).verdicts
    assert verdict.outcome == "unreached"
    assert verdict.reason.endswith("no input was searched for")
    (verdict,) = trial(model, "relu_slope").verdicts
    assert verdict.outcome == "equivalent"


DEAD = "a = Abs(x) m = ReduceMax(a, k) c = Greater(m, t) n = Neg(x) r = Relu(n) y = Where(c, r, x)"
MASK = (
    "a = Abs(x) m = ReduceMax(a, k) c = Greater(m, t) g = Cast<to=1>(c) n = Neg(x) r = Relu(n) "
    "z = Mul(r, g) y = Add(z, x)"
)


def untaken(model: Any) -> list[Untaken]:
    """The side of the first comparison that no probe takes, unless no declared input can."""
    (found,) = [each for each in decisions.find(model.model) if each.op == "Greater"]
    known = ranges_of(Graph(model.model), model.specs)
    return [Untaken(found, 1)] if 1 not in impossible(found, known) else []


@pytest.mark.parametrize("nodes", [DEAD, MASK])
def test_what_no_input_reaches_is_not_equivalent(tiny: Callable[..., Any], nodes: str) -> None:
    model = tiny(f"{LINE} {{ {nodes} }}", ROWS, k=np.array([1]), t=np.float32(3e7))
    assert untaken(model)
    found = trial(model, "relu_slope", untaken=untaken(model))
    (verdict,) = found.verdicts
    assert verdict.outcome == "unreached"
    assert verdict.behind == untaken(model)[0]
    assert verdict.reason.startswith("the Greater c was never greater on ")
    check = mutants_check("onnx", found, 0.95, {"c": Location(file="net.py", line=3)})
    assert check.status is Status.FAILED
    assert check.metrics["unreached"] == 1
    assert check.metrics["share"] == 0
    assert "the Greater c was never greater" in check.hint
    (table,) = [table for table in check.tables if table.title == "unreached"]
    assert table.rows[0][3:5] == ("c (Greater)", "greater")
    assert table.rows[0][-1] == "net.py:3"


@pytest.mark.parametrize("nodes", [DEAD, MASK])
def test_what_no_declared_input_reaches_is_equivalent(tiny: Callable[..., Any], nodes: str) -> None:
    tensors = {"k": np.array([1]), "t": np.float32(3e7)}
    model = tiny(f"{LINE} {{ {nodes} }}", ROWS, ["x=-2..3"], **tensors)
    assert not untaken(model)
    (verdict,) = trial(model, "relu_slope", untaken=untaken(model)).verdicts
    assert verdict.outcome == "equivalent"


def test_a_fault_on_the_taken_side_is_not_hidden(tiny: Callable[..., Any]) -> None:
    nodes = (
        "a = Abs(x) m = ReduceMax(a, k) c = Greater(m, t) n = Neg(x) r = Relu(a) y = Where(c, n, r)"
    )
    model = tiny(f"{LINE} {{ {nodes} }}", ROWS, k=np.array([1]), t=np.float32(3e7))
    graph = Graph(model.model)
    reach = Reach(graph, untaken(model))
    at = {node.output[0]: address for address, node in graph.nodes}
    assert reach.hidden(at["r"]) is None
    assert reach.hidden(at["n"]) == untaken(model)[0]
    assert reach.hidden(at["m"]) == untaken(model)[0]
    assert reach.unfed(at["c"]) == untaken(model)[0]
    assert reach.unfed(at["r"]) is None


def test_what_is_only_rounded_elsewhere_is_shown_in_float64(tiny: Callable[..., Any]) -> None:
    # A constant that is added to all before a softmax changes nothing but the rounding.
    nodes = "h = Add(x, c) e = Mul(h, big) y = Softmax(e)"
    tensors = {"c": np.full(1, 900, np.float32), "big": np.full(4, 1, np.float32)}
    model = tiny(f"{LINE} {{ {nodes} }}", ROWS, ["x=-9..9"], **tensors)
    study = trial(model, "bias_lost", "cast_narrow")
    assert study.count("missed") == 0


def test_the_reason_says_where_an_effect_ends(tiny: Callable[..., Any]) -> None:
    nodes = "h = MatMul(x, w) s = Add(h, b) y = Relu(s)"
    dead = {"w": np.zeros((4, 4), np.float32), "b": np.full(4, -1, np.float32)}
    model = tiny(f"{LINE} {{ {nodes} }}", ROWS, **dead)
    (verdict,) = trial(model, "bias_lost").verdicts
    assert verdict.reason.endswith("its effect ends at y (Relu)")


def test_a_file_that_does_not_pass_itself_is_refused(net: Any) -> None:
    wrong = [
        replace(case, outputs=[(name, a + 1) for name, a in case.outputs], truth=None)
        for case in net.expected
    ]
    with pytest.raises(ModelFileError, match="unchanged file does not pass on example"):
        trial(replace(net, expected=wrong))


def test_large_weights_are_sent_once_and_judged_alike(tiny: Callable[..., Any]) -> None:
    text = "(float[N,64] x) => (float[N,64] y) { h = MatMul(x, w) y = Relu(h) }"
    model = tiny(text, ("x:float32[N=1..2,64]",), w=array(64, 64) / 8)
    skeleton, weights = bench.split(model.copy())
    assert set(weights) == {"w"}
    assert len(skeleton.SerializeToString()) < 1000
    found = trial(model)
    assert found.share == 1
    assert found.count("passed")
    raised = ("ONNXRuntimeError", "ONNX Runtime cannot load")
    assert not [
        v for v in found.verdicts if v.mutation.node and any(word in v.reason for word in raised)
    ]


class TestBench:
    def variant(self, net: Any) -> bench.Packed:
        return bench.pack(net.model)

    def test_a_crash_costs_one_answer(self, net: Any) -> None:
        feeds = [case.probe.feeds for case in net.expected]
        with bench.Bench({}, feeds, 60) as table:
            table.open(0, self.variant(net))
            (before,) = table.run(0, [0])
            assert table._process._worker is not None
            table._process._worker.submit("os:abort")
            assert all(isinstance(answer, WorkerCrashError) for answer in table.run(0, [0, 1]))
            (after,) = table.run(0, [0])
            assert np.array_equal(before[0][1], after[0][1])

    def test_what_does_not_load_gives_errors(self, net: Any) -> None:
        with (
            bench.Bench({}, [net.expected[0].probe.feeds], 60) as table,
            table.variant(1, bench.Packed(b"nonsense", ()), [0]) as answers,
        ):
            assert isinstance(answers[0], Exception)

    def test_an_input_that_does_not_fit_gives_an_error(self, net: Any) -> None:
        with bench.Bench({}, [], 60) as table:
            table.open(0, self.variant(net))
            (answer,) = table.run(0, [{"x": np.zeros((1, 5), np.float32)}])
            assert isinstance(answer, Exception)


class TestFloat64:
    def test_it_computes_in_float64(self, net: Any) -> None:
        x = net.expected[0].probe.feeds["x"]
        found = float64.outputs(net.model, {}, {"x": x})
        assert found is not None
        ((name, got),) = found
        assert name == "y"
        assert got.dtype == np.float64
        w, b = (t.astype(np.float64) for t in (array(4, 4), array(4)))
        h = x.astype(np.float64) @ w + b
        np.testing.assert_allclose(
            got, h * np.clip(h / 6 + 0.5, 0, 1), rtol=1e-7
        )  # 1/6 is a float32 there

    def test_an_unknown_operator_gives_nothing(self, net: Any) -> None:
        other = net.copy()
        other.graph.node[0].domain = "elsewhere"
        assert float64.outputs(other, {}, net.expected[0].probe.feeds) is None


def test_nothing_to_judge_is_skipped_and_fewer_than_asked_is_said() -> None:
    check = mutants_check("onnx", Trial((), 50), 0.95, {})
    assert check.status is Status.SKIPPED
    assert check.notes == ("the file has places for 0 of the 50 asked for",)


@pytest.mark.parametrize(
    ("caught", "missed", "unreached", "least", "status"),
    [
        (19, 1, 0, 0.95, Status.PASSED),
        (19, 0, 1, 0.95, Status.PASSED),
        (19, 1, 1, 0.95, Status.FAILED),
        (18, 1, 0, 0.95, Status.FAILED),
        (0, 1, 0, 0.0, Status.PASSED),
        (0, 0, 1, 1e-9, Status.FAILED),
        (5, 0, 0, 1.0, Status.PASSED),
    ],
)
def test_the_share_decides(
    caught: int, missed: int, unreached: int, least: float, status: Status
) -> None:
    one = Mutation("epsilon", "n", "y", "epsilon to 0.001")
    verdicts = [Verdict(one, "caught")] * caught + [Verdict(one, "missed")] * missed
    verdicts += [Verdict(one, "unreached")] * unreached
    verdicts.append(Verdict(one, "equivalent", reason="the same bits"))
    check = mutants_check("onnx", Trial(tuple(verdicts), len(verdicts)), least, {})
    assert check.status is status
    assert check.metrics["share"] == caught / (caught + missed + unreached)
    assert check.tables[0].rows == (("epsilon", caught, missed, unreached, 1),)
