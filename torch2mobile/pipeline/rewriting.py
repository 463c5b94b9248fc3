"""The stage ``rewrite`` of an export: what was asked for, what was done, by name."""

from __future__ import annotations

from torch2mobile.errors import UsageError
from torch2mobile.records import Check, OnnxModel, Status


def check_codes(codes: tuple[str, ...]) -> tuple[str, ...]:
    """The codes of the rules that these name, by code or name.

    Raises UsageError for one that no rule has, or whose rule has no rewrite.
    """
    if not codes:
        return ()
    from torch2mobile.exporter.rewrite import REWRITES
    from torch2mobile.validators.coverage.selection import find_rule

    rules = [find_rule(code) for code in codes]
    for rule in rules:
        if rule.code not in REWRITES:
            raise UsageError(
                f"{rule.code} ({rule.name}) has no rewrite: its remedy changes your source",
                f"Rules with a rewrite: {', '.join(REWRITES)}; see 'torch2mobile explain "
                f"{rule.code}'.",
            )
    return tuple(dict.fromkeys(rule.code for rule in rules))


def rewritten(model: OnnxModel, codes: tuple[str, ...]) -> tuple[OnnxModel, Check]:
    """The model with the rewrites of these codes, and the check that names them.

    SKIPPED where none of them found anything to rewrite.
    """
    from torch2mobile.exporter.rewrite import REWRITES, rewrite

    result, counts = rewrite(model, codes)
    does = {one.name: one.does for code in codes for one in REWRITES[code]}
    done = [f"{name} ({count})" for name, count in counts.items() if count]
    notes = tuple(f"{name}: {does[name]}" for name, count in counts.items() if count)
    if not done:
        reasons = tuple(f"nothing to {text}" for text in does.values())
        return result, Check("rewrite", Status.SKIPPED, "nothing to rewrite", notes=reasons)
    nothing = [name for name, count in counts.items() if not count]
    summary = ", ".join(done) + (f"; nothing for {', '.join(nothing)}" if nothing else "")
    return result, Check("rewrite", Status.PASSED, summary, metrics=counts, notes=notes)
