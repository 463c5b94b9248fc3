"""Refuses numbers outside of their ranges, for the command line and the API alike."""

from __future__ import annotations

from torch2mobile import limits
from torch2mobile.records import ParityOptions, Request


def check_request(request: Request) -> None:
    """UsageError for a number of a request that is outside of its range."""
    limits.check_number("simplify_timeout", request.simplify_timeout)
    if request.opset is not None:
        limits.check_number("opset", request.opset)
    check_parity(request.parity)


def check_parity(options: ParityOptions) -> None:
    """UsageError for probes, a seed, a time-out or a tolerance outside of its range."""
    limits.check_number("probes", options.probes)
    limits.check_number("seed", options.seed)
    limits.check_number("timeout", options.timeout)
    for output, tolerance in options.tolerances.items():
        limits.check_number("atol", tolerance.atol, of=output)
        limits.check_number("rtol", tolerance.rtol, of=output)
