"""What a line that torch refuses is said to do, and what to write instead."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torch2mobile.exporter import capture_words
from torch2mobile.exporter.loading import source
from torch2mobile.records import Attempt, Location

SIZES = "Constraints violated (N)! specialized value of 3"
DATA = "Could not guard on data-dependent expression"
SIGNATURES = "randn() got (*, torch.Generator generator = None, Tensor out = None)"


@pytest.mark.parametrize(
    ("code", "reason", "said"),
    [
        ("n = float(f'{x[0, 0]:.2f}')", "", "Text is made"),
        ("n = float(str(x[0, 0]))", "", "Text is made"),
        ("raise RuntimeError(f'{type(self).__name__} does not trace')", "", "cannot follow"),
        ("x = getattr(self, f'block_{i}')(x)", "", "cannot follow"),
        ("n = np.sqrt(x.shape[0])", SIZES, "torch.sqrt("),
        ("n = math.log2(x.shape[0])", SIZES, "torch.log2("),
        ("n = np.linspace(0, 1, x.shape[0])", SIZES, "holds only at some"),
        ("n = np.maximum(x.shape[0], 3)", SIZES, "holds only at some"),
        ("if n >= x.shape[0]:", "Cannot create Dim with inconsistent min=1", "depends on a size"),
    ],
)
def test_the_line_is_told_by_what_it_does(code: str, reason: str, said: str) -> None:
    loaded = source.from_call("n", nn.ReLU(), (torch.ones(3, 3),), {})
    attempt = Attempt("non-strict", False, reason, (Location("", "m.py", 3, code),))
    assert said in capture_words.remedy(loaded, [attempt])


@pytest.mark.parametrize(
    ("reason", "code", "begins"),
    [
        (SIZES, "return x.view(tuple(self.shape))", "{0} has a fixed number"),
        (SIZES, "a, b = x.split(list(self.sizes), 0)", "{0} gives as many parts"),
        (SIZES, "F.pad(x, (0, max(0, 8 - x.shape[1]))).view(2, 8)", "{0} has a fixed number"),
        (SIZES, "x = F.pad(x, (0, max(0, 8 - x.shape[1])))", "The line holds only"),
        (SIZES, "n = min(x.size(0), 4)", "The line holds only"),
        (SIZES, "n = max(n, 4)", "The line holds only"),
        (SIZES, "y = sum(x[:, 0]) / x.shape[0]", "Python's {0}() goes from row to row"),
        (SIZES, "return max(x.sum(1))", "Python's {0}() goes from row to row"),
        (DATA, "y[row, i[row]] = x[row, i[row]]  # HERE", "A value is an index"),
        (DATA, "y = x[b, : lengths[b]].sum(0)", "A value is the end of a slice"),
        (DATA, "y = x[self.first[b] : lengths[b]]", "A value is the end of a slice"),
        (DATA, "y = x[self.keep[0] > 0]", "The shape of the result depends"),
        (DATA, "y = x[:, : n.shape[0]][mask]", "The shape of the result depends"),
        (DATA, "out: dict[str, list[int]] = f(x)", "The shape of the result depends"),
        (DATA, "self.queue.submit(x[mask])", "The shape of the result depends"),
        (DATA, "y = torch.rand(n, generator=self.seeded)[mask]", "The shape of the result depends"),
        (SIGNATURES, "y = torch.randn(2, self.width)", "torch.export cannot follow"),
        ("", "y = torch.randn(2, generator=self.seeded)", "A file has no random generator"),
        (SIZES, "with ThreadPoolExecutor() as pool:", "What runs in another thread"),
        ("", "with ThreadPoolExecutor() as pool:", "What runs in another thread"),
    ],
)
def test_a_line_is_told_by_what_is_its_own(reason: str, code: str, begins: str) -> None:
    found = capture_words._kind([reason], Location("", "m.py", 3, code))
    assert found.said.startswith(begins), found.said


def test_a_librarys_line_is_left_as_it_is() -> None:
    loaded = source.from_call("n", nn.ReLU(), (torch.ones(3, 3),), {})
    place = Location("", "/a/site-packages/torchvision/ops/boxes.py", 86, "if boxes.numel() > n:")
    attempt = Attempt("non-strict", False, "data-dependent", (place,))
    told = capture_words.remedy(loaded, [attempt])
    assert "torch.where" not in told
    assert "--stop-before postprocess_detections" in told
