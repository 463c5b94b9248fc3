"""Where in the user's code a dimension loses sizes, which torch's errors do not say."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import sympy

from torch2mobile import user_code
from torch2mobile.copies import fresh
from torch2mobile.exporter import assumptions
from torch2mobile.exporter.fused_attention import attention_in_operators
from torch2mobile.exporter.strategies import below_the_call, non_strict
from torch2mobile.records import LoadedModel, Location
from torch2mobile.tensors import quiet


@dataclass(frozen=True)
class Guard:
    """What a capture noted of a size, by a method of torch's ShapeEnv, and where in the code."""

    method: str
    args: tuple[Any, ...]
    frames: Sequence[traceback.FrameSummary]


class OneLostError(BaseException):
    """A capture met a condition that is not so at size 1, by which it fails in the end.

    No Exception, which the module's own code may catch.
    """

    said = "Constraints violated at size 1: "

    def __init__(self, condition: str, place: Location | None) -> None:
        super().__init__(f"{self.said}{condition} is not so at every declared size")
        self.place = place


@dataclass
class Watch:
    """The guards that a capture met, and what it ended with, whether or not the code caught it."""

    guards: list[Guard] = field(default_factory=list)
    lost: OneLostError | None = None


@contextlib.contextmanager
def watched(loaded: LoadedModel | None = None) -> Iterator[Watch]:
    """Within it, captures tell where sizes meet conditions, which torch's errors do not say.

    Those of a ``loaded`` module end with OneLostError at once, where another may do without size 1.
    """
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    seen = Watch()

    def watching(name: str, original: Any) -> Any:
        def watch(*args: Any, **options: Any) -> Any:
            stack = [(each.f_code, line) for each, line in traceback.walk_stack(None)]
            frames = [
                traceback.FrameSummary(code.co_filename, line, code.co_name, lookup_line=False)
                for code, line in reversed(stack)
            ]
            seen.guards.append(Guard(name, args, frames))
            if loaded is not None and name == "_log_guard":
                seen.lost = seen.lost or _one_lost(loaded, seen.guards[-1])
                if seen.lost is not None:
                    raise seen.lost
            return original(*args, **options)

        return watch

    with contextlib.ExitStack() as stack:
        for name in ("_log_guard", "_set_replacement"):
            original = getattr(ShapeEnv, name)
            stack.callback(setattr, ShapeEnv, name, original)
            setattr(ShapeEnv, name, watching(name, original))
        yield seen


def _one_lost(loaded: LoadedModel, guard: Guard) -> OneLostError | None:
    """The error of a guard by which a size, as such, is to be another than 1."""
    _, prefix, condition, *_ = guard.args
    # Others that are logged never stop a capture.
    if prefix != "eval" or not isinstance(condition, sympy.Ne):
        return None
    if not condition.lhs.is_symbol or condition.rhs != 1:
        return None
    broken = assumptions.broken_guard(loaded, *guard.args)
    # Torch may let it pass where no end is declared or several sizes are one: the probes try 1.
    dims = [d for spec in loaded.specs for d in spec.dims if d.symbol is not None]
    alone = {d.symbol for d in dims if d.least is not None and dims.count(d) == 1}
    if broken is None or loaded.dynamic_shapes is not None or not alone.issuperset(broken.symbols):
        return None
    return OneLostError(broken.text, _line_in_forward(guard.frames))


def specialised_at(loaded: LoadedModel, error: Exception) -> Location | None:
    """Where a dimension lost sizes in what failed with this: watch it happen again."""
    with (
        fresh(loaded, "scratch") as own,
        quiet(),
        watched() as seen,
        # The same failure again; only the watching matters.
        contextlib.suppress(Exception),
        attention_in_operators(),
    ):
        non_strict(own)
    return lost_at(loaded, error, seen.guards)


def lost_at(loaded: LoadedModel, error: Exception, guards: Sequence[Guard]) -> Location | None:
    """Where a dimension lost sizes.

    The first guard that is not so at every declared size, else the first one of all.
    """
    if "Not all values" in str(error):
        method = "_log_guard"
    elif "specialized" in str(error):
        method = "_set_replacement"
    else:
        return None
    found: list[Location] = []
    for guard in guards:
        place = _line_in_forward(guard.frames) if guard.method == method else None
        if place is None:
            continue
        found.append(place)
        with contextlib.suppress(Exception):  # what it says of sizes may be of any form
            if method == "_set_replacement" and guard.args[2].is_number:
                return place
            if method == "_log_guard" and assumptions.broken_guard(loaded, *guard.args):
                return place
    return found[0] if found else None


def _line_in_forward(frames: Sequence[traceback.FrameSummary]) -> Location | None:
    """The deepest line of the user's on a stack, below the call of the module itself."""
    below = below_the_call(frames)
    return user_code.from_frames([(frame.filename, frame.lineno or 0) for frame in below])
