"""Operations of a recording as lines of the user's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from torch2mobile.records import (
    Capture,
    Location,
)

if TYPE_CHECKING:
    import numpy as np

    from torch2mobile.validators.parity.recorder import Step


def place_of(step: Step) -> Location | None:
    """An operation of a recording as a line of the user's."""
    from torch2mobile import user_code

    where = user_code.from_frames(step.frames)
    return where and replace(where, module=step.module, op=step.op)


def distinct(places: Sequence[Location | None]) -> tuple[Location, ...]:
    """Each line once, by whatever operation it was found."""
    found: dict[tuple[str, int], Location] = {}
    for place in places:
        if place is not None:
            found.setdefault((place.file, place.line), place)
    return tuple(found.values())


def departures(capture: Capture, feeds: Mapping[str, np.ndarray]) -> tuple[Location, ...]:
    """The lines where the captured graph itself leaves the module on these inputs."""
    from torch2mobile.validators.parity import recorder

    if capture.program is None:
        return ()
    pair = recorder.departure(capture.loaded, capture.program, feeds)
    return distinct([place_of(step) for step in pair if step is not None]) if pair else ()
