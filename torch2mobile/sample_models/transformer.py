"""A text classifier: a transformer encoder on token ids, with padding masked out of attention.

The class token that the model puts in front is never masked, so no row of the attention is
without a key. A softmax over nothing is NaN in PyTorch, and something else in many a runtime.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from torch2mobile.sample_models._seeding import generator, seeded

VOCABULARY = 1000
LONGEST = 64

INPUTS = ("ids:int64[N=1..4,L=2..64]", "mask:bool[N,L]")
VALUES = ("ids=0..999",)


class Attention(nn.Module):
    """Multi-head self-attention; ``attend`` is true for the keys that count."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, tokens: torch.Tensor, attend: torch.Tensor) -> torch.Tensor:
        projected = self.query_key_value(tokens).unflatten(-1, (3, self.heads, -1))
        query, key, value = projected.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=attend[:, None, None])
        result: torch.Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return result


class Block(nn.Module):
    """Attention, then a two-layer network on each token, both normalised before and added on."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, tokens: torch.Tensor, attend: torch.Tensor) -> torch.Tensor:
        tokens = tokens + self.attention(self.attention_norm(tokens), attend)
        result: torch.Tensor = tokens + self.mlp(tokens)
        return result


class Transformer(nn.Module):
    """Token ids and mask (false is padding), both ``[N, L]``, to logits ``[N, classes]``."""

    def __init__(self, width: int = 64, heads: int = 4, depth: int = 2, classes: int = 5) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.positions = nn.Parameter(0.1 * torch.randn(LONGEST, width))
        self.class_token = nn.Parameter(torch.randn(1, 1, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.classifier = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, classes))

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        words = self.embedding(ids) + self.positions[: ids.shape[1]]
        tokens = torch.cat([self.class_token.expand(ids.shape[0], -1, -1), words], dim=1)
        attend = F.pad(mask, (1, 0), value=True)
        for block in self.blocks:
            tokens = block(tokens, attend)
        logits: torch.Tensor = self.classifier(tokens[:, 0])
        return logits


def build() -> nn.Module:
    """An untrained encoder."""
    with seeded(0):
        return Transformer().eval()


def example_inputs() -> dict[str, torch.Tensor]:
    """Three texts of at most eleven tokens, the second and third padded."""
    ids = torch.randint(VOCABULARY, (3, 11), generator=generator(0))
    lengths = torch.tensor([[11], [7], [4]])
    return {"ids": ids, "mask": torch.arange(11) < lengths}
