"""Numbers as a person reads them."""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, Context

from torch2mobile.records import Metric, Table
from torch2mobile.reporters.printable import one_line


def rows(table: Table) -> list[list[str]]:
    """Return the figures of a table as texts."""
    return [
        [_cell(value, name) for value, name in zip(row, table.columns, strict=True)]
        for row in table.rows
    ]


def _cell(value: Metric | None, column: str) -> str:
    """Return one figure: three significant digits, yes or no, a dash for nothing.

    What is the least of something is rounded up: it must do.
    """
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        least = column.startswith("least ") and math.isfinite(value)
        return round_up(value) if least else f"{value:.3g}"
    return one_line(str(value))


def round_up(value: float) -> str:
    """Return ``value`` with three significant digits, never less: as a tolerance it must do."""
    rounded = Context(prec=3, rounding=ROUND_CEILING).create_decimal_from_float(value)
    return f"{float(rounded):.3g}"
