"""Stages keep their checks, with the time between them."""

from __future__ import annotations

import time

import pytest

from torch2mobile.interfaces import SilentObserver
from torch2mobile.pipeline.stages import Stages
from torch2mobile.records import Check, Status


def test_the_seconds_of_a_check_are_those_since_the_one_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter([100.0, 100.25, 103.25])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    stages = Stages(SilentObserver())
    added = [stages.add(Check(name, Status.PASSED, "")) for name in ("capture", "translate")]
    assert [check.seconds for check in added] == [0.25, 3.0]
    assert stages.checks == added


def test_what_belongs_to_the_next_check_is_counted_there(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 104.0, 104.5])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    stages = Stages(SilentObserver())
    capture = stages.add(Check("capture", Status.PASSED, ""), later=3.0)
    translate = stages.add(Check("translate", Status.PASSED, ""))
    assert (capture.seconds, translate.seconds) == (1.0, 3.5)
