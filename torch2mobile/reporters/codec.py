"""Report to canonical JSON and back; ``scripts/report_schema.py`` writes the schema of that form.

JSON has no infinity and no NaN. Where the schema has a number, they are written as the strings
"Infinity", "-Infinity" and "NaN" (the spelling of protobuf's JSON mapping); a metric that is a
text and reads exactly like one of these comes back as the number.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import msgspec

from torch2mobile import json_files
from torch2mobile.errors import UsageError
from torch2mobile.records import SCHEMA_VERSION, Report
from torch2mobile.reporters.printable import printable_json

NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}

# Where the records have a float. A Hypothesis test puts infinities into all of them.
_NUMBERS = (
    ("checks", "*", "metrics", "*"),
    ("checks", "*", "mismatches", "*", "allowed"),
    ("checks", "*", "mismatches", "*", "least_atol"),
    ("checks", "*", "mismatches", "*", "least_rtol"),
    ("checks", "*", "tables", "*", "rows", "*", "*"),
    ("checks", "*", "seconds"),
    ("request", "simplify_timeout"),
    ("request", "parity", "timeout"),
    ("request", "parity", "tolerances", "*", "atol"),
    ("request", "parity", "tolerances", "*", "rtol"),
)

_REMEDY = "Give the report.json of a bundle, or what torch2mobile printed with --format json."


def to_json(report: Report) -> str:
    """Return the canonical JSON: sorted keys, two spaces, a newline at the end, no NaN."""
    tree = _encodable(msgspec.to_builtins(report, enc_hook=_plain))
    # What the checks amount to, for who reads no further; they decide when it is read back.
    tree |= {"status": report.status.value, "exit_code": report.exit_code.value}
    text = json.dumps(tree, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return printable_json(text) + "\n"


def from_json(text: str | bytes, *, name: str = "the report") -> Report:
    """Return the report that :func:`to_json` wrote; ``name`` is what messages call it.

    Raises:
        UsageError: empty, truncated, not JSON, not a report, or not of this schema version.
    """
    tree: Any = json_files.parse(text, name=name, remedy=_REMEDY)
    if not isinstance(tree, dict) or not tree.keys() >= {"schema_version", "checks"}:
        raise UsageError(f"{name} is JSON, but not a report of torch2mobile", _REMEDY)
    version = tree["schema_version"]
    if type(version) is not int or version != SCHEMA_VERSION:
        raise UsageError(
            f"{name} has schema version {json.dumps(version)}; "
            f"this torch2mobile reads version {SCHEMA_VERSION}",
            "Render it with the torch2mobile that wrote it, or write it again with this one.",
        )
    for path in _NUMBERS:
        tree = _revived(tree, path)
    return json_files.fit(tree, Report, name, _REMEDY)


def _plain(value: object) -> object:
    """Turn what records may hold beside the plain types into one of these."""
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "item"):  # a numpy scalar among the metrics
        return value.item()
    raise TypeError(f"a report cannot hold a value of type {type(value).__qualname__}")


def _encodable(tree: Any) -> Any:
    """Replace what UTF-8 JSON cannot hold: non-finite numbers and lone surrogates."""
    if isinstance(tree, float) and not math.isfinite(tree):
        return "NaN" if math.isnan(tree) else "Infinity" if tree > 0 else "-Infinity"
    if isinstance(tree, str):
        # Lone surrogates are how Python spells the bytes of a file name that is not UTF-8.
        return tree.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(tree, dict):
        return {_encodable(key): _encodable(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_encodable(value) for value in tree]
    return tree


def _revived(tree: Any, path: tuple[str, ...]) -> Any:
    """Turn the names of non-finite numbers at ``path`` into numbers; anything else stays."""
    if not path:
        return NON_FINITE.get(tree, tree) if isinstance(tree, str) else tree
    head, rest = path[0], path[1:]
    if isinstance(tree, list) and head == "*":
        return [_revived(value, rest) for value in tree]
    if isinstance(tree, dict):
        keys = tree if head == "*" else tree.keys() & {head}
        return {**tree, **{key: _revived(tree[key], rest) for key in keys}}
    return tree
