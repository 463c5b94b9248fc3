"""The tables that a file gathers rows of, row by row: probes visit few of thirty thousand."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from torch2mobile.onnx_files import read_whole
from torch2mobile.onnx_graph import Graph, attribute
from torch2mobile.records import Check, Status

if TYPE_CHECKING:
    import torch

# A table of which fewer rows are the module's is another one, such as one that was rounded.
_ALIKE = 0.5
_SHOWN = 8


def tables_check(path: Path, module: torch.nn.Module) -> Check | None:
    """FAILED where some rows of an .onnx file's table are not those of the module's parameter.

    A table is a constant from which Gather takes rows. None where the file has none of the
    module's; raises ModelFileError for what is no sound .onnx file.
    """
    tables = _gathered(path)
    state = list(_state(module)) if tables else []
    count = rows = 0
    wrong: list[str] = []
    for table in tables:
        name, same = _nearest(table, state)
        if same is None or same.mean() < _ALIKE:
            continue
        count, rows = count + 1, rows + len(table)
        if not same.all():
            wrong.append(_said(name, np.flatnonzero(~same)))
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


def _gathered(path: Path) -> list[np.ndarray]:
    graph = Graph(read_whole(path))
    names = {
        node.input[0]: None
        for _, node in graph.nodes
        if node.op_type == "Gather" and not node.domain and attribute(node, "axis", 0) == 0
    }
    found = (graph.constant(name) for name in names if graph.is_constant(name))
    return [array for array in found if array is not None and array.ndim > 1 and len(array) > 1]


def _nearest(
    table: np.ndarray, state: list[tuple[str, np.ndarray]]
) -> tuple[str, np.ndarray | None]:
    """The parameter that most rows of a table are those of, and by row whether it is."""
    best: tuple[str, np.ndarray | None] = ("", None)
    for name, own in state:
        if own.shape != table.shape or own.dtype != table.dtype:
            continue
        same = (own == table) | ((own != own) & (table != table))  # noqa: PLR0124 (NaN)
        rows = same.reshape(len(table), -1).all(axis=1)
        if best[1] is None or rows.sum() > best[1].sum():
            best = (name, rows)
    return best


def _said(name: str, rows: np.ndarray) -> str:
    some = ", ".join(map(str, rows[:_SHOWN].tolist()))
    more = f" and {len(rows) - _SHOWN:,} more" if len(rows) > _SHOWN else ""
    return f"{some}{more} of {name}"
