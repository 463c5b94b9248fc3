"""Which statements a capture stops at, and whether it gets through with these as operators."""

from __future__ import annotations

from collections.abc import Callable, Collection

from torch2mobile import user_code
from torch2mobile.exporter.control_flow import CODES, ControlFlow, rewrite
from torch2mobile.exporter.strategies import STRATEGIES, tried
from torch2mobile.records import Attempt, LoadedModel, Location

# Those that the others follow from: without and with the special cases that torch makes for size 1.
_FIRST = tuple(strategy for _, strategy in STRATEGIES[:2])
REWRITTEN = "rewritten"
"""The name of the attempt that says why a statement stays as it is."""


def find(
    loaded: LoadedModel,
    codes: Collection[str],
    where: Callable[[Exception], Location | None],
) -> ControlFlow | None:
    """What of the user's code has to be an operator; None where nothing is to be.

    ``where`` tells the line of an error that names none.
    """
    wanted = set(codes) & set(CODES)
    if not wanted:
        return None

    def attempt() -> Exception | None:
        try:
            tried(loaded, _FIRST[0])
        except Exception as error:  # noqa: BLE001 (an attempt is a value, whatever it met)
            return error
        return None

    def lines(error: Exception) -> list[tuple[str, int]]:
        found = user_code.lines_of(error)
        place = None if found else where(error)
        return [*found, (place.file, place.line)] if place is not None else found

    return rewrite(attempt, lines, wanted)


def refused(flow: ControlFlow | None) -> list[Attempt]:
    """Why a statement at which the capture stops stays as it is."""
    if flow is None or not flow.refused or flow.error is None:
        return []
    reason = f"--rewrite leaves it as it is: {flow.refused}"
    place = user_code.from_exception(flow.error)
    return [Attempt(REWRITTEN, False, reason, (place,) if place is not None else ())]


def offer(loaded: LoadedModel, where: Callable[[Exception], Location | None]) -> str:
    """The options that get through, where there are any: they are tried."""
    flow = find(loaded, CODES, where)
    if flow is None or not flow.places:
        return ""
    if flow.error is not None:
        try:
            tried(loaded, _FIRST[1], flow)
        except Exception:  # noqa: BLE001 (an attempt is a value, whatever it met)
            return ""
    options = " ".join(f"--rewrite {code}" for code in sorted(set(flow.places.values())))
    return f" Or let export write it so: {options}."
