"""Modules with branches and loops that a graph has only as operators."""

from __future__ import annotations

import torch
from torch import nn

ROWS = ("x:float32[N=1..4,4]",)
STEPS = ("x:float32[N=1..3,T=1..5,4]",)


class Branch(nn.Module):
    """Two layers, of which a value chooses."""

    inputs, code = ROWS, "T2M101"

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x * 2
        if x.sum() > 0:
            y = self.a(y)
        else:
            y = self.b(y)
        return y


class EarlyReturn(nn.Module):
    """A branch that returns, on two conditions."""

    inputs, code = ROWS, "T2M101"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.mean() > 0 and not x.max() > 0.5:
            return x * 2
        return x


class Number(nn.Module):
    """A branch on a Python number of a tensor's."""

    inputs, code = ROWS, "T2M101"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n = x.sum().item()
        if n > 0:
            x = x * 3
        return x


def _shifted(x: torch.Tensor) -> torch.Tensor:
    return x + 1 if (x > 0.5).any() else x - 1


class Helper(nn.Module):
    """A conditional expression in a helper."""

    inputs, code = ROWS, "T2M101"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _shifted(x) * 2


class Nested(nn.Module):
    """A branch in a branch, and a Python number that both choose."""

    inputs, code = ROWS, "T2M101"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        factor = 1.0
        if x.sum() > 0:
            if x.max() > 0.5:
                factor = 2.0
            x = x + factor
        return x * factor


class OnSize(nn.Module):
    """A branch on a size that varies."""

    inputs, code = ROWS, "T2M101"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[0] > 2:
            return x * 2
        return x + 1


class While(nn.Module):
    """A loop until a value says so, with a count."""

    inputs, code = ROWS, "T2M102"

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        count = 0
        while x.abs().max() > 0.1:
            x = x / 2
            count += 1
        return x, torch.as_tensor(count)


class Cell(nn.Module):
    """A cell over steps, by their number."""

    inputs, code = STEPS, "T2M152"

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h, c = x.new_zeros(x.shape[0], 5), x.new_zeros(x.shape[0], 5)
        steps = []
        for t in range(x.shape[1]):
            h, c = self.cell(x[:, t], (h, c))
            steps.append(h)
        return torch.stack(steps, dim=1)


class Unbound(Cell):
    """A cell over steps that are unbound."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = c = x.new_zeros(x.shape[0], 5)
        for step in x.unbind(1):
            h, c = self.cell(step, (h, c))
        return h


class Written(Cell):
    """A cell that writes what it gives into a tensor."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = c = x.new_zeros(x.shape[0], 5)
        out = x.new_zeros(x.shape[0], x.shape[1], 5)
        for t in range(x.size(1)):
            h, c = self.cell(x[:, t, :], (h, c))
            out[:, t] = h
        return out


class Backwards(Cell):
    """A cell from the last step to the first, numbered."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = c = x.new_zeros(x.shape[0], 5)
        steps = []
        for number, step in enumerate(reversed(x.unbind(1))):
            h, c = self.cell(step * (number + 1), (h, c))
            steps.append(h.unsqueeze(1))
        return torch.cat(steps, dim=1)


class Never(nn.Module):
    """A branch that no probe takes."""

    inputs, code = ROWS, "T2M101"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if (x * 0).sum() > 1:
            x = x + 1
        return x * 2


MODULES = (
    *(Branch, EarlyReturn, Number, Helper, Nested, OnSize, While),
    *(Cell, Unbound, Written, Backwards),
)
