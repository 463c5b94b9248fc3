"""What the lines that ran say by themselves: which statement asks, what is kept, a ``try``."""

from __future__ import annotations

import ast
import functools
import linecache
from collections.abc import Iterable, Iterator
from dataclasses import replace
from types import CodeType

from torch2mobile.validators.coverage.source.sightings import Observation, Place, Read

# Methods of lists, dicts and sets that change them.
_CHANGING = {
    *("add", "append", "appendleft", "clear", "discard", "extend", "insert", "pop", "popitem"),
    *("popleft", "remove", "setdefault", "update"),
}
# What a tensor is asked that does not depend on its values.
_FACTS = {
    *("shape", "size", "numel", "dim", "ndim", "dtype", "device", "stride", "layout", "is_cuda"),
}
ASKED = {"__bool__", "equal", "allclose", "is_nonzero", "__contains__"}
LEAVES = {"numpy", "__array__", "__dlpack__"}
_NUMPY_RANDOM = ("np.random.", "numpy.random.")
_TRUTH = "the truth of what is in a tensor is asked for"


@functools.lru_cache(maxsize=64)
def tree_of(file: str) -> ast.Module:
    """A file's tree; an empty one where it has no source."""
    try:
        return ast.parse("".join(linecache.getlines(file)))
    except SyntaxError:
        return ast.Module([], [])


def function_of(code: CodeType) -> ast.AST | None:
    """The tree of a function that ran; None for what is no function in a file."""
    return _functions(code.co_filename).get((code.co_firstlineno, code.co_name))


@functools.lru_cache(maxsize=64)
def _functions(file: str) -> dict[tuple[int, str], ast.AST]:
    found: dict[tuple[int, str], ast.AST] = {}
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            found[first, node.name] = node
    return found


def note(seen: Observation) -> None:
    """Add what the syntax of the lines that ran says to what was observed."""
    for read in seen.reads:
        for rule, line, message in _of_read(read):
            seen.see(rule, replace(read.place, line=line), message)
    for code, place in seen.ran.items():
        function = function_of(code)
        for node in ast.walk(function) if function is not None else ():
            if isinstance(node, ast.Global):
                message = f"the global {', '.join(node.names)} is set"
                seen.see("T2M142", replace(place, line=node.lineno), message)
            elif isinstance(node, ast.Call) and ast.unparse(node.func).startswith(_NUMPY_RANDOM):
                # Compiled in a way that no profiler sees.
                message = "numpy.random is asked once, while exporting"
                seen.see("T2M143", replace(place, line=node.lineno), message)
            elif isinstance(node, ast.Try) and node.handlers and _touches(seen, code, node):
                seen.see("T2M144", replace(place, line=node.lineno))


def _touches(seen: Observation, code: CodeType, node: ast.Try) -> bool:
    """Whether anything in the body of a ``try`` worked on tensors."""
    first, last = node.body[0].lineno, node.body[-1].end_lineno or 0
    return any((code.co_filename, line) in seen.touched for line in range(first, last + 1))


