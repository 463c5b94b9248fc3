"""Finds what the user named: a Module, a Module class or a factory, in a file or a package."""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from torch2mobile import user_code
from torch2mobile.errors import SourceError, Torch2MobileError, did_you_mean, near_path, some_of
from torch2mobile.exporter.loading.hubs import HUBS, Published, published
from torch2mobile.records import Sample

FORMS = (
    "Give package.module:attr, path/to/file.py:attr, sample:NAME, timm:NAME, hf:NAME or model.pt2; "
    "'torch2mobile samples' lists the samples."
)


@contextlib.contextmanager
def importable(source: str) -> Iterator[None]:
    """Let the source import its neighbours: from a file's own folder, or the working directory."""
    head = source.rpartition(":")[0]
    folder = Path(head).resolve().parent if head.endswith(".py") else Path.cwd()
    before = list(sys.path)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path[:] = before


def _guarded_import(what: str, load: Any) -> ModuleType:
    """Import the user's code; whatever it raises becomes a SourceError at the user's line."""
    try:
        module: ModuleType = load()
    except Torch2MobileError:
        raise
    except (Exception, SystemExit) as error:
        where = user_code.from_exception(error)
        place = f" at {where.file}:{where.line}: {where.code}" if where else ""
        raise SourceError(
            f"importing {what} raised {type(error).__name__}: {error}{place}",
            "Make sure that it can be imported by Python on its own.",
            (where,) if where else (),
        ) from error
    return module


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise SourceError(f"there is no file {path}", near_path(path, FORMS))
    name = f"torch2mobile_source_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise SourceError(f"{path} is not a Python file", FORMS)
    module = importlib.util.module_from_spec(spec)
    loader = spec.loader

    def load() -> ModuleType:
        before = sys.modules.get(name)
        sys.modules[name] = module
        try:
            loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            if before is not None:
                sys.modules[name] = before
            raise
        return module

    return _guarded_import(str(path), load)


def _names_a_file(path: Path) -> SourceError:
    """What to say of a file without an attribute: what it holds, read and not run."""
    if not path.is_file():
        return SourceError(f"there is no file {path}", near_path(path, FORMS))
    try:
        body = ast.parse(path.read_bytes()).body
    except (OSError, SyntaxError, ValueError):
        body = []
    held = [name for node in body for name in _model_names(node) if not name.startswith("_")]
    if not held:
        return SourceError(f"'{path}' names no model", FORMS)
    return SourceError(
        f"'{path}' names no model: it holds {some_of(held, 8)}",
        f"Name one of them, for example {path}:{held[0]}.",
    )


def _model_names(node: ast.stmt) -> list[str]:
    """The names that a statement gives to what may be a model, or make one without arguments."""
    if isinstance(node, ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.FunctionDef):
        free = [*node.args.posonlyargs, *node.args.args]
        needed = len(free) > len(node.args.defaults) or None in node.args.kw_defaults
        return [] if needed else [node.name]
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    return []


def _import_module(name: str) -> ModuleType:
    absent = SourceError(f"there is no module {name!r}", FORMS)
    if not all(part.isidentifier() for part in name.split(".")):
        raise absent

    def load() -> ModuleType:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            # The module itself or a package above it; anything else is an import inside of it.
            if error.name and f"{name}.".startswith(f"{error.name}."):
                raise absent from None
            raise

    return _guarded_import(name, load)


def _attribute(namespace: ModuleType, attr: str, source: str) -> Any:
    """The (dotted) attribute of a module; SourceError that names the near ones."""
    value: Any = namespace
    for part in attr.split("."):
        try:
            value = getattr(value, part)
        except Exception as error:
            names = [n for n in dir(value) if not n.startswith("_")]
            raise SourceError(
                f"{source}: no attribute {part!r}", did_you_mean(part, names)
            ) from error
    return value


def _as_module(value: Any, source: str) -> torch.nn.Module:
    """A Module as it is, a Module class or other callable called without arguments."""
    if isinstance(value, torch.nn.Module):
        return value
    if not callable(value):
        raise SourceError(
            f"{source} is no torch.nn.Module, but of type {type(value).__name__}",
            "Name a Module, a Module class, or a function that returns one.",
        )
    try:
        made = value()
    except (Exception, SystemExit) as error:
        where = user_code.from_exception(error)
        raise SourceError(
            f"calling {source} without arguments raised {type(error).__name__}: {error}",
            "Write a function without parameters that builds the model, and name that.",
            (where,) if where else (),
        ) from error
    if not isinstance(made, torch.nn.Module):
        raise SourceError(
            f"{source}() returned no torch.nn.Module, but something of type {type(made).__name__}",
            "Return the Module from it.",
        )
    return made


@dataclass(frozen=True)
class Named:
    """What a source names: its short name, the Module, and what it is an attribute of."""

    name: str
    module: torch.nn.Module
    namespace: ModuleType | Published
    attr: str
    notes: tuple[str, ...] = ()


def locate(source: str, samples: Mapping[str, Sample], *, download: bool = False) -> Named:
    """What a source names; ``download`` lets a model of a library be fetched."""
    hub, colon, model = source.partition(":")
    if colon and hub in HUBS:
        found = published(hub, model, download=download)
        short = re.sub(r"[^A-Za-z0-9_.-]", "_", Path(model).name)
        return Named(short, found.module, found, "", found.notes)
    name, namespace, attr = _found(source, samples)
    value = _attribute(namespace, attr, source)
    if not name:
        head = source.rpartition(":")[0]
        own = inspect.isclass(value) or attr not in {"build", "model"}
        stem = Path(head).stem if head.endswith(".py") else head.rpartition(".")[2]
        name = attr.rpartition(".")[2] if own else stem
    return Named(name, _as_module(value, source), namespace, attr)


def _found(source: str, samples: Mapping[str, Sample]) -> tuple[str, ModuleType, str]:
    """A sample's name, the imported Python module and the attribute that a source names."""
    if source.startswith("sample:"):
        name = source.removeprefix("sample:")
        if name not in samples:
            raise SourceError(f"there is no sample {name!r}", did_you_mean(name, list(samples)))
        sample = samples[name]
        return name, importlib.import_module(sample.module), sample.attr
    head, colon, attr = source.rpartition(":")
    if source.rstrip(":").endswith(".py"):
        raise _names_a_file(Path(source.rstrip(":")))
    if not colon or not head or not attr:
        raise SourceError(f"{source!r} names no model", FORMS)
    namespace = _import_file(Path(head)) if head.endswith(".py") else _import_module(head)
    return "", namespace, attr
