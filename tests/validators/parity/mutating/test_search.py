"""The search: within what is declared, reproducible, and better than luck."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from torch2mobile.exporter.loading import inputs
from torch2mobile.validators.parity.mutating import search
from torch2mobile.validators.parity.mutating.search import Space, small_first

INPUTS: list[tuple[str, list[str], float, float]] = [
    ("x:float32[2,3,8,8]", ["x=uniform(0,1)"], 0, 1),
    ("x:float32[2,3]", ["x=-0.1..0.3"], -0.1, 0.3),
    ("x:float32[5]", ["x=normal(2,0.5)"], 0, 4),
    ("x:float32[3,4]", [], -4, 4),
    ("x:float16[3,4]", ["x=0..0.1"], 0, 0.1),
    ("x:int64[2,7]", ["x=0..999"], 0, 999),
    ("x:int64[2,7]", [], 0, 1),
    ("x:bool[2,7]", [], 0, 1),
    ("x:float32[]", ["x=0..1"], 0, 1),
]


def space(text: str, values: Sequence[str] = (), seed: int = 0) -> tuple[Space, Any]:
    from torch2mobile import sampling

    specs, _ = inputs.resolve([text], values)
    like = {"x": sampling.draw(specs[0], {}, "example", np.random.default_rng(0))}
    return Space(specs, [like], seed), like["x"]


@pytest.mark.parametrize(("text", "values", "low", "high"), INPUTS)
def test_nothing_leaves_what_is_declared(
    text: str, values: list[str], low: float, high: float
) -> None:
    where, like = space(text, values)
    genome = where.fresh()
    for number in range(120):
        genome = where.fresh() if number % 3 == 0 else where.near(genome)
        array = where.feeds(genome)["x"]
        assert array.dtype == like.dtype
        assert array.shape == like.shape
        if array.size:
            assert low <= float(array.min())
            assert float(array.max()) <= high


@pytest.mark.parametrize(("text", "values", "low", "high"), INPUTS)
def test_both_ends_are_reached(text: str, values: list[str], low: float, high: float) -> None:
    where, like = space(text, values)
    arrays = [where.feeds(where.fresh())["x"] for _ in range(80)]
    ends = np.array([low, high]).astype(like.dtype if like.dtype.kind != "b" else bool)
    assert min(float(a.min()) for a in arrays) == pytest.approx(float(ends[0]), abs=1e-4)
    assert max(float(a.max()) for a in arrays) == pytest.approx(float(ends[1]), abs=1e-4)


def half_bright(feeds: Sequence[Any]) -> np.ndarray:
    """Shown where some row is bright in its first half and dark in the second."""
    halves = [np.split(feed["x"], 2, axis=1) for feed in feeds]
    bright, dark = ([half[side].mean(axis=1) for half in halves] for side in (0, 1))
    return np.array(
        [[np.minimum(a - 0.9, 0.1 - b).max()] for a, b in zip(bright, dark, strict=True)]
    )


def test_small_changes_find_what_patterns_do_not() -> None:
    shown = {}
    for patterns in (1.0, 0.25):
        scores = []
        for seed in range(8):
            where, _ = space("x:float32[2,16]", ["x=0..1"], seed)
            (found,) = search.search(half_bright, where, 1, budget=512, patterns=patterns)
            assert half_bright([found.feeds])[0, 0] == pytest.approx(found.score)
            scores.append(found.score)
        shown[patterns] = sum(score > 0 for score in scores)
    assert shown[0.25] > shown[1.0]
    assert shown[0.25] >= 6


def test_the_same_seed_finds_the_same_and_another_something_else() -> None:
    found = []
    for seed in (0, 0, 1):
        where, _ = space("x:float32[2,16]", ["x=0..1"], seed)
        found += search.search(half_bright, where, 1, budget=40)
    assert np.array_equal(found[0].feeds["x"], found[1].feeds["x"])
    assert not np.array_equal(found[0].feeds["x"], found[2].feeds["x"])


def test_it_ends_with_its_budget_or_as_soon_as_all_is_shown() -> None:
    where, _ = space("x:float32[4]", ["x=0..1"])
    asked: list[int] = []

    def score(feeds: Sequence[Any]) -> np.ndarray:
        asked.append(len(feeds))
        return np.array([[1.0, f["x"].max() - 2] for f in feeds])

    first, second = search.search(score, where, 2, budget=30)
    assert sum(asked) == 30
    assert first.score > 0 >= second.score
    asked.clear()
    search.search(lambda feeds: score(feeds)[:, :1], where, 1, budget=30)
    assert sum(asked) == search.BATCH


def test_an_empty_input_stays_one() -> None:
    specs, _ = inputs.resolve(["x:float32[L,4]"], ["x=0..1"])
    where = Space(specs, [{"x": np.zeros((0, 4), np.float32)}], 0)
    genome = where.fresh()
    for _ in range(60):
        genome = where.near(where.fresh())
        assert where.feeds(genome)["x"].shape == (0, 4)


def test_sizes_are_those_of_the_probes_that_are_no_larger_than_the_example() -> None:
    feeds = [{"x": np.zeros(size)} for size in (4, 9, 2)]
    assert [each["x"].size for each in small_first(feeds)] == [4, 2]
    specs, _ = inputs.resolve(["x:float32[N]"], ["x=0..1"])
    where = Space(specs, small_first(feeds), 0)
    assert {where.feeds(where.fresh())["x"].size for _ in range(40)} == {4, 2}


@pytest.mark.parametrize(
    ("text", "sizes", "whole"),
    [
        ("x:float32[N=1..3,4]", [2, 1, 3], True),
        ("x:float32[N=1..3,4]", [2, 3], False),
        ("x:float32[N=1..,4]", [1, 2, 3], False),
        ("x:float32[2*N=2..6,4]", [4, 6, 8, 10, 12], True),
        ("x:float32[4,4]", [4], True),
    ],
)
def test_whether_inputs_have_every_declared_size(text: str, sizes: list[int], whole: bool) -> None:
    specs, _ = inputs.resolve([text], [])
    feeds = [{"x": np.zeros((size, 4), np.float32)} for size in sizes]
    assert search.every_size(specs, feeds) is whole
