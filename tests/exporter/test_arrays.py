"""Arrays from .npz files, and dims from torch.export's own dynamic_shapes."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.export import Dim as TorchDim

from torch2mobile.errors import ExitCode, InputError, ModelFileError
from torch2mobile.exporter import arrays, source
from torch2mobile.records import Dim

# --- .npz -------------------------------------------------------------------------------------


def test_arrays_by_name(tmp_path: Path) -> None:
    given = {"x": np.ones((2, 3), "f4"), "ids": np.arange(4)}
    np.savez(tmp_path / "d.npz", **given)
    loaded = arrays.load_npz(tmp_path / "d.npz")
    assert loaded.keys() == given.keys()
    np.testing.assert_array_equal(loaded["ids"], given["ids"])
    assert arrays.load_all([str(tmp_path / "d.npz")] * 2)[1]["x"].dtype == np.float32


def npz(**given: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **given)
    return file.getvalue()


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def archive(name: str, content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as zipped:
        zipped.writestr(name, content)
    return file.getvalue()


GOOD = npz(x=np.ones(50))
FLIPPED = bytearray(GOOD)
FLIPPED[len(FLIPPED) // 2] ^= 0xFF


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "not a zip file", id="empty"),
        pytest.param(GOOD[:40], "not a zip file", id="cut short"),
        pytest.param(GOOD[:-30], "not a zip file", id="cut at the end"),
        pytest.param(bytes(FLIPPED), "Bad CRC-32", id="a flipped byte"),
        pytest.param(b"hello", "not a zip file", id="text"),
        pytest.param(pickle.dumps({"x": 1}), "not a zip file", id="pickle"),
        pytest.param(npz(x=np.array([{}], dtype=object)), "Object arrays", id="object array"),
        pytest.param(npy(np.array([{}], dtype=object)), "one .npy array", id="object .npy"),
        pytest.param(npy(np.ones(3)), "one .npy array", id=".npy"),
        pytest.param(archive("x.txt", b"hello"), "x.txt in it is no array", id="other zip"),
        pytest.param(archive("x.npy", npy(np.ones(9))[:-5]), "x.npy", id="member cut short"),
        pytest.param(npz(), "holds no arrays", id="no arrays"),
    ],
)
def test_corrupt_npz(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "d.npz").write_bytes(content)
    with pytest.raises(ModelFileError) as caught:
        arrays.load_npz(tmp_path / "d.npz")
    assert message.removesuffix(".npy") in caught.value.message
    assert caught.value.exit_code is ExitCode.USAGE
    assert caught.value.remedy


def test_any_flipped_byte_is_an_error_or_harmless(tmp_path: Path) -> None:
    content, path = npz(x=np.ones(1)), tmp_path / "d.npz"
    refused = 0
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 0xFF
        path.write_bytes(flipped)
        try:
            arrays.load_npz(path)
        except ModelFileError:
            refused += 1
    assert refused > len(content) // 2


def test_missing_npz(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="there is no file"):
        arrays.load_npz(tmp_path / "gone.npz")


def test_a_missing_array_names_those_that_are_there() -> None:
    with pytest.raises(InputError, match="no array for the input 'image'") as caught:
        arrays.pick({"img": np.ones(1), "mask": np.ones(1)}, "image")
    assert "img, mask" in caught.value.remedy


# --- dynamic_shapes ---------------------------------------------------------------------------


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
