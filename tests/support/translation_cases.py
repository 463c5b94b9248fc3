"""What the mended translations are held against torch with: calls and inputs, by a row's name.

Values are nasty on purpose: zeros of both signs, the ends of the range, ties, rows without anything
in them. A dimension that differs from one round of inputs to the next is exported as a varying one.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
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


_LONG = (normal(3, 9), normal(1, 1), normal(5, 200) * 9)
for _name, _call in (("softmax", torch.softmax), ("log_softmax", torch.log_softmax)):
    ATTENTION[f"{_name} (dtype)"] = [
        Case(lambda x, f=_call: f(x, -1, dtype=F32), tuple((x.half(),) for x in _LONG), scale=1),
        Case(lambda x, f=_call: f(x, 0, dtype=F64), tuple((x,) for x in _LONG), scale=1),
        Case(lambda x, f=_call: f(x, 0, dtype=F32), tuple((x.int(),) for x in _LONG), scale=1),
    ]


# --- single elements --------------------------------------------------------------------------


def _ends(*more: float, least: float = -INF) -> tuple[torch.Tensor, ...]:
    """Zeros, tiny, ordinary and large numbers of both signs, infinities and NaN; other sizes."""
    sizes = (
        1e-30,
        1e-10,
        1e-7,
        1e-4,
        0.3,
        0.9999,
        1.0,
        1.5,
        9.0,
        15.9,
        17.1,
        50.0,
        88.0,
        1e4,
        1e30,
    )
    values = torch.tensor([0.0, -0.0, *sizes, *(-x for x in sizes), INF, -INF, NAN, *more])
    values = values[~(values < least)]
    return values, values[:1], torch.zeros(0), normal(7)


def _pairs() -> tuple[tuple[torch.Tensor, ...], ...]:
    """Each of the nasty numbers with each."""
    values = torch.tensor(
        [0.0, -0.0, 1e-10, 1.0, -1.0, 3.7, -50.0, 200.0, 1e30, -1e30, INF, -INF, NAN]
    )
    return (
        (values[:, None], values),
        (normal(3, 1), normal(5, seed=1)),
        (normal(1, 1), normal(1, seed=1)),
    )


def _divisions(*divisors: float) -> tuple[tuple[torch.Tensor, ...], ...]:
    values = torch.tensor(
        [0.0, -0.0, 0.3, 1.0, -1.0, 7.0, -7.0, 7.5, -7.5, 1e7, -1e7, INF, -INF, NAN]
    )
    by = torch.tensor([0.1, -0.1, 0.3, 1.0, -1.0, 2.0, -3.0, 0.0, INF, -INF, NAN])
    return (
        (values[:, None], by),
        (normal(3, 1), normal(4, seed=1)),
        (normal(1, 1), normal(1, seed=1)),
    )


def _whole(dtype: torch.dtype) -> tuple[tuple[torch.Tensor, ...], ...]:
    """Integers of both signs, the type's ends among them, by all divisors but 0."""
    least, most = torch.iinfo(dtype).min, torch.iinfo(dtype).max
    of = [x for x in (least + 1, -8, -7, -1, 0, 1, 7, 8, most) if x >= least]
    by = [x for x in (-8, -3, -1, 1, 2, 3, 8, most) if x >= least]
    x, y = torch.tensor(of, dtype=dtype)[:, None], torch.tensor(by, dtype=dtype)
    return (x, y), (x[:1], y[:3])


INTS = (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8)


def _of_whole(call: Any, *dtypes: torch.dtype) -> list[Case]:
    return [Case(call, _whole(dtype)) for dtype in dtypes or INTS]


