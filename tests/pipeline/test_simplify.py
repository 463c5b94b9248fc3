"""Simplification: kept where it is the same function, and never a file that is another one."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from rows import slow_but

import torch2mobile
from torch2mobile.environments import Worker
from torch2mobile.errors import BundleError, ExitCode, ModelFileError, UsageError
from torch2mobile.exporter.simplify import CANDIDATES
from torch2mobile.pipeline import simplify_file as simplifying
from torch2mobile.pipeline import simplify_search
from torch2mobile.pipeline.results import SimplifyResult
from torch2mobile.pipeline.simplified import adopt, judge_simplified
from torch2mobile.pipeline.simplify_file import specs_of
from torch2mobile.pipeline.simplify_search import Way
from torch2mobile.records import (
    Dim,
    OnnxModel,
    Origin,
    OutputSpec,
    ParityOptions,
    Status,
    Tolerance,
)
from torch2mobile.validators.parity.expected import Expected
from torch2mobile.validators.parity.probes import Probe

RNG = np.random.default_rng(0)


def weights(**arrays: Any) -> list[Any]:
    return [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()]


def model(nodes: list[Any], initializers: list[Any], **shapes: Any) -> Any:
    """A model of float32 inputs and outputs; names that start with y are outputs."""
    infos = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)
        for name, dims in shapes.items()
    }
    inputs = [info for name, info in infos.items() if not name.startswith("y")]
    outputs = [info for name, info in infos.items() if name.startswith("y")]
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializers)
    opset = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opset, ir_version=10)


def wordy() -> Any:
    """Two outputs, with an identity, a folded constant and a transposition there and back."""
    node = helper.make_node
    nodes = [
        node("Identity", ["x"], ["same"]),
        node("Add", ["two", "three"], ["five"]),
        node("Transpose", ["same"], ["turned"], perm=[1, 0]),
        node("Transpose", ["turned"], ["back"], perm=[1, 0]),
        node("MatMul", ["back", "w"], ["product"]),
        node("Mul", ["product", "five"], ["y1"]),
        node("Relu", ["product"], ["y2"]),
    ]
    given = weights(
        two=np.float32(2), three=np.float32(3), w=RNG.standard_normal((6, 4)).astype(np.float32)
    )
    return model(nodes, given, x=["N", 6], y1=["N", 4], y2=["N", 4])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.onnx"
    onnx.save(wordy(), path)
    return path


def run(path: Path, *arrays: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(path)
    names = [each.name for each in session.get_inputs()]
    return list(session.run(None, dict(zip(names, arrays, strict=True))))


def same_function(first: Path, second: Path) -> bool:
    x = np.random.default_rng(9).standard_normal((7, 6)).astype(np.float32)
    return all(
        np.allclose(a, b, atol=1e-5) for a, b in zip(run(first, x), run(second, x), strict=True)
    )


class TestKept:
    def test_a_simpler_model_that_is_equal_is_written(
        self, source: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        before, out = source.read_bytes(), source.with_name("out.onnx")
        result = torch2mobile.simplify(source, out)
        assert result.exit_code is ExitCode.PASSED
        assert result.path == out
        (check,) = result.report.checks
        assert check.name == "simplify"
        assert check.metrics["nodes_before"] == 7
        assert check.metrics["nodes_after"] == len(onnx.load(out).graph.node) < 7
        assert same_function(source, out)
        assert [v.name for v in onnx.load(out).graph.output] == ["y1", "y2"]
        assert onnx.load(out).graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"
        # Nothing else is left behind, changed or printed.
        assert source.read_bytes() == before
        assert {path.name for path in source.parent.iterdir()} == {"in.onnx", "out.onnx"}
        assert capfd.readouterr() == ("", "")
        assert "PASSED" in str(result)
        assert "<" in result._repr_html_()

    def test_the_same_input_gives_the_same_bytes(self, source: Path) -> None:
        written = []
        for name in ("a.onnx", "b.onnx"):
            torch2mobile.simplify(source, source.with_name(name))
            written.append(source.with_name(name).read_bytes())
        assert written[0] == written[1]

    def test_what_stood_there_is_replaced(self, source: Path) -> None:
        out = source.with_name("out.onnx")
        out.write_text("old")
        assert torch2mobile.simplify(source, str(out)).path == out
        assert same_function(source, out)

    def test_weights_beside_the_file_are_found(self, source: Path) -> None:
        outside = source.with_name("outside.onnx")
        onnx.save(
            onnx.load(source), outside, save_as_external_data=True, location="w", size_threshold=0
        )
        out = source.with_name("out.onnx")
        assert torch2mobile.simplify(outside, out).passed
        assert same_function(source, out)

    def test_folding_in_a_deep_network_is_no_false_alarm(self, tmp_path: Path) -> None:
        """Thirty convolutions with batch norm, whose output is some 1e6."""
        rng = np.random.default_rng(3)
        nodes, given, value = [], [], "x"
        for n in range(30):
            w = rng.standard_normal((8, 8, 3, 3)) * (2 / 72) ** 0.5
            given += weights(
                **{
                    f"w{n}": w.astype(np.float32),
                    f"s{n}": rng.uniform(0.8, 1.3, 8).astype(np.float32),
                    f"b{n}": rng.normal(0, 0.1, 8).astype(np.float32),
                    f"m{n}": rng.normal(0, 0.1, 8).astype(np.float32),
                    f"v{n}": rng.uniform(0.2, 0.6, 8).astype(np.float32),
                }
            )
            nodes += [
                helper.make_node("Conv", [value, f"w{n}"], [f"c{n}"], pads=[1, 1, 1, 1]),
                helper.make_node("BatchNormalization", [f"{k}{n}" for k in "csbmv"], [f"n{n}"]),
                helper.make_node("Relu", [f"n{n}"], [f"r{n}"]),
            ]
            value = f"r{n}"
        nodes.append(helper.make_node("Identity", [value], ["y"]))
        path = tmp_path / "deep.onnx"
        dims = ["N", 8, 10, 10]
        onnx.save(model(nodes, given, x=dims, y=dims), path)
        x = np.random.default_rng(1).standard_normal((1, 8, 10, 10)).astype(np.float32)
        assert np.abs(run(path, x)[0]).max() > 1e4
        result = torch2mobile.simplify(path, tmp_path / "out.onnx")
        assert result.passed, str(result)
        assert result.report.checks[0].metrics["nodes_after"] < 70

    def test_integer_inputs_are_drawn_from_the_values_given(self, tmp_path: Path) -> None:
        table = RNG.standard_normal((100, 4)).astype(np.float32)
        nodes = [
            helper.make_node("Identity", ["ids"], ["same"]),
            helper.make_node("Gather", ["table", "same"], ["y"]),
        ]
        proto = model(nodes, weights(table=table), y=["T", 4])
        proto.graph.input.append(helper.make_tensor_value_info("ids", TensorProto.INT64, ["T"]))
        onnx.save(proto, tmp_path / "in.onnx")
        result = torch2mobile.simplify(
            tmp_path / "in.onnx", tmp_path / "out.onnx", values=["ids=0..99"]
        )
        assert result.passed, str(result)


LIES: dict[str, str] = {
    "changed_operator": "graph.node[-1].op_type = 'LeakyRelu'",
    "changed_weight": """
        w = next(t for t in graph.initializer if t.name == 'w')
        values = numpy_helper.to_array(w).copy()
        values[2, 1] *= 1.01
        w.CopyFrom(numpy_helper.from_array(values, 'w'))
    """,
    "half_precision": """
        w = next(t for t in graph.initializer if t.name == 'w')
        values = numpy_helper.to_array(w).astype('float16').astype('float32')
        w.CopyFrom(numpy_helper.from_array(values, 'w'))
    """,
    "swapped_outputs": """
        kept = [onnx.ValueInfoProto.FromString(v.SerializeToString()) for v in graph.output]
        del graph.output[:]
        graph.output.extend(reversed(kept))
    """,
    "swapped_values": """
        for node in graph.node:
            node.output[:] = [{'y1': 'y2', 'y2': 'y1'}.get(v, v) for v in node.output]
    """,
    "dropped_output": "del graph.output[1]",
    "renamed_output": """
        graph.node[-1].output[0] = graph.output[1].name = 'z'
    """,
    "renamed_input": """
        graph.input[0].name = graph.node[0].input[0] = 'input'
    """,
    "frozen_dimension": """
        for value in [*graph.input, *graph.output]:
            value.type.tensor_type.shape.dim[0].dim_value = 2
    """,
    "frozen_output_alone": """
        graph.output[0].type.tensor_type.shape.dim[0].dim_value = 2
    """,
    "renamed_symbol": """
        for value in [*graph.input, *graph.output]:
            value.type.tensor_type.shape.dim[0].dim_param = 'M'
    """,
    "another_dtype": """
        graph.node[-1].output[0] = 'before'
        cast = onnx.helper.make_node('Cast', ['before'], ['y2'], to=onnx.TensorProto.DOUBLE)
        graph.node.append(cast)
        graph.output[1].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    """,
    "not_a_number": """
        graph.node[-1].output[0] = 'before'
        nan = numpy_helper.from_array(np.float32('nan'), 'nan')
        graph.initializer.append(nan)
        graph.node.append(onnx.helper.make_node('Mul', ['before', 'nan'], ['y2']))
        del graph.node[0:1]
        graph.node[1].input[0] = 'x'
    """,
    "does_not_load": "graph.node[-1].input[0] = 'nowhere'",
    "more_nodes": """
        for n in range(9):
            graph.node.append(onnx.helper.make_node('Identity', ['x'], [f'extra{n}']))
    """,
}

LIAR = """
import os, signal, time
import numpy as np
import onnx
from onnx import numpy_helper

