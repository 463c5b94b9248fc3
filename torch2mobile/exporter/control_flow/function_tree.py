"""Parts of a function's tree: what is in them, and new ones."""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator, Sequence

ALIAS = "__torch2mobile"
"""What rewritten code calls torch2mobile's functions by."""
Block = list[ast.stmt]
Statement = ast.If | ast.While | ast.For
NEVER = (ast.Yield, ast.YieldFrom, ast.Await, ast.Delete, ast.Global, ast.Nonlocal)
"""What no statement in another form may hold."""
ONE_RETURN = (
    "Assign the result to one variable in both sides, and return it at the end of the function."
)
_OUTSIDE = "Do that before or after it."
_INSTEAD: dict[type[ast.AST], str] = {
    ast.Return: ONE_RETURN,
    ast.Raise: "Leave the raise out of the export: if not torch.compiler.is_exporting().",
}
_WITHOUT_JUMP = "Run every round, and keep what is done: x = torch.where(done, x, new)."


class NotRewritten(Exception):  # noqa: N818 (it is a refusal, for a reason)
    """A statement that cannot be said in another form: the reason, and what to write instead."""

    def __init__(self, reason: str, instead: str) -> None:
        super().__init__(f"{reason}. {instead}")


class Names:
    """The variables of a function, as a statement in it sees them."""

    def __init__(self, scope: ast.FunctionDef, found: ast.stmt, loops: Sequence[ast.stmt]) -> None:
        arguments = scope.args
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        every += [each for each in (arguments.vararg, arguments.kwarg) if each is not None]
        self.bound = {argument.arg for argument in every}
        end = found.end_lineno or found.lineno
        self.read: set[str] = set()
        inside = {id(node) for node in ast.walk(found)}
        around = {id(node) for loop in loops for node in ast.walk(loop)}
        for node in ast.walk(scope):
            looped, own = id(node) in around, id(node) in inside
            if isinstance(node, ast.stmt) and not own and node.lineno < found.lineno:
                whole = found not in ast.walk(node)
                self.bound |= stored(node) if whole else _head(node)
            loaded = isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
            if (
                loaded
                and isinstance(node, ast.Name)
                and (looped or (not own and node.lineno > end))
            ):
                self.read.add(node.id)


def assigned(block: Sequence[ast.stmt]) -> set[str]:
    """The variables that statements assign, or write into by ``x[...] = y``."""
    return set().union(*(stored(each) for each in block)) if block else set()


def stored(tree: ast.stmt) -> set[str]:
    """The variables that a statement assigns, or writes into."""
    found = set()
    for node in own_nodes(tree):
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
            base: ast.expr = node
            while isinstance(base, ast.Subscript):
                base = base.value
            found |= {base.id} if isinstance(base, ast.Name) else set()
        elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
    return {name for name in found if not name.startswith(("_then_", "_else_", "_test_", "_body_"))}


def own_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes below one, but for those of functions and comprehensions in it."""
    yield tree
    if isinstance(tree, ast.FunctionDef | ast.Lambda | ast.ListComp | ast.GeneratorExp):
        return
    for child in ast.iter_child_nodes(tree):
        yield from own_nodes(child)


def has(tree: ast.stmt, kinds: type[ast.AST] | tuple[type[ast.AST], ...]) -> bool:
    """Whether a node of these kinds stands in a statement, functions in it left out."""
    return any(isinstance(node, kinds) for node in own_nodes(tree))


def jumps(block: Sequence[ast.stmt]) -> list[ast.stmt]:
    """What leaves a round of the loop around a block."""
    found: list[ast.stmt] = []
    for each in block:
        if isinstance(each, ast.Break | ast.Continue):
            found.append(each)
        elif not isinstance(each, ast.For | ast.While | ast.FunctionDef):
            for part in ("body", "orelse", "finalbody"):
                found += jumps(getattr(each, part, []))
    return found


def ends(last: ast.stmt) -> bool:
    """Whether a block that ends so always returns."""
    if isinstance(last, ast.Return):
        return last.value is not None
    both = isinstance(last, ast.If) and last.body and last.orelse
    return bool(both) and isinstance(last, ast.If) and ends(last.body[-1]) and ends(last.orelse[-1])


def _head(found: ast.stmt) -> set[str]:
    """What a statement assigns before those in it run."""
    heads = [getattr(found, "target", None), *getattr(found, "items", ())]
    nodes = [node for head in heads if head is not None for node in ast.walk(head)]
    return {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


def refuse(found: Statement, kinds: tuple[type[ast.AST], ...]) -> None:
    """NotRewritten where one of these kinds stands in a statement, or where something leaves it."""
    for node in own_nodes(found):
        if isinstance(node, kinds):
            word = type(node).__name__.lower()
            raise NotRewritten(f"a {word} stands in it", _INSTEAD.get(type(node), _OUTSIDE))
    left = jumps(found.body) + jumps(found.orelse)
    if left:
        raise NotRewritten(f"a {type(left[0]).__name__.lower()} leaves it", _WITHOUT_JUMP)


class Replacing(ast.NodeTransformer):
    """Replaces nodes by what ``change`` makes of them."""

    def __init__(self, change: Callable[[ast.AST], ast.AST | None]) -> None:
        self.change = change

    def visit(self, node: ast.AST) -> ast.AST:
        """The node, or what stands for it."""
        self.generic_visit(node)
        return self.change(node) or node


# --- new ones --------------------------------------------------------------------------------


def operator(name: str) -> ast.expr:
    """A function of torch2mobile's."""
    return ast.Attribute(ast.Name(ALIAS, ast.Load()), name, ast.Load())


def call(name: str, *arguments: ast.expr) -> ast.expr:
    """A call of one."""
    return ast.Call(operator(name), list(arguments), [])


def text(value: str) -> ast.expr:
    """A constant text."""
    return ast.Constant(value)


def lambda_of(body: ast.expr) -> ast.expr:
    """An expression that is evaluated later."""
    nothing = ast.arguments(posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[])
    return ast.Lambda(nothing, body)


def tuple_of(names: Sequence[str], *, store: bool = False) -> ast.expr:
    """Variables, to be read or assigned."""
    context = ast.Store() if store else ast.Load()
    return ast.Tuple([ast.Name(name, type(context)()) for name in names], context)


def give(names: Sequence[str]) -> ast.stmt:
    """What returns variables."""
    return ast.Return(tuple_of(names))


def assign(target: ast.expr, value: ast.expr, at: ast.stmt) -> ast.stmt:
    """An assignment, at the place of a statement."""
    return ast.copy_location(ast.Assign([target], value), at)


def name_of(function: ast.FunctionDef) -> ast.expr:
    """A function by its name."""
    return ast.Name(function.name, ast.Load())


def function(name: str, given: Sequence[str], body: Block, at: ast.stmt) -> ast.FunctionDef:
    """A function of variables, with a copy of these statements."""
    arguments = [ast.arg(each) for each in given]
    parts = ast.arguments(
        posonlyargs=[], args=arguments, kwonlyargs=[], kw_defaults=[], defaults=[]
    )
    made = ast.FunctionDef(name=name, args=parts, body=copy.deepcopy(body), decorator_list=[])
    return ast.copy_location(made, at)


def slice_of(part: ast.expr) -> ast.expr:
    """``a:b`` as a value."""
    if not isinstance(part, ast.Slice):
        return part
    ends = [end or ast.Constant(None) for end in (part.lower, part.upper, part.step)]
    return ast.Call(ast.Name("slice", ast.Load()), ends, [])
