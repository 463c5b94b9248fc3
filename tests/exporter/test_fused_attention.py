"""Encoders in plain operators give what PyTorch's fused path gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import torch2mobile
from torch2mobile.exporter.fused_attention import attention_in_operators
from torch2mobile.records import ParityOptions

LENGTH = 5


def layer(**options: bool | str) -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, **options)  # type: ignore[arg-type]


def normed() -> nn.TransformerEncoder:
    norm = nn.LayerNorm(8)
    nn.init.normal_(norm.bias)
    return nn.TransformerEncoder(layer(), 2, norm=norm)


ENCODERS: dict[str, Callable[[], nn.Module]] = {
    "layer": layer,
    "layer, norm first": lambda: layer(norm_first=True),
    "encoder": lambda: nn.TransformerEncoder(layer(activation="gelu"), 3),
    "encoder with norm": normed,
    "encoder of tensors": lambda: nn.TransformerEncoder(layer(), 2, enable_nested_tensor=False),
    "odd heads": lambda: nn.TransformerEncoder(
        nn.TransformerEncoderLayer(9, 3, 16, batch_first=True), 2, enable_nested_tensor=False
    ),
}


def ends() -> torch.Tensor:
    """Padding at the ends of rows, of which one may be all padding."""
    lengths = torch.tensor([LENGTH, 2, int(torch.randint(0, LENGTH, ()))])
    return torch.arange(LENGTH) >= lengths.unsqueeze(1)


MASKS: dict[str, Callable[[], dict[str, torch.Tensor]]] = {
    "ends": lambda: {"src_key_padding_mask": ends()},
    "ends, as floats": lambda: {
        "src_key_padding_mask": torch.zeros(3, LENGTH).masked_fill(ends(), -torch.inf)
    },
    "anywhere": lambda: {"src_key_padding_mask": torch.rand(3, LENGTH) < 0.7},
    "a mask": lambda: {"src_mask": torch.rand(LENGTH, LENGTH) < 0.6},
    "causal": lambda: {"src_mask": torch.ones(LENGTH, LENGTH).triu(1).bool()},
    "both": lambda: {
        "src_mask": torch.rand(LENGTH, LENGTH) < 0.3,
        "src_key_padding_mask": ends(),
    },
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("masks", MASKS)
@pytest.mark.parametrize("kind", ENCODERS)
def test_plain_operators_give_what_the_fused_path_gives(kind: str, masks: str) -> None:
    torch.manual_seed(0)
    encoder = ENCODERS[kind]().eval()
    width = 9 if kind == "odd heads" else 8
    for _ in range(8):
        given = MASKS[masks]()
        if isinstance(encoder, nn.TransformerEncoder) and "src_mask" in given:
            given["mask"] = given.pop("src_mask")
        x = torch.randn(3, LENGTH, width)
        with torch.no_grad():
            wanted = encoder(x, **given)
            with attention_in_operators():
                found = encoder(x, **given)
        assert torch.allclose(found, wanted, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("masks", MASKS)
def test_attention_by_itself(masks: str, weights: bool) -> None:
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    for _ in range(8):
        given = MASKS[masks]()
        given = {name.replace("src_mask", "attn_mask"): mask for name, mask in given.items()}
        given = {name.removeprefix("src_"): mask for name, mask in given.items()}
        x = torch.randn(3, LENGTH, 8)
        with torch.no_grad():
            wanted = attention(x, x, x, need_weights=weights, **given)[0]
            with attention_in_operators():
                found = attention(x, x, x, need_weights=weights, **given)[0]
        assert torch.allclose(found, wanted, atol=1e-5, equal_nan=True)


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.TransformerEncoder(layer(), 1)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


class Padded(Encoder):
    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.encoder(x, src_key_padding_mask=mask)
        return found


class Masked(Encoder):
    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.encoder(x, mask=mask)
        return found


@pytest.mark.slow
@pytest.mark.parametrize(("make", "mask"), [(Padded, "mask:bool[2,T]"), (Masked, "mask:bool[T,T]")])
def test_a_masked_encoder_is_exported(make: type[nn.Module], mask: str, tmp_path: Path) -> None:
    result = torch2mobile.export(
        make().eval(),
        inputs=["x:float32[2,T=1..4,8]", mask],
        out=tmp_path / "out",
        targets=[],
        simplify=False,
        parity=ParityOptions(probes=3),
    )
    assert result.passed, result.report