def run(name, source, target, external_data):
    model = onnx.load(source)
    graph = model.graph
    before = len(graph.node)
{body}
    onnx.save(model, target)
    return {{"before": before, "after": {after}}}
"""


@pytest.fixture
def lying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put another function in the place of every way to simplify, or of the first only."""

    def put(body: str, *, first_only: bool = False) -> None:
        folder = tmp_path / "liar"
        folder.mkdir()
        # Alone among honest ones it is the smallest, so that it is judged first.
        after = "1" if first_only and "extra" not in body else "len(graph.node)"
        text = LIAR.format(body=textwrap.indent(textwrap.dedent(body), " " * 4), after=after)
        (folder / "lying_simplifier.py").write_text(text)
        monkeypatch.setenv("PYTHONPATH", str(folder))
        names = list(CANDIDATES)[:1] if first_only else list(CANDIDATES)

        class Lying(Worker):
            def submit(self, function: str, *args: Any) -> None:
                lies = function.endswith(":candidate") and args[0] in names
                super().submit("lying_simplifier:run" if lies else function, *args)

        for module in (simplifying, simplify_search):
            monkeypatch.setattr(module, "Worker", Lying)

    return put


def refused(result: SimplifyResult, source: Path, status: Status) -> str:
    """What is said of a result that was not used; what stood in its place is untouched."""
    out = source.with_name("out.onnx")
    assert result.path is None
    assert out.read_text() == "old"
    assert not any(path.name.startswith(".torch2mobile") for path in source.parent.iterdir())
    (check,) = result.report.checks
    assert check.status is status
    assert (
        result.exit_code is {Status.FAILED: ExitCode.FAILED, Status.ERROR: ExitCode.STAGE}[status]
    )
    return check.summary


