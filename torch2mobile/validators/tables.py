"""The tables that a file gathers rows of, row by row: probes visit few of thirty thousand."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from torch2mobile.errors import some_of
from torch2mobile.onnx_files import mapped, outline, read_whole
from torch2mobile.onnx_graph import Graph, attribute
from torch2mobile.records import Check, Status

if TYPE_CHECKING:
    import torch

# A table of which fewer rows are the module's is another one, such as one that was rounded.
_ALIKE = 0.5
_SHOWN = 8
# A node's field op_type as a file has it: where no node is one, onnx need not be loaded.
_GATHER = re.compile(rb'"\x06Gather')


def tables_check(path: Path, module: torch.nn.Module) -> Check | None:
    """FAILED where some rows of an .onnx file's table are not those of the module's parameter.

    A table is a constant from which Gather takes rows, and that has the parameter's name: what is
    computed of a parameter, as where it was pruned, has another. None where the file has none of
    the module's; raises ModelFileError for what is no sound .onnx file.
    """
    tables = _gathered(path)
    state = dict(_state(module)) if tables else {}
    count = rows = 0
    wrong: list[str] = []
    for name, table in tables.items():
        own = _of_name(state, name)
        if own is None or own[1].shape != table.shape or own[1].dtype != table.dtype:
            continue
        same = _same_rows(own[1], table)
        if same.mean() < _ALIKE:
            continue
        count, rows = count + 1, rows + len(table)
        if not same.all():
            wrong.append(_said(own[0], np.flatnonzero(~same)))
    if not count:
        return None
    if not wrong:
        what = "table" if count == 1 else f"{count} tables"
        return Check("tables", Status.PASSED, f"{what} of {rows:,} rows, each the module's", "onnx")
    return Check(
        "tables",
        Status.FAILED,
        f"rows are not the module's: {wrong[0]}",
        "onnx",
        hint="The file was changed, or made from other weights: export it again.",
        notes=tuple(wrong[1:]),
    )


def _state(module: torch.nn.Module) -> Iterator[tuple[str, np.ndarray]]:
    from torch2mobile.tensors import to_numpy

    for name, tensor in itertools.chain(module.named_parameters(), module.named_buffers()):
        if tensor.dim() > 1:
            yield name, to_numpy(tensor)


def _gathered(path: Path) -> dict[str, np.ndarray]:
    with mapped(path) as data:
        if not _GATHER.search(data):
            return {}
    names = [
        node.input[0]
        for _, node in Graph(outline(path)).nodes
        if node.op_type == "Gather" and not node.domain and attribute(node, "axis", 0) == 0
    ]
    if not names:
        return {}
    graph = Graph(read_whole(path))
    found = {name: graph.constant(name) for name in names if graph.is_constant(name)}
    return {n: a for n, a in found.items() if a is not None and a.ndim > 1 and len(a) > 1}


def _of_name(state: Mapping[str, np.ndarray], name: str) -> tuple[str, np.ndarray] | None:
    """The parameter of a constant's name, with or without the places that are put before it."""
    if name in state:
        return name, state[name]
    for own, array in state.items():
        if f".{own}".endswith(f".{name}") or f".{name}".endswith(f".{own}"):
            return own, array
    return None


def _same_rows(own: np.ndarray, table: np.ndarray) -> np.ndarray:
    same = (own == table) | ((own != own) & (table != table))  # noqa: PLR0124 (NaN)
    rows: np.ndarray = same.reshape(len(table), -1).all(axis=1)
    return rows


def _said(name: str, rows: np.ndarray) -> str:
    return f"{some_of(rows.tolist(), _SHOWN)} of {name}"
