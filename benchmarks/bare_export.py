"""What one writes without torch2mobile: export, simplify, one comparison. The yardstick."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import onnxsim
import torch

SAMPLES = {
    "super_resolution": ({0: "N", 2: "H", 3: "W"},),
    "transformer": ({0: "N", 1: "L"}, {0: "N", 1: "L"}),
}
DIMS = {"N": torch.export.Dim("N", max=8), "L": torch.export.Dim("L", max=64)}
DIMS |= {name: torch.export.Dim(name, min=2) for name in ("H", "W")}


def built(name: str) -> tuple[torch.nn.Module, tuple[torch.Tensor, ...], Any]:
    """A sample or a model of real size, its example, and the names of its sizes."""
    if name in SAMPLES:
        sample = importlib.import_module(f"torch2mobile.sample_models.{name}")
        example = sample.example_inputs()
        args = tuple(example.values()) if isinstance(example, dict) else tuple(example)
        return sample.build(), args, SAMPLES[name]
    import real_size_models

    torch.manual_seed(0)
    model = getattr(real_size_models, name)().eval()
    dims = {0: "N", 1: "L"} if name == "transformer_12" else {0: "N"}
    return model, (real_size_models.example(name),), (dims,)


def main(name: str, folder: Path) -> None:
    """Export one of the models into ``folder``."""
    model, args, sizes = built(name)
    shapes = tuple({axis: DIMS[symbol] for axis, symbol in dims.items()} for dims in sizes)
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
