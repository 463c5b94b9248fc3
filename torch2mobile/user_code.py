"""The user's frames and functions: the line of an exception or of an FX node, a function's tree.

Whoever names a line of the user's asks here. Nothing of this needs torch.
"""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import linecache
import os
import re
import textwrap
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

from torch2mobile.records import Location

if TYPE_CHECKING:
    import torch

_FRAME = re.compile(r'File "([^"\n]+)", line (\d+)')
_LIBRARIES = ("torch", "onnxscript", "onnx_ir", "onnx", "sympy", "numpy", "importlib", "click")
_PACKAGES = ("site-packages", "dist-packages")
_PACKAGE = Path(__file__).resolve().parent
_SAMPLES = _PACKAGE / "sample_models"
_STDLIB = Path(os.__file__).parent
_BUILTINS = {"float", "int", "not", "ite", "max", "min", "sum"}
# What a layer's path begins with behind the flat signature, which holds the module as ``inner``.
_FLAT = re.compile(r"^inner(?:\.|$)")


@dataclass(frozen=True)
class Function:
    """A function of the user's: its file, and its tree with the file's line numbers."""

    file: str
    tree: ast.FunctionDef


def function(value: Any) -> Function | None:
    """The function behind a function, a method or a property; None where it is not the user's."""
    value = value.fget if isinstance(value, property) else value
    plain = inspect.unwrap(getattr(value, "__func__", value))
    try:
        file = inspect.getsourcefile(plain) or ""
        if not is_user_file(file):  # nor the code that torch made of a saved program
            return None
        lines, start = inspect.getsourcelines(plain)
        tree = ast.parse(textwrap.dedent("".join(lines))).body[0]
    except (OSError, TypeError, SyntaxError, IndexError):
        return None
    if not isinstance(tree, ast.FunctionDef):
        return None
    ast.increment_lineno(tree, start - 1)
    return Function(file, tree)


def is_user_file(filename: str) -> bool:
    """Whether a frame of this file is the user's code (or a sample's), not torch's or ours."""
    if filename.startswith("<"):
        return False
    path = Path(filename)
    if not path.is_absolute() and not path.is_file():
        return False  # torch shortens some of its own paths to "torch/..."
    return _is_user_path(path.absolute())


@functools.cache
def _is_user_path(path: Path) -> bool:
    if path.is_relative_to(_PACKAGE):
        return path.is_relative_to(_SAMPLES)
    # By name, not by this environment's own folder: an environment may be built upon another.
    pairs = itertools.pairwise(path.parts)
    if any(folder in _PACKAGES and name in _LIBRARIES for folder, name in pairs):
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


def of_node(node: torch.fx.Node) -> Location:
    """The user's line behind a node of a captured graph, with its module and operator."""
    found = from_trace_text(node.meta.get("stack_trace") or "") or Location()
    scopes = list((node.meta.get("nn_module_stack") or {}).values())
    path = scopes[-1][0].removeprefix("L['self'].") if scopes else ""
    if scopes and "flat_module" in str(scopes[0][1]):
        path = module_path(path)
    return replace(found, module=path, op=operator(node.target))


def called(node: torch.fx.Node) -> str:
    """The function that the user's line calls, which may have become several nodes."""
    kind, _, name = (node.meta.get("torch_fn") or ("", ""))[1].partition(".")
    return operator(node.target) if not name or kind == "OpOverload" or name[0] == "_" else name


def operator(target: Any) -> str:
    """What a node of a captured graph calls: ``aten.relu.default``, ``math.sqrt``."""
    name = getattr(target, "__name__", "")
    if not inspect.isroutine(target) or not name:
        return str(target)
    if name.startswith(("sym_", "_sym_")):  # torch's own stand-ins for Python's functions
        name = name.removeprefix("_").removeprefix("sym_")
        return name if name in _BUILTINS else f"math.{name}"
    module = (getattr(target, "__module__", None) or "").removeprefix("_")
    if "functorch" in module or name.endswith(("_batch_dim", "_increment_nesting")):
        return f"functorch.{name.removeprefix('_')}"
    return f"{module}.{name}" if module else name


def module_path(scope: str) -> str:
    """A layer's path as ``named_modules`` has it, from that below the flat signature."""
    return _FLAT.sub("", scope)


def from_trace_text(text: str) -> Location | None:
    """The deepest user frame in the text of a stack trace (as torch records them)."""
    return from_frames(frames_in(text))


def frames_in(text: str) -> tuple[tuple[str, int], ...]:
    """The (file, line) pairs in the text of a stack trace, as they stand there."""
    return tuple((name, int(line)) for name, line in _FRAME.findall(text))


def running(frame: FrameType | None, stop: CodeType) -> Iterator[FrameType]:
    """The frames of a call that runs, from this one outwards to that of ``stop``."""
    while frame is not None and frame.f_code is not stop:
        yield frame
        frame = frame.f_back


def from_frames(frames: Sequence[tuple[str, int]]) -> Location | None:
    """The deepest user frame of (file, line) pairs, given from the outermost to the innermost."""
    own = [frame for frame in frames if is_user_file(frame[0])]
    return called_by(location(*own[-1]), own) if own else None


def called_by(place: Location, frames: Sequence[tuple[str, int]]) -> Location:
    """The place, with the deepest of these frames that is no library's where the place is one's."""
    if not is_library(place.file):
        return place
    outer = next(((f, line) for f, line in reversed(frames) if not is_library(f)), ("", 0))
    return replace(place, caller=shown_path(outer[0]) if outer[0] else "", caller_line=outer[1])


def told(place: Location) -> str:
    """A place in a message: a library's line with the user's that calls it."""
    here = f"{place.file}:{place.line}: {place.code}"
    if not place.caller:
        return here
    code = linecache.getline(place.caller, place.caller_line).strip()
    return f"{place.caller}:{place.caller_line}: {code}, in a library at {here}"


def is_library(filename: str) -> bool:
    """Whether a file is that of an installed package; the samples are like a user's own."""
    path = Path(filename)
    return any(folder in _PACKAGES for folder in path.parts) and not path.is_relative_to(_SAMPLES)


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    queue: list[BaseException | None] = [error]
    while queue:
        current = queue.pop(0)
        if current is not None and id(current) not in seen:
            seen.add(id(current))
            yield current
            queue += [current.__cause__, current.__context__]


def lines_of(error: BaseException) -> list[tuple[str, int]]:
    """The user's lines that an exception went through, the deepest first, quoted ones before."""
    links = list(_chain(error))
    found = [frame for link in links for frame in reversed(frames_in(str(link)))]
    for link in links:
        frames = traceback.extract_tb(link.__traceback__)
        found += [(os.fspath(f.filename), f.lineno or 0) for f in reversed(frames)]
    return [frame for frame in found if is_user_file(frame[0])]


def from_exception(error: BaseException) -> Location | None:
    """The deepest user frame of an exception, its causes, or the traces quoted in its text."""
    for link in _chain(error):
        if isinstance(link, SyntaxError) and is_user_file(link.filename or "<unknown>"):
            return location(str(link.filename), link.lineno or 0)
        frames = traceback.extract_tb(link.__traceback__)
        found = from_frames([(os.fspath(f.filename), f.lineno or 0) for f in frames])
        if found:
            return found
    for link in _chain(error):
        found = from_trace_text(str(link))
        if found:
            return found
    return None
