"""What the installed runtime would do with a node; the agreement with it is in test_agreement."""

import numpy as np
import onnx
import onnx_models as models
import pytest
from onnx import TensorProto, helper

from torch2mobile.validators.coverage import graph, kernels, runtime
from torch2mobile.validators.coverage.runtime import Outcome, Verdict

F, D, H = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16
INT = TensorProto.INT64


def _judge(model: onnx.ModelProto) -> Verdict:
    return runtime.verdicts(graph.read(model))[0]


CASES = {
    "a kernel": (models.one("Relu", [2]), Outcome.KERNEL),
    "a type of its own": (models.one("Relu", [2], kind=TensorProto.INT32), Outcome.KERNEL),
    "a definition": (models.one("HardSwish", [2], opset=22), Outcome.FUNCTION),
    "a definition without kernels": (
        models.one("HardSwish", [2], kind=D, opset=22),
        Outcome.NO_TYPE_KERNEL,
    ),
    "another library": (models.one("Warp", [2], domain="imaging"), Outcome.NO_OPERATOR),
    "no such operator": (models.one("Warp", [2]), Outcome.NO_OPERATOR),
    "an operator of a later opset": (models.one("Gelu", [2], opset=19), Outcome.NO_OPERATOR),
    "an operator that was removed": (
        models.one("Upsample", [1, 1, 2, 2], constants={"s": np.ones(4, np.float32)}, opset=10),
        Outcome.DEPRECATED,
    ),
    "an operator without kernel": (
        models.one("ImageDecoder", [9], kind=TensorProto.UINT8),
        Outcome.NO_KERNEL,
    ),
    "no kernel for the type": (
        models.one("Conv", [1, 1, 4], kind=D, constants={"w": np.zeros((1, 1, 3))}),
        Outcome.NO_TYPE_KERNEL,
    ),
    "a type that ONNX forbids": (models.one("Sin", [2], kind=INT), Outcome.BAD_TYPE),
    "types that differ": (models.one("Add", [2], more=[("z", INT, [2])]), Outcome.BAD_TYPE),
    "float16 between casts": (
        models.one("Conv", [1, 1, 4], kind=H, constants={"w": np.zeros((1, 1, 3), np.float16)}),
        Outcome.CASTS,
    ),
    "a contrib operator": (
        models.one("QuickGelu", [2], domain="com.microsoft"),
        Outcome.KERNEL,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_outcome_of_a_node(case: str) -> None:
    model, outcome = CASES[case]
    found = _judge(model)
    assert found.outcome is outcome, found.reason
    assert found.reason or outcome is Outcome.KERNEL


@pytest.mark.parametrize("case", CASES)
def test_the_runtime_does_as_said(case: str) -> None:
    import onnxruntime

    model, outcome = CASES[case]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        loads = True
    except Exception:  # noqa: BLE001 (onnxruntime raises many kinds)
        loads = False
    assert loads is outcome.supported


def test_a_missing_kernel_says_which_types_there_are() -> None:
    model, _ = CASES["no kernel for the type"]
    assert (
        _judge(model).reason == "Conv(11) has no kernel for tensor(double); it has them for float"
    )


def test_a_cast_to_a_type_without_a_kernel_is_found_without_loading() -> None:
    """Cast has kernels for complex numbers from no opset on."""
    model = models.one("Cast", [2], out=TensorProto.COMPLEX64, to=TensorProto.COMPLEX64)
    found = _judge(model)
    assert found.outcome.supported is False
    assert "complex64" in found.reason


def test_nodes_of_subgraphs_are_judged_too() -> None:
    branch = helper.make_graph(
        [helper.make_node("Warp", ["x"], ["o"])],
        "branch",
        [],
        [helper.make_tensor_value_info("o", F, None)],
    )
    model = models.model(
        [helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)],
        [("c", TensorProto.BOOL, []), ("x", F, [2])],
        [("y", F, None)],
    )
    outcomes = [verdict.outcome for verdict in runtime.verdicts(graph.read(model))]
    assert outcomes.count(Outcome.NO_OPERATOR) == 2


def test_a_type_that_is_not_known_is_not_called_supported() -> None:
    """What another library's operator gives is anybody's guess."""
    model = models.model(
        [
            helper.make_node("Warp", ["x"], ["h"], domain="imaging"),
            helper.make_node("Sin", ["h"], ["y"]),
        ],
        [("x", F, [2])],
        [],
        domains={"imaging": 1},
    )
    model.graph.output.add(name="y")
    second = runtime.verdicts(graph.read(model))[1]
    assert second.outcome is Outcome.UNKNOWN
    assert second.outcome.supported is None


def test_a_kernel_without_an_end_is_for_its_own_version_only() -> None:
    open_ended, ranged = kernels.Kernel(13, 2**31 - 1, {}), kernels.Kernel(7, 12, {})
    assert open_ended.implements(13)
    assert not open_ended.implements(14)
    assert ranged.implements(9)
    assert not ranged.implements(13)


@pytest.mark.parametrize("layout", [0, 1])
def test_recurrent_layers_run_with_time_first_only(layout: int) -> None:
    weights = {"w": np.zeros((1, 8, 3), np.float32), "r": np.zeros((1, 8, 2), np.float32)}
    model = models.one("LSTM", [4, 1, 3], constants=weights, hidden_size=2, layout=layout)
    wanted = Outcome.BAD_ATTRIBUTE if layout else Outcome.KERNEL
    assert _judge(model).outcome is wanted
