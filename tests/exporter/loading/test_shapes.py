"""Dims from torch.export's own dynamic_shapes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.export import Dim as TorchDim

from torch2mobile.errors import InputError
from torch2mobile.exporter.loading import source
from torch2mobile.records import Dim


class Call(nn.Module):
    def forward(self, a: Any, b: Any = None, *rest: Any, key: Any = None, **more: Any) -> Any:
        return a


def ones(*shape: int) -> torch.Tensor:
    return torch.ones(*shape)


N = TorchDim("N", min=1, max=8)
FREE = TorchDim("F")
FIXED = (Dim(size=4), Dim(size=6))
LABELLED = (Dim(symbol="N", least=1, greatest=8), Dim(size=6))


def dims(shapes: Any, *args: Any, **kwargs: Any) -> list[tuple[Dim, ...]]:
    loaded = source.from_call("n", Call(), args or (ones(4, 6),), kwargs, dynamic_shapes=shapes)
    assert loaded.dynamic_shapes is not None or shapes is None
    return [spec.dims for spec in loaded.specs]


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        pytest.param(None, FIXED, id="none"),
        pytest.param(({0: N},), LABELLED, id="tuple of dict"),
        pytest.param([{0: N}], LABELLED, id="list of dict"),
        pytest.param({"a": {0: N}}, LABELLED, id="by name"),
        pytest.param({"a": (N, None)}, LABELLED, id="tuple a tensor"),
        pytest.param({"a": [N, 6]}, LABELLED, id="a fixed size"),
        pytest.param(({-2: N},), LABELLED, id="from the end"),
        pytest.param((None,), FIXED, id="static tensor"),
        pytest.param({"a": None}, FIXED, id="static by name"),
        pytest.param({"a": {}}, FIXED, id="nothing dynamic"),
        pytest.param(({0: FREE},), (Dim(symbol="F"), Dim(size=6)), id="unbounded"),
        pytest.param(
            ({0: TorchDim("F", min=3)},), (Dim(symbol="F", least=3), Dim(size=6)), id="least only"
        ),
        pytest.param(
            ({1: 2 * TorchDim("h", max=9)},),
            (Dim(size=4), Dim(symbol="h", factor=2, greatest=9)),
            id="multiple",
        ),
        # Named when they are captured: torch decides about these.
        pytest.param(({0: TorchDim.AUTO},), FIXED, id="AUTO"),
        pytest.param(({0: TorchDim.AUTO(min=2, max=9)},), FIXED, id="AUTO in a range"),
        pytest.param(({0: TorchDim.DYNAMIC},), FIXED, id="DYNAMIC"),
        pytest.param(({0: TorchDim.STATIC},), FIXED, id="STATIC"),
        pytest.param(
            ({0: 2 * TorchDim("n", max=4) + 1},),
            (Dim(None, "n", 2, None, 4, 1), *FIXED[1:]),
            id="derived",
        ),
    ],
)
def test_dims_of_one_tensor(shapes: Any, expected: tuple[Dim, ...]) -> None:
    assert dims(shapes) == [expected]


def test_nested_inputs() -> None:
    tree, static = {"u": ones(4, 6), "v": [ones(4, 6)]}, ones(4, 6)
    shapes = {"a": {"u": {0: N}, "v": [None]}, "b": {0: N}}
    assert dims(shapes, tree, static) == [LABELLED, FIXED, LABELLED]
    assert dims(({"u": None, "v": ({0: N},)}, None), tree, static) == [FIXED, LABELLED, FIXED]
    assert dims({"a": None, "b": None}, tree, static) == [FIXED] * 3


def test_star_arguments_and_keywords() -> None:
    args = (ones(4, 6),) * 4
    shapes = {"a": None, "b": {0: N}, "rest": (None, {0: N}), "key": {0: N}, "more": {"z": {0: N}}}
    assert dims(shapes, *args, key=ones(4, 6), z=ones(4, 6)) == [
        FIXED, LABELLED, FIXED, LABELLED, LABELLED, LABELLED,
    ]  # fmt: skip


def test_entries_follow_the_callers_order() -> None:
    call = {"key": ones(4, 6), "a": ones(4, 6)}
    loaded = source.from_call("n", Call(), (), call, dynamic_shapes={"a": {0: N}, "key": None})
    assert [spec.dims for spec in loaded.specs] == [FIXED, LABELLED]


def test_shapes_collection() -> None:
    tensor, shapes = ones(4, 6), torch.export.ShapesCollection()
    shapes[tensor] = {0: N}
    assert dims(shapes, tensor) == [LABELLED]


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (5, "dynamic_shapes is 5"),
        ((), "dynamic_shapes is ()"),
        ((None, None), "dynamic_shapes is (None, None)"),
        ({"q": None}, "names q, which is no input"),
        ({"a": 5}, "holds 5, which is no dimension"),
        ({"a": "N"}, "holds 'N', which is no dimension"),
        (({0: "N"},), "holds 'N', which is no dimension"),
        (({0: 2.5},), "holds 2.5, which is no dimension"),
        (({2: N},), "dimension 2 of a tensor with 2"),
        (({-3: N},), "dimension -3 of a tensor with 2"),
        (((N, None, None),), "dimension 2 of a tensor with 2"),
    ],
)
def test_what_is_no_dynamic_shapes(shapes: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        dims(shapes)
    assert message in caught.value.message


def test_a_missing_nested_entry_is_named() -> None:
    with pytest.raises(InputError, match="no entry at v_0"):
        dims(({"u": {0: N}},), {"u": ones(4, 6), "v": [ones(4, 6)]})
