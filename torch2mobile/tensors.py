"""torch at arm's length: numpy in and out, and what it says kept from the user."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from torch2mobile.errors import InputError, dtype_remedy

_TORCH_NAMES = {
    torch.float32: "float32",
    torch.float64: "float64",
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
    torch.int8: "int8",
    torch.int16: "int16",
    torch.int32: "int32",
    torch.int64: "int64",
    torch.uint8: "uint8",
    torch.bool: "bool",
}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep warnings, log lines and prints of torch and the exporters from the user.

    Errors still raise. What the module itself prints is lost with them: standard output belongs
    to the report.
    """
    disabled = logging.root.manager.disable
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        # Each change of the level empties the caches of all loggers, and torch has many.
        if disabled < logging.ERROR:
            logging.disable(logging.ERROR)
        try:
            yield
        finally:
            if logging.root.manager.disable != disabled:
                logging.disable(disabled)


def dtype_name(value: Any) -> str:
    """numpy's name of a tensor's or array's dtype; InputError for one that ONNX inputs lack."""
    is_tensor = isinstance(value, torch.Tensor)
    name = _TORCH_NAMES.get(value.dtype, "") if is_tensor else str(value.dtype)
    if name not in _TORCH_NAMES.values():
        raise InputError(
            f"an input of dtype {value.dtype} cannot be exported",
            dtype_remedy(str(value.dtype), f"Use one of {', '.join(_TORCH_NAMES.values())}."),
        )
    return name


def to_torch(array: np.ndarray) -> torch.Tensor:
    """A tensor with a copy of the array's values."""
    if str(array.dtype) == "bfloat16":
        return torch.from_numpy(array.astype(np.float32)).to(torch.bfloat16)
    return torch.from_numpy(np.array(array))


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """A numpy array with the tensor's values, free of gradients, conjugation and device."""
    plain = tensor.detach().cpu().resolve_conj().resolve_neg()
    if plain.dtype == torch.bfloat16:
        import ml_dtypes

        return plain.float().numpy().astype(ml_dtypes.bfloat16)
    return plain.contiguous().numpy()
