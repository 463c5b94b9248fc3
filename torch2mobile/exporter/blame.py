"""The user's own source line behind an exception or a recorded stack trace."""

from __future__ import annotations

import itertools
import linecache
import os
import re
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path

from torch2mobile.records import Location

_FRAME = re.compile(r'File "([^"\n]+)", line (\d+)')
_LIBRARIES = ("torch", "onnxscript", "onnx_ir", "onnx", "sympy", "numpy", "importlib", "click")
_PACKAGE = Path(__file__).resolve().parent.parent
_STDLIB = Path(sysconfig.get_paths()["stdlib"])
_SITE = {"site-packages", "dist-packages"}


def is_user_file(filename: str) -> bool:
    """Whether a frame of this file is the user's code (or a sample's), not torch's or ours."""
    if filename.startswith("<"):
        return False
    path = Path(filename)
    if not path.is_absolute() and not path.is_file():
        return False  # torch shortens some of its own paths to "torch/..."
    path = path.absolute()
    if path.is_relative_to(_PACKAGE):
        return path.is_relative_to(_PACKAGE / "sample_models")
    # Not only this environment's own folder: one made with --system-site-packages uses another's.
    folders = itertools.pairwise(path.parts)
    if any(parent in _SITE and name in _LIBRARIES for parent, name in folders):
        return False
    in_stdlib = path.is_relative_to(_STDLIB) and "site-packages" not in path.parts
    return not in_stdlib


def shown_path(filename: str) -> str:
    """A path relative to the working directory where it lies below it, as the user would type."""
    try:
        return str(Path(filename).relative_to(Path.cwd()))
    except ValueError:
        return filename


def location(filename: str, line: int, *, module: str = "") -> Location:
    """The location of a line, with its text read from the file."""
    code = linecache.getline(filename, line).strip()
    return Location(module=module, file=shown_path(filename), line=line, code=code)


def from_trace_text(text: str) -> Location | None:
    """The deepest user frame in the text of a stack trace (as torch records them)."""
    frames = [(name, int(line)) for name, line in _FRAME.findall(text) if is_user_file(name)]
    return location(*frames[-1]) if frames else None


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    queue: list[BaseException | None] = [error]
    while queue:
        current = queue.pop(0)
        if current is not None and id(current) not in seen:
            seen.add(id(current))
            yield current
            queue += [current.__cause__, current.__context__]


def from_exception(error: BaseException) -> Location | None:
    """The deepest user frame of an exception, its causes, or the traces quoted in its text."""
    for link in _chain(error):
        if isinstance(link, SyntaxError) and is_user_file(link.filename or "<unknown>"):
            return location(str(link.filename), link.lineno or 0)
        frames = [
            (frame.filename, frame.lineno or 0)
            for frame in traceback.extract_tb(link.__traceback__)
            if is_user_file(os.fspath(frame.filename))
        ]
        if frames:
            return location(*frames[-1])
    for link in _chain(error):
        found = from_trace_text(str(link))
        if found:
            return found
    return None
