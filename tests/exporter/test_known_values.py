"""Values that code reads and no input decides are taken as they are; all others are refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torch2mobile import user_code
from torch2mobile.errors import CaptureError
from torch2mobile.exporter import assumptions, capture
from torch2mobile.exporter.loading import source
from torch2mobile.records import Capture, Request


def captured(module: nn.Module) -> Capture:
    inputs = ("x:float32[N=1..8,4]",)
    return capture.capture(source.from_specs("n", module, inputs, (), Request(source=""), ()))


class Ones(nn.Module):
    def mask(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ones(x.shape[0], 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.mask(x).gt(1).any().item():
            return x * 0
        return x + 1


class Like(Ones):
    def mask(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ones_like(x)


class Written(Ones):
    def mask(self, x: torch.Tensor) -> torch.Tensor:
        found = torch.ones(x.shape[0], 4)
        found[found == 0] = 3
        return found


class Divided(Ones):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        half = torch.div(x.shape[1], 2, rounding_mode="trunc")
        return super().forward(x.reshape(-1, half))


@pytest.mark.parametrize("kind", [Ones, Like, Written, Divided])
def test_what_no_input_decides_is_read(kind: type[Ones]) -> None:
    module = kind()
    found = captured(module)
    assert found.strategy == "non-strict, known values"
    assert found.program is not None
    x = torch.rand(3, 4)
    assert torch.equal(found.program.module()(x)[0], module(x))


class Positions(nn.Module):
    """A branch on a value that follows the size, and one on a value of zeros as many."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.zeros_like(x).any() or torch.equal(torch.arange(4), x.new_ones(4)):
            return x
        if torch.arange(x.shape[0]).max() == 100:  # HERE
            return x * 2
        return x + 1


def test_what_sizes_decide_is_an_assumption() -> None:
    inputs = ("x:float32[N=1..500,4]",)
    loaded = source.from_specs("n", Positions(), inputs, (), Request(source=""), ())
    found = assumptions.exceptions(capture.capture(loaded))
    ((assumed, sizes),) = [pair for pair in found if "read" in pair[0].text]
    assert sizes == {"N": 101}
    assert assumed.line is not None
    place = user_code.location(*assumed.line)
    assert place.code.endswith("# HERE")
    assert assumed.text == f"test_known_values.py:{place.line} read False"


class HalfASize(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if (torch.arange(3) + 50 == x.shape[0] / 2).any() else x + 1


class FarOff(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if torch.arange(x.shape[0]).max() == 2999 else x + 1


class WrittenBySize(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask = torch.zeros(200)
        mask[: x.shape[0]] = 1
        return x * 2 if mask.sum() == 150 else x + 1


class BesidesMuch(nn.Module):
    """What no read follows is not computed again at every size."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = torch.arange(x.shape[0])
        much = torch.sin((rows[:, None] * rows).float())
        return x * 2 if rows.max() == 700 else x + (much @ much).sum()


@pytest.mark.parametrize(
    ("kind", "greatest", "where"),
    [
        (HalfASize, 500, 100),
        (FarOff, 9000, 3000),
        (WrittenBySize, 200, 150),
        (BesidesMuch, 800, 701),
    ],
)
def test_where_a_read_is_another_is_found(kind: type[nn.Module], greatest: int, where: int) -> None:
    inputs = (f"x:float32[N=1..{greatest},4]",)
    loaded = source.from_specs("n", kind(), inputs, (), Request(source=""), ())
    found = assumptions.exceptions(capture.capture(loaded))
    assert [sizes for assumed, sizes in found if "read" in assumed.text] == [{"N": where}]


class NumberOfSizes(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if torch.arange(x.shape[0]).max().item() == 5 else x + 1


class NumberWrittenBySize(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask = torch.zeros(200)
        mask[: x.shape[0]] = 1
        return x * 2 if mask.sum().item() == 5 else x + 1


@pytest.mark.parametrize("kind", [NumberOfSizes, NumberWrittenBySize])
def test_a_number_that_sizes_decide_is_not_the_examples_for_good(kind: type[nn.Module]) -> None:
    with pytest.raises(CaptureError):
        captured(kind())


class OfInput(Ones):
    def mask(self, x: torch.Tensor) -> torch.Tensor:
        return x


class Filled(Ones):
    def mask(self, x: torch.Tensor) -> torch.Tensor:
        found = torch.ones(4)
        found[:2].copy_(x[0, :2])
        return found


class ByNumber(nn.Module):
    """A number of an input's is written, or is how far is written."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.mask(x, x[0, 0].long().item()).eq(1).all().item():
            return x * 0
        return x + 1


class FilledByNumber(ByNumber):
    def mask(self, x: torch.Tensor, n: int) -> torch.Tensor:
        return torch.ones(4).fill_(n)


class AddedByNumber(ByNumber):
    def mask(self, x: torch.Tensor, n: int) -> torch.Tensor:
        return torch.ones(4).add_(1, alpha=n)


class CutByNumber(ByNumber):
    def mask(self, x: torch.Tensor, n: int) -> torch.Tensor:
        torch._check(n >= 0)
        torch._check(n <= 4)
        found = torch.ones(3, 4)
        found[:, n:] = 0
        return found


class Random(Ones):
    def mask(self, x: torch.Tensor) -> torch.Tensor:
        return torch.rand(4)


@pytest.mark.parametrize(
    "kind", [OfInput, Filled, FilledByNumber, AddedByNumber, CutByNumber, Random]
)
def test_what_an_input_or_chance_decides_is_not(kind: type[nn.Module]) -> None:
    with pytest.raises(CaptureError, match="could not be captured"):
        captured(kind())
