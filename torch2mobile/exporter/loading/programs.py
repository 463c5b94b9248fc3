"""Saved programs (.pt2), loaded only where nothing in the file is run.

``torch.export.load`` runs what a file holds in more than one way: it falls back to an unrestricted
pickle, loads compiled libraries, evaluates sizes and guards as Python, looks operators up by
attribute anywhere in torch, and writes names into source code. Each of these is looked at first.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import math
import operator
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from torch2mobile import limits
from torch2mobile.errors import SourceError
from torch2mobile.tensors import quiet

# A call in a size: what torch's own printer writes, beside torch.utils._sympy.functions.
_SYMPY = frozenset(
    {
        *("Symbol", "Integer", "Rational", "Float", "Add", "Mul", "Pow", "Mod", "Max", "Min"),
        *("And", "Or", "Not", "Equality", "Unequality", "GreaterThan", "LessThan", "Piecewise"),
        *("StrictGreaterThan", "StrictLessThan", "Eq", "Ne", "Ge", "Le", "Gt", "Lt", "ITE"),
        *("Abs", "ExprCondPair", "floor", "ceiling"),
    }
)
_MEASURES = frozenset({"size", "stride", "storage_offset"})
_PLAIN = (
    *(ast.Expression, ast.Constant, ast.Name, ast.Load, ast.Call, ast.keyword, ast.Subscript),
    *(ast.Attribute, ast.Tuple, ast.BoolOp, ast.boolop, ast.BinOp, ast.operator, ast.UnaryOp),
    *(ast.unaryop, ast.Compare, ast.cmpop, ast.IfExp),
)
_OPERATOR = re.compile(r"torch\.ops\.([A-Za-z]\w*)\.([A-Za-z_]\w*)(?:\.(\w+))?")
_PYTHON_OPERATOR = re.compile(r"(_operator|math|torch)\.(\w+)")
_PYTHON_MODULES: dict[str, Any] = {"_operator": operator, "math": math, "torch": torch}
# Opens, and with some arguments writes, a file that the program names.
_REFUSED_OPERATORS = frozenset({"from_file"})
_REMEDY = (
    "Save it anew with torch.export.save and tensors only. If you know who wrote it, --trust "
    "(trust=True) loads it, and runs what is in it."
)


def load_program(path: Path, *, trust: bool = False) -> torch.export.ExportedProgram:
    """The ExportedProgram of a .pt2 file; without ``trust`` nothing in it is run.

    Raises SourceError for a file that is none, or that holds code.
    """
    try:
        with quiet():
            limits.refuse_inflating(path)
            if not trust:
                _refuse_code(path)
            return torch.export.load(path)
    except SourceError:
        raise
    except Exception as error:
        raise SourceError(
            f"{path} is no ExportedProgram for this torch: {type(error).__name__}: {error}",
            "Write it anew with torch.export.save, by the torch that is installed here.",
        ) from error


def _refuse_code(path: Path) -> None:
    with zipfile.ZipFile(path) as older:
        if "version" in older.namelist():
            raise _holds(path, "the form of torch 2.7 and older, which is not looked through")
    # The reader that torch itself will use: two readers may see two different archives.
    archive = torch._C.PyTorchFileReader(str(path))
    names = archive.get_all_records()
    for name in names:
        if name.startswith("data/aotinductor/"):
            raise _holds(path, f"compiled code ({name})")
    for name in _pickles(path, archive, names):
        try:
            torch.load(io.BytesIO(archive.get_record(name)), weights_only=True)
        except Exception as error:
            code = re.search(r"GLOBAL (\S+)", str(error))
            what = f"code ({code[1]})" if code else "what only an unrestricted pickle reads"
            raise _holds(path, f"{what} in {name}") from error
    for name in names:
        if name.startswith("models/"):
            for key, value in _entries(json.loads(archive.get_record(name).decode())):
                problem = _problem(key, value)
                if problem:
                    raise _holds(path, f"{problem} in {name}")


def _holds(path: Path, what: str) -> SourceError:
    return SourceError(f"{path} was not loaded, as it holds {what}", _REMEDY)


def _pickles(path: Path, archive: Any, names: list[str]) -> Iterator[str]:
    """The records that torch unpickles."""
    yield from (name for name in names if name.startswith("data/") and name.endswith(".pt"))
    for name in names:
        if not name.startswith("data/") or not name.endswith("_config.json"):
            continue
        for payload in json.loads(archive.get_record(name).decode())["config"].values():
            record = f"{name.rpartition('/')[0]}/{payload['path_name']}"
            if payload["path_name"].startswith(("custom_obj", "opaque_obj")):
                raise _holds(path, f"an object of a class of its own ({record})")
            if payload["use_pickle"]:
                yield record


def _entries(tree: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that is no container, with the key that it stands under."""
    if isinstance(tree, dict):
        for name, value in tree.items():
            yield from _entries(value, name)
    elif isinstance(tree, list):
        for value in tree:
            yield from _entries(value, key)
    else:
        yield key, tree


