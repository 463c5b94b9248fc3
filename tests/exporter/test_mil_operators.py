"""The operators of MIL programs against PyTorch's own, and where they differ by definition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, tensor
from torch.nn import functional as F

from torch2mobile.exporter.targets.mil_operators import OPERATORS

torch.manual_seed(0)
X = torch.randn(2, 4, 7, 6)
W, B = torch.randn(8, 2, 3, 3), torch.randn(8)
ROWS = torch.randn(5, 2, 3)
LSTM = torch.nn.LSTM(3, 4, bidirectional=True)
RNN = torch.nn.RNN(3, 4)


def gates(suffix: str, order: tuple[int, ...]) -> dict[str, Tensor]:
    """A layer's weights in MIL's order of gates."""
    own = {name: value.detach() for name, value in LSTM.named_parameters()}

    def sorted_(value: Tensor) -> Tensor:
        parts = value.chunk(4)
        return torch.cat([parts[n] for n in order])

    back = "_reverse" if suffix else ""
    return {
        f"weight_ih{suffix}": sorted_(own[f"weight_ih_l0{back}"]),
        f"weight_hh{suffix}": sorted_(own[f"weight_hh_l0{back}"]),
        f"bias{suffix}": sorted_(own[f"bias_ih_l0{back}"] + own[f"bias_hh_l0{back}"]),
    }


def lstm() -> tuple[Tensor, ...]:
    rows, (h, c) = LSTM(ROWS)
    return rows.detach(), *(torch.cat(list(one), -1).detach() for one in (h, c))


ZEROS = torch.zeros(2, 8)
BOTH = gates("", (0, 1, 3, 2)) | gates("_back", (0, 1, 3, 2))
CASES: dict[str, tuple[str, dict[str, Any], Callable[[], Any]]] = {
    "conv": (
        "conv",
        {"x": X, "weight": W, "bias": B, "strides": tensor([2, 1]), "pad_type": "custom",
         "pad": tensor([1, 0, 2, 1]), "dilations": tensor([1, 2]), "groups": tensor(2)},
        lambda: F.conv2d(F.pad(X, (2, 1, 1, 0)), W, B, (2, 1), 0, (1, 2), 2),
    ),
    "conv same": (
        "conv",
        {"x": X, "weight": W, "pad_type": "same", "groups": tensor(2)},
        lambda: F.conv2d(X, W, None, padding=1, groups=2),
    ),
    "conv_transpose": (
        "conv_transpose",
        {"x": X, "weight": W[:4], "bias": B[:4], "strides": tensor([2, 2]), "groups": tensor(2),
         "pad_type": "custom", "pad": tensor([1, 1, 1, 1]), "output_shape": tensor([2, 4, 14, 12])},
        lambda: F.conv_transpose2d(X, W[:4], B[:4], 2, 1, 1, 2),
    ),
    "max_pool": (
        "max_pool",
        {"x": X, "kernel_sizes": tensor([3, 3]), "strides": tensor([2, 2]), "pad_type": "custom",
         "pad": tensor([1, 1, 1, 1]), "ceil_mode": tensor(True)},
        lambda: F.max_pool2d(X, 3, 2, 1, ceil_mode=True),
    ),
    "avg_pool": (
        "avg_pool",
        {"x": X, "kernel_sizes": tensor([3, 3]), "pad_type": "custom", "pad": tensor([1, 1, 1, 1]),
         "exclude_padding_from_average": tensor(True)},
        lambda: F.avg_pool2d(X, 3, 1, 1, count_include_pad=False),
    ),
    "avg_pool same, of uneven padding": (
        "avg_pool",
        {"x": X, "kernel_sizes": tensor([2, 2]), "pad_type": "same"},
        lambda: F.avg_pool2d(F.pad(X, (0, 1, 0, 1)), 2, 1),
    ),
    "upsample_bilinear": (
        "upsample_bilinear",
        {"x": X, "scale_factor_height": tensor(2.0), "scale_factor_width": tensor(1.5),
         "align_corners": tensor(False)},
        lambda: F.interpolate(X, (14, 9), mode="bilinear"),
    ),
    "resize_bilinear": (
        "resize_bilinear",
        {"x": X, "target_size_height": tensor(3), "target_size_width": tensor(11),
         "sampling_mode": "STRICT_ALIGN_CORNERS"},
        lambda: F.interpolate(X, (3, 11), mode="bilinear", align_corners=True),
    ),
    "upsample_nearest": (
        "upsample_nearest_neighbor",
        {"x": X, "scale_factor_height": tensor(2), "scale_factor_width": tensor(1.5)},
        lambda: F.interpolate(X, (14, 9), mode="nearest"),
    ),
    "upsample_nearest by a factor that float32 rounds": (
        "upsample_nearest_neighbor",
        {"x": X[..., :3, :], "scale_factor_height": tensor(5 / 3), "scale_factor_width": tensor(2)},
        lambda: F.interpolate(X[..., :3, :], scale_factor=(5 / 3, 2)),
    ),
    "space_to_depth and back": (
        "depth_to_space",
        {"x": OPERATORS["space_to_depth"](x=X[..., :6, :], block_size=tensor(2)),
         "block_size": tensor(2)},
        lambda: X[..., :6, :],
    ),
    "layer_norm": (
        "layer_norm",
        {"x": X, "axes": tensor([-2, -1]), "gamma": W[0, 0, :1, :1].expand(7, 6),
         "epsilon": tensor(1e-3)},
        lambda: F.layer_norm(X, (7, 6), W[0, 0, :1, :1].expand(7, 6).contiguous(), None, 1e-3),
    ),
    "instance_norm": (
        "instance_norm", {"x": X, "beta": B[:4]}, lambda: F.instance_norm(X, bias=B[:4])
    ),
    "batch_norm": (
        "batch_norm",
        {"x": X, "mean": B[:4], "variance": B[4:].abs(), "gamma": B[:4], "epsilon": tensor(1e-3)},
        lambda: F.batch_norm(X, B[:4], B[4:].abs(), B[:4], eps=1e-3),
    ),
    "lstm": (
        "lstm",
        {"x": ROWS, "initial_h": ZEROS, "initial_c": ZEROS, **BOTH,
         "direction": "bidirectional", "output_sequence": tensor(True)},
        lstm,
    ),
    "rnn": (
        "rnn",
        {"x": ROWS, "initial_h": ZEROS[:, :4], "weight_ih": RNN.weight_ih_l0.detach(),
         "weight_hh": RNN.weight_hh_l0.detach(), "output_sequence": tensor(True),
         "bias": (RNN.bias_ih_l0 + RNN.bias_hh_l0).detach()},
        lambda: (RNN(ROWS)[0].detach(), RNN(ROWS)[1][0].detach()),
    ),
    "slice_by_index": (
        "slice_by_index",
        {"x": X, "begin": tensor([0, 1, -1, 5]), "end": tensor([0, 2, 0, 1]),
         "stride": tensor([1, 1, -2, -1]), "begin_mask": tensor([True, False, False, False]),
         "end_mask": tensor([True, False, True, False]),
         "squeeze_mask": tensor([False, True, False, False])},
        lambda: X[:, 1].flip(1)[:, ::2].flip(2)[..., :4],
    ),
    "slice_by_size": (
        "slice_by_size",
        {"x": X, "begin": tensor([0, 1, 2, -2]), "size": tensor([-1, 2, 3, 1])},
        lambda: X[:, 1:3, 2:5, 4:5],
    ),
    "reshape keeps where 0 is": (
        "reshape", {"x": X, "shape": tensor([0, -1, 6])}, lambda: X.reshape(2, 28, 6)
    ),
    "pad, the last dimensions": (
        "pad",
        {"x": X, "pad": tensor([1, 2, 3, 0]), "mode": "reflect"},
        lambda: F.pad(X, (3, 0, 1, 2), mode="reflect"),
    ),
    "gather from the end": (
        "gather",
        {"x": X, "indices": tensor([[0, -1]]), "axis": tensor(2)},
        lambda: X[:, :, [0, -1]].unsqueeze(2),
    ),
    "gather_nd": (
        "gather_nd", {"x": X, "indices": tensor([[0, 1], [1, 3]])}, lambda: X[[0, 1], [1, 3]]
    ),
    "scatter": (
        "scatter",
        {"data": torch.zeros(4, 3), "indices": tensor([1, 1]), "updates": torch.ones(2, 3),
         "axis": tensor(0), "mode": "add"},
        lambda: torch.tensor([0.0, 2, 0, 0])[:, None].expand(4, 3),
    ),
    "scatter_nd": (
        "scatter_nd",
        {"data": torch.zeros(2, 2), "indices": tensor([[1, 0]]), "updates": tensor([3.0]),
         "mode": "update"},
        lambda: tensor([[0.0, 0], [3, 0]]),
    ),
    "cumsum": (
        "cumsum",
        {"x": tensor([1.0, 2, 3]), "exclusive": tensor(True), "reverse": tensor(True)},
        lambda: tensor([5.0, 3, 0]),
    ),
    "band_part": (
        "band_part", {"x": X, "lower": tensor(1), "upper": tensor(2)}, lambda: X.tril(2).triu(-1)
    ),
    "topk": (
        "topk",
        {"x": X, "k": tensor(2), "axis": tensor(1), "ascending": tensor(True)},
        lambda: tuple(X.topk(2, 1, largest=False)),
    ),
    "one_hot": (
        "one_hot",
        {"indices": tensor([2, 0]), "one_hot_vector_size": tensor(3), "axis": tensor(0)},
        lambda: F.one_hot(tensor([2, 0]), 3).T,
    ),
    "concat of rows in turn": (
        "concat",
        {"values": [tensor([1, 2]), tensor([3, 4])], "axis": tensor(0), "interleave": tensor(True)},
        lambda: tensor([1, 3, 2, 4]),
    ),
    "split": (
        "split",
        {"x": X, "axis": tensor(3), "num_splits": tensor(2)},
        lambda: (X[..., :3], X[..., 3:]),
    ),
    "expand_dims": (
        "expand_dims", {"x": X, "axes": tensor([0, -1])}, lambda: X[None, ..., None]
    ),
    "matmul": (
        "matmul",
        {"x": X, "y": X, "transpose_x": tensor(False), "transpose_y": tensor(True)},
        lambda: X @ X.mT,
    ),
    "gelu": ("gelu", {"x": X, "mode": "TANH_APPROXIMATION"}, lambda: F.gelu(X, approximate="tanh")),
    "prelu": ("prelu", {"x": X, "alpha": B[:4]}, lambda: F.prelu(X, B[:4])),
    "elu": ("elu", {"x": X, "alpha": tensor(0.5)}, lambda: F.elu(X, 0.5)),
    "softplus": ("softplus", {"x": X}, lambda: F.softplus(X)),
    "sigmoid_hard": (
        "sigmoid_hard", {"x": X, "alpha": tensor(1 / 6)}, lambda: F.hardsigmoid(X)
    ),
    "reduce_prod": (
        "reduce_prod", {"x": X, "axes": tensor([1, 3])}, lambda: X.prod(3).prod(1)
    ),
    "reduce_l2_norm": (
        "reduce_l2_norm",
        {"x": X, "axes": tensor([1]), "keep_dims": tensor(True)},
        lambda: X.norm(dim=1, keepdim=True),
    ),
    "floor_div": (
        "floor_div", {"x": tensor([-7, 7]), "y": tensor(2)}, lambda: tensor([-4, 3])
    ),
    "cast to whole numbers": (
        "cast", {"x": tensor([-1.7, 1.7]), "dtype": "int32"}, lambda: tensor([-1.0, 1.0])
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_it_is_pytorchs(name: str) -> None:
    operator, given, wanted = CASES[name]
    found, right = OPERATORS[operator](**given), wanted()
    if isinstance(right, Tensor):
        found, right = [found], [right]
    for one, other in zip(found, right, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5, check_dtype=False)


def test_a_form_that_is_not_evaluated_says_so() -> None:
    with pytest.raises(NotImplementedError, match="gather with batch_dims"):
        OPERATORS["gather"](x=X, indices=tensor([0]), batch_dims=tensor(1))
