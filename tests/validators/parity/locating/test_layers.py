"""Which layer of a runtime goes wrong, told from its values and those of the .onnx."""

from __future__ import annotations

import numpy as np
import pytest

from torch2mobile.records import Layer
from torch2mobile.validators.parity.locating.layers import first_wrong

RNG = np.random.default_rng(0)
X, CONV, RELU, SIDE, SUM = (RNG.normal(size=(1, 4, 5)) for _ in range(5))
WANTED = {"x": X, "conv": CONV, "relu": RELU, "side": SIDE, "y": SUM}
# A converter fused conv and relu, and copies the input for two readers.
LAYERS = (
    Layer("input", "Input", (), ("in0",)),
    Layer("split", "Split", ("in0",), ("1", "2")),
    Layer("fused", "Convolution", ("1",), ("3",)),
    Layer("branch", "Scale", ("2",), ("4",)),
    Layer("join", "BinaryOp", ("3", "4"), ("out0",)),
)


def shown(**off: float) -> dict[str, np.ndarray]:
    """Values in the runtime's shape, some of them off."""
    values = {"in0": X, "1": X, "2": X, "3": RELU, "4": SIDE, "out0": SUM}
    return {
        name: (values[name][0] + off.get(f"v{name}", 0.0)).astype(np.float32) for name in values
    }


def test_nothing_is_wrong() -> None:
    assert first_wrong(LAYERS, shown(), WANTED) is None


@pytest.mark.parametrize(
    ("layer", "value", "off"),
    [
        ("fused", "relu", {"v3": 0.1, "vout0": 0.1}),
        ("branch", "side", {"v4": 0.02, "vout0": 0.01}),
        ("join", "y", {"vout0": 1e-3}),
        ("split", "x", {"v1": 0.1, "v3": 0.2, "vout0": 0.1}),
    ],
)
def test_the_first_that_is_wrong_on_right_values(
    layer: str, value: str, off: dict[str, float]
) -> None:
    found = first_wrong(LAYERS, shown(**off), WANTED)
    assert found is not None
    assert (found.layer.name, found.value) == (layer, value)
    assert found.after == pytest.approx(next(iter(off.values())), rel=1e-4)
    assert found.before < 1e-6


def test_rounding_of_the_outputs_share_is_not_where_it_starts() -> None:
    found = first_wrong(LAYERS, shown(v3=1e-3, v4=0.05, vout0=0.05), WANTED)
    assert found is not None
    assert found.layer.name == "branch"


def test_a_value_laid_out_otherwise_is_passed_over_where_all_is_right_behind_it() -> None:
    values = shown(vout0=1e-3)
    values["3"] = values["3"][:, ::-1]
    found = first_wrong(LAYERS, values, WANTED)
    # What it is made of is right, and what is made of it is not: the layer before is named.
    assert found is not None
    assert (found.layer, found.value, found.after, found.reads) == (LAYERS[2], "", None, ("x",))
    assert first_wrong(LAYERS, {**values, "out0": shown()["out0"]}, WANTED) is None


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e9])
def test_a_ruined_value_has_no_counterpart(value: float) -> None:
    found = first_wrong(LAYERS, shown(v3=value, vout0=value), WANTED)
    assert found is not None
    assert (found.layer.name, found.value, found.after) == ("fused", "", None)


@pytest.mark.parametrize("last", [True, False])
def test_a_value_with_its_channels_last_is_the_same_where_a_runtime_keeps_it_so(
    last: bool,
) -> None:
    image = RNG.normal(size=(1, 3, 4, 5))
    layers = (
        Layer("in", "Input", (), ("0",)),
        Layer("moved", "TRANSPOSE", ("0",), ("1",), channels_last=last),
        Layer("conv", "CONV_2D", ("1",), ("2",), channels_last=last),
    )
    wanted = {"x": X, "a": image, "b": 2 * image}
    shown = {"0": X, "1": image.transpose(0, 2, 3, 1), "2": 2 * image.transpose(0, 2, 3, 1) + 0.1}
    found = first_wrong(layers, shown, wanted)
    assert found is not None
    if not last:  # there it is a transposition that went wrong
        assert (found.layer.name, found.after) == ("moved", None)
        return
    assert (found.layer.name, found.value, found.reads) == ("conv", "b", ("a",))
    assert found.after == pytest.approx(0.1)


def test_a_value_without_numbers_is_not_where_it_starts() -> None:
    layers = (
        LAYERS[0],
        Layer("sizes", "Slice", ("in0",), ("none",)),
        Layer("conv", "Convolution", ("in0",), ("3",)),
        Layer("shaped", "Reshape", ("3", "none"), ("out0",)),
    )
    values = {"in0": X, "none": np.empty(0, np.int32), "3": RELU + 0.1, "out0": RELU + 0.1}
    found = first_wrong(layers, values, WANTED)
    assert found is not None
    assert (found.layer.name, found.value) == ("conv", "relu")


def test_a_value_of_another_size_is_not_taken_for_another_of_that_size() -> None:
    layers = (
        Layer("n0", "Relu", (), ("a",), same_names=True),
        Layer("n1", "Slice", ("a",), ("mid",), same_names=True),
    )
    wanted = {"a": np.arange(8.0), "mid": np.arange(8.0), "far": 9 - np.arange(6.0)}
    found = first_wrong(layers, {"a": np.arange(8.0), "mid": np.arange(6.0)}, wanted)
    assert found is not None
    assert (found.layer.name, found.value, found.after) == ("n1", "", None)
