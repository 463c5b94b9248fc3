"""Watching operations does not get in the way of torch's higher-order operators."""

from __future__ import annotations

from typing import Any

import torch

from torch2mobile.dispatch import Operations


class Counted(Operations):
    """Counts what runs."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def operation(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.seen += 1
        return func(*args, **kwargs)


def gated(x: torch.Tensor) -> Any:
    return torch.cond(x.sum() > 0, lambda y: y + 1, lambda y: y - 1, (x,))


def test_a_cond_runs_while_it_is_watched_and_afterwards() -> None:
    x = torch.ones(2)
    with torch.no_grad():
        with Counted() as watched:
            assert gated(x).tolist() == [2, 2]
        assert watched.seen
        assert gated(x).tolist() == [2, 2]
        assert gated(-x).tolist() == [-2, -2]
