"""What the mended translations are held against torch with: calls and inputs, by a row's name.

Values are nasty on purpose: zeros of both signs, the ends of the range, ties, rows without anything
in them. A dimension that differs from one round of inputs to the next is exported as a varying one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from translating import Case, normal, over

INF, NAN = torch.inf, torch.nan
F16, F32, F64 = torch.float16, torch.float32, torch.float64
FLOATS = (F16, F32, F64)


# --- attention --------------------------------------------------------------------------------


def _attention(n: int, rows: int, keys: int) -> tuple[torch.Tensor, ...]:
    """Queries, keys, values, and a mask in which some rows and a whole example have nothing."""
    mask = normal(n, 1, rows, keys, seed=3) > 0
    mask[:, :, rows // 2] = False
    mask[-1] = False
    bias = torch.where(mask, normal(n, 1, rows, keys, seed=4), -INF)
    q, k, v = (
        normal(n, 4, size, w, seed=s) for s, size, w in ((0, rows, 8), (1, keys, 8), (2, keys, 3))
    )
    return q, k, v, mask, bias


_QKV = (_attention(2, 5, 6), _attention(1, 1, 1), _attention(3, 7, 2))
_sdpa = F.scaled_dot_product_attention
ATTENTION = {
    "scaled_dot_product_attention": [
        *over(FLOATS, lambda q, k, v, m, b: _sdpa(q, k, v, m), *_QKV, scale=4),
        *over((F16, F32), lambda q, k, v, m, b: _sdpa(q, k, v, b), *_QKV, scale=4),
        *over((F32,), lambda q, k, v, m, b: _sdpa(q, k, v), *_QKV, scale=4),
        *over((F32,), lambda q, k, v, m, b: _sdpa(q, k, v, is_causal=True), *_QKV, scale=4),
        *over((F32,), lambda q, k, v, m, b: _sdpa(q, k, v, m, scale=-2.0), *_QKV, scale=4),
        *over((F32,), lambda q, k, v, m, b: _sdpa(q[0], k[0], v[0], m[0]), *_QKV, scale=4),
        *over(
            (F32,),
            lambda q, k, v, m, b: _sdpa(q, k[:, :2], v[:, :2], m, enable_gqa=True),
            *_QKV,
            scale=4,
        ),
        *over((F32,), lambda q, k, v, m, b: _sdpa(q, k, v, m, enable_gqa=True), *_QKV, scale=4),
        # Masks that are broadcast along the keys or the rows, and the least number for -inf.
        *over((F32,), lambda q, k, v, m, b: _sdpa(q, k, v, m[..., :1]), *_QKV, scale=4),
        *over((F32,), lambda q, k, v, m, b: _sdpa(q, k, v, m[:, :, :1]), *_QKV, scale=4),
        *over(
            (F32,),
            lambda q, k, v, m, b: _sdpa(q, k, v, torch.where(m, 0.0, torch.finfo(F32).min)),
            *_QKV,
            scale=4,
        ),
    ]
}

CASES: dict[str, list[Case]] = {**ATTENTION}
