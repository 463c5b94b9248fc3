"""Reading our own JSON files: text to a record, or what is wrong with it in words.

Whoever holds such a file may have cut it off, edited it, or taken another: each kind of file has
one record as its schema, and nothing else looks at what was read.
"""

from __future__ import annotations

import json
from typing import TypeVar, cast

import msgspec

from torch2mobile.errors import Torch2MobileError, UsageError

T = TypeVar("T")


def decode(
    raw: str | bytes,
    kind: type[T],
    *,
    name: str,
    remedy: str,
    error: type[Torch2MobileError] = UsageError,
) -> T:
    """The record of this kind that a JSON text holds; ``error`` for what is none.

    ``name`` is what messages call the file.
    """
    return fit(parse(raw, name=name, remedy=remedy, error=error), kind, name, remedy, error)


def parse(
    raw: str | bytes, *, name: str, remedy: str, error: type[Torch2MobileError] = UsageError
) -> object:
    """The JSON value of a text, or ``error`` with why it is none."""
    if not raw.strip():
        raise error(f"{name} is empty", remedy)
    try:
        return cast("object", json.loads(raw, parse_constant=_refuse_constant))
    except json.JSONDecodeError as caught:
        place = f"line {caught.lineno}, column {caught.colno}"
        if caught.pos >= len(caught.doc.rstrip()) or caught.msg.startswith("Unterminated"):
            message = f"{name} is truncated: it ends in the middle of a value ({place})"
        else:
            message = f"{name} is not JSON: {caught.msg} ({place})"
    except RecursionError:
        message = f"{name} is nested too deeply"
    except ValueError as caught:
        message = f"{name} is not JSON: {caught}"
    raise error(message, remedy)


def fit(
    tree: object,
    kind: type[T],
    name: str,
    remedy: str,
    error: type[Torch2MobileError] = UsageError,
) -> T:
    """The record of this kind that a JSON value is, or ``error`` with the first place that is not.

    msgspec's message ends in the JSON path: "Expected `str`, got `int` - at `$.command`".
    """
    try:
        return msgspec.convert(tree, kind)
    except (msgspec.ValidationError, UnicodeEncodeError) as caught:
        raise error(f"{name} does not fit its schema: {caught}", remedy) from caught


def _refuse_constant(constant: str) -> object:
    raise ValueError(f"a bare {constant} is no JSON value")
