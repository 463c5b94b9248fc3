"""What is said where the module itself raises on its example."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from torch2mobile.exporter import example_call
from torch2mobile.exporter.loading import source

X = torch.ones(2, 4)
WHOLE = X.long()
TABLE, LAYER, HALF = nn.Embedding(9, 4), nn.Linear(4, 4), nn.Linear(4, 4).half()
EYE = torch.eye(4, dtype=torch.float64)


@pytest.mark.parametrize(
    ("module", "given", "call", "remedy"),
    [
        (LAYER, X, lambda m, x: x.rehape(-1), "Mend that line"),
        (LAYER, X, lambda m, x: x.lower(), "An input of a file is a tensor"),
        (LAYER, X, lambda m, x: x.items(), "An input of a file is a tensor"),
        (LAYER, X, lambda m, x: m(x) @ EYE, "Cast at that line: x.to(w.dtype)"),
        (nn.ReLU(), X, lambda m, x: x @ EYE, "Cast at that line: x.to(w.dtype)"),
        (TABLE, WHOLE, lambda m, x: m(x) @ EYE, "Cast at that line: x.to(w.dtype)"),
        (HALF, X, lambda m, x: m(x), "Declare the inputs in the dtype of the weights"),
        (TABLE, X, lambda m, x: m(x), "Declare the input as int64"),
        (TABLE, WHOLE, lambda m, x: m(x / 2), "Cast at that line: x.long()"),
        (LAYER, X, lambda m, x: torch.where(x.max().item() > 2, x, -x), "Keep the condition a"),
        (LAYER, X, lambda m, x: torch.clamp(x, "a"), "Mend that line"),
    ],
)
def test_an_error_has_the_remedy_of_its_cause(
    module: nn.Module,
    given: torch.Tensor,
    call: Callable[[nn.Module, torch.Tensor], torch.Tensor],
    remedy: str,
) -> None:
    loaded = source.from_call("n", module, (given,), {})
    with pytest.raises((AttributeError, RuntimeError, TypeError)) as caught:
        call(module, given)
    assert example_call._remedy(loaded, caught.value).startswith(remedy)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("too small, please pad the image to 32", "too small, please pad the image to 32"),
        ("no form. Please open the file first", "no form. Please open the file first"),
        ("kernel FAILED at a.cpp:3, please report a bug to PyTorch. ", "kernel FAILED at a.cpp:3"),
        ("not supported. Please file an issue at https://x.y/z", "not supported"),
        ("no rule. If you see this in an op, please report a bug to PyTorch.", "no rule."),
        ("f() got (bool), but expected one of:\n * (Tensor a)\n * (Number a)\n", "f() got (bool)"),
        ("no rule for it; please open an issue if you need it", "no rule for it"),
    ],
)
def test_only_torchs_own_requests_are_cut(text: str, said: str) -> None:
    assert example_call._said(RuntimeError(text)) == said
