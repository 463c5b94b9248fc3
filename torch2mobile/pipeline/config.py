"""What a project says about ``check`` and ``export`` in its pyproject.toml."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from torch2mobile import limits
from torch2mobile.errors import UsageError
from torch2mobile.validators.coverage.selection import Selection, Suppression

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE = "pyproject.toml"
SECTION = "tool.torch2mobile.check"
EXPORT = "tool.torch2mobile.export"
_FORM = (
    f"[{SECTION}] takes select and ignore, lists of codes, and suppress, a list of "
    '{code = "T2M108", path = "net.py", reason = "..."}.'
)


@dataclass(frozen=True)
class _Suppress:
    code: str
    path: str = "*"
    reason: str = ""


@dataclass(frozen=True)
class _Settings:
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    suppress: tuple[_Suppress, ...] = ()


def read_selection(
    folder: Path, *, select: tuple[str, ...] = (), ignore: tuple[str, ...] = ()
) -> Selection:
    """The selection of ``folder``'s pyproject.toml; a ``select`` given here replaces its own.

    ``ignore`` adds to what the file ignores. Raises UsageError for a file that is not TOML, for
    keys and types that do not belong, unknown codes and suppressions without a reason.
    """
    path = folder / FILE
    settings = _settings(path)
    # What is wrong on the command line is not the file's fault.
    Selection(select=select, ignore=ignore)
    try:
        return Selection(
            select=select or settings.select,
            ignore=(*settings.ignore, *ignore),
            suppress=tuple(Suppression(s.code, s.reason, s.path) for s in settings.suppress),
        )
    except UsageError as error:
        raise UsageError(f"{path.name}, [{SECTION}]: {error.message}", error.remedy) from error


def read_rewrites(folder: Path) -> tuple[str, ...]:
    """The codes that ``folder``'s pyproject.toml lists for ``--rewrite``; UsageError as above."""
    path = folder / FILE
    table = _table(path, EXPORT)
    codes = table.get("rewrite", []) if isinstance(table, dict) else None
    if not isinstance(codes, list) or not all(isinstance(code, str) for code in codes):
        raise UsageError(
            f"{path.name}, [{EXPORT}]: rewrite is no list of codes", 'rewrite = ["T2M101"]'
        )
    strange = set(table) - {"rewrite"}
    if strange:
        raise UsageError(
            f"{path.name}, [{EXPORT}]: no key {min(strange)!r}", f"[{EXPORT}] takes rewrite."
        )
    return tuple(codes)


def _settings(path: Path) -> _Settings:
    return _converted(_table(path, SECTION), path)


def _table(path: Path, section: str) -> Any:
    """A section as it stands there, empty where there is none."""
    try:
        raw = limits.read_regular(path, most=1 << 24)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", "Make it readable.") from error
    try:
        table: Any = tomllib.loads(raw.decode())
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"{path.name} is not TOML: {error}", "Mend it; nothing was read."
        ) from None
    for key in section.split("."):
        table = table.get(key, {}) if isinstance(table, dict) else {}
    return table


def _converted(table: Any, path: Path) -> _Settings:
    strange: set[str] = set()
    if isinstance(table, dict):
        strange = set(table) - {"select", "ignore", "suppress"}
        entries = table.get("suppress", ())
        for entry in entries if isinstance(entries, list) else ():
            strange |= set(entry) - {"code", "path", "reason"} if isinstance(entry, dict) else set()
    if strange:
        raise UsageError(f"{path.name}, [{SECTION}]: no key {min(strange)!r}", _FORM)
    try:
        return msgspec.convert(table, _Settings)
    except msgspec.ValidationError as error:
        raise UsageError(f"{path.name}, [{SECTION}]: {error}", _FORM) from error
