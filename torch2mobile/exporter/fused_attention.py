"""Transformer encoders without PyTorch's fused operators, which no exporter knows, yet as they are.

In eval mode PyTorch computes an encoder's layers by one operator, which is another function than
the layers where a mask leaves something out: NaN for a position without any key. With a padding
mask that leaves out the ends of rows alone, the whole encoder gives 0 there.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.modules import transformer


@contextlib.contextmanager
def attention_in_operators() -> Iterator[None]:
    """Within it, encoders are computed by plain operators and give what the fused ones do."""
    before = torch.backends.mha.get_fastpath_enabled()
    patches: list[tuple[Any, str, Callable[..., Any]]] = [
        # Whether a mask is causal is asked of its values, to save time: it is applied anyway.
        (transformer, "_detect_is_causal_mask", _told_to_be_causal)
    ]
    if before:
        later: set[int] = set()
        patches.append((nn.TransformerEncoderLayer, "forward", _layer(later)))
        patches.append((nn.TransformerEncoder, "forward", _encoder(later)))
        patches.append((nn.MultiheadAttention, "forward", _attention()))
    originals = [(place, name, getattr(place, name)) for place, name, _ in patches]
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        for place, name, patch in patches:
            setattr(place, name, patch)
        yield
    finally:
        for place, name, original in originals:
            setattr(place, name, original)
        torch.backends.mha.set_fastpath_enabled(before)


def _told_to_be_causal(
    mask: torch.Tensor | None,  # noqa: ARG001 (as PyTorch calls it)
    is_causal: bool | None = None,
    size: int | None = None,  # noqa: ARG001
) -> bool:
    return is_causal is True


def _layer(later: set[int]) -> Callable[..., torch.Tensor]:
    """A layer's forward; those that are ``later`` in an encoder are given the NaN of the first."""
    original = nn.TransformerEncoderLayer.forward

    def forward(
        self: nn.TransformerEncoderLayer,
        src: torch.Tensor,
        src_mask: torch.Tensor | None = None,
        src_key_padding_mask: torch.Tensor | None = None,
        is_causal: bool = False,
    ) -> torch.Tensor:
        found = original(self, src, src_mask, src_key_padding_mask, is_causal)
        if id(self) in later or not _is_fused(self, src):
            return found
        alone = _without_keys(src_mask, src_key_padding_mask)
        return found if alone is None else found.masked_fill(alone.unsqueeze(-1), torch.nan)

    return forward


def _encoder(later: set[int]) -> Callable[..., torch.Tensor]:
    """An encoder's forward, with 0 for the padding where PyTorch would compute without it."""
    original = nn.TransformerEncoder.forward

    def forward(
        self: nn.TransformerEncoder,
        src: torch.Tensor,
        mask: torch.Tensor | None = None,
        src_key_padding_mask: torch.Tensor | None = None,
        is_causal: bool | None = None,
    ) -> torch.Tensor:
        later.update(id(layer) for layer in list(self.layers)[1:])
        found = original(self, src, mask, src_key_padding_mask, is_causal)
        first: Any = self.layers[0]
        if src_key_padding_mask is None or mask is not None or not self.use_nested_tensor:
            return found
        if src.dim() != 3 or first.training or torch.is_autocast_enabled():
            return found
        padded = _is_barred(src_key_padding_mask)
        nothing = torch.zeros_like(src[:1, :1])
        nothing = nothing if self.norm is None else self.norm(nothing)
        if self.mask_check:
            padded = padded & (padded[:, 1:] | ~padded[:, :-1]).all()
        return torch.where(padded.unsqueeze(-1), nothing, found)

    return forward


def _attention() -> Callable[..., tuple[torch.Tensor, torch.Tensor | None]]:
    """The forward of attention by itself, as in decoders."""
    original = nn.MultiheadAttention.forward
    names = [*inspect.signature(original).parameters]

    def forward(self: nn.MultiheadAttention, *args: Any, **options: Any) -> Any:
        found, weights = original(self, *args, **options)
        given = {**dict(zip(names[1:], args, strict=False)), **options}
        masks = given.get("attn_mask"), given.get("key_padding_mask")
        query = given["query"]
        itself = query is given["key"] is given["value"]
        whole = all(mask is None or mask.dtype == torch.bool for mask in masks)
        # With weights, plain operators give NaN as well.
        if weights is None and itself and whole and query.dim() == 3 and _is_native(self):
            alone = _without_keys(*masks)
            if alone is not None:
                found = found.masked_fill(alone.unsqueeze(-1), torch.nan)
        return found, weights

    return forward


def _is_native(attention: Any) -> bool:
    """Whether PyTorch computes attention by one operator, where no gradients are asked for."""
    return bool(
        not attention.training
        and attention.batch_first
        and attention.in_proj_bias is not None
        and attention._qkv_same_embed_dim
        and attention.num_heads % 2 == 0
        and attention.bias_k is None
        and not attention.add_zero_attn
        and not torch.is_autocast_enabled()
    )


def _is_fused(layer: nn.TransformerEncoderLayer, src: torch.Tensor) -> bool:
    """Whether PyTorch computes a layer by one operator, where no gradients are asked for."""
    return bool(
        src.dim() == 3
        and not layer.training
        and _is_native(layer.self_attn)
        and layer.activation_relu_or_gelu
        and layer.norm1.eps == layer.norm2.eps
        and not any(m._forward_hooks or m._forward_pre_hooks for m in layer.modules())
    )


def _is_barred(mask: torch.Tensor) -> torch.Tensor:
    """Where a mask leaves something out."""
    return mask if mask.dtype == torch.bool else mask != 0


def _without_keys(mask: torch.Tensor | None, padding: torch.Tensor | None) -> torch.Tensor | None:
    """The positions to which nothing is left to attend, for all rows where that is the same."""
    if padding is None:
        return None if mask is None or mask.dim() != 2 else _is_barred(mask).all(-1)
    if mask is None:
        return _is_barred(padding).all(-1, keepdim=True)
    if mask.dim() != 2:
        return None
    return (_is_barred(padding).unsqueeze(1) | _is_barred(mask)).all(-1)
