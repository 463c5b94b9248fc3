"""onnxsim, in a process of its own: this module's worker side knows no torch.

Whether its result may be used is not decided here: the pipeline compares both models on the
probes, and keeps the unsimplified one where anything changed.
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any


def run_onnxsim(source: str, target: str, external_data: bool) -> dict[str, Any]:
    """Simplify ``source`` into ``target`` (runs in a worker); returns the numbers of nodes.

    Raises WorkerCallError through the worker for whatever onnxsim raises, and for ``ok=False``.
    """
    import onnx
    import onnxsim

    before = onnx.load(source)
    external_data = external_data or before.ByteSize() > 2**31 - 2**24
    with contextlib.redirect_stdout(io.StringIO()):
        after, ok = onnxsim.simplify(before)
    if not ok:
        raise ValueError("onnxsim's own check says that it changed the model's results")
    name = Path(target).name + ".data"
    onnx.save(
        after,
        target,
        save_as_external_data=external_data,
        location=name if external_data else None,
    )
    return {"before": len(before.graph.node), "after": len(after.graph.node)}
