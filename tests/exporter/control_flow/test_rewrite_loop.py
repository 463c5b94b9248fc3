"""Rewriting ends, whatever the functions at the line are."""

from __future__ import annotations

from types import FunctionType

from torch2mobile.exporter.control_flow import CODES, rewrite


def test_a_function_that_each_call_makes_anew_ends_it() -> None:
    made: list[FunctionType] = []

    def attempt() -> Exception:
        def inner(x: int) -> int:
            if x > 2:
                x = 1
            return x

        assert len(made) < 4
        made.append(inner)  # type: ignore[arg-type]
        return ValueError("stopped there")

    def lines(_: Exception) -> list[tuple[str, int]]:
        return [(__file__, made[-1].__code__.co_firstlineno + 1)]

    flow = rewrite(attempt, lines, CODES)
    assert "made anew by each call" in flow.refused
    assert len(made) == 2
