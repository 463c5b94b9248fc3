"""The report as canonical JSON, from which every other format can be drawn again."""

from __future__ import annotations

from torch2mobile.records import Report


def render(report: Report, *, colour: bool = False) -> str:
    """Return the report as JSON; there is no colour in it, whatever ``colour`` says."""
    del colour
    # Here and not above: whoever only wants text does not pay for msgspec.
    from torch2mobile.reporters import codec

    return codec.to_json(report)
