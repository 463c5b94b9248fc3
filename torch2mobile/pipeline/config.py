"""What a project says about ``check`` and ``export`` in its pyproject.toml."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from torch2mobile import limits
from torch2mobile.errors import UsageError
from torch2mobile.validators.coverage.selection import Selection, Suppression

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE = "pyproject.toml"
_OURS, _TABLES = "torch2mobile", {"check", "export"}
SECTION = "tool.torch2mobile.check"
EXPORT = "tool.torch2mobile.export"
_FORM = (
    f"[{SECTION}] takes select and ignore, lists of codes, and suppress, a list of "
    '{code = "T2M108", path = "net.py", reason = "..."}.'
)
_EXPORT_FORM = (
    f'[{EXPORT}] takes state = true, rewrite, a list of codes: ["T2M101"], data, a list of paths, '
    "and the texts preprocess and tokenizer."
)
T = TypeVar("T")


class _Suppress(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    code: str
    path: str = "*"
    reason: str = ""


class _Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    suppress: tuple[_Suppress, ...] = ()


class Export(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options of ``export`` that a project always wants."""

    rewrite: tuple[str, ...] = ()
    state: bool = False
    data: tuple[str, ...] = ()
    preprocess: str = ""
    tokenizer: str = ""


def read_selection(
    folder: Path, *, select: tuple[str, ...] = (), ignore: tuple[str, ...] = ()
) -> Selection:
    """The selection of ``folder``'s pyproject.toml; a ``select`` given here replaces its own.

    ``ignore`` adds to what the file ignores. Raises UsageError for a file that is not TOML, for
    keys and types that do not belong, unknown codes and suppressions without a reason.
    """
    path = folder / FILE
    settings = _read(path, SECTION, _Settings, _FORM)
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


def read_export(folder: Path) -> Export:
    """What ``folder``'s pyproject.toml says about ``export``; UsageError as above."""
    return _read(folder / FILE, EXPORT, Export, _EXPORT_FORM)


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
        if key == _OURS and isinstance(table, dict) and table.keys() - _TABLES:
            strange = min(table.keys() - _TABLES)
            raise UsageError(
                f"{path.name}, [tool.{_OURS}]: no key {strange!r}", f"{_EXPORT_FORM} {_FORM}"
            )
    return table


def _read(path: Path, section: str, kind: type[T], form: str) -> T:
    """A section as ``kind``, whose keys and types it has to have."""
    try:
        return msgspec.convert(_table(path, section), kind)
    except msgspec.ValidationError as error:
        said = re.sub(r"^Object contains unknown field `(.*?)`.*", r"no key '\1'", str(error))
        raise UsageError(f"{path.name}, [{section}]: {said}", form) from error
