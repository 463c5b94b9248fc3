"""What would be enough: the tolerances that a check would pass with, as the options to write."""

from __future__ import annotations

import math
from collections.abc import Collection

from torch2mobile.records import Check, Metric
from torch2mobile.reporters.figures import round_up

# So far off, relatively, is what was computed of values in float16.
_ROUNDING = 2.0**-7


def by_output(check: Check) -> list[dict[str, Metric | None]]:
    """The rows of a check's table that has one for each output."""
    return [
        dict(zip(table.columns, row, strict=True))
        for table in check.tables
        if table.title == "by output"
        for row in table.rows
    ]


def to_pass(check: Check, named: Collection[str] = ()) -> str:
    """The least absolute tolerances that a check would pass with, as options; empty for none.

    ``named`` are outputs with a tolerance of their own, which no other one overrules.
    """
    rows = by_output(check)
    failing = [row for row in rows if check.metrics.get(f"{row['output']}.failing")] or rows
    least = {str(row["output"]): row["least atol"] for row in failing if row["least atol"] != 0}
    known = {name: value for name, value in least.items() if isinstance(value, float)}
    if not known or len(known) < len(least) or not all(map(math.isfinite, known.values())):
        return ""
    return " ".join(
        f"--atol {name if len(rows) > 1 or name in named else ''}@{check.target}={round_up(value)}"
        for name, value in known.items()
    )


def allowing(check: Check, named: Collection[str] = ()) -> str:
    """What to do where a tolerance lets a check of parity pass."""
    options = to_pass(check, named) if check.name == "parity" else ""
    return options and f"If the app can bear it, allow it: {options}."


def rounded(check: Check, precision: str, named: Collection[str] = ()) -> str:
    """What to do where large values are off by no more than a precision rounds them.

    Golden data that differ are another file, and of more than are shown nobody knows.
    """
    from torch2mobile.validators.parity.gate import SHOWN

    if check.name != "parity" or len(check.mismatches) >= SHOWN:
        return ""
    needed = [one.least_rtol for one in check.mismatches]
    known = [rtol for rtol in needed if rtol is not None and rtol <= _ROUNDING]
    if not known or len(known) < len(needed):
        return ""
    outputs = dict.fromkeys(one.output if one.output in named else "" for one in check.mismatches)
    options = [f"--rtol {name}@{check.target}={round_up(max(known))}" for name in outputs]
    return (
        f"{precision} rounds large values by more than an absolute tolerance lets pass: add "
        f"{' '.join(options)}, or say with --values what the inputs can be."
    )
