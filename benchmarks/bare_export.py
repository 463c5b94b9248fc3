"""What one writes without torch2mobile: export, simplify, one comparison. The yardstick."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import onnxsim
import torch

LONGEST = {"L": 64}


def main(name: str, folder: Path) -> None:
    """Export one of the samples into ``folder``."""
    sample = importlib.import_module(f"torch2mobile.sample_models.{name}")
    model = sample.build()
    example = sample.example_inputs()
    args = tuple(example.values()) if isinstance(example, dict) else tuple(example)
    sizes = {
        "super_resolution": ({0: "N", 2: "H", 3: "W"},),
        "transformer": ({0: "N", 1: "L"}, {0: "N", 1: "L"}),
    }[name]
    made: dict[str, torch.export.Dim] = {}
    shapes = tuple(
        {
            axis: made.setdefault(symbol, torch.export.Dim(symbol, min=2, max=LONGEST.get(symbol)))
            for axis, symbol in dims.items()
        }
        for dims in sizes
    )
    program = torch.export.export(model, args, dynamic_shapes=shapes)
    exported = torch.onnx.export(program, args, dynamo=True, verbose=False)
    exported.save(folder / "bare.onnx")
    simplified, ok = onnxsim.simplify(onnx.load(folder / "bare.onnx"))
    assert ok
    onnx.save(simplified, folder / "bare.onnx")
    session = onnxruntime.InferenceSession(folder / "bare.onnx")
    names = [value.name for value in session.get_inputs()]
    feeds = dict(zip(names, (tensor.numpy() for tensor in args), strict=True))
    (got,) = session.run(None, feeds)
    with torch.no_grad():
        want = model(*args).numpy()
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
