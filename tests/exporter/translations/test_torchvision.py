"""torchvision's operators by their names, against torchvision where it is installed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from translating import Case, answers, compare, normal

ops = pytest.importorskip("torchvision.ops")

BOXES = torch.tensor([[0.0, 0, 10, 10], [1, 1, 11, 11], [20, 20, 30, 30], [0, 0, 9, 10]])
ROIS = torch.tensor(
    [[0.0, 1, 1, 9, 9], [1, 0, 2, 15, 12], [1, 3.3, 4.4, 5.5, 6.6], [0, -2, -3, 20, 20]]
)
IMAGE, WEIGHT = normal(2, 3, 16, 16), normal(6, 3, 3, 3, seed=1)
OFFSET, MASK = normal(2, 18, 14, 14, seed=2), normal(2, 9, 14, 14, seed=3).sigmoid()

CALLS: dict[str, tuple[Callable[..., Any], tuple[torch.Tensor, ...]]] = {
    "nms": (lambda b, s: ops.nms(b, s, 0.5), (BOXES, torch.tensor([0.9, 0.8, 0.7, 0.95]))),
    "batched_nms": (
        lambda b, s: ops.batched_nms(b, s, torch.tensor([0, 1, 0, 1]), 0.5),
        (BOXES, torch.tensor([0.9, 0.8, 0.7, 0.95])),
    ),
    "deform_conv2d": (ops.deform_conv2d, (IMAGE, OFFSET, WEIGHT)),
    "deform_conv2d (mask)": (
        lambda x, o, w, m: ops.deform_conv2d(x, o, w, stride=2, padding=2, dilation=2, mask=m),
        (IMAGE, OFFSET[:, :, :8, :8], WEIGHT, MASK[:, :, :8, :8]),
    ),
    **{
        f"roi_align {ratio} {aligned}": (
            lambda x, r, s=ratio, a=aligned: ops.roi_align(x, r, (4, 5), 0.5, s, a),
            (IMAGE, ROIS),
        )
        for ratio in (-1, 0, 2)
        for aligned in (False, True)
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_it_is_what_torchvision_gives(name: str, tmp_path: Path) -> None:
    call, tensors = CALLS[name]
    case = Case(call, (tensors,), ulps=64, scale=8)
    _, found = answers([case], tmp_path)
    compare(case, found[0])
