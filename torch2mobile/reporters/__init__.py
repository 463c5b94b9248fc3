"""Report in, text out: one module a format, and the explicit table of all of them."""

from __future__ import annotations

from torch2mobile.interfaces import Reporter
from torch2mobile.reporters import github, html_report, json_report, sarif, terminal

__all__ = ["REPORTERS"]

REPORTERS: dict[str, Reporter] = {
    "text": terminal.render,
    "json": json_report.render,
    "html": html_report.render,
    "sarif": sarif.render,
    "github": github.render,
}
