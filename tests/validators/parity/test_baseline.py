"""Drift by output, on arrays made up for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from torch2mobile.errors import WorkerCrashError
from torch2mobile.records import Check, Status, Tolerance
from torch2mobile.validators.parity.attribution import Change, Changes
from torch2mobile.validators.parity.baseline import Replay, baseline_check, drifts
from torch2mobile.validators.parity.golden import Golden

Y = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
N = np.arange(3)
SAID = Changes((Change("runtime", "onnxruntime", "1.30.0", "1.32.0", "1.32.0"),))


def case(allowed: float = 1e-5, probe: str = "example") -> Golden:
    return Golden(probe, {"x": Y}, [("y", Y), ("n", N)], {"y": allowed})


def replay(now: Any, before: Any = None, module: Any = None, **options: Any) -> Replay:
    """``now`` and the others are what is added to y, or whole outputs."""

    def outputs(given: Any) -> Any:
        plain = isinstance(given, (int, float))
        return [("y", Y + np.float32(given)), ("n", N)] if plain else given

    errors = options.pop("errors", {})
    return Replay(case(**options), outputs(now), outputs(before), outputs(module), errors)


def check(*replays: Replay, **tolerances: Tolerance) -> Check:
    return baseline_check("onnx", replays, SAID, tolerances)


def test_within_the_limit() -> None:
    found = check(replay(1e-6, 1e-6, 0.0))
    assert found.status is Status.PASSED
    assert found.metrics["y.drift"] == pytest.approx(1e-6, rel=0.1)
    assert found.summary.startswith("1 cases of the earlier bundle, at most 1")


def test_the_worst_case_decides() -> None:
    assert check(replay(1e-6, 0.0), replay(1e-3, 1e-3, probe="N=1")).status is Status.FAILED
    # Each case by its own limit.
    assert check(replay(1e-6, 0.0), replay(1e-3, 1e-3, allowed=1e-2)).status is Status.PASSED


def test_the_parts_of_the_way() -> None:
    (y, n) = drifts([replay(3e-3, 1e-3, 2e-3, errors={"y": 1e-6})], {})
    figures = [part.figure for part in (y.before, y.now, y.files, y.modules)]
    assert figures == pytest.approx([1e-3, 3e-3, 2e-3, 2e-3], rel=1e-3)
    assert [part.out for part in (y.before, y.now, y.files, y.modules)] == [True] * 4
    assert y.then == 1e-6
    assert (n.now.figure, n.now.out, n.now.allowed) == (0.0, False, None)


def test_what_was_not_run_is_not_known() -> None:
    (y, _) = drifts([replay(0.0)], {})
    assert (y.before.out, y.files.out, y.modules.out) == (None, None, None)
    assert y.then is None


@pytest.mark.parametrize(
    ("now", "text"),
    [
        ([("y", np.where(Y > 0.5, np.nan, Y)), ("n", N)], "NaN on one side only"),
        ([("y", Y.astype(np.float64)), ("n", N)], "dtype"),
        ([("y", Y[:1]), ("n", N)], "shape"),
        ([("y", Y), ("n", N + 1)], "3 of 3 values are not equal"),
        (WorkerCrashError("died of SIGILL"), "gives no outputs: died of SIGILL"),
    ],
)
def test_no_number_is_needed_to_fail(now: Any, text: str) -> None:
    found = check(replay(now, 0.0))
    assert found.status is Status.FAILED
    assert any(text in mismatch.problem for mismatch in found.mismatches)
    assert text in found.summary


def test_an_output_that_is_gone_is_the_interfaces_matter() -> None:
    assert [drift.output for drift in drifts([replay([("n", N)], 0.0)], {})] == ["n"]


def test_nothing_to_compare_is_no_pass() -> None:
    assert check().status is Status.SKIPPED
    assert check(replay([], 0.0)).status is Status.SKIPPED


def test_a_users_tolerance() -> None:
    assert check(replay(1e-3, 0.0), y=Tolerance(atol=1e-2)).status is Status.PASSED
    assert check(replay(1e-3, 0.0, allowed=1), y=Tolerance(atol=1e-4)).status is Status.FAILED


@pytest.mark.parametrize("exact", [True, False])
def test_the_same_bytes_with_other_numbers_are_noted(exact: bool) -> None:
    before = 2.0**-20
    now = float(np.abs((Y + np.float32(before)).astype(float) - Y).max())
    found = check(replay(0.0, before, errors={"y": now if exact else now * 1.01}))
    assert found.status is Status.PASSED
    assert bool(found.notes) != exact


def test_several_outputs_with_several_causes() -> None:
    outputs = [("y", Y + np.float32(1e-3)), ("n", N + 1)]
    found = check(replay(outputs, 1e-3, 0.0))
    assert found.summary.startswith("y moved by 0.001 (1e-05 allowed), and 1 more")
    (note,) = found.notes
    assert note.startswith("n: the conversion")
