"""torch at arm's length: numpy in and out, and the process left as it was."""

from __future__ import annotations

import logging
import sys
import warnings
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from torch import nn

from torch2mobile.errors import InputError
from torch2mobile.tensors import dtype_name, quiet, to_numpy, to_torch

DTYPES = {
    torch.float32: np.float32,
    torch.float64: np.float64,
    torch.float16: np.float16,
    torch.bfloat16: ml_dtypes.bfloat16,
    torch.int8: np.int8,
    torch.int16: np.int16,
    torch.int32: np.int32,
    torch.int64: np.int64,
    torch.uint8: np.uint8,
    torch.bool: np.bool_,
}


# --- conversions ------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "numpy"), DTYPES.items(), ids=str)
def test_there_and_back(dtype: torch.dtype, numpy: Any) -> None:
    tensor = torch.tensor([[0, 1, 2], [3, 4, 100]]).to(dtype)
    array = to_numpy(tensor)
    assert array.dtype == np.dtype(numpy)
    assert dtype_name(tensor) == dtype_name(array) == np.dtype(numpy).name
    back = to_torch(array)
    assert back.dtype == dtype
    assert torch.equal(back, tensor)


def test_bfloat16_keeps_every_bit() -> None:
    values = [1 / 3, -0.0, 3e38, 1e-40, float("inf"), float("-inf")]
    tensor = torch.tensor(values, dtype=torch.bfloat16)
    assert torch.equal(to_torch(to_numpy(tensor)).view(torch.int16), tensor.view(torch.int16))


@pytest.mark.parametrize(
    "value",
    [
        torch.ones(2, dtype=torch.complex64),
        np.ones(2, np.complex64),
        np.ones(2, np.uint16),
        np.ones(2, ">f4"),
        np.array(["a"]),
        np.array([{}], dtype=object),
    ],
    ids=lambda value: str(value.dtype),
)
def test_other_dtypes_are_refused(value: Any) -> None:
    with pytest.raises(InputError, match="cannot be exported") as caught:
        dtype_name(value)
    assert "float32" in caught.value.remedy


@pytest.mark.parametrize(
    "tensor",
    [
        pytest.param(torch.ones(2, requires_grad=True), id="with gradient"),
        pytest.param(torch.arange(6.0).reshape(2, 3).T, id="not contiguous"),
        pytest.param(torch.ones(1).expand(3), id="expanded"),
        pytest.param(torch.tensor([1 + 2j]).conj().imag, id="neg"),
        pytest.param(torch.tensor(2.5), id="scalar"),
        pytest.param(torch.ones(0, 3), id="empty"),
        pytest.param(nn.Parameter(torch.ones(2)), id="parameter"),
    ],
)
def test_any_tensor_becomes_a_plain_array(tensor: torch.Tensor) -> None:
    array = to_numpy(tensor)
    assert array.flags.c_contiguous
    assert array.shape == tuple(tensor.shape)
    assert array.tolist() == tensor.tolist()


def test_to_torch_copies() -> None:
    array = np.arange(6.0)[::-2]
    array.flags.writeable = False
    tensor = to_torch(array)
    tensor += 1
    assert array.tolist() == [5, 3, 1]
    assert tensor.tolist() == [6, 4, 2]


# --- quiet ------------------------------------------------------------------------------------


def test_quiet_keeps_everything_from_the_user(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    log = logging.getLogger("somebody.else")
    with quiet():
        sys.stdout.write("printed\n")
        sys.stderr.write("on stderr\n")
        warnings.warn("warned", stacklevel=1)
        log.error("logged")
    assert capsys.readouterr() == ("", "")
    assert caplog.records == []
    # And afterwards all of it is heard again.
    sys.stdout.write("printed\n")
    log.error("logged")
    with pytest.warns(match="warned"):
        warnings.warn("warned", stacklevel=1)
    assert capsys.readouterr().out == "printed\n"
    assert len(caplog.records) == 1


def test_quiet_lets_errors_through_and_is_undone() -> None:
    disabled, filters = logging.root.manager.disable, list(warnings.filters)
    with pytest.raises(ZeroDivisionError), quiet():
        1 / 0  # noqa: B018
    assert logging.root.manager.disable == disabled
    assert list(warnings.filters) == filters


def test_quiet_keeps_a_threshold_that_the_user_set() -> None:
    logging.disable(logging.INFO)
    try:
        with quiet():
            assert logging.root.manager.disable == logging.ERROR
        assert logging.root.manager.disable == logging.INFO
    finally:
        logging.disable(logging.NOTSET)
