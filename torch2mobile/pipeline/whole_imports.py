"""Ctrl-C while a library is being imported, in a process that goes on: a notebook.

Python forgets the module that was being imported and keeps what it has already done, so that the
next import finds half of it, and fails in ways that name neither (``module 'sympy' has no attribute
'core'``). Only a new process helps, and this says so, now and at each later call.
"""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable
from pathlib import PurePath
from typing import ParamSpec, TypeVar

from torch2mobile.errors import HalfImportedError

P = ParamSpec("P")
T = TypeVar("T")

_INSTALLED = frozenset({"site-packages", "dist-packages"})
_half: list[str] = []


def needs_whole_imports(function: Callable[P, T]) -> Callable[P, T]:
    """Say that Python has to be restarted where a call is interrupted in the middle of an import.

    The interrupt stays a KeyboardInterrupt; later calls raise HalfImportedError.
    """

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        if _half:
            raise HalfImportedError(
                f"an earlier call was interrupted while {_half[0]} was being imported, which left "
                "half of it",
                "Restart Python (in a notebook: the kernel).",
            )
        try:
            return function(*args, **kwargs)
        except KeyboardInterrupt as error:
            name = _being_imported(error)
            if not name:
                raise
            _half.append(name)
            raise KeyboardInterrupt(
                f"{name} was being imported and is half there: restart Python (in a notebook: the "
                "kernel) before you go on"
            ) from error

    return wrapped


def _being_imported(error: BaseException) -> str:
    """The outermost installed module whose import was going on; empty where there was none.

    Modules of the user's, and Python's own, are imported anew without harm.
    """
    for frame, _ in traceback.walk_tb(error.__traceback__):
        installed = not _INSTALLED.isdisjoint(PurePath(frame.f_code.co_filename).parts)
        if frame.f_code.co_name == "<module>" and installed:
            return str(frame.f_globals.get("__name__", ""))
    return ""