class TestRefused:
    @pytest.mark.parametrize(
        "name", slow_but(LIES, "changed_operator", "half_precision", "swapped_values")
    )
    def test_another_function_is_not_written(
        self, source: Path, lying: Callable[..., None], name: str
    ) -> None:
        lying(LIES[name])
        source.with_name("out.onnx").write_text("old")
        result = torch2mobile.simplify(source, source.with_name("out.onnx"))
        reason = refused(result, source, Status.FAILED)
        assert reason.startswith("dropped: ")

    def test_a_new_file_does_not_appear_either(
        self, source: Path, lying: Callable[..., None]
    ) -> None:
        lying(LIES["changed_operator"])
        assert torch2mobile.simplify(source, source.with_name("new.onnx")).path is None
        assert not source.with_name("new.onnx").exists()

    def test_the_mismatch_is_in_the_report(self, source: Path, lying: Callable[..., None]) -> None:
        lying(LIES["changed_weight"])
        result = torch2mobile.simplify(source, source.with_name("new.onnx"))
        (check,) = result.report.checks
        assert "changed the results" in check.summary
        assert {mismatch.output for mismatch in check.mismatches} == {"y1", "y2"}
        assert check.hint

    def test_a_users_tolerance_lets_it_pass(self, source: Path, lying: Callable[..., None]) -> None:
        lying(LIES["half_precision"])
        loose = ParityOptions(tolerances={"": Tolerance(atol=1e3)})
        assert torch2mobile.simplify(source, source.with_name("n.onnx"), parity=loose).passed

    def test_the_liar_itself_is_no_reason(self, source: Path, lying: Callable[..., None]) -> None:
        lying("pass")
        assert torch2mobile.simplify(source, source.with_name("new.onnx")).passed

    def test_a_crash_is_reported_with_its_signal(
        self, source: Path, lying: Callable[..., None]
    ) -> None:
        lying("os.kill(os.getpid(), signal.SIGABRT)")
        source.with_name("out.onnx").write_text("old")
        result = torch2mobile.simplify(source, source.with_name("out.onnx"))
        assert "SIGABRT" in refused(result, source, Status.ERROR)

    def test_an_exception_is_reported(self, source: Path, lying: Callable[..., None]) -> None:
        lying("raise ValueError('its own check says no')")
        source.with_name("out.onnx").write_text("old")
        result = torch2mobile.simplify(source, source.with_name("out.onnx"))
        assert "its own check says no" in refused(result, source, Status.ERROR)

    def test_a_time_out_is_reported(self, source: Path, lying: Callable[..., None]) -> None:
        lying("time.sleep(60)")
        source.with_name("out.onnx").write_text("old")
        result = torch2mobile.simplify(source, source.with_name("out.onnx"), timeout=0.5)
        assert "no answer within 0.5 s" in refused(result, source, Status.ERROR)


