"""The report as canonical JSON, from which every other format can be drawn again."""

from __future__ import annotations

from torch2mobile.records import Report


def render(report: Report, *, colour: bool = False, verbose: bool = False) -> str:
    """Return the report as JSON: all of it and no colour, whatever the options say."""
    del colour, verbose
    # Here and not above: whoever only wants text does not pay for msgspec.
    from torch2mobile.reporters import codec

    return codec.to_json(report)
