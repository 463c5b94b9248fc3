"""Foreign text made safe: what could steer a terminal or a CI log is escaped."""

from __future__ import annotations

import re
import textwrap
import unicodedata
from collections.abc import Iterable
from functools import partial

# What a CI log takes for a command: at the start of a line, as a wrapped word may be, or anywhere.
_COMMAND = re.compile(r"(?<!\S):(?=:)|#(?=#\[)")


def printable(text: str) -> str:
    r"""Return ``text`` with everything escaped that could steer a terminal or a CI log.

    Names, source lines and error texts come from models and files that are not ours: escape
    sequences, text direction marks, lone surrogates and the first character of ``::error`` are
    shown as ``\x1b``. Line breaks stay; :func:`one_line` is for what must be one line.
    """
    visible = "".join(_visible(character) for character in text.expandtabs(4))
    return _COMMAND.sub(lambda found: f"\\x{ord(found[0]):02x}", visible)


def _visible(character: str) -> str:
    """Return the character, a space in place of a special one, or its escape."""
    if character == "\n" or character.isprintable():
        return character
    if unicodedata.category(character) == "Zs":
        return " "
    number = ord(character)
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"


_STEERING = re.compile(r"[^\n\x20-\x7e]|#(?=#\[)")


def printable_json(text: str) -> str:
    """Return the same JSON with all escaped in it that could steer a terminal or a CI log."""
    return _STEERING.sub(
        lambda found: (
            found[0]
            if found[0] != "#" and found[0].isprintable()
            else "".join(f"\\u{unit:04x}" for unit in _units(found[0]))
        ),
        text,
    )


def _units(character: str) -> Iterable[int]:
    """The UTF-16 units of a character, by which JSON escapes it."""
    raw = character.encode("utf-16-be", "surrogatepass")
    return [int.from_bytes(raw[at : at + 2], "big") for at in range(0, len(raw), 2)]


def one_line(text: str) -> str:
    """Return ``text`` printable and without line breaks."""
    return " ".join(printable(text).split("\n"))


# A word that is copied: a path, an option, and what follows an option.
_COPIED = re.compile(r"[\"'(`]*(?:--|[^(),=\[]*[/\\])")
_AFTER_OPTION = re.compile(r"(?<!\S)--?[a-z][\w-]*\s+$")


def _spaced(mark: str, word: re.Match[str]) -> str:
    if _COPIED.match(word[0]) or _AFTER_OPTION.search(word.string[: word.start()]):
        return word[0]
    return re.sub(mark, " ", word[0])


def wrapped(text: str, width: int, first: str, others: str) -> list[str]:
    """Wrap ``text``, keeping its own line breaks; words are never cut, so that paths survive.

    Code that is too long goes on after a comma or a bracket.
    """
    rows: list[str] = []
    room = width - max(len(first), len(others))
    long = re.compile(rf"\S{{{min(max(room, 1), 9999) + 1},}}")
    for mark in r"(?<=,)(?=\S)", r"(?<=\()(?=[^\s)])":
        text = long.sub(partial(_spaced, mark), text)
    for paragraph in text.strip().split("\n"):
        rows += textwrap.wrap(
            paragraph,
            width,
            initial_indent=others if rows else first,
            subsequent_indent=others,
            break_long_words=False,
            break_on_hyphens=False,
        )
    return rows or [first.rstrip()]
