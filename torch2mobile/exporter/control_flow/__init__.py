"""Branches and loops on values, and loops as long as a size says, as torch's operators of these.

The user's functions run in another form while the module is captured, and only then: what judges
the file is the module as it is.
"""

from __future__ import annotations

import ast
import contextlib
import gc
import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FunctionType

from torch2mobile import user_code
from torch2mobile.exporter.control_flow.function_tree import NotRewritten
from torch2mobile.exporter.control_flow.statements import rewritten, statement_at
from torch2mobile.records import Location

CODES: Mapping[str, tuple[str, str]] = {
    "T2M101": ("branch-to-if", "run a branch on values as torch.cond, an If in the file"),
    "T2M102": ("loop-to-loop", "run a loop on values as torch's while_loop, a Loop in the file"),
    "T2M152": (
        "loop-to-scan",
        "run a loop over a varying size as torch's scan, a Scan in the file",
    ),
}
"""By the code of the rule whose remedy it is, its name and what it does."""


@dataclass
class ControlFlow:
    """Functions of the user's with some statements as operators; see :func:`rewrite`.

    ``places`` are the statements, each with the code of the rule that it was found by. ``error`` is
    what stopped the capture all the same, ``refused`` why a statement there stays as it is.
    """

    places: dict[Location, str] = field(default_factory=dict)
    refused: str = ""
    error: Exception | None = None
    _codes: dict[FunctionType, tuple[list[int], CodeType]] = field(default_factory=dict)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The functions run in the other form for a while."""
        before = [(function, function.__code__) for function in self._codes]
        try:
            for function, (_, code) in self._codes.items():
                function.__code__ = code
            yield
        finally:
            for function, own in before:
                function.__code__ = own

    def extend(self, places: Sequence[tuple[str, int]], codes: Collection[str]) -> bool:
        """Whether the statement at one of these lines is an operator now, and was none before."""
        known, self.refused = set(self.places), ""
        for file, line in places:
            functions = _functions_at(file, line)
            # All that have this code, or each of them would be met, and rewritten, by itself.
            for _, same in itertools.groupby(functions, lambda each: each.__code__.co_firstlineno):
                added = [self._add(function, line, codes, known) for function in same]
                if any(added):
                    return True
        return False

    def _add(
        self,
        function: FunctionType,
        line: int,
        codes: Collection[str],
        known: Collection[Location],
    ) -> bool:
        own = user_code.function(function)
        # A function that an earlier run made of a block has its lines, and not its name.
        if own is None or own.tree.name != function.__code__.co_name:
            return False
        found = statement_at(own.tree, line)
        if found is None or _code(found) not in codes:
            return False
        lines = self._codes[function][0] if function in self._codes else []
        if found.lineno in lines:
            return False
        place = user_code.location(own.file, found.lineno)
        if place in known:
            self.refused = (
                self.refused
                or "its function is made anew by each call. Define it outside of forward."
            )
            return False
        try:
            tree = rewritten(own.tree, [*lines, found.lineno], place.file)
            code = _compiled(tree, function, own.file)
        except NotRewritten as error:
            self.refused = self.refused or str(error)
            return False
        self._codes[function] = [*lines, found.lineno], code
        self.places[place] = _code(found)
        return True


def rewrite(
    attempt: Callable[[], Exception | None],
    lines: Callable[[Exception], Sequence[tuple[str, int]]],
    codes: Collection[str],
) -> ControlFlow:
    """Rewrite the statement at which ``attempt`` stops, until it stops no more or at no other.

    ``lines`` are those of the user's that an error names, the most likely first.
    """
    flow = ControlFlow()
    while True:
        with flow.applied():
            flow.error = attempt()
        if flow.error is None or not flow.extend(lines(flow.error), codes):
            return flow


def _code(found: ast.stmt) -> str:
    if isinstance(found, ast.For):
        return "T2M152"
    return "T2M102" if isinstance(found, ast.While) else "T2M101"


def _functions_at(file: str, line: int) -> list[FunctionType]:
    """The functions that have this line, the innermost first."""
    path = Path(file).absolute()
    found = []
    for each in gc.get_objects():
        code = each.__code__ if type(each) is FunctionType else None
        if code is None or not code.co_filename.endswith(path.name):
            continue
        last = max((number for _, _, number in code.co_lines() if number), default=0)
        if Path(code.co_filename).absolute() == path and code.co_firstlineno <= line <= last:
            found.append(each)
    return sorted(found, key=lambda each: -each.__code__.co_firstlineno)


def _compiled(tree: ast.FunctionDef, function: FunctionType, file: str) -> CodeType:
    """The code of a function's new form, with the variables around it as they were."""
    around = function.__code__.co_freevars
    if around:
        arguments = [ast.arg(name) for name in around]
        parts = ast.arguments(
            posonlyargs=[], args=arguments, kwonlyargs=[], kw_defaults=[], defaults=[]
        )
        outer = ast.FunctionDef(name="_around", args=parts, body=[tree], decorator_list=[])
        tree = ast.fix_missing_locations(ast.copy_location(outer, tree))
    module = compile(ast.Module([tree], []), file, "exec", dont_inherit=True)
    code = _code_named(module, function.__code__.co_name)
    if code is None or code.co_freevars != around:
        raise NotRewritten(
            "it uses variables of the function around it", "Define it outside of that function."
        )
    return code


def _code_named(code: CodeType, name: str) -> CodeType | None:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found = constant if constant.co_name == name else _code_named(constant, name)
            if found is not None:
                return found
    return None
