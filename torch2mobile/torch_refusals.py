"""What torch says where it refuses to capture a module, by what it is about: one table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

About = Literal["sizes", "data", "numpy", ""]

_MARKS: dict[About, tuple[str, ...]] = {
    "data": (
        *("data-dependent", "Data-dependent", "GuardOnDataDependent", "Dynamic control flow"),
        *("Could not guard", "DataDependentOutput"),
    ),
    "sizes": (
        *("specialized", "Constraints violated", "not all values", "which the inputs"),
        *("Specializations", "declared dynamic", "Cannot create Dim"),
    ),
    "numpy": ("numpy", "NumPy"),
}


def about(texts: Sequence[str]) -> About:
    """What refusals are about: the first text by itself, since later attempts may meet others."""
    for text in (*texts[:1], " ".join(texts)):
        for found, marks in _MARKS.items():
            if any(mark in text for mark in marks):
                return found
    return ""