_bce = F.binary_cross_entropy_with_logits
_LOGITS = tuple(
    (
        x,
        torch.rand(x.shape, generator=torch.Generator().manual_seed(1)),
        torch.rand(x.shape[-1:]) + 0.5,
    )
    for x in (normal(5, 3) * 40, torch.tensor([[-1e-7, -200.0, 200.0, 0.0, 1000.0]]), normal(1, 1))
)
ELEMENTWISE = {
    "log1p": over(FLOATS, torch.log1p, *_ends(-2.0)),
    "expm1": [*over(FLOATS, torch.expm1, *_ends()), *over((F32,), torch.special.expm1, *_ends())],
    "logsigmoid": over(FLOATS, F.logsigmoid, *_ends()),
    "logaddexp": over(FLOATS, torch.logaddexp, *_pairs(), scale=0.5),
    "logaddexp2": over(FLOATS, torch.logaddexp2, *_pairs(), scale=0.5),
    "binary_cross_entropy_with_logits": [
        *over(FLOATS, lambda x, t, w: _bce(x, t, reduction="none"), *_LOGITS, scale=1),
        *over((F32,), lambda x, t, w: _bce(x, t), *_LOGITS),
        *over((F32,), lambda x, t, w: _bce(x, t, w, pos_weight=w, reduction="sum"), *_LOGITS),
    ],
    "hypot": over(FLOATS, torch.hypot, *_pairs()),
    "fmax": [*over(FLOATS, torch.fmax, *_pairs()), *_of_whole(torch.fmax)],
    "fmin": [*over(FLOATS, torch.fmin, *_pairs()), *_of_whole(torch.fmin)],
    "copysign": [
        *over(FLOATS, lambda x, y: torch.copysign(x, torch.where(y.isnan(), 1.0, y)), *_pairs()),
        *over((F32,), lambda x: torch.copysign(x, -2.0), *_ends()),
    ],
    "signbit": [
        *over(FLOATS, torch.signbit, *_ends()),
        *_of_whole(lambda x, y: torch.signbit(x)),
    ],
    "rrelu": [
        *over(FLOATS, F.rrelu, *_ends()),
        *over((F32,), lambda x: F.rrelu(x, 0.1, 0.5), *_ends()),
    ],
}
DIVISION = {
    "div (floor, trunc)": [
        *over(FLOATS, lambda x, y: torch.div(x, y, rounding_mode="floor"), *_divisions(), ulps=0),
        *over(FLOATS, lambda x, y: torch.div(x, y, rounding_mode="trunc"), *_divisions(), ulps=0),
        *_of_whole(lambda x, y: torch.div(x, y, rounding_mode="floor")),
        *_of_whole(lambda x, y: torch.div(x, y, rounding_mode="trunc")),
        *over((F32,), lambda x, y: torch.div(x, 0.1, rounding_mode="floor"), *_divisions(), ulps=0),
        *_of_whole(lambda x, y: torch.div(x, 3, rounding_mode="floor")),
    ],
    "floor_divide": [
        *over(FLOATS, torch.floor_divide, *_divisions(), ulps=0),
        *_of_whole(torch.floor_divide),
        *_of_whole(lambda x, y: x // 3),
    ],
    "remainder": [
        *over(FLOATS, torch.remainder, *_divisions(), scale=0.1),
        *_of_whole(torch.remainder),
        *over((F32,), lambda x, y: x % 0.3, *_divisions(), scale=0.1),
        *_of_whole(lambda x, y: x % 3),
    ],
}


# --- along an axis ----------------------------------------------------------------------------


def _rows(*sizes: int, columns: int = 3) -> list[torch.Tensor]:
    """Elements with ties, of each size."""
    return [torch.round(normal(size, columns, seed=size) * 2) / 2 for size in sizes]


_NASTY = torch.tensor(
    [[1.0, NAN, -INF, 0.0], [INF, 2.0, -INF, -0.0], [3.0, NAN, INF, 7.0], [INF, 1.0, 2.0, 7.0]]
)
_FIXED, _VARY = _rows(7), _rows(7, 1, 12, 2)


def _along(call: Any, *, ints: bool = True, nasty: bool = True, **options: Any) -> list[Case]:
    """Fixed and varying sizes, several dtypes, the other axis, a scalar, NaN and infinities."""
    found = [
        *over(FLOATS, lambda x: call(x, 0), *_FIXED, **options),
        *over((F32,), lambda x: call(x, 0), *_VARY, **options),
        *over((F32,), lambda x: call(x, -1), *_rows(4, columns=9), **options),
        *over((F32,), lambda x: call(x, 0), torch.tensor(2.5), **options),
    ]
    if nasty:
        found += over((F16, F32), lambda x: call(x, 0), _NASTY, **options)
        found += over((F32,), lambda x: call(x, 0), _NASTY, _NASTY[:1], _NASTY[1:], **options)
    if ints:
        whole = [(x * 2).long() for x in _VARY]
        found += [Case(lambda x: call(x, 0), tuple((x.to(d),) for x in whole)) for d in INTS[:-1]]
    return found


def _picked(call: Any) -> Any:
    """The values, and the elements that the places pick: of equal ones, any place is right."""

    def picked(x: torch.Tensor, dim: int) -> Any:
        values, places = call(x, dim)
        return values, x.gather(dim, places) if x.dim() else x

    return picked


SCANNING = {
    "cummax": _along(torch.cummax),
    "cummin": _along(torch.cummin),
    # torch.onnx loses the cast back to float16 of what is an output itself.
    "cumprod": _along(lambda x, d: 0 + torch.cumprod(x, d), ints=False, ulps=16)
    + [
        Case(lambda x: torch.cumprod(x, 0), tuple((x.long().to(d),) for x in _VARY))
        for d in (torch.int32, torch.int64)
    ],
    "logcumsumexp": [
        *_along(torch.logcumsumexp, ints=False, scale=1, ulps=8),
        *over(
            (F16, F32),
            lambda x: torch.logcumsumexp(x, 0),
            torch.tensor([-1000.0, -1000.0, 0.0, 60.0, -INF]),
        ),
    ],
}


def _keep(call: Any) -> Any:
    return _picked(lambda x, dim: call(x, dim=dim, keepdim=True))


SORTING = {
    "sort (stable)": [
        *_along(lambda x, d: torch.sort(x, dim=d, stable=True), nasty=False),
        *over((F32,), lambda x: torch.sort(x, dim=0, descending=True, stable=True), *_VARY),
        *over((F32,), lambda x: torch.argsort(x, dim=0, stable=True), *_VARY),
        Case(lambda x: torch.sort(x > 0, dim=0, stable=True), tuple((x,) for x in _VARY)),
    ],
    "kthvalue": [
        *_along(_keep(lambda x, **o: torch.kthvalue(x, 1, **o)), nasty=False),
        *over((F32,), lambda x: torch.kthvalue(x, 3, dim=0).values, *_rows(4, 3, 9)),
    ],
    "median": [
        *over(FLOATS, torch.median, *_VARY),
        *over((F32,), torch.median, _NASTY, _NASTY[:1, :1]),
        Case(torch.median, tuple(((x * 2).long(),) for x in _VARY)),
    ],
    "median (dim)": [
        *_along(_keep(torch.median)),
        *over((F32,), lambda x: torch.median(x, 1).values, *_VARY),
    ],
    "nanmedian": [
        *over(FLOATS, torch.nanmedian, *_VARY),
        *over((F32,), torch.nanmedian, _NASTY, torch.full((1, 1), NAN)),
    ],
    "nanmedian (dim)": [
        *over((F32, F64), lambda x: torch.nanmedian(x, 0).values, _NASTY),
        *over((F32,), lambda x: torch.nanmedian(x, 1, keepdim=True).values, *_VARY),
        *over((F32,), lambda x: torch.nanmedian(x, 0).values, torch.full((3, 2), NAN)),
    ],
    "mode": [
        *_along(torch.mode, nasty=False),
        *over((F32,), lambda x: torch.mode(x, 0, keepdim=True), *_VARY),
    ],
}
_WITH_NAN = (_NASTY, _NASTY[:1], _NASTY[1:], _NASTY[2:, :1])


def _extreme(call: Any) -> list[Case]:
    whole = tuple((x.long(),) for x in _VARY)
    return [
        *over(FLOATS, lambda x: call(x, 0), *_VARY),
        *over((F32,), lambda x: call(x, 1, keepdim=True), *_WITH_NAN),
        *over((F32,), lambda x: call(x, 0), *_WITH_NAN),
        *(Case(lambda x: call(x * 2, 1), tuple((x.to(d),) for (x,) in whole)) for d in INTS[2:4]),
    ]


EXTREMES = {
    **{
        name: [
            *_extreme(call),
            *over(FLOATS, lambda x, f=call: f(x), *_VARY, *_WITH_NAN),
            *over((F32,), lambda x, f=call: f(x * 2, keepdim=True), *_VARY),
            *over((F32,), lambda x, f=call: f(x[..., None], (0, 2)), *_WITH_NAN),
            Case(lambda x, f=call: f(x * 2), tuple((x.long(),) for x in _VARY)),
        ]
        for name, call in (("amax", torch.amax), ("amin", torch.amin))
    },
    **{
        name: [*over((F32, F64), call, *_VARY, *_WITH_NAN), *over((F32,), call, torch.tensor(2.5))]
        for name, call in (("max", torch.max), ("min", torch.min))
    },
    **{
        f"{name} (dim)": _extreme(lambda x, dim, f=call, **o: [*f(x, dim, **o)])
        for name, call in (("max", torch.max), ("min", torch.min))
    },
}
_EDGES = tuple(
    (torch.tensor([-1.0, 0.0, 0.0, 0.5, 2.0, *extra]), values)
    for extra, values in (
        ((), torch.tensor([[0.0, -0.0, -1.0, -1.5, 0.3, 2.0, 3.0, INF, -INF, NAN]])),
        ((3.0, 3.0, 9.0), normal(3, 4)),
        ((), normal(1, 1)),
    )
)
_TABLES = tuple(
    (normal(2, n, seed=n).sort(-1).values, normal(2, m, seed=m))
    for n, m in ((5, 3), (1, 1), (8, 4))
)
SEARCHING = {
    "searchsorted": [
        *over(FLOATS, torch.searchsorted, *_EDGES),
        *over(FLOATS, lambda e, x: torch.searchsorted(e, x, right=True, out_int32=True), *_EDGES),
        *over((F32,), lambda e, x: torch.searchsorted(e, x, side="right"), *_TABLES),
        *over((F32,), lambda e, x: torch.searchsorted(e, 0.0), *_EDGES),
        Case(torch.searchsorted, ((torch.tensor([1, 3, 3, 7]), torch.tensor([0, 3, 9])),)),
    ],
    "bucketize": [
        *over(FLOATS, lambda e, x: torch.bucketize(x, e), *_EDGES),
        *over((F32,), lambda e, x: torch.bucketize(x, e, right=True, out_int32=True), *_EDGES),
    ],
    "isin": [
        *over(FLOATS, lambda e, x: torch.isin(x, e), *_EDGES),
        *over((F32,), lambda e, x: torch.isin(x, e, invert=True), *_EDGES),
        *over((F32,), lambda e, x: torch.isin(x, 2.0), *_EDGES),
        *_of_whole(torch.isin),
    ],
}


_MANY = (F32, torch.int64, torch.bool)


def _of_any(call: Any, *rounds: torch.Tensor) -> list[Case]:
    return [Case(call, tuple((x.to(dtype),) for x in rounds)) for dtype in _MANY]


INDEXING = {
    "nonzero (scalar)": [
        *over((F32,), torch.nonzero, *map(torch.tensor, (2.0, 0.0, NAN))),
        Case(torch.nonzero, ((torch.tensor(True),), (torch.tensor(False),))),
    ],
    "index_put (int32)": [
        *over(
            (F32,),
            lambda x, p: x.index_put((p.int(),), x[: p.shape[0]] * 2, accumulate=True),
            (normal(5, 2), torch.tensor([0, 2, 2])),
            (normal(7, 2), torch.tensor([6, 6, 0])),
        ),
        *over(
            (F32,),
            lambda x: torch.istft(torch.view_as_complex(x), 16, 4, window=torch.hann_window(16)),
            normal(2, 9, 17, 2),
            normal(2, 9, 17, 2, seed=1),
            ulps=64,
            scale=4,
        ),
    ],
    "roll (varying)": [
        *_of_any(torch.fft.fftshift, *_rows(5, 1, 4, 9)),
        *over((F32,), torch.fft.ifftshift, *_rows(5, 1, 4, 9)),
        *over((F32,), lambda x: x.roll((x.shape[0] - 7, 1), (0, 1)), *_rows(5, 1, 4, 9)),
    ],
}


# --- pooling, losses, scattering, distances ---------------------------------------------------


def _planes(*sizes: tuple[int, int], batch: int = 2) -> list[torch.Tensor]:
    return [normal(batch, 3, *size, seed=sum(size)) for size in sizes]


_PLANES = _planes((7, 5), (1, 1), (12, 3), (14, 21))
_POOLED: Any = [
    *over(FLOATS, lambda x: F.adaptive_avg_pool2d(x, (3, 4)), *_PLANES, scale=2),
    *over((F32,), lambda x: F.adaptive_avg_pool2d(x, (7, 7)), *_planes((7, 14)), scale=2),
    *over((F32,), lambda x: F.adaptive_avg_pool2d(x[0], (None, 2)), *_planes((5, 9)), scale=2),
    *over((F32,), lambda x: F.adaptive_avg_pool1d(x[0], 4), *_PLANES, scale=2),
    *over((F32,), lambda x: F.adaptive_avg_pool3d(x[None], (2, 3, 2)), *_PLANES, scale=2),
    *over((F32,), lambda x: F.interpolate(x, size=(3, 4), mode="area"), *_PLANES, scale=2),
    *over(
        (F32,), lambda x: F.adaptive_avg_pool2d(x, 2), torch.tensor([[[[INF, 1.0, 2.0, -3.0]] * 4]])
    ),
]
_TIES = [torch.round(plane) for plane in _PLANES]
POOLING = {
    "adaptive_avg_pool": _POOLED,
    "adaptive_max_pool": [
        *over(FLOATS, lambda x: F.adaptive_max_pool2d(x, (3, 4), True), *_TIES),
        *over((F32,), lambda x: F.adaptive_max_pool2d(x, 2), *_PLANES),
        *over((F32,), lambda x: F.adaptive_max_pool2d(x[0], (5, 1), True), *_planes((6, 4))),
        *over((F32,), lambda x: F.adaptive_max_pool1d(x[0], 4), *_PLANES),
        *over(
            (F32,),
            lambda x: F.adaptive_max_pool3d(x, (2, 3, 1), True),
            normal(2, 3, 5, 6, 7),
            normal(1, 3, 2, 3, 4),
        ),
    ],
    "avg_pool (divisor_override)": [
        *over(
            (F16, F32),
            lambda x: F.avg_pool2d(x, 2, divisor_override=3),
            *_planes((7, 5), (2, 3)),
            scale=2,
        ),
        *over(
            (F32,),
            lambda x: F.avg_pool2d(x, (3, 2), (2, 1), 1, divisor_override=5),
            *_PLANES,
            scale=2,
        ),
        *over(
            (F32,),
            lambda x: F.avg_pool2d(x, 3, 2, 1, True, divisor_override=7),
            *_planes((7, 5), (4, 6), (2, 9)),
            scale=2,
        ),
        *over(
            (F32,), lambda x: F.avg_pool2d(x[0], 2, divisor_override=1), *_planes((7, 5)), scale=2
        ),
        *over(
            (F32,),
            lambda x: F.avg_pool3d(x, 2, 1, 1, divisor_override=3),
            *_planes((7, 5)),
            scale=2,
        ),
    ],
}

PADDING = {
    "pad (circular, negative)": [
        *over(FLOATS, lambda x: F.pad(x, (1, 2, 0, 1), "circular"), *_planes((7, 5), (2, 3))),
        *over((F32,), lambda x: F.pad(x, (1, 2, 0, 0), "circular"), *_planes((3, 3), batch=0)),
        *over((F32,), lambda x: F.pad(x, (-3, 4, 0, -1), "replicate"), *_planes((7, 5), (2, 4))),
        *over((F32,), lambda x: F.pad(x, (-5, 5, 0, 0), "replicate"), *_planes((7, 5))),
        *over((F32,), lambda x: F.pad(x, (-1, 2, 1, -1), "reflect"), *_planes((7, 5), (3, 4))),
        Case(lambda x: F.pad(x, (1, 1), "circular"), ((normal(1, 2, 4).long(),),)),
    ],
}
_LINES = tuple(torch.arange(2.0 * n).reshape(1, 2, n) for n in (21, *range(4, 65)))
_BYTES = tuple((x.to(torch.uint8),) for x in _LINES)
_SCALED = (0.3, 0.6, 0.5, 1.5, 1.7, 2.0, 3.0, 41.0)


def _resized(dtype: torch.dtype, mode: str) -> list[Case]:
    """By scale and to a size, where the size varies and where it does not."""
    rounds = tuple((x.to(dtype),) for x in _LINES)
    calls: list[Any] = [lambda x, f=f: F.interpolate(x, scale_factor=f, mode=mode) for f in _SCALED]
    calls.append(lambda x: F.interpolate(x, size=17, mode=mode))
    calls.append(
        lambda x: F.interpolate(x, scale_factor=0.6, recompute_scale_factor=True, mode=mode)
    )
    return [Case(call, each) for call in calls for each in (rounds, rounds[:1])]


_nearest = torch.ops.aten
RESIZING = {
    "upsample_nearest": [
        *over((F32,), lambda x: _nearest.upsample_nearest1d(x, [12]), *_LINES),
        *over((F32,), lambda x: _nearest.upsample_nearest1d(x, [9], 0.55), _LINES[0]),
    ],
    "upsample_nearest (vec)": [
        *_resized(F32, "nearest"),
        *over((F16,), lambda x: F.interpolate(x, size=17), *_LINES),
        Case(lambda x: F.interpolate(x, scale_factor=1.7), _BYTES),
        *over((F16, F32), lambda x: F.interpolate(x, scale_factor=(0.6, 2.0)), *_PLANES[2:]),
        *over((F32,), lambda x: F.interpolate(x[None], size=(2, 5, 12)), *_PLANES),
    ],
    "upsample_nearest_exact": [
        *over((F32,), lambda x: _nearest._upsample_nearest_exact1d(x, [12]), *_LINES),
        *over((F32,), lambda x: _nearest._upsample_nearest_exact1d(x, [9], 0.55), _LINES[0]),
    ],
    "upsample_nearest_exact (vec)": [
        *_resized(F32, "nearest-exact"),
        *over((F16,), lambda x: F.interpolate(x, size=17, mode="nearest-exact"), *_LINES),
        Case(lambda x: F.interpolate(x, scale_factor=1.7, mode="nearest-exact"), _BYTES),
        *over(
            (F32,),
            lambda x: F.interpolate(x, scale_factor=(0.6, 2.0), mode="nearest-exact"),
            *_PLANES[2:],
        ),
    ],
}


def _classes(n: int, *spatial: int, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Logits, targets of which some are ignored, probabilities and weights of five classes."""
    logits = normal(n, 5, *spatial, seed=seed) * 4
    target = torch.randint(0, 5, (n, *spatial), generator=torch.Generator().manual_seed(seed))
    target.flatten()[1::3] = -100
    return logits, target, normal(n, 5, *spatial, seed=seed + 1).softmax(1), torch.rand(5) + 0.1


_FLAT, _IMAGES = (
    [_classes(7), _classes(1), _classes(4, seed=3)],
    [_classes(2, 3, 4), _classes(1, 1, 1)],
)
_ce = F.cross_entropy
LOSSES = {
    "cross_entropy": [
        *over(FLOATS, lambda x, t, p, w: _ce(x, t), *_FLAT, scale=1),
        *over((F32,), lambda x, t, p, w: _ce(x, t, w, label_smoothing=0.1), *_FLAT, scale=1),
        *over(
            (F32,),
            lambda x, t, p, w: _ce(x, t, w, reduction="none", label_smoothing=0.1),
            *_FLAT,
            scale=4,
        ),
        *over(
            (F32,),
            lambda x, t, p, w: _ce(x, t, ignore_index=2, reduction="none"),
            *[(x, t.abs() % 5, p, w) for x, t, p, w in _FLAT],
            scale=4,
        ),
        *over((F32,), lambda x, t, p, w: _ce(x, p, w, label_smoothing=0.2), *_FLAT, scale=4),
        *over((F32,), lambda x, t, p, w: _ce(x, t, w, reduction="sum"), *_IMAGES, scale=40),
        *over((F32,), lambda x, t, p, w: _ce(x, p), *_IMAGES, scale=4),
        *over((F32,), lambda x, t, p, w: _ce(x[0], t[0]), *_FLAT, scale=4),
        *over((F32,), lambda x, t, p, w: _ce(x, torch.full_like(t, -100)), *_FLAT),
    ],
}


def _batch(*sizes: int) -> list[tuple[torch.Tensor, ...]]:
    return [
        (normal(n, 3, 2, seed=n) * 3 + 5, *(torch.rand(3) + 0.1 for _ in range(4))) for n in sizes
    ]


_norm = F.batch_norm
_native = torch.native_batch_norm
NORMALISING = {
    "batch_norm (training)": [
        *over(
            FLOATS,
            lambda x, m, v, w, b: _norm(x, m.clone(), v.clone(), w, b, True),
            *_batch(5, 2, 9),
            scale=9,
        ),
        *over(
            (F32,),
            lambda x, m, v, w, b: _norm(x[..., 0], m.clone(), v.clone(), training=True),
            *_batch(5, 9),
            scale=9,
        ),
        *over(
            (F32, F64),
            lambda x, m, v, w, b: _native(x, w, b, m.clone(), v.clone(), True, 0.1, 1e-5),
            *_batch(5, 9),
            scale=9,
        ),
        *over(
            (F32,),
            lambda x, m, v, w, b: _native(x, w, None, m.clone(), v.clone(), True, 0.1, 1e-5)[0],
            *_batch(5, 9),
            scale=9,
        ),
    ],
    "batch_norm (no statistics)": [
        *over(
            FLOATS, lambda x, m, v, w, b: _norm(x, None, None, w, b, True), *_batch(5, 9), scale=9
        ),
        *over((F32,), lambda x, m, v, w, b: F.instance_norm(x, eps=0.1), *_batch(5, 9), scale=9),
    ],
}


def _sequences(*sizes: tuple[int, int], sort: bool = False) -> list[tuple[torch.Tensor, ...]]:
    """Batches of padded sequences, with the length of each; one is as long as the padding."""
    found = []
    for batch, time in sizes:
        lengths = torch.randint(
            1, time + 1, (batch,), generator=torch.Generator().manual_seed(time)
        )
        lengths[batch // 2] = time
        lengths = lengths.sort(descending=True).values if sort else lengths
        found.append((normal(batch, time, 6, seed=time), lengths, normal(4, batch, 5)))
    return found


_SEQUENCES = ((3, 5), (2, 9), (1, 1))


def _layer(kind: Any, **options: Any) -> Any:
    """A recurrent layer as a function, in the dtype of its input."""
    layer = torch.manual_seed(0) and kind(6, 5, **options).eval()
    wide = copy.deepcopy(layer).double()
    return lambda x, *rest: (wide if x.data.dtype == F64 else layer)(x, *rest)


def _packed(layer: Any, total: bool = True, **options: Any) -> Any:
    def call(x: torch.Tensor, lengths: torch.Tensor, state: torch.Tensor) -> Any:
        steps, last = layer(nn.utils.rnn.pack_padded_sequence(x, lengths, True, **options))
        size = x.shape[1] if total else None
        return nn.utils.rnn.pad_packed_sequence(steps, True, -1.0, size), last

    return call


_deep = {"num_layers": 2, "bidirectional": True, "batch_first": True}
_loose = {"enforce_sorted": False}
_PLAIN, _DEEP = _layer(nn.RNN), _layer(nn.RNN, **_deep)
_RELU, _DEEP_RELU = (_layer(nn.RNN, nonlinearity="relu", **o) for o in ({"bias": False}, _deep))
RECURRENCE = {
    "rnn (tanh)": [
        *over(
            (F32,),
            lambda x, n, h: _PLAIN(x, h[:1, :1].expand(1, x.shape[1], 5)),
            *_sequences(*_SEQUENCES),
            scale=1,
        ),
        *over(
            (F32,),
            lambda x, n, h: _DEEP(x, h),
            *_sequences(*_SEQUENCES),
            scale=1,
        ),
    ],
    "rnn (relu)": [
        *over(
            (F32,),
            lambda x, n, h: _RELU(x),
            *_sequences(*_SEQUENCES),
            scale=1,
        ),
        *over(
            (F32,),
            lambda x, n, h: _DEEP_RELU(x),
            *_sequences(*_SEQUENCES),
            scale=1,
        ),
    ],
    "packed sequences": [
        *over(
            (F32,), _packed(_layer(nn.LSTM, **_deep), **_loose), *_sequences(*_SEQUENCES), scale=1
        ),
        *over(
            (F32,),
            _packed(_layer(nn.LSTM, batch_first=True)),
            *_sequences(*_SEQUENCES, sort=True),
            scale=1,
        ),
        *over(
            (F32,), _packed(_layer(nn.GRU, **_deep), **_loose), *_sequences(*_SEQUENCES), scale=1
        ),
        *over(
            (F32,), _packed(_layer(nn.RNN, **_deep), **_loose), *_sequences(*_SEQUENCES), scale=1
        ),
        *over(
            (F32,),
            _packed(_layer(nn.GRU, bias=False, **_deep), total=False, **_loose),
            *_sequences(*_SEQUENCES),
            scale=1,
        ),
    ],
}


def _scattered(n: int, m: int) -> tuple[torch.Tensor, ...]:
    index = torch.randint(0, n, (m, 3), generator=torch.Generator().manual_seed(n))
    return normal(n, 3), index, normal(m + 1, 4, seed=1)


_SCATTERED = [_scattered(4, 6), _scattered(1, 1), _scattered(9, 20)]
SCATTERING = {
    "scatter_reduce (mean)": [
        *over(FLOATS, lambda x, i, s: x.scatter_reduce(0, i, s, "mean"), *_SCATTERED, scale=2),
        *over(
            FLOATS,
            lambda x, i, s: x.scatter_reduce(0, i, s, "mean", include_self=False),
            *_SCATTERED,
            scale=2,
        ),
    ],
}
_VECTORS = [(normal(n, 6), normal(m, 6, seed=1)) for n, m in ((4, 3), (1, 1), (30, 28))]
DISTANCES = {
    "cdist": [
        *over((F32, F64), torch.cdist, *_VECTORS),
        *(
            case
            for p in (0.0, 0.5, 1.0, 3.0, INF)
            for case in over((F32,), lambda x, y, p=p: torch.cdist(x, y, p), *_VECTORS, ulps=32)
        ),
        *over((F32,), lambda x, y: torch.cdist(x[None, None], y[None]), *_VECTORS),
    ],
}
_GAMMA = torch.tensor(
    [
        0.0,
        -0.0,
        1e-30,
        1e-7,
        0.3,
        0.5,
        1.0,
        1.0000001,
        1.4616321,
        2.0,
        2.5,
        9.0,
        171.0,
        1e4,
        1e30,
        -0.3,
        -1.0,
        -1.5,
        -2.457,
        -7.999,
        -30.2,
        INF,
        NAN,
    ]
)
SPECIAL = {
    "lgamma": over((F16, F32), torch.lgamma, torch.cat([_GAMMA, torch.tensor([-INF])]), normal(1)),
    "digamma": over((F16, F32), torch.digamma, _GAMMA[2:], normal(1), scale=1),
    "erfinv": over(
        (F16, F32),
        torch.erfinv,
        torch.tensor(
            [
                0.0,
                -0.0,
                1e-30,
                1e-7,
                0.3,
                -0.5,
                0.85,
                -0.9,
                0.999,
                -0.9999,
                0.9999999,
                1.0,
                -1.0,
                2.0,
                NAN,
            ]
        ),
        normal(1),
    ),
}


ERROR_FUNCTION = {
    "erfc": [
        *over((F16, F32), torch.erfc, *_ends(0.4, 0.5, -0.5, 3.9, 4.1)),
        # exp(-x * x) has the error of x * x, which float64 has no wider type for.
        *over((F64,), torch.erfc, *_ends(0.4, 0.5, -0.5, 3.9, 4.1), ulps=64),
    ],
    "erfcx": over((F32,), torch.special.erfcx, *_ends(0.4, 0.5, -0.5, 3.9, 4.1)),
    "log_ndtr": over((F32,), torch.special.log_ndtr, *_ends(0.4, 0.5, -0.5, 3.9, 4.1)),
    "ndtri": over(
        (F32,),
        torch.special.ndtri,
        torch.tensor([0.0, 1e-30, 1e-12, 0.01, 0.3, 0.5, 0.7, 0.9999, 1.0, 2.0, -1.0, NAN]),
        torch.tensor([0.2]),
    ),
}
_BESSEL = torch.tensor([0.0, -0.0, 1e-30, 1e-7, 0.3, -1.0, 5.0, 9.9, 10.1, -30.0, 88.0, -92.0, NAN])
_OFF_POLES = torch.cat([_GAMMA[3:15], torch.tensor([-0.3, -1.5, -2.457, -30.2, INF, NAN])])
_BESSEL_ENDS = torch.cat([_BESSEL, torch.tensor([INF, 1e30])])
BESSEL = {
    "i0": over((F32,), torch.i0, _BESSEL, normal(1)),
    "i0e": over((F32,), torch.special.i0e, _BESSEL_ENDS, normal(1)),
    "i1": over((F32,), torch.special.i1, _BESSEL, normal(1)),
    "i1e": over((F32,), torch.special.i1e, _BESSEL_ENDS, normal(1)),
    "polygamma": [
        *over((F16, F32), lambda x: torch.polygamma(0, x), _GAMMA[2:], scale=1),
        *over((F32,), lambda x: torch.polygamma(1, x), _OFF_POLES, normal(1), scale=1),
        *over((F32,), lambda x: torch.polygamma(4, x), _OFF_POLES[1:12], normal(1).abs(), scale=1),
    ],
}


def _matrices(size: int, *batch: int) -> torch.Tensor:
    return normal(*batch, size, size, seed=size) + 2 * torch.eye(size)


_FOURS = (_matrices(4, 2), _matrices(4, 1), _matrices(4, 5))


def _each_size(call: Any, **options: Any) -> list[Case]:
    """Matrices of 1 to 4, one of them in a batch that varies, and both dtypes."""
    found = [case for n in (1, 2, 3) for case in over((F32,), call, _matrices(n, 2), **options)]
    return [
        *found,
        *over((F32,), call, *_FOURS, **options),
        *over((F64,), call, _matrices(3), **options),
    ]


def _positive(call: Any) -> Any:
    return lambda m: call(m @ m.mT + torch.eye(m.shape[-1], dtype=m.dtype))


MATRICES = {
    "linalg.det": _each_size(torch.linalg.det, scale=8),
    "linalg.slogdet": _each_size(torch.linalg.slogdet, scale=1),
    "linalg.inv": [*_each_size(torch.linalg.inv, scale=4), Case(torch.inverse, ((_matrices(2),),))],
    "linalg.inv_ex": _each_size(torch.linalg.inv_ex, scale=4),
    "linalg.solve": [
        *over((F32, F64), lambda m: torch.linalg.solve(m, m[..., :2] + 1), _matrices(3), scale=4),
        *over((F32,), lambda m: torch.linalg.solve(m, m[..., 0] + 1), *_FOURS, scale=4),
        *over((F32,), lambda m: torch.linalg.solve(m, m[:1], left=False), _matrices(2), scale=4),
    ],
    "linalg.solve_ex": over(
        (F32, F64), lambda m: torch.linalg.solve_ex(m, m[..., :2] + 1), _matrices(3), scale=4
    ),
    "linalg.cholesky": [
        *_each_size(_positive(torch.linalg.cholesky), scale=8),
        *_each_size(_positive(lambda m: torch.linalg.cholesky(m, upper=True)), scale=8),
    ],
    "linalg.cholesky_ex": [
        *_each_size(_positive(torch.linalg.cholesky_ex), scale=8),
        Case(lambda m: torch.linalg.cholesky_ex(m)[1], tuple((m,) for m in _FOURS)),
    ],
    "cholesky": _each_size(_positive(torch.cholesky), scale=8),
}

CASES: dict[str, list[Case]] = {
    **ATTENTION,
    **ELEMENTWISE,
    **DIVISION,
    **SCANNING,
    **SORTING,
    **EXTREMES,
    **SEARCHING,
    **INDEXING,
    **PADDING,
    **POOLING,
    **RESIZING,
    **NORMALISING,
    **LOSSES,
    **RECURRENCE,
    **SCATTERING,
    **DISTANCES,
    **SPECIAL,
    **ERROR_FUNCTION,
    **BESSEL,
    **MATRICES,
}
