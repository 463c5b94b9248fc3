"""Two versions of torch2mobile side by side: ``python benchmarks/versions.py OTHER [--runs N]``.

OTHER is the Python of an environment that the other version is installed in, with the same other
packages: torch imports some of those it finds. Each command of the
main line runs in turns by this version and by that one, on the same sample and the same file.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import onnx
from measure import compare

TOOL = Path(sys.executable).with_name("torch2mobile")
SAMPLES = ("super_resolution", "mobile_cnn", "transformer")
COMMANDS = {
    "export": "export sample:{0} --out {1}/{0} -q",
    "verify": "verify {0} -q",
    "verify --against": "verify {0} --against sample:{0} -q",
    "verify --mutants 50": "verify {0} --against sample:{0} --mutants 50 -q",
    "check": "check sample:{0} -q",
    "debug, a fault": "debug {0}.faulty.onnx --against sample:{0} -q",
}


def ruin(good: Path, faulty: Path) -> None:
    """Write a file with one weight of another value."""
    model = onnx.load(good)
    weight = max(model.graph.initializer, key=lambda tensor: len(tensor.dims))
    values = onnx.numpy_helper.to_array(weight).copy()
    values.flat[0] += 0.5
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(model, faulty)


def command(tool: Path, words: str, code: int) -> list[str]:
    """A command that counts as done if it exits as it should: with 1 where a fault is found."""
    return ["sh", "-c", f"{shlex.quote(str(tool))} {words}; test $? -eq {code}"]


def main() -> None:
    """Measure every command on every sample, and print the ratios of this version to the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("other", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", choices=COMMANDS, action="append")
    parser.add_argument("--sample", choices=SAMPLES, action="append")
    given = parser.parse_args()
    other = given.other.absolute().with_name("torch2mobile")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        samples = given.sample or SAMPLES
        for sample in samples:
            # The other version's files, which this one reads, but not the other way round.
            subprocess.run(
                [other, "export", f"sample:{sample}", "--out", sample, "-q"], cwd=folder, check=True
            )
            ruin(folder / sample / "model.onnx", folder / f"{sample}.faulty.onnx")
        for kind in given.only or COMMANDS:
            for sample in samples:
                code = int(kind.startswith("debug"))
                ours, theirs = (
                    command(tool, COMMANDS[kind].format(sample, out), code)
                    for tool, out in ((TOOL, "ours"), (other, "theirs"))
                )
                compare(
                    f"{kind} of {sample}",
                    ours,
                    theirs,
                    folder,
                    runs=given.runs,
                    limit="1.05x",
                )


if __name__ == "__main__":
    main()
