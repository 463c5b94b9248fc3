"""Recurrent layers at any length, and over sequences of lengths of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import onnx_ir as ir

from torch2mobile.exporter import packed  # noqa: F401 (registers the operator)
from torch2mobile.exporter.translations.row import Row
from torch2mobile.exporter.translations.values import constant, op

_GATES = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2)}
"""Where ONNX's gates stand among PyTorch's."""
_ACTIVATIONS = {"rnn_tanh": "Tanh", "rnn_relu": "Relu"}


def _plain(kind: str) -> Callable[..., Any]:
    def layers(
        steps: Any,
        state: Any,
        weights: Sequence[Any],
        has_biases: bool,
        num_layers: int,
        dropout: float,  # noqa: ARG001 (of training)
        train: bool,
        bidirectional: bool,
        batch_first: bool,
    ) -> Any:
        """Layers of plain recurrence; their outputs, and the last state of each."""
        if train:
            return NotImplemented
        steps = op.Transpose(steps, perm=[1, 0, 2]) if batch_first else steps
        options = has_biases, num_layers, bidirectional
        found, last = _layers(kind, steps, None, [state], weights, *options)
        return op.Transpose(found, perm=[1, 0, 2]) if batch_first else found, last

    return layers


def packed_layers(
    steps: Any,
    lengths: Any,
    states: Sequence[Any],
    weights: Sequence[Any],
    kind: str,
    biases: bool,
    count: int,
    bidirectional: bool,
) -> Any:
    """LSTM, GRU or plain recurrence over sequences of these lengths."""
    lengths = op.Cast(lengths, to=ir.DataType.INT32)
    found, *last = _layers(kind, steps, lengths, states, weights, biases, count, bidirectional)
    return found, last[0], last[-1] if kind == "lstm" else op.Identity(last[0])


def _layers(
    kind: str,
    steps: Any,
    lengths: Any,
    states: Sequence[Any],
    weights: Sequence[Any],
    biases: bool,
    count: int,
    bidirectional: bool,
) -> tuple[Any, ...]:
    """The outputs of the last layer, and by kind of state the last ones of all layers."""
    directions, each = (2 if bidirectional else 1), (4 if biases else 2)
    lasts: list[list[Any]] = [[] for _ in states]
    for layer in range(count):
        first = layer * directions
        own = [weights[n * each : (n + 1) * each] for n in range(first, first + directions)]
        at, end = constant([first]), constant([first + directions])
        begins = [op.Slice(state, at, end, constant([0])) for state in states]
        found, *last = _layer(kind, steps, lengths, begins, own)
        # [time, directions, batch, width] as [time, batch, directions * width]
        steps = op.Reshape(op.Transpose(found, perm=[0, 2, 1, 3]), constant([0, 0, -1]))
        for all_of, one in zip(lasts, last, strict=True):
            all_of.append(one)
    joined = (each[0] if count == 1 else op.Concat(*each, axis=0) for each in lasts)
    return (steps, *joined)


def _layer(
    kind: str, steps: Any, lengths: Any, states: Sequence[Any], own: Sequence[Sequence[Any]]
) -> Any:
    def stacked(*numbers: int) -> Any:
        """These weights of each direction, one behind the other, with ONNX's order of gates."""
        parts = [[_reordered(one[n], kind) for n in numbers] for one in own]
        rows = [
            op.Unsqueeze(op.Concat(*p, axis=0) if p[1:] else p[0], constant([0])) for p in parts
        ]
        return op.Concat(*rows, axis=0) if rows[1:] else rows[0]

    options: dict[str, Any] = {
        "hidden_size": own[0][1].shape[1],
        "direction": "bidirectional" if own[1:] else "forward",
    }
    biases = stacked(2, 3) if own[0][2:] else None
    given = (steps, stacked(0), stacked(1), biases, lengths, *states)
    if kind == "lstm":
        return op.LSTM(*given, **options)
    if kind == "gru":
        return op.GRU(*given, **options, linear_before_reset=1)
    return op.RNN(*given, **options, activations=[_ACTIVATIONS[kind]] * len(own))


def _reordered(weight: Any, kind: str) -> Any:
    order = _GATES.get(kind)
    if order is None:
        return weight
    size = weight.shape[0] // len(order)
    gates = [
        op.Slice(weight, constant([n * size]), constant([(n + 1) * size]), constant([0]))
        for n in order
    ]
    return op.Concat(*gates, axis=0)


_SINGLE = ("float32",)

ROWS = (
    Row(
        "rnn (tanh)",
        ("aten::rnn_tanh.input",),
        _plain("rnn_tanh"),
        "missing",
        "fixes the length",
        _SINGLE,
    ),
    Row(
        "rnn (relu)",
        ("aten::rnn_relu.input",),
        _plain("rnn_relu"),
        "missing",
        "fixes the length",
        _SINGLE,
    ),
    Row(
        "packed sequences",
        ("torch2mobile::packed_layers",),
        packed_layers,
        "missing",
        "pack_padded_sequence is not captured",
        _SINGLE,
    ),
)
