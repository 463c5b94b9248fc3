"""The speed of the main line: ``python benchmarks/core.py [--runs N]``, with the tool installed.

Prints, for each promise, the median ratio of two commands run in turns on this machine.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import real_size_models
from measure import compare

HERE = Path(__file__).resolve().parent
PYTHON = sys.executable
TOOL = str(Path(PYTHON).with_name("torch2mobile"))

# Loads the bundle's two models and runs the golden cases, and nothing else.
OWN_RUN_TIME = """
import pathlib, sys
import numpy, onnxruntime
for model in ("model.onnx", "model.ort"):
    session = onnxruntime.InferenceSession(str(pathlib.Path(sys.argv[1], model)))
    for file in sorted(pathlib.Path(sys.argv[1], "golden").iterdir()):
        with numpy.load(file) as case:
            names = [name for name in case.files if name.startswith("inputs/")]
            feeds = {name.removeprefix("inputs/"): case[name] for name in names}
        session.run(None, feeds)
"""


def real_size(runs: int) -> None:
    """Models as users have them; those by torchvision need it beside torch2mobile."""
    with tempfile.TemporaryDirectory() as name:
        for model, inputs in real_size_models.INPUTS.items():
            values = real_size_models.VALUES.get(model, ())
            given = [word for text in inputs for word in ("--input", text)]
            given += [word for text in values for word in ("--values", text)]
            source = f"{HERE / 'real_size_models.py'}:{model}"
            compare(
                f"export {model} / bare script",
                [TOOL, "export", source, *given, "-q"],
                [PYTHON, str(HERE / "bare_export.py"), model, name],
                Path(name),
                runs=runs,
                limit="wall 1.3x, cpu 1.6x, memory 1.2x",
            )


def main() -> None:
    """Measure everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--real-size", action="store_true", help="ResNet-50 and the like alone")
    given = parser.parse_args()
    runs = given.runs
    if given.real_size:
        real_size(runs)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for sample in ("super_resolution", "transformer"):
            compare(
                f"export sample:{sample} / bare script",
                [TOOL, "export", f"sample:{sample}", "-q"],
                [PYTHON, str(HERE / "bare_export.py"), sample, name],
                folder,
                runs=runs,
                limit="wall 1.15x, memory 1.2x",
            )
        compare(
            "--help / import click",
            [TOOL, "--help"],
            [PYTHON, "-c", "import click"],
            folder,
            runs=3 * runs,
            limit="wall 3x",
        )
        for sample in ("super_resolution", "transformer"):
            compare(
                f"verify dist/{sample} / import onnxruntime, numpy and the models' own run time",
                [TOOL, "verify", f"dist/{sample}", "-q"],
                [PYTHON, "-c", OWN_RUN_TIME, f"dist/{sample}"],
                folder,
                runs=3 * runs,
                limit="wall below 2x import plus own run time",
            )
        compare(
            "import onnxruntime, numpy / import onnxruntime, numpy and the models' own run time",
            [PYTHON, "-c", "import onnxruntime, numpy"],
            [PYTHON, "-c", OWN_RUN_TIME, "dist/super_resolution"],
            folder,
            runs=3 * runs,
            limit="the share of the imports in the line above",
        )


if __name__ == "__main__":
    main()
