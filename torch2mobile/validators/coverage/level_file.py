"""The file level of ``check``: what in an .onnx no reader can make out, before anything else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torch2mobile import onnx_schema
from torch2mobile.errors import ModelFileError
from torch2mobile.records import Location
from torch2mobile.validators.coverage import graph
from torch2mobile.validators.coverage.lint_context import Section
from torch2mobile.validators.coverage.rules import RULES

if TYPE_CHECKING:
    import onnx

_BROKEN = "the file cannot be read as a model"


def broken(model: onnx.ModelProto, folder: Path) -> Section:
    """What ONNX does not allow; if nothing, the model's small external tensors are taken into it.

    They are the axes, pads and sizes that the other levels ask for.
    """
    found = tuple(
        RULES["T2M310"].found(Location(node=each.node, op=each.op), each.text, target="ort")
        for each in onnx_schema.problems(model, folder)
    )
    if not found:
        onnx_schema.load_small(model, folder, graph.SMALL)
    return Section("file", found, failure=_BROKEN, target="ort")


def refused(error: ModelFileError) -> Section:
    """What came to light only as the model was looked at."""
    found = RULES["T2M310"].found(Location(), error.message, remedy=error.remedy, target="ort")
    return Section("file", (found,), failure=_BROKEN, target="ort")
