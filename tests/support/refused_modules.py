"""One small module for each kind of refusal that users meet, and the same one mended."""

from __future__ import annotations

import math
import os
import random
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

ROWS = "x:float32[N=1..8,4]"


@dataclass(frozen=True)
class Kind:
    """A refusal: the module, its inputs, and the module and inputs as the remedy has them.

    ``said`` are what the message and its remedy must hold, beside the line marked with ``HERE``.
    """

    name: str
    bad: Callable[[], nn.Module]
    good: Callable[[], nn.Module]
    inputs: tuple[str, ...] = (ROWS,)
    mended_inputs: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    mended_values: tuple[str, ...] = ()
    rewrites: tuple[str, ...] = ()
    mended_state: bool = False


KINDS: list[Kind] = []


def kind(name: str, *inputs: str, **options: Any) -> Callable[[type], type]:
    """A class with ``Bad`` and ``Good`` as a row of the table."""

    def add(pair: Any) -> type:
        KINDS.append(Kind(name, pair.Bad, pair.Good, inputs or (ROWS,), **options))
        return pair

    return add


@kind("if on values")
class IfOnValues:
    class Bad(nn.Module):
        def forward(self, x):
            if x.sum() > 0:  # HERE
                return x * 2
            return x

    class Good(nn.Module):
        def forward(self, x):
            return torch.where(x.sum() > 0, x * 2, x)


@kind("while on values")
class WhileOnValues:
    class Bad(nn.Module):
        def forward(self, x):
            while x.abs().max() > 1:  # HERE
                x = x / 2
            return x

    class Good(nn.Module):
        def forward(self, x):
            for _ in range(8):
                x = torch.where(x.abs().max() > 1, x / 2, x)
            return x


@kind("for on values", "x:float32[4]", "n:int64[]", values=("n=1..4",))
class ForOnValues:
    class Bad(nn.Module):
        def forward(self, x, n):
            for _ in range(int(n)):  # HERE
                x = x + 1
            return x

    class Good(nn.Module):
        def forward(self, x, n):
            for step in range(4):
                x = torch.where(n > step, x + 1, x)
            return x


@kind("loop over a varying size")
class LoopOverSize:
    class Bad(nn.Module):
        def forward(self, x):
            rows = []
            for row in x:  # HERE
                rows.append(row * 2)  # noqa: PERF401 (the loop is the point)
            return torch.stack(rows)

    class Good(nn.Module):
        def forward(self, x):
            return x * 2


@kind("float of a tensor")
class FloatOfTensor:
    class Bad(nn.Module):
        def forward(self, x):
            if float(x.mean()) > 0.5:  # HERE
                return x - 1
            return x

    class Good(nn.Module):
        def forward(self, x):
            return torch.where(x.mean() > 0.5, x - 1, x)


@kind("if on a size")
class IfOnSize:
    class Bad(nn.Module):
        def forward(self, x):
            if x.shape[0] > 4:  # HERE
                return x * 2
            return x

    class Good(nn.Module):
        def forward(self, x):
            return torch.where(x.new_ones(x.shape[0]).sum() > 4, x * 2, x)


@kind("math of a size")
class MathOfSize:
    class Bad(nn.Module):
        def forward(self, x):
            return x * math.log(x.shape[0] + 1)  # HERE

    class Good(nn.Module):
        def forward(self, x):
            return x * torch.log(x.new_ones(x.shape[0]).sum() + 1)


@kind("round of a size")
class RoundOfSize:
    class Bad(nn.Module):
        def forward(self, x):
            n = round(x.shape[0] * 0.5)  # HERE
            return x[:n].sum(0)

    class Good(nn.Module):
        def forward(self, x):
            n = (x.shape[0] + 1) // 2
            return x[:n].sum(0)


@kind("view with a fixed size")
class ViewFixed:
    class Bad(nn.Module):
        def forward(self, x):
            return x.view(2, 4) * 2  # HERE

    class Good(nn.Module):
        def forward(self, x):
            return x.view(-1, 4) * 2


@kind("reshape with a fixed size")
class ReshapeFixed:
    class Bad(nn.Module):
        def forward(self, x):
            return x.reshape(8) * 2  # HERE

    class Good(nn.Module):
        def forward(self, x):
            return x.reshape(-1) * 2