class TestNext:
    """Where the way that leads furthest goes wrong, the next one is taken."""

    @pytest.mark.parametrize(
        ("body", "reason"),
        [
            pytest.param("time.sleep(60)", "no answer within 5 s", marks=pytest.mark.slow),
            ("os._exit(3)", "exited with status 3"),
            pytest.param("raise RuntimeError('not today')", "not today", marks=pytest.mark.slow),
            (LIES["changed_weight"], "changed the"),
            pytest.param(LIES["renamed_output"], "changed the", marks=pytest.mark.slow),
            pytest.param(LIES["more_nodes"], "16 nodes", marks=pytest.mark.slow),
            pytest.param(LIES["does_not_load"], "the simplified model", marks=pytest.mark.slow),
        ],
        ids=["hangs", "dies", "raises", "wrong_result", "wrong_name", "larger", "does_not_load"],
    )
    def test_the_next_way_is_taken(
        self, source: Path, lying: Callable[..., None], body: str, reason: str
    ) -> None:
        lying(body, first_only=True)
        out = source.with_name("out.onnx")
        result = torch2mobile.simplify(source, out, timeout=5 if "sleep" in body else 60)
        assert result.passed, str(result)
        (check,) = result.report.checks
        assert check.metrics["way"] != next(iter(CANDIDATES))
        assert check.metrics["nodes_after"] < 7
        assert same_function(source, out)
        (table,) = check.tables
        assert [row[0] for row in table.rows] == list(CANDIDATES)
        # One that is as large as the module, or larger, is not reached by the order of size.
        if "16 nodes" not in reason:
            assert reason in " ".join(check.notes)

    def test_each_file_is_judged_once(
        self, source: Path, lying: Callable[..., None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lying(LIES["changed_weight"])
        judged: list[str] = []

        def counted(raw: Path, way: Way, *args: Any) -> Any:
            judged.append(way.name)
            return judge_simplified(raw, way, *args)

        monkeypatch.setattr(simplifying, "judge_simplified", counted)
        result = torch2mobile.simplify(source, source.with_name("out.onnx"))
        assert result.path is None
        assert judged == list(CANDIDATES)[:1]

    def test_nothing_to_simplify_is_said(self, source: Path) -> None:
        small, out = source.with_name("small.onnx"), source.with_name("out.onnx")
        torch2mobile.simplify(source, small)
        result = torch2mobile.simplify(small, out)
        assert result.passed
        assert "nothing to simplify" in result.report.checks[0].summary
        assert same_function(small, out)


class TestUsage:
    @pytest.mark.parametrize(
        "content", [b"", b"no model", None], ids=["empty", "garbage", "truncated"]
    )
    def test_what_is_no_model(self, source: Path, content: bytes | None) -> None:
        whole = source.read_bytes()
        source.write_bytes(whole[: len(whole) // 2] if content is None else content)
        with pytest.raises(ModelFileError):
            torch2mobile.simplify(source, source.with_name("out.onnx"))
        assert not source.with_name("out.onnx").exists()

    def test_a_missing_input(self, tmp_path: Path) -> None:
        with pytest.raises(ModelFileError, match="there is no file"):
            torch2mobile.simplify(tmp_path / "no.onnx", tmp_path / "out.onnx")

    def test_the_input_itself_as_output(self, source: Path) -> None:
        before = source.read_bytes()
        with pytest.raises(UsageError, match="the input itself"):
            torch2mobile.simplify(source, source.parent / "." / source.name)
        assert source.read_bytes() == before

    def test_a_folder_that_is_not_there(self, source: Path) -> None:
        with pytest.raises(BundleError, match="cannot write"):
            torch2mobile.simplify(source, source.parent / "nowhere" / "out.onnx")

    def test_a_folder_as_output(self, source: Path) -> None:
        (source.parent / "out").mkdir()
        with pytest.raises(UsageError, match="is a folder"):
            torch2mobile.simplify(source, source.parent / "out")

    def test_a_tolerance_for_no_output(self, source: Path) -> None:
        parity = ParityOptions(tolerances={"y3": Tolerance(1)})
        with pytest.raises(UsageError, match="'y3', which is no output"):
            torch2mobile.simplify(source, source.with_name("out.onnx"), parity=parity)

    def test_values_for_no_input(self, source: Path) -> None:
        with pytest.raises(UsageError, match="z"):
            torch2mobile.simplify(source, source.with_name("out.onnx"), values=["z=0..1"])


class TestFixedSizes:
    """A file for one size, with what is computed of the size folded."""

    @pytest.fixture
    def by_size(self, tmp_path: Path) -> Path:
        """The values of an input divided by how many there are in a row."""
        nodes = [
            helper.make_node("Shape", ["x"], ["shape"], start=1),
            helper.make_node("Cast", ["shape"], ["count"], to=TensorProto.FLOAT),
            helper.make_node("Div", ["x", "count"], ["y"]),
        ]
        path = tmp_path / "sized.onnx"
        onnx.save(model(nodes, [], x=["N", "T"], y=["N", "T"]), path)
        return path

    def test_what_follows_the_size_is_folded(self, by_size: Path) -> None:
        out = by_size.with_name("fixed.onnx")
        assert torch2mobile.simplify(by_size, out, fix_dims={"T": 5}).passed
        made = onnx.load(out)
        assert [node.op_type for node in made.graph.node] in (["Div"], ["Mul"])
        for value in (made.graph.input[0], made.graph.output[0]):
            first, second = value.type.tensor_type.shape.dim
            assert (first.dim_param, second.dim_value) == ("N", 5)
        x = np.random.default_rng(0).random((3, 5), np.float32)
        (given,) = onnxruntime.InferenceSession(out).run(None, {"x": x})
        np.testing.assert_allclose(given, x / 5, rtol=1e-6)

    @pytest.mark.parametrize(
        ("sizes", "words"),
        [({"H": 5}, "no input has a dimension of that name"), ({"T": 0}, "T"), ({"T": -1}, "T")],
    )
    def test_sizes_that_it_cannot_have(
        self, by_size: Path, sizes: dict[str, int], words: str
    ) -> None:
        out = by_size.with_name("fixed.onnx")
        with pytest.raises(UsageError, match=words):
            torch2mobile.simplify(by_size, out, fix_dims=sizes)
        assert not out.exists()


class TestJudge:
    """The judgement alone, of a model simplified by hand."""

    def expected(self) -> list[Expected]:
        return [
            Expected(
                Probe(f"p{n}", {"x": np.random.default_rng(n).standard_normal((n, 6), np.float32)}),
                [],
            )
            for n in (1, 2, 5)
        ]

    def judge(self, source: Path, after: Any, expected: list[Expected] | None = None) -> Any:
        path = source.with_name("after.onnx")
        onnx.save(after, path)
        way = Way("by hand", path, 7, len(after.graph.node))
        expected = self.expected() if expected is None else expected
        return judge_simplified(source, way, expected, ParityOptions())

    def test_an_equal_model_passes(self, source: Path) -> None:
        check = self.judge(source, onnx.load(source))
        assert check.status is Status.PASSED
        assert check.summary == "7 to 7 nodes, equal on 3 probes"

    def test_one_changed_operator_is_dropped(self, source: Path) -> None:
        after = onnx.load(source)
        after.graph.node[-1].op_type = "Elu"
        check = self.judge(source, after)
        assert check.status is Status.SKIPPED
        assert check.mismatches[0].output == "y2"

    def test_without_probes_nothing_was_shown(self, source: Path) -> None:
        assert self.judge(source, onnx.load(source), []).status is not Status.PASSED

    def test_probes_that_the_model_itself_refuses_do_not_count(self, source: Path) -> None:
        bad = Expected(Probe("bad", {"x": np.zeros((2, 5), np.float32)}), [])
        check = self.judge(source, onnx.load(source), [*self.expected(), bad])
        assert check.status is Status.PASSED
        assert "3 probes" in check.summary
        assert self.judge(source, onnx.load(source), [bad]).status is not Status.PASSED

    def test_a_probe_that_only_the_simplified_one_refuses_does(self, source: Path) -> None:
        after = onnx.load(source)
        # It reads a fourth row, which smaller batches do not have.
        given = weights(fourth=np.array([3]), nothing=np.float32(0))
        after.graph.initializer.extend(given)
        nodes = [
            helper.make_node("Gather", ["x", "fourth"], ["row"]),
            helper.make_node("Mul", ["row", "nothing"], ["zeros"]),
            helper.make_node("Add", ["x", "zeros"], ["same"]),
        ]
        after.graph.node[0].CopyFrom(nodes[2])
        after.graph.node.insert(0, nodes[1])
        after.graph.node.insert(0, nodes[0])
        del after.graph.node[4:6]
        after.graph.node[4].input[0] = "same"
        check = self.judge(source, after)
        assert check.status is Status.SKIPPED
        assert {mismatch.probe for mismatch in check.mismatches} == {"p1", "p2"}


class TestSpecs:
    def test_from_what_the_runtime_says(self) -> None:
        found = specs_of(
            [OutputSpec("x", "float32", ("N", 3, "8*h", "?")), OutputSpec("n", "int64", ())]
        )
        assert [spec.name for spec in found] == ["x", "n"]
        assert found[0].dims == (
            Dim(symbol="N"),
            Dim(size=3),
            Dim(symbol="h", factor=8),
            Dim(symbol="x_3"),
        )
        assert found[1].dims == ()

    @pytest.mark.parametrize("size", ["N - 1", "P + T", "floor(N/2)", "a b"])
    def test_an_expression_is_a_symbol_of_its_own(self, size: str) -> None:
        (found,) = specs_of([OutputSpec("x", "float32", (size,))])
        assert found.dims == (Dim(symbol="x_0"),)

    def test_inputs_that_are_no_numbers_are_refused(self) -> None:
        with pytest.raises(UsageError, match="cannot be probed"):
            specs_of([OutputSpec("text", "string", (1,))])


@pytest.mark.parametrize("noted", [True, False])
@pytest.mark.parametrize("external", [True, False])
def test_what_is_adopted_has_no_notes(tmp_path: Path, noted: bool, external: bool) -> None:
    def written(name: str, op: str) -> Path:
        weight = numpy_helper.from_array(np.ones(300, np.float32), "w")
        graph = helper.make_graph(
            [helper.make_node(op, ["x", "w"], ["y"], doc_string="/home/me/net.py" * noted)],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [300])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [300])],
            [weight],
        )
        path = tmp_path / name
        data = f"{name}.data" if external else None
        onnx.save(
            helper.make_model(graph), path, save_as_external_data=external, location=data,
            size_threshold=0,
        )  # fmt: skip
        return path

    raw, simplified = written("model.onnx", "Add"), written("simplified.onnx", "Mul")
    origins = {"y": (Origin(("layer",), "net.py", 1, "y"),)}
    adopted = adopt(OnnxModel(raw, 20, (), (), origins), simplified)
    found = onnx.load(adopted.path)
    assert (found.graph.node[0].op_type, found.graph.node[0].doc_string) == ("Mul", "")
    assert numpy_helper.to_array(found.graph.initializer[0]).sum() == 300
    assert (tmp_path / "model.onnx.data").exists() is external
    assert adopted.origins == origins