def _of_read(read: Read) -> Iterator[tuple[str, int, str]]:
    """What a value that was read decides, and where; or that it was read at all."""
    file, line = read.place.file, read.place.line
    near = [node for node in ast.walk(_around(file, line)) if _spans(node, line)]
    decided = list(_decisions(near, line))
    yield from decided
    called = {n.func.id for n in near if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    if read.name in LEAVES:
        yield "T2M105", line, "the data leaves torch for numpy"
    elif read.name not in ASKED:
        name = read.name.strip("_")
        shown = f"{name}()" if name in called else f".{read.name}()"
        yield "T2M104", line, f"{shown} makes Python values of a tensor's data"
    elif read.name == "__bool__" and "bool" in called:
        yield "T2M104", line, "bool() makes Python values of a tensor's data"
    elif read.name == "__bool__" and not decided:
        yield "T2M101", line, _TRUTH
    names = {name for node in near for name in _bound(node)}
    for node in ast.walk(_around(file, line)):
        if names and not _spans(node, line):
            yield from _decided_by(node, names)


def _decisions(near: Iterable[ast.AST], line: int) -> Iterator[tuple[str, int, str]]:
    """The statements among these whose condition stands on the line."""
    for node in near:
        for code, condition, message in _conditions(node):
            if _spans(condition, line):
                yield code, getattr(node, "lineno", line), message


def _decided_by(node: ast.AST, names: set[str]) -> Iterator[tuple[str, int, str]]:
    """A statement whose condition asks one of these variables."""
    for code, condition, message in _conditions(node):
        asked = {each.id for each in ast.walk(condition) if isinstance(each, ast.Name)}
        if names & asked:
            yield code, condition.lineno, message


def _conditions(node: ast.AST) -> Iterator[tuple[str, ast.expr, str]]:
    """What decides in a statement or expression, with the rule that it falls under."""
    if isinstance(node, ast.If):
        yield "T2M101", node.test, ""
    elif isinstance(node, ast.IfExp):
        yield "T2M101", node.test, "a conditional expression depends on tensor values"
    elif isinstance(node, ast.Match):
        yield "T2M101", node.subject, ""
    elif isinstance(node, ast.ListComp | ast.GeneratorExp | ast.SetComp | ast.DictComp):
        for generator in node.generators:
            yield from (("T2M101", condition, "") for condition in generator.ifs)
    elif isinstance(node, ast.While):
        yield "T2M102", node.test, ""
    elif isinstance(node, ast.For):
        yield "T2M102", node.iter, "how often this loop runs depends on tensor values"
    elif isinstance(node, ast.Assert):
        yield "T2M103", node.test, ""


def loops_over_rows(file: str, line: int) -> bool:
    """Whether a loop or comprehension on this line iterates over a variable or attribute itself."""
    for node in ast.walk(_around(file, line)):
        found = [node.iter] if isinstance(node, ast.For | ast.comprehension) else []
        for each in found:
            if each.lineno == line and isinstance(each, ast.Name | ast.Attribute | ast.Subscript):
                return True
    return False


def _bound(node: ast.AST) -> Iterator[str]:
    """The variables that an assignment on the line binds."""
    targets = getattr(node, "targets", None) or [getattr(node, "target", None)]
    if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign | ast.NamedExpr):
        for target in targets:
            for each in ast.walk(target) if target is not None else ():
                if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store):
                    yield each.id


def _spans(node: ast.AST, line: int) -> bool:
    first = getattr(node, "lineno", None)
    return first is not None and first <= line <= (getattr(node, "end_lineno", None) or first)


@functools.lru_cache(maxsize=1024)
def _around(file: str, line: int) -> ast.AST:
    """The innermost function that a line stands in."""
    around = [node for node in _functions(file).values() if _spans(node, line)]
    return max(around, key=lambda node: getattr(node, "lineno", 0), default=ast.Module([], []))


def changes(seen: Observation, name: str) -> Iterator[Place]:
    """Where the functions that ran change a container that is held under a name."""
    for code, place in seen.ran.items():
        function = function_of(code)
        parts = list(ast.walk(function)) if function is not None else []
        names = {name} | {
            target.id
            for node in parts
            if isinstance(node, ast.Assign) and _named(node.value) == name
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in parts:
            if _changed(node) in names:
                yield replace(place, line=getattr(node, "lineno", 0))


def _changed(node: ast.AST) -> str:
    """The last name of what a call, an item's assignment or its deletion changes."""
    if isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load):
        return _named(node)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return _named(node.func.value) if node.func.attr in _CHANGING else ""
    return ""


def _named(node: ast.AST) -> str:
    """``sizes`` of ``self.sizes``, and of what is found in it."""
    while isinstance(node, ast.Subscript):
        node = node.value
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def attributes_read(ran: Iterable[CodeType]) -> set[str]:
    """The attributes that functions read, by name."""
    found = set()
    for function in filter(None, map(function_of, ran)):
        for node in ast.walk(function):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                found.add(node.attr)
            elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Attribute):
                found.add(node.target.attr)
    return found


def lines_reading(function: ast.AST, name: str) -> set[int]:
    """The lines that read a parameter for its values: not its shape, nor whether it is None."""
    facts: set[ast.AST] = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Attribute) and node.attr in _FACTS:
            facts.add(node.value)
        elif isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Is | ast.IsNot):
            facts.add(node.left)
    return {
        node.lineno
        for node in ast.walk(function)
        if isinstance(node, ast.Name) and node.id == name and node not in facts
    }