@kind("split by a size", "x:float32[N=2..8,4]")
class SplitBySize:
    class Bad(nn.Module):
        def forward(self, x):
            one, two = x.split(x.shape[0] // 2)  # HERE
            return one + two

    class Good(nn.Module):
        def forward(self, x):
            half = x.shape[0] // 2
            return x[:half] + x[half : 2 * half]


@kind("chunk of a varying size", "x:float32[N=1..8,4]")
class ChunkOfSize:
    class Bad(nn.Module):
        def forward(self, x):
            one, two, three = x.chunk(3)  # HERE
            return one.sum() + two.sum() + three.sum()

    class Good(nn.Module):
        def forward(self, x):
            third = (x.shape[0] + 2) // 3
            return x[:third].sum() + x[third : 2 * third].sum() + x[2 * third :].sum()


@kind("stored size")
class StoredSize:
    class Bad(nn.Module):
        def __init__(self):
            super().__init__()
            self.batch = 2

        def forward(self, x):
            return x + torch.zeros(self.batch, 4)  # HERE

    class Good(nn.Module):
        def forward(self, x):
            return x + torch.zeros(x.shape[0], 4)


@kind("position table", "x:float32[N=1..16,4]", mended_inputs=("x:float32[N=1..8,4]",))
class PositionTable:
    class Bad(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(8, 4)

        def forward(self, x):
            places = torch.arange(x.shape[0])
            return x + self.table(places)  # HERE

    Good = Bad


@kind("table sliced", "x:float32[N=1..16,4]", mended_inputs=("x:float32[N=1..8,4]",))
class SlicedTable:
    class Bad(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.randn(8, 4))

        def forward(self, x):
            return x + self.table[: x.shape[0]]  # HERE

    Good = Bad


@kind("padding to a multiple", "x:float32[1,N=1..16]")
class PadToMultiple:
    class Bad(nn.Module):
        def forward(self, x):
            if x.shape[1] % 4:  # HERE
                x = F.pad(x, (0, 4 - x.shape[1] % 4))
            return x.reshape(1, -1, 4)

    class Good(nn.Module):
        def forward(self, x):
            x = F.pad(x, (0, -x.shape[1] % 4))
            return x.reshape(1, -1, 4)


@kind("boolean index")
class BooleanIndex:
    class Bad(nn.Module):
        def forward(self, x):
            kept = x[x > 0]
            if kept.numel() == 0:  # HERE
                return x.sum()
            return kept.mean()

    class Good(nn.Module):
        def forward(self, x):
            kept = x > 0
            return (x * kept).sum() / kept.sum().clamp(min=1)


@kind("unique", "x:int64[N=1..8]", values=("x=0..3",))
class Unique:
    class Bad(nn.Module):
        def forward(self, x):
            found, counts = torch.unique(x, return_counts=True)
            return found[counts.argmax()] * len(found)  # HERE

    class Good(nn.Module):
        def forward(self, x):
            counts = F.one_hot(x, 4).sum(0)
            return counts.argmax() * (counts > 0).sum()


@kind("inferred one-hot", "x:int64[N=1..8]", values=("x=0..3",))
class InferredOneHot:
    class Bad(nn.Module):
        def forward(self, x):
            return F.one_hot(x).float()  # HERE

    class Good(nn.Module):
        def forward(self, x):
            return F.one_hot(x, 4).float() * x[:, None]


@kind("operator without translation", "x:float32[3,3]")
class NoTranslation:
    class Bad(nn.Module):
        def forward(self, x):
            return torch.linalg.qr(x)[0]  # HERE

    class Good(nn.Module):
        def forward(self, x):
            return x / x.norm(dim=0, keepdim=True).clamp(min=1e-3)


@kind("operator in a helper", "x:float32[3,3]")
class NoTranslationInHelper:
    class Bad(nn.Module):
        def _solve(self, x):
            return torch.linalg.eigvals(x).real  # HERE

        def forward(self, x):
            return self._solve(x)

    class Good(nn.Module):
        def forward(self, x):
            return x.diagonal()


@kind("library operator")
class LibraryOperator:
    class Bad(nn.Module):
        def forward(self, x):
            return doubled(x)  # HERE

    class Good(nn.Module):
        def forward(self, x):
            return x * 2


@torch.library.custom_op("t2m_refused::doubled", mutates_args=())
def doubled(x: torch.Tensor) -> torch.Tensor:
    """An operator of a library's own."""
    return x * 2


@doubled.register_fake
def _(x):
    return torch.empty_like(x)


@kind("sparse", "x:float32[4,4]")
class Sparse:
    class Bad(nn.Module):
        def forward(self, x):
            return torch.sparse.mm(x.to_sparse(), x)  # HERE

    class Good(nn.Module):
        def forward(self, x):
            return torch.mm(x, x)


@kind("sparse buffer", "x:float32[4,4]")
class SparseBuffer:
    class Bad(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("matrix", torch.eye(4).to_sparse())

        def forward(self, x):
            return torch.sparse.mm(self.matrix, x)  # HERE

    class Good(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("matrix", torch.eye(4))

        def forward(self, x):
            return torch.mm(self.matrix, x)


@kind("complex output")
class ComplexOutput:
    class Bad(nn.Module):
        def forward(self, x):
            return torch.fft.rfft(x)  # HERE

    class Good(nn.Module):
        def forward(self, x):
            return torch.view_as_real(torch.fft.rfft(x))


@kind("bfloat16")
class BFloat16:
    class Bad(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(4, 4).bfloat16()

        def forward(self, x):
            return self.head(x.bfloat16()).float()  # HERE

    class Good(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(4, 4)

        def forward(self, x):
            return self.head(x)


@kind("float64 kernel", "x:float64[2,3]", values=("x=uniform(-0.9,0.9)",))
class Float64Kernel:
    class Bad(nn.Module):
        def forward(self, x):
            return x.erfinv()  # HERE

    class Good(nn.Module):
        def forward(self, x):
            return x.float().erfinv()


@kind("functorch gradient")
class FunctorchGradient:
    class Bad(nn.Module):
        def forward(self, x):
            return torch.func.grad(lambda y: (y**3).sum())(x)  # HERE

    class Good(nn.Module):
        def forward(self, x):
            return 3 * x**2


@kind("flex attention", "x:float32[1,2,16,8]")
class FlexAttention:
    class Bad(nn.Module):
        def forward(self, x):
            from torch.nn.attention.flex_attention import flex_attention

            return flex_attention(x, x, x)  # HERE

    class Good(nn.Module):
        def forward(self, x):
            return F.scaled_dot_product_attention(x, x, x)


@kind("state in a buffer")
class StateInBuffer:
    class Bad(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mean", torch.zeros(4))

        def forward(self, x):
            self.mean.mul_(0.9).add_(x.mean(0) * 0.1)  # HERE
            return x - self.mean

    class Good(nn.Module):
        def forward(self, x):
            return x - x.mean(0) * 0.1


@kind("state in an attribute")
class StateInAttribute:
    class Bad(nn.Module):
        def __init__(self):
            super().__init__()
            self.last = torch.zeros(4)

        def forward(self, x):
            y = x + self.last
            self.last = x.mean(0)  # HERE
            return y

    class Good(nn.Module):
        def forward(self, x):
            return x + x.mean(0)


@kind("counter")
class Counter:
    class Bad(nn.Module):
        def __init__(self):
            super().__init__()
            self.calls = 0

        def forward(self, x):
            self.calls += 1  # HERE
            return x * self.calls

    class Good(nn.Module):
        def forward(self, x):
            return x * 1.0


@kind("dropout always on")
class DropoutOn:
    class Bad(nn.Module):
        def forward(self, x):
            return F.dropout(x, 0.5)  # HERE

    class Good(nn.Module):
        def forward(self, x):
            return F.dropout(x, 0.5, training=self.training)


@kind("random")
class Random:
    class Bad(nn.Module):
        def forward(self, x):
            return x + torch.randn_like(x)  # HERE

    class Good(nn.Module):
        def forward(self, x):
            return x + torch.linspace(0, 1, 4)


@kind("NaN of the module")
class NanOfModule:
    class Bad(nn.Module):
        def forward(self, x):
            return torch.sqrt(x - 100)  # HERE

    class Good(nn.Module):
        def forward(self, x):
            return torch.sqrt((x - 100).clamp(min=0) + x.abs())


@kind(
    "size that the module refuses",
    "x:float32[1,N=2..16]",
    mended_inputs=("x:float32[1,2*N=2..16]",),
)
class RefusedSize:
    class Bad(nn.Module):
        def forward(self, x):
            return x.reshape(1, -1, 2).sum(-1)  # HERE

    Good = Bad


@kind(
    "value that the module refuses",
    "x:int64[N=1..8]",
    values=("x=0..20",),
    mended_values=("x=0..9",),
)
class RefusedValue:
    class Bad(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(10, 4)

        def forward(self, x):
            return self.table(x)  # HERE

    Good = Bad


@kind(
    "division by zero",
    "x:int64[N=1..8]",
    "y:int64[N]",
    values=("x=0..9", "y=0..9"),
    mended_values=("x=0..9", "y=1..9"),
)
class DivisionByZero:
    class Bad(nn.Module):
        def forward(self, x, y):
            return x // y  # HERE

    Good = Bad


@kind("no tensor returned")
class NoTensor:
    class Bad(nn.Module):
        def forward(self, x):  # HERE
            return 3

    class Good(nn.Module):
        def forward(self, x):
            return x * 3


@kind("number returned")
class NumberReturned:
    class Bad(nn.Module):
        def forward(self, x):  # HERE
            return x * 2, x.dim()

    class Good(nn.Module):
        def forward(self, x):
            return x * 2


@kind("another device")
class OtherDevice:
    class Bad(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(4, 3, device="meta")

        def forward(self, x):
            return self.head(x)

    class Good(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(4, 3)

        def forward(self, x):
            return self.head(x)


@kind("wrong shape", "x:float32[N=1..8,3]")
class ShapeError:
    class Bad(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(4, 3)

        def forward(self, x):
            return self.head(x)  # HERE

    class Good(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(3, 3)

        def forward(self, x):
            return self.head(x)


@kind("left in train mode", "x:float32[N=2..8,4]")
class LeftInTrainMode:
    @staticmethod
    def Bad():
        module = LeftInTrainMode.Good().eval()
        module.norm.train()
        return module

    class Good(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(4)

        def forward(self, x):
            return self.norm(x)


@kind("complex numbers")
class ComplexNumbers:
    class Bad(nn.Module):
        def forward(self, x):
            return torch.fft.rfft(x).log().real  # HERE

    class Good(nn.Module):
        def forward(self, x):
            y = torch.view_as_real(torch.fft.rfft(x))
            return (y.square().sum(-1) + 1e-3).log() / 2


@kind("operator made of others")
class Prims:
    class Bad(nn.Module):
        def forward(self, x):
            return torch.special.bessel_j0(x)  # HERE

    class Good(nn.Module):
        def forward(self, x):
            return torch.sinc(x)


@kind("arguments without translation")
class Arguments:
    class Bad(nn.Module):
        def forward(self, x):
            return torch.histc(x, 4)  # HERE

    class Good(nn.Module):
        def forward(self, x):
            return torch.stack([((x >= i) & (x < i + 1)).sum() for i in range(4)])


@kind("size of what data select")
class SelectedSize:
    class Bad(nn.Module):
        def forward(self, x):
            rows = torch.nonzero(x[:, 0] > 0)[:, 0]
            if rows.shape[0] > 1:  # HERE
                return x[rows].sum(0)
            return x.sum(0)

    class Good(nn.Module):
        def forward(self, x):
            kept = x[:, :1] > 0
            return torch.where(kept.sum() > 1, (x * kept).sum(0), x.sum(0))


@kind("branch in a helper")
class BranchInHelper:
    class Bad(nn.Module):
        def _clip(self, x):
            return x if x.max() < 1 else x / 2  # HERE

        def forward(self, x):
            return self._clip(x * 2)

    class Good(nn.Module):
        def forward(self, x):
            x = x * 2
            return torch.where(x.max() < 1, x, x / 2)


@kind("numpy of a size", "x:float32[1,N=1..16]")
class NumpyOfSize:
    class Bad(nn.Module):
        def forward(self, x):
            return x / np.sqrt(x.shape[1])  # HERE

    class Good(nn.Module):
        def forward(self, x):
            return x / torch.sqrt(x.new_ones(x.shape[1]).sum())


@kind("sorted by values", "x:float32[N=2..8,4]")
class SortedByValues:
    class Bad(nn.Module):
        def forward(self, x):
            order = sorted(range(x.shape[0]), key=lambda i: x[i, 0])  # HERE
            return x[order[0]]

    class Good(nn.Module):
        def forward(self, x):
            order = x[:, 0].argsort()
            return x.index_select(0, order[:1])[0]


@kind("number as an index")
class NumberAsIndex:
    class Bad(nn.Module):
        def forward(self, x):
            best = int(x[0].argmax())  # HERE
            return x[:, best]

    class Good(nn.Module):
        def forward(self, x):
            return x.index_select(1, x[0].argmax().reshape(1))[:, 0]


@kind("text of a value")
class TextOfValue:
    class Bad(nn.Module):
        def forward(self, x):
            scale = float(f"{x.abs().max():.2f}")  # HERE
            return x / (scale + 1)

    class Good(nn.Module):
        def forward(self, x):
            return x / (torch.round(x.abs().max(), decimals=2) + 1)


@kind("jacobian")
class Jacobian:
    class Bad(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def value(self, x):
            return torch.tanh(self.layer(x))

        def forward(self, x):
            return torch.func.vmap(torch.func.jacrev(self.value))(x)  # HERE

    class Good(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, x):
            slope = 1 - torch.tanh(self.layer(x)) ** 2
            return slope[:, :, None] * self.layer.weight


@kind("fixed device")
class FixedDevice:
    class Bad(nn.Module):
        def forward(self, x):
            return x + torch.ones(4, device="cuda")  # HERE

    class Good(nn.Module):
        def forward(self, x):
            return x + torch.ones(4, device=x.device)


@kind(
    "two names of one size",
    "a:float32[N=1..8,4]",
    "b:float32[M=1..8,4]",
    mended_inputs=("a:float32[N=1..8,4]", "b:float32[N,4]"),
)
class TwoNames:
    class Bad(nn.Module):
        def forward(self, a, b):
            return a + b  # HERE

    Good = Bad


@kind("sparse rows")
class SparseRows:
    class Bad(nn.Module):
        def __init__(self):
            super().__init__()
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
                self.register_buffer("links", torch.eye(4).to_sparse_csr())

        def forward(self, x):
            return (self.links @ x.T).T  # HERE

    class Good(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("links", torch.eye(4))

        def forward(self, x):
            return (self.links @ x.T).T


@kind("set of values", "x:int64[N=1..8]", values=("x=0..3",))
class SetOfValues:
    class Bad(nn.Module):
        def forward(self, x):
            kinds = len(set(x.tolist()))  # HERE
            return x.float() / kinds

    class Good(nn.Module):
        def forward(self, x):
            count = F.one_hot(x, 4).sum(0)
            return x.float() / (count > 0).sum()


@kind("dict of values", "x:int64[N=1..8]", values=("x=0..3",))
class DictOfValues:
    class Bad(nn.Module):
        def forward(self, x):
            counts = {}
            for token in x.tolist():
                counts[token] = counts.get(token, 0) + 1  # HERE
            return torch.tensor([counts[token] for token in x.tolist()])

    class Good(nn.Module):
        def forward(self, x):
            return F.one_hot(x, 4).sum(0).index_select(0, x)


@kind(
    "complex input",
    "x:complex64[N=1..8,4]",
    mended_inputs=("real:float32[N=1..8,4]", "imag:float32[N,4]"),
)
class ComplexInput:
    class Bad(nn.Module):
        def forward(self, x):
            return x.abs() * 2

    class Good(nn.Module):
        def forward(self, real, imag):
            return torch.complex(real, imag).abs() * 2


@kind("complex input as pairs", "x:cfloat[N=1..8,4]", mended_inputs=("x:float32[N=1..8,4,2]",))
class ComplexInputAsPairs:
    class Bad(nn.Module):
        def forward(self, x):
            return x.abs() * 2

    class Good(nn.Module):
        def forward(self, x):
            return torch.view_as_complex(x).abs() * 2


@kind("write through data", mended_state=True)
class WriteThroughData:
    class Bad(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones(4))

        def forward(self, x):
            self.w.data.add_(1)  # HERE
            return x * self.w

    class Good(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("w", torch.ones(4))

        def forward(self, x):
            self.w.add_(1)
            return x * self.w


@kind("return in a loop", rewrites=("T2M101",))
class ReturnInLoop:
    class Bad(nn.Module):
        def forward(self, x):
            for scale in (2, 3):
                if x.max() > scale:  # HERE
                    return x / scale
            return x

    class Good(nn.Module):
        def forward(self, x):
            divisor = torch.ones(())
            for scale in (3, 2):
                if x.max() > scale:
                    divisor = divisor * 0 + scale
            return x / divisor


@kind("branch that leaves nothing", rewrites=("T2M101",))
class BranchWithoutResult:
    class Bad(nn.Module):
        def forward(self, x):
            if x.isnan().any():  # HERE
                warnings.warn("NaN in the input", stacklevel=2)
            return x * 2

    class Good(nn.Module):
        def forward(self, x):
            if not torch.compiler.is_exporting() and x.isnan().any():
                warnings.warn("NaN in the input", stacklevel=2)
            return x * 2


@kind("view of what is selected")
class ViewOfSelected:
    class Bad(nn.Module):
        def forward(self, x):
            kept = x.masked_select(x > 0)  # HERE
            return kept.view(-1, 2).sum(0)

    class Good(nn.Module):
        def forward(self, x):
            kept = x[x > 0]
            return kept.view(-1, 2).sum(0)


@kind("overlaps until none is left", "boxes:float32[6,4]", "scores:float32[6]")
class WhileRowsAreLeft:
    class Bad(nn.Module):
        def forward(self, boxes, scores):
            order, kept = scores.argsort(descending=True), []
            while order.numel() > 0:  # HERE
                kept.append(boxes[order[0]])
                apart = (boxes[order] - boxes[order[0]]).abs().sum(1)
                order = order[apart > 0.5]
            return torch.stack(kept)

    class Good(nn.Module):
        def forward(self, boxes, scores):
            order = scores.argsort(descending=True)
            boxes = boxes.index_select(0, order)
            left, kept = torch.ones(6, dtype=torch.bool), []
            for row in range(6):
                kept.append(left[row])
                apart = (boxes - boxes[row]).abs().sum(1)
                left = left & ((apart > 0.5) | ~left[row])
            return boxes, torch.stack(kept)


@kind("loop over nonzero", "x:float32[N=2..8,4]")
class LoopOverNonzero:
    class Bad(nn.Module):
        def forward(self, x):
            out = x.clone()
            for row, column in torch.nonzero(x > 1):  # HERE
                out[row, column] = 1
            return out

    class Good(nn.Module):
        def forward(self, x):
            return x.masked_fill(x > 1, 1)


@kind("list of some rows", "x:float32[N=2..8,4]")
class ListOfSomeRows:
    class Bad(nn.Module):
        def forward(self, x):
            hot = [row for row in x if row.max() > 1]  # HERE
            return torch.stack(hot).mean(0) if hot else x.mean(0)

    class Good(nn.Module):
        def forward(self, x):
            kept = x.amax(1) > 1
            mean = (x * kept[:, None]).sum(0) / kept.sum().clamp(min=1)
            return torch.where(kept.any(), mean, x.mean(0))


@kind("text of values", "x:int64[N=1..8]", values=("x=0..25",))
class TextOfValues:
    class Bad(nn.Module):
        def forward(self, x):
            word = "".join(chr(97 + code) for code in x.tolist())  # HERE
            return x * (word == "stop")

    class Good(nn.Module):
        def forward(self, x):
            return x + 97


@kind("assert on values", "x:int64[N=1..8]", values=("x=0..9",))
class AssertOnValues:
    class Bad(nn.Module):
        def forward(self, x):
            assert x.max() < 10, f"bad id {x.max()}"  # HERE
            return x * 2

    class Good(nn.Module):
        def forward(self, x):
            if not torch.compiler.is_exporting():
                assert x.max() < 10, f"bad id {x.max()}"
            return x * 2


@kind("match on a value", "x:float32[N=1..8,4]", "mode:int64[]", values=("mode=0..2",))
class MatchOnValue:
    class Bad(nn.Module):
        def forward(self, x, mode):
            match int(mode):  # HERE
                case 0:
                    return x.relu()
                case _:
                    return x.sigmoid()

    class Good(nn.Module):
        def forward(self, x, mode):
            return torch.where(mode == 0, x.relu(), x.sigmoid())


@kind("math of a value")
class MathOfValue:
    class Bad(nn.Module):
        def forward(self, x):
            return x * math.exp(-x.pow(2).mean())  # HERE

    class Good(nn.Module):
        def forward(self, x):
            return x * torch.exp(-x.pow(2).mean())


@kind("whole number of a value")
class WholeNumberOfValue:
    class Bad(nn.Module):
        def forward(self, x):
            scale = (x.max() - x.min()) / 255 + 1e-8
            zero = int(-x.min() / scale)  # HERE
            return torch.quantize_per_tensor(x, scale, zero, torch.quint8).dequantize()

    class Good(nn.Module):
        def forward(self, x):
            scale = (x.max() - x.min()) / 255 + 1e-2
            zero = (-x.min() / scale).trunc()
            steps = (x / scale + zero).clamp(0, 255)
            return (steps - zero) * scale


@kind("lengths of rows", "x:float32[N=1..4,6,4]", "lengths:int64[N]", values=("lengths=1..6",))
class LengthsOfRows:
    class Bad(nn.Module):
        def forward(self, x, lengths):
            rows = [row[:n].mean(0) for row, n in zip(x, lengths.tolist(), strict=True)]  # HERE
            return torch.stack(rows)

    class Good(nn.Module):
        def forward(self, x, lengths):
            mask = torch.arange(x.shape[1]) < lengths[:, None]
            return (x * mask[..., None]).sum(1) / lengths[:, None]


@kind("nested tensor", "x:float32[2,6,4]", "lengths:int64[2]", values=("lengths=1..6",))
class NestedTensor:
    class Bad(nn.Module):
        def forward(self, x, lengths):
            rows = [row[:n] for row, n in zip(x, lengths, strict=True)]
            nested = torch.nested.nested_tensor(rows)  # HERE
            return (nested * 2).to_padded_tensor(0.0)

    class Good(nn.Module):
        def forward(self, x, lengths):
            mask = torch.arange(x.shape[1]) < lengths[:, None]
            return x * 2 * mask[..., None]


@kind("gradient in forward")
class GradientInForward:
    class Bad(nn.Module):
        def forward(self, x):
            with torch.enable_grad():
                x = x.requires_grad_()  # HERE
                (slope,) = torch.autograd.grad(x.tanh().sum(), x)
            return slope

    class Good(nn.Module):
        def forward(self, x):
            return 1 - x.tanh() ** 2


@kind("layer chosen by a value", "x:float32[N=1..8,4]", "task:int64[]", values=("task=0..2",))
class LayerByValue:
    class Bad(nn.Module):
        def __init__(self):
            super().__init__()
            self.heads = nn.ModuleDict({f"task_{i}": nn.Linear(4, 2) for i in range(3)})

        def forward(self, x, task):
            return self.heads[f"task_{task.item()}"](x)  # HERE

    class Good(nn.Module):
        def __init__(self):
            super().__init__()
            self.heads = nn.ModuleDict({f"task_{i}": nn.Linear(4, 2) for i in range(3)})

        def forward(self, x, task):
            every = torch.stack([head(x) for head in self.heads.values()])
            return every.index_select(0, task.reshape(1))[0]


@kind("file of values")
class FileOfValues:
    class Bad(nn.Module):
        def forward(self, x):
            np.save(os.devnull, x.numpy())  # HERE
            return x * 2

    class Good(nn.Module):
        def forward(self, x):
            return x * 2, x + 0


@kind("sparse by edges", "x:float32[5,4]", "edges:int64[2,E=1..12]", values=("edges=0..4",))
class SparseByEdges:
    class Bad(nn.Module):
        def forward(self, x, edges):
            links = torch.sparse_coo_tensor(edges, torch.ones(edges.shape[1]), (5, 5))  # HERE
            return torch.sparse.mm(links, x)

    class Good(nn.Module):
        def forward(self, x, edges):
            rows, columns = edges
            return torch.zeros_like(x).index_add(0, rows, x[columns])


@kind("memory read by strides", "x:float32[4,6]")
class ReadByStrides:
    class Bad(nn.Module):
        def forward(self, x):
            return x.t().as_strided((3, 4), (8, 1)) * 2  # HERE

    class Good(nn.Module):
        def forward(self, x):
            return x.t().unfold(0, 2, 2) * 2


@kind("drawn by chance", mended_inputs=(ROWS, "noise:float32[N,4]"))
class DrawnByChance:
    class Bad(nn.Module):
        def forward(self, x):
            return torch.multinomial(x.softmax(-1), 1)  # HERE

    class Good(nn.Module):
        def forward(self, x, noise):
            return (x.log_softmax(-1) + noise).argmax(-1, keepdim=True)


@kind("sides of two types", rewrites=("T2M101",))
class SidesOfTwoTypes:
    class Bad(nn.Module):
        def forward(self, x):
            if x.sum() > 0:
                return x  # HERE
            return x > 0

    class Good(nn.Module):
        def forward(self, x):
            if x.sum() > 0:
                return x
            return (x > 0).to(torch.float32)


@kind(
    "text as an input",
    "text:float32[4]",
    mended_inputs=("ids:int64[T=1..4]",),
    mended_values=("ids=0..3",),
)
class TextAsInput:
    class Bad(nn.Module):
        def forward(self, text):
            return torch.tensor([len(word) for word in text.lower().split()])  # HERE

    class Good(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(4, 2)

        def forward(self, ids):
            return self.table(ids)


@kind("object returned")
class ObjectReturned:
    class Bad(nn.Module):
        def forward(self, x):  # HERE
            yield x * 2

    class Good(nn.Module):
        def forward(self, x):
            return {"double": x * 2}


@kind("half weights", mended_inputs=("x:float16[N=1..8,4]",))
class HalfWeights:
    class Bad(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 2).half()

        def forward(self, x):
            return self.layer(x)  # HERE

    Good = Bad


@kind("numbers for a table", mended_inputs=("x:int64[N=1..8]",), mended_values=("x=0..3",))
class NumbersForTable:
    class Bad(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(4, 2)

        def forward(self, x):
            return self.table(x)  # HERE

    Good = Bad


@kind("item in vmap")
class ItemInVmap:
    class Bad(nn.Module):
        def forward(self, x):
            return torch.func.vmap(lambda row: row * row.sum().item())(x)  # HERE

    class Good(nn.Module):
        def forward(self, x):
            return torch.func.vmap(lambda row: row * row.sum())(x)


@kind("packed rows", "x:float32[N=1..4,6,4]", "lengths:int64[N]", values=("lengths=1..6",))
class PackedRows:
    class Bad(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.GRU(4, 3, batch_first=True)

        def forward(self, x, lengths):
            rows = [row[:n] for row, n in zip(x, lengths, strict=True)]
            packed = nn.utils.rnn.pack_sequence(rows, enforce_sorted=False)  # HERE
            return self.cell(packed)[1][0]

    class Good(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.GRU(4, 3, batch_first=True)

        def forward(self, x, lengths):
            steps, _ = self.cell(x)
            last = (lengths - 1)[:, None, None].expand(-1, 1, 3)
            return steps.gather(1, last)[:, 0]


@kind("jagged tensor", "x:float32[2,6,4]")
class JaggedTensor:
    class Bad(nn.Module):
        def forward(self, x):
            rows = [x[0, :3], x[1, :5]]
            return torch.nested.as_nested_tensor(rows, layout=torch.jagged).sum()  # HERE

    class Good(nn.Module):
        def forward(self, x):
            mask = torch.arange(6) < torch.tensor([3, 5])[:, None]
            return (x * mask[..., None]).sum()


@kind("quantized layer")
class QuantizedLayer:
    class Bad(nn.Module):
        def __init__(self):
            super().__init__()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.quantize = torch.ao.nn.quantized.Quantize(0.1, 0, torch.quint8)
                self.layer = torch.ao.nn.quantized.Linear(4, 4)

        def forward(self, x):
            return self.layer(self.quantize(x)).dequantize()  # HERE

    class Good(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            x = torch.fake_quantize_per_tensor_affine(x, 0.1, 0, 0, 255)
            return self.layer(x)


@kind("random generator")
class RandomGenerator:
    class Bad(nn.Module):
        def forward(self, x):
            generator = torch.Generator().manual_seed(0)
            return x + torch.randn(x.shape, generator=generator)  # HERE

    class Good(nn.Module):
        def __init__(self):
            super().__init__()
            generator = torch.Generator().manual_seed(0)
            self.register_buffer("noise", torch.randn(8, 4, generator=generator))

        def forward(self, x):
            return x + self.noise[: x.shape[0]]


@kind("seed in forward", mended_inputs=(ROWS, "noise:float32[N,4]"))
class SeedInForward:
    class Bad(nn.Module):
        def forward(self, x):
            torch.manual_seed(0)
            return x + torch.randn_like(x)  # HERE

    class Good(nn.Module):
        def forward(self, x, noise):
            return x + noise


@kind("Python's random", mended_inputs=(ROWS, "noise:float32[]"))
class PythonsRandom:
    class Bad(nn.Module):
        def forward(self, x):
            return x * random.random()  # HERE

    class Good(nn.Module):
        def forward(self, x, noise):
            return x * noise


@kind("memory resized")
class MemoryResized:
    class Bad(nn.Module):
        def forward(self, x):
            return x.clone().resize_(2, 2)  # HERE

    class Good(nn.Module):
        def forward(self, x):
            return x.reshape(-1)[:4].reshape(2, 2)


CACHE: dict[int, torch.Tensor] = {}


@kind("dict of sizes")
class DictOfSizes:
    class Bad(nn.Module):
        def forward(self, x):
            if x.shape[0] not in CACHE:  # HERE
                CACHE[x.shape[0]] = torch.arange(x.shape[0])[:, None]
            return x + CACHE[x.shape[0]]

    class Good(nn.Module):
        def forward(self, x):
            return x + torch.arange(x.shape[0])[:, None]


@kind("threads")
class Threads:
    class Bad(nn.Module):
        def forward(self, x):
            with ThreadPoolExecutor() as pool:  # HERE
                return pool.submit(torch.mul, x, 2).result()

    class Good(nn.Module):
        def forward(self, x):
            return x * 2


@kind("scripted fork")
class ScriptedFork:
    class Bad(nn.Module):
        def forward(self, x):
            found = torch.jit.fork(torch.relu, x)  # HERE
            return torch.jit.wait(found)

    class Good(nn.Module):
        def forward(self, x):
            return torch.relu(x)


@kind("autocast")
class Autocast:
    class Bad(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return self.layer(x)  # HERE

    class Good(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            with torch.autocast("cpu", dtype=torch.float16):
                return self.layer(x).float()


@kind("singular values", "x:float32[3,3]", mended_values=("x=uniform(1,2)",))
class SingularValues:
    class Bad(nn.Module):
        def forward(self, x):
            return torch.linalg.svdvals(x)[0]  # HERE

    class Good(nn.Module):
        def forward(self, x):
            v = x.new_ones(3, 1)
            for _ in range(30):
                v = x.T @ (x @ v)
                v = v / v.norm()
            return (x @ v).norm()


@kind("least squares", "a:float32[4,2]", "b:float32[4,1]")
class LeastSquares:
    class Bad(nn.Module):
        def forward(self, a, b):
            a = a + torch.eye(4)[:, :2] * 4
            return torch.linalg.lstsq(a, b).solution  # HERE

    class Good(nn.Module):
        def forward(self, a, b):
            a = a + torch.eye(4)[:, :2] * 4
            return torch.linalg.solve(a.T @ a, a.T @ b)


@kind("text for a log")
class TextForLog:
    class Bad(nn.Module):
        def forward(self, x):
            text = f"mean {x.mean():.3f}"  # HERE
            assert text
            return x * 2

    class Good(nn.Module):
        def forward(self, x):
            if not torch.compiler.is_exporting():
                print(f"mean {x.mean():.3f}")  # noqa: T201 (what a log says)
            return x * 2


@kind("whole tensors compared")
class WholeTensorsCompared:
    class Bad(nn.Module):
        def forward(self, x):
            return x if torch.equal(x, x.flip(0)) else x * 2  # HERE

    class Good(nn.Module):
        def forward(self, x):
            return torch.where((x == x.flip(0)).all(), x, x * 2)


@kind("Python's max of rows")
class MaxOfRows:
    class Bad(nn.Module):
        def forward(self, x):
            return max(x.sum(1))  # HERE

    class Good(nn.Module):
        def forward(self, x):
            return x.sum(1).amax(0)


@kind("look-up by text", "x:int64[N=1..8]", values=("x=97..122",))
class LookUpByText:
    class Bad(nn.Module):
        def forward(self, x):
            known = {chr(code): code % 7 for code in range(128)}
            return torch.tensor([known[chr(code)] for code in x])  # HERE

    class Good(nn.Module):
        def forward(self, x):
            table = torch.tensor([code % 7 for code in range(128)])
            return table[x]


@kind("error that is caught", "x:float32[3,3]")
class ErrorCaught:
    class Bad(nn.Module):
        def forward(self, x):
            x = (x + x.T) / 2 + torch.eye(3) * x.sum()
            try:
                return torch.linalg.cholesky(x)  # HERE
            except torch.linalg.LinAlgError:
                return x

    class Good(nn.Module):
        def forward(self, x):
            x = (x + x.T) / 2 + torch.eye(3) * x.sum()
            factor, info = torch.linalg.cholesky_ex(x)
            return torch.where(info > 0, x, factor)


@kind("rows cut by values", "x:float32[3,4]", "lengths:int64[3]", values=("lengths=1..4",))
class RowsCutByValues:
    class Bad(nn.Module):
        def forward(self, x, lengths):
            y = torch.zeros(3)
            for b in range(3):
                y[b] = x[b, : lengths[b]].chunk(2)[0].sum()  # HERE
            return y

    class Good(nn.Module):
        def forward(self, x, lengths):
            kept = torch.arange(4) < (lengths[:, None] + 1) // 2
            return (x * kept).sum(1)


@kind("values as indices", "x:float32[3,4]", "i:int64[3]", values=("i=0..3",))
class ValuesAsIndices:
    class Bad(nn.Module):
        def forward(self, x, i):
            y = torch.zeros(3, 4)
            for row in range(3):
                y[row, i[row]] = x[row, i[row]]  # HERE
            return y

    class Good(nn.Module):
        def forward(self, x, i):
            return torch.zeros(3, 4).scatter(1, i[:, None], x.gather(1, i[:, None]))


@kind("dict by number", "i:int64[]", values=("i=0..2",))
class DictByNumber:
    class Bad(nn.Module):
        def forward(self, i):
            return torch.tensor({0: 0.5, 1: 1.0, 2: 2.0}[i.item()])  # HERE

    class Good(nn.Module):
        def forward(self, i):
            return torch.tensor([0.5, 1.0, 2.0])[i]


@kind("text generated", "tokens:int64[1,T=1..4]", values=("tokens=0..9",))
class TextGenerated:
    class Bad(nn.Module):
        def forward(self, tokens):
            while tokens.shape[1] < 8 and tokens[0, -1] != 3:  # HERE
                tokens = torch.cat([tokens, tokens[:, -1:] // 2 + 1], 1)
            return tokens

    class Good(nn.Module):
        def forward(self, tokens):
            last, done = tokens[:, -1:], tokens[:, -1:] == 3
            for _ in range(4):
                last = torch.where(done, last, last // 2 + 1)
                done = done | (last == 3)
            return last


def _plain() -> nn.Module:
    layer = ParametrizedWeight.Bad()
    nn.utils.parametrize.remove_parametrizations(layer.layer, "weight")
    return layer


@kind("parametrized weight")
class ParametrizedWeight:
    class Bad(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.utils.parametrizations.orthogonal(nn.Linear(4, 4))

        def forward(self, x):
            return self.layer(x)  # HERE

    Good = staticmethod(_plain)


@kind("scale of a value", "x:float32[1,1,8,8]", "s:float32[]", values=("s=uniform(1,2)",))
class ScaleOfValue:
    class Bad(nn.Module):
        def forward(self, x, s):
            return F.interpolate(x, scale_factor=s.item())  # HERE

    class Good(nn.Module):
        def forward(self, x, s):
            theta = torch.stack([1 / s, s * 0, s * 0, s * 0, 1 / s, s * 0]).reshape(1, 2, 3)
            return F.grid_sample(x, F.affine_grid(theta, [1, 1, 16, 16], False), "nearest")
