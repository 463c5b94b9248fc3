"""What a line that torch refuses is said to do, and what to write instead."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torch2mobile.exporter import capture_words
from torch2mobile.exporter.loading import source
from torch2mobile.records import Attempt, Location

SIZES = "Constraints violated (N)! specialized value of 3"


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


def test_a_librarys_line_is_left_as_it_is() -> None:
    loaded = source.from_call("n", nn.ReLU(), (torch.ones(3, 3),), {})
    place = Location("", "/a/site-packages/torchvision/ops/boxes.py", 86, "if boxes.numel() > n:")
    attempt = Attempt("non-strict", False, "data-dependent", (place,))
    told = capture_words.remedy(loaded, [attempt])
    assert "torch.where" not in told
    assert "--stop-before postprocess_detections" in told
