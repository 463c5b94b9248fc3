"""The speed of the linter: ``python benchmarks/check.py [--runs N]``, with the tool installed.

Prints the median ratio of two commands run in turns, and the seconds that a file of 1,000 nodes
takes beyond ``import onnx``.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from measure import compare, run
from onnx import TensorProto, helper, numpy_helper

PYTHON = sys.executable
TOOL = str(Path(PYTHON).with_name("torch2mobile"))
NODES = 1000

# What check does in a process that holds no torch, and whether it still holds none afterwards.
WITHOUT_TORCH = """
import sys
from torch2mobile.cli import run
sys.argv[1:] = ["check", "model.onnx", "--provider", "nnapi", "--provider", "coreml", "-q"]
code = run()
assert "torch" not in sys.modules
sys.exit(code)
"""

# One torch.export.export of the sample, as the capture calls it, with loading both.
ONE_EXPORT = """
import sys
from torch2mobile.exporter.loading import source
from torch2mobile.exporter.capture import STRATEGIES
from torch2mobile.records import Request
from torch2mobile.sample_models import SAMPLES
loaded = source.load(Request(source=f"sample:{sys.argv[1]}"), SAMPLES)
dict(STRATEGIES)["non-strict"](loaded)
"""


def thousand_nodes(path: Path) -> None:
    """Blocks of a convolution, an activation of two nodes and an addition, with a varying batch."""
    nodes, weights, last = [], [], "x"
    for block in range(NODES // 4):
        weight = np.zeros((8, 8, 3, 3), np.float32)
        weights.append(numpy_helper.from_array(weight, f"w{block}"))
        names = [f"{name}{block}" for name in ("conv", "gate", "act", "sum")]
        conv, gate, act, result = names
        nodes += [
            helper.make_node("Conv", [last, f"w{block}"], [conv], conv, pads=[1, 1, 1, 1]),
            helper.make_node("HardSigmoid", [conv], [gate], gate),
            helper.make_node("Mul", [conv, gate], [act], act),
            helper.make_node("Add", [act, last], [result], result),
        ]
        last = result
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "thousand",
        [value("x", TensorProto.FLOAT, ["N", 8, 16, 16])],
        [value(last, TensorProto.FLOAT, ["N", 8, 16, 16])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, path)


def main() -> None:
    """Measure everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        thousand_nodes(folder / "model.onnx")
        beyond = []
        for _ in range(runs):
            whole = run([PYTHON, "-c", WITHOUT_TORCH], folder, memory=False).seconds
            alone = run([PYTHON, "-c", "import onnx"], folder, memory=False).seconds
            beyond.append(whole - alone)
        middle = statistics.median(beyond)
        print(
            f"check of {NODES} nodes, two accelerators, no torch: {middle:.2f} s "
            f"beyond import onnx ({min(beyond):.2f} to {max(beyond):.2f}; limit 2 s)"
        )
        for sample in ("super_resolution", "mobile_cnn", "transformer"):
            compare(
                f"check sample:{sample} / one torch.export.export",
                [TOOL, "check", f"sample:{sample}", "-q"],
                [PYTHON, "-c", ONE_EXPORT, sample],
                folder,
                runs=runs,
                limit="wall 1.1x",
            )


if __name__ == "__main__":
    main()