def _problem(key: str, value: Any) -> str:
    """What makes this entry more than data; empty where it is that."""
    if not isinstance(value, str):
        return ""
    shown = repr(value[:100])
    if key in {"target", "as_operator"} and not _is_operator(value):
        return f"{shown} for an operator"
    if key in {"expr_str", "guards_code"} and not _is_plain(value):
        return f"{shown} for a size"
    if key in {"name", "as_name", "as_names", "forward_arg_names"}:
        return "" if value.isidentifier() or not value else f"{shown} for a name"
    if key in {"in_spec", "out_spec"}:
        return _call_problem(value)
    return ""


def _is_operator(target: str) -> bool:
    """Whether a target names an operator, and nothing else that can be called."""
    from torch._export.serde import serialize

    python = _PYTHON_OPERATOR.fullmatch(target)
    if python:
        function = getattr(_PYTHON_MODULES[python[1]], python[2], None)
        return function in {*serialize._SYM_OPS, operator.getitem}
    found = _OPERATOR.fullmatch(target)
    if not found or found[2] in _REFUSED_OPERATORS:
        return False
    named: Any = torch.ops
    for part in filter(None, found.groups()):
        named = getattr(named, part, None)
    # One that is not there is refused by torch, which knows what to say of it.
    return named is None or isinstance(named, torch._ops.OperatorBase | torch._ops.OpOverloadPacket)


def _is_plain(text: str) -> bool:
    """Whether an expression only computes with sizes."""
    if re.search(r"[#\n\\]", text):
        return False
    try:
        nodes = list(ast.walk(ast.parse(text.strip(), mode="eval")))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    from torch.utils._sympy import functions as sizes

    functions = _SYMPY | set(sizes.__all__)
    return all(isinstance(node, _PLAIN) and _is_plain_node(node, functions) for node in nodes)


def _is_plain_node(node: ast.AST, functions: frozenset[str]) -> bool:
    if isinstance(node, ast.Name):
        return not node.id.startswith("_")
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value.isidentifier() or not node.value
    if isinstance(node, ast.Attribute):
        of_math = isinstance(node.value, ast.Name) and node.value.id == "math"
        return not node.attr.startswith("_") if of_math else node.attr in _MEASURES
    if isinstance(node, ast.Call):
        known = not isinstance(node.func, ast.Name) or node.func.id in functions
        return known and isinstance(node.func, ast.Name | ast.Attribute)
    return True


def _call_problem(text: str) -> str:
    """What in the form of inputs or outputs names a class to import, or is no parameter."""
    spec = json.loads(text)
    found = _imported(spec)
    if found:
        return f"an import of {found}"
    try:
        keywords = json.loads(spec[1]["children_spec"][1]["context"])
    except (KeyError, IndexError, TypeError):
        return ""
    strange = [name for name in keywords or () if not str(name).isidentifier()]
    return f"{strange[0]!r} for a parameter" if strange else ""


def _imported(tree: Any) -> str:
    """The module that reading a form of inputs would import; the forms nest as texts."""
    if isinstance(tree, str) and tree[:1] in {"[", "{"}:
        with contextlib.suppress(ValueError):
            return _imported(json.loads(tree))
    if isinstance(tree, dict):
        module = tree.get("default_factory_module", "builtins")
        if "__enum__" in tree or module not in {"builtins", "collections"}:
            return str(tree.get("fqn", module))
    inner = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    return next(filter(None, map(_imported, inner)), "")
