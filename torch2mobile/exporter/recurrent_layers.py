"""Keeps recurrent layers whole, with any length, through torch.export and torch.onnx.

torch's fake kernels of these run a Python loop over the time steps, which fixes the length to the
example's. Only shapes matter while a graph is captured, so these kernels say just the shapes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch

_KEYS = ("CompositeImplicitAutograd", "Autograd", "Meta")


def _steps(input: torch.Tensor, width: int, bidirectional: bool) -> torch.Tensor:  # noqa: A002
    first, second = input.shape[:2]
    return input.new_empty(first, second, width * (2 if bidirectional else 1))


def _lstm(
    input: torch.Tensor,  # noqa: A002
    hx: Sequence[torch.Tensor],
    params: Sequence[torch.Tensor],  # noqa: ARG001
    has_biases: bool,  # noqa: ARG001
    num_layers: int,  # noqa: ARG001
    dropout: float,  # noqa: ARG001
    train: bool,  # noqa: ARG001
    bidirectional: bool,
    batch_first: bool,  # noqa: ARG001
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    # The output is as wide as the hidden state, which a projection makes narrower than the cell.
    steps = _steps(input, hx[0].shape[2], bidirectional)
    return steps, torch.empty_like(hx[0]), torch.empty_like(hx[1])


def _gru(
    input: torch.Tensor,  # noqa: A002
    hx: torch.Tensor,
    params: Sequence[torch.Tensor],  # noqa: ARG001
    has_biases: bool,  # noqa: ARG001
    num_layers: int,  # noqa: ARG001
    dropout: float,  # noqa: ARG001
    train: bool,  # noqa: ARG001
    bidirectional: bool,
    batch_first: bool,  # noqa: ARG001
) -> tuple[torch.Tensor, torch.Tensor]:
    return _steps(input, hx.shape[2], bidirectional), torch.empty_like(hx)


@contextlib.contextmanager
def whole_recurrent_layers(*, plain: bool = True) -> Iterator[None]:
    """Replace the fake kernels of ``aten.lstm.input`` and the like for a while.

    Without ``plain`` those of RNN stay, which the exporter itself has to take apart.

    Both the capture and the translation must run inside: the exporter decomposes once more. On a
    torch whose operators are built otherwise, nothing is replaced.
    """
    table = torch._decomp.global_decomposition_table["post_autograd"]
    pairs: tuple[tuple[Any, Any], ...] = (
        (torch.ops.aten.lstm.input, _lstm),
        (torch.ops.aten.gru.input, _gru),
    )
    if plain:
        pairs += ((torch.ops.aten.rnn_tanh.input, _gru), (torch.ops.aten.rnn_relu.input, _gru))
    keys = [getattr(torch._C.DispatchKey, name) for name in _KEYS]
    with contextlib.ExitStack() as stack:
        for operator, kernel in pairs:
            if operator not in table or not all(key in operator.py_kernels for key in keys):
                continue
            stack.callback(operator._dispatch_cache.clear)
            stack.callback(table.__setitem__, operator, table[operator])
            table[operator] = kernel
            for key in keys:
                stack.callback(operator.py_kernels.__setitem__, key, operator.py_kernels[key])
                operator.py_kernels[key] = kernel
            operator._dispatch_cache.clear()
        yield
