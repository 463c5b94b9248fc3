"""The recurrent layers of a MIL program.

As in :mod:`torch2mobile.exporter.targets.mil_operators`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "relu": torch.relu,
    "linear": lambda x: x,
    "scaled_tanh": torch.tanh,
    "sigmoid_hard": lambda x: (0.2 * x + 0.5).clamp(0, 1),
}


def lstm(
    x: Tensor,
    initial_h: Tensor,
    initial_c: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor | None = None,
    weight_ih_back: Tensor | None = None,
    weight_hh_back: Tensor | None = None,
    bias_back: Tensor | None = None,
    direction: str = "forward",
    output_sequence: Any = False,
    recurrent_activation: str = "sigmoid",
    cell_activation: str = "tanh",
    activation: str = "tanh",
) -> Sequence[Tensor]:
    """Gates in the order input, forget, output, cell; states of two directions side by side."""
    gate, inner = _ACTIVATIONS[recurrent_activation], _ACTIVATIONS[cell_activation]
    ways: list[tuple[Any, Any, Any]] = [(weight_ih, weight_hh, bias)]
    if direction == "bidirectional":
        ways.append((weight_ih_back, weight_hh_back, bias_back))
    found = []
    states = zip(initial_h.chunk(len(ways), 1), initial_c.chunk(len(ways), 1), strict=True)
    for n, ((taken, kept, added), (h, c)) in enumerate(zip(ways, states, strict=True)):
        backward = n == 1 or direction == "reverse"
        shown = []
        for row in x.flip(0) if backward else x:
            gates = F.linear(row, taken, added) + F.linear(h, kept)
            one, forget, out, cell = gates.chunk(4, 1)
            c = gate(forget) * c + gate(one) * inner(cell)  # noqa: PLW2901
            h = gate(out) * _ACTIVATIONS[activation](c)  # noqa: PLW2901
            shown.append(h)
        found.append((torch.stack(shown[::-1] if backward else shown), h, c))
    rows, last, cells = (torch.cat(parts, -1) for parts in zip(*found, strict=True))
    return rows if bool(output_sequence) else last[None], last, cells


def gru(
    x: Tensor,
    initial_h: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor | None = None,
    direction: str = "forward",
    output_sequence: Any = False,
    recurrent_activation: str = "sigmoid",
    activation: str = "tanh",
) -> Sequence[Tensor]:
    """Gates in the order reset, output, update; the bias is outside of what is reset."""
    gate, outer = _ACTIVATIONS[recurrent_activation], _ACTIVATIONS[activation]

    def step(row: Tensor, h: Tensor) -> Tensor:
        taken, kept = F.linear(row, weight_ih, bias).chunk(3, 1), F.linear(h, weight_hh).chunk(3, 1)
        reset, update = gate(taken[0] + kept[0]), gate(taken[2] + kept[2])
        return (1 - update) * outer(taken[1] + reset * kept[1]) + update * h

    return _unrolled(step, x, initial_h, direction, output_sequence)


def rnn(
    x: Tensor,
    initial_h: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor | None = None,
    direction: str = "forward",
    output_sequence: Any = False,
    activation: str = "tanh",
) -> Sequence[Tensor]:
    """One activation of input and state."""

    def step(row: Tensor, h: Tensor) -> Tensor:
        return _ACTIVATIONS[activation](F.linear(row, weight_ih, bias) + F.linear(h, weight_hh))

    return _unrolled(step, x, initial_h, direction, output_sequence)


def _unrolled(
    step: Callable[[Tensor, Tensor], Tensor], x: Tensor, h: Tensor, direction: str, every: Any
) -> Sequence[Tensor]:
    """The state after each row, or the last alone, and the last; one step gives the next state."""
    backward, shown = direction == "reverse", []
    for row in x.flip(0) if backward else x:
        h = step(row, h)
        shown.append(h)
    rows = torch.stack(shown[::-1] if backward else shown)
    return rows if bool(every) else h[None], h


OPERATORS: Mapping[str, Callable[..., Any]] = {"lstm": lstm, "gru": gru, "rnn": rnn}
