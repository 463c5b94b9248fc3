"""Packed sequences stay padded while a graph is captured, with their lengths beside them.

What pack_padded_sequence gives has as many rows as the lengths add up to, which no graph knows.
ONNX's recurrent operators take the padded steps and the lengths instead.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch.nn.modules import rnn as layers
from torch.nn.utils import rnn as packing

Three = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@torch.library.custom_op("torch2mobile::packed_layers", mutates_args=())
def packed_layers(
    steps: torch.Tensor,
    lengths: torch.Tensor,
    states: list[torch.Tensor],
    weights: list[torch.Tensor],
    kind: str,
    biases: bool,
    count: int,
    bidirectional: bool,
) -> Three:
    """Recurrent layers over ``steps`` [time, batch, width], each sequence as long as it is.

    ``kind`` is lstm, gru, rnn_tanh or rnn_relu. Zeros follow a sequence's end. The last result is
    the cell of an LSTM, else once more the hidden state.
    """
    data, sizes = torch._VF._pack_padded_sequence(steps, lengths, False)
    hidden: Any = states if kind == "lstm" else states[0]
    function = getattr(torch._VF, kind)
    found = function(data, sizes, hidden, weights, biases, count, 0.0, False, bidirectional)
    padded, _ = torch._VF._pad_packed_sequence(found[0], sizes, False, 0.0, steps.shape[0])
    return padded, found[1], found[2] if kind == "lstm" else found[1].clone()


@packed_layers.register_fake
def _(
    steps: torch.Tensor,
    lengths: torch.Tensor,  # noqa: ARG001 (of these only the shapes matter)
    states: list[torch.Tensor],
    weights: list[torch.Tensor],  # noqa: ARG001
    kind: str,  # noqa: ARG001
    biases: bool,  # noqa: ARG001
    count: int,  # noqa: ARG001
    bidirectional: bool,
) -> Three:
    width = states[0].shape[2] * (2 if bidirectional else 1)
    padded = steps.new_empty(steps.shape[0], steps.shape[1], width)
    return padded, torch.empty_like(states[0]), torch.empty_like(states[-1])


class _Lengths:
    """Stands for a packed sequence's ``batch_sizes``: layers ask for the first, and how many."""

    device = torch.device("cpu")

    def __init__(self, lengths: torch.Tensor, time: Any, batch: Any) -> None:
        self.lengths, self.time, self.batch = lengths, time, batch

    def __getitem__(self, place: int) -> Any:
        if place != 0:
            raise TypeError("of a packed sequence's batch_sizes only the first is known")
        return self.batch

    def size(self, axis: int = 0) -> _Longest:  # noqa: ARG002 (there is one)
        """How many steps the longest sequence has."""
        return _Longest()


class _Longest:
    """The number of steps of the longest sequence, which only data tell; never above a limit."""

    def __gt__(self, limit: Any) -> bool:
        return False


def _pack(steps: torch.Tensor, lengths: torch.Tensor, batch_first: bool) -> Any:
    steps = steps.transpose(0, 1) if batch_first else steps
    return steps.flatten(0, 1), _Lengths(lengths, steps.shape[0], steps.shape[1])


def _pad(data: torch.Tensor, sizes: _Lengths, batch_first: bool, value: float, total: Any) -> Any:
    steps = data.unflatten(0, (sizes.time, sizes.batch))
    number = torch.arange(sizes.time, device=data.device)
    inside = number[:, None] < sizes.lengths[None]
    steps = torch.where(inside.reshape(*inside.shape, *([1] * (data.dim() - 1))), steps, value)
    if isinstance(total, _Longest):
        longest: Any = sizes.lengths.max().item()
        torch._check(longest >= 1)
        torch._check(longest <= sizes.time)
        steps = steps.narrow(0, 0, longest)
    elif not statically_known_true(total == sizes.time):
        after = [0, 0] * (steps.dim() - 1)
        steps = torch.nn.functional.pad(steps, [*after, 0, total - sizes.time])
    return steps.transpose(0, 1) if batch_first else steps, sizes.lengths


def _layers(kind: str) -> Callable[..., Any]:
    """What stands for a function of recurrent layers, for packed sequences."""
    original = getattr(torch._VF, kind)

    def call(data: Any, sizes: Any, *rest: Any) -> Any:
        if not isinstance(sizes, _Lengths):
            return original(data, sizes, *rest)
        states, weights, biases, count, _, _, bidirectional = rest
        states = list(states) if isinstance(states, Sequence) else [states]
        steps = data.unflatten(0, (sizes.time, sizes.batch))
        steps, *last = packed_layers(
            steps, sizes.lengths, states, list(weights), kind, biases, count, bidirectional
        )
        return steps.flatten(0, 1), *last[: len(states)]

    return call


_KINDS = ("lstm", "gru", "rnn_tanh", "rnn_relu")


class _Passing:
    """Everything of a namespace but for some names."""

    def __init__(self, instead: dict[str, Any]) -> None:
        self.__dict__.update(instead)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch._VF, name)


def _unless_packed(check: Callable[..., None]) -> Callable[..., None]:
    def checked(self: Any, data: Any, states: Any, sizes: Any) -> None:
        if not isinstance(sizes, _Lengths):
            check(self, data, states, sizes)

    return checked


@contextlib.contextmanager
def padded_sequences() -> Iterator[None]:
    """Packing keeps the padded steps for a while, and recurrent layers take them."""
    with contextlib.ExitStack() as stack:

        def replace(owner: Any, name: str, value: Any) -> None:
            stack.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, value)

        names = {"_pack_padded_sequence": _pack, "_pad_packed_sequence": _pad}
        replace(packing, "_VF", _Passing(names))
        replace(layers, "_VF", _Passing({kind: _layers(kind) for kind in _KINDS}))
        for layer in (layers.RNNBase, layers.LSTM):
            replace(layer, "check_forward_args", _unless_packed(layer.check_forward_args))
        yield
