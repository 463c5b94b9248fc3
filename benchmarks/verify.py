"""What parity costs and how steady it is: ``python benchmarks/verify.py [--runs N] [SAMPLE ...]``.

Cost: the module on every probe, in float32 and as the truth, the artefact in its process and the
verdict, as a ratio to one plain run of the module and one of ONNX Runtime on the same probes, in
turns in one process. Spread: the same artefact on 1, 2 and 4 threads at each optimisation level,
and the module on 1 and 2 threads with oneDNN on and off, as a share of what the gate allows.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from torch2mobile.copies import fresh
from torch2mobile.exporter import capture, translate
from torch2mobile.exporter.loading import source
from torch2mobile.pipeline.candidates import onnx_runner
from torch2mobile.records import LoadedModel, ParityOptions, Request
from torch2mobile.sample_models import SAMPLES
from torch2mobile.tensors import to_torch
from torch2mobile.validators.parity import gate, probes, reference
from torch2mobile.validators.parity.answers import run_probes
from torch2mobile.validators.parity.evidence import closeness
from torch2mobile.validators.parity.expected import Expected, typical_of
from torch2mobile.validators.parity.exploring import offers, sides

ORDINARY = [name for name, sample in SAMPLES.items() if sample.ordinary]
HEAVY = {"mobile_cnn, 224 x 224": ("mobile_cnn", "image:float32[N=1..2,3,224,224]")}
LEVELS = ("ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL")
TOOL = str(Path(sys.executable).with_name("torch2mobile"))
IMPORTS = "import torch, onnxruntime"


class Model:
    """A sample, its artefact and its probes."""

    def __init__(self, name: str, spec: str | None, folder: Path) -> None:
        inputs = () if spec is None else (spec,)
        self.loaded: LoadedModel = source.load(
            Request(source=f"sample:{name}", inputs=inputs), SAMPLES
        )
        captured = capture.capture(self.loaded)
        self.path = folder / f"{name}{len(inputs)}.onnx"
        translate.translation(captured, self.path)
        self.outputs = captured.outputs
        self.specs, example = captured.inputs, reference.example_of(self.loaded)
        built = probes.build(captured.inputs, example, ParityOptions(), self.loaded.data)
        built += offers.offers(self.loaded, captured.inputs, example, ParityOptions())
        found = reference.answered(reference.evaluate(self.loaded, self.outputs, built))
        self.probes = [item.probe for item in found if not item.refusal]

    def session(self, threads: int = 0, level: str = LEVELS[-1]) -> Any:
        """The artefact in ONNX Runtime, in this process."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
        return onnxruntime.InferenceSession(self.path, options)

    def answers(self, session: Any) -> list[Any]:
        """The artefact's outputs on every probe."""
        return [
            list(zip(self.outputs, session.run(None, dict(probe.feeds)), strict=True))
            for probe in self.probes
        ]

    def module(self) -> list[Any]:
        """The module's outputs on every probe, and nothing else."""
        given = [
            [to_torch(probe.feeds[spec.name]) for spec in self.loaded.specs]
            for probe in self.probes
        ]
        with fresh(self.loaded) as own:
            flat: Any = own.flat
            found = [[tensor.numpy() for tensor in flat(*tensors)] for tensors in given]
        return [list(zip(self.outputs, arrays, strict=True)) for arrays in found]

    def expected(self) -> list[Expected]:
        """What the gate compares with."""
        # Looking for what the module itself suggests is part of the cost.
        example = reference.example_of(self.loaded)
        offers.offers(self.loaded, self.specs, example, ParityOptions())
        found = reference.evaluate(self.loaded, self.outputs, self.probes)
        expected = reference.accepted(found)
        sides.searched(self.loaded, expected, 0)
        return expected


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds and result of one call."""
    start = time.perf_counter()
    found = call()
    return time.perf_counter() - start, found


def cost(label: str, model: Model, runs: int) -> None:
    """Print what verifying costs beside plain runs, both per probe."""
    session, count = model.session(), len(model.probes)
    plain: list[float] = []
    ours: list[float] = []
    with onnx_runner(model.path, 300.0) as runner:
        for number in range(runs + 1):
            module, _ = timed(model.module)
            artefact, _ = timed(lambda: model.answers(session))
            evaluated, expected = timed(model.expected)
            ran, answers = timed(lambda given=expected: run_probes(runner, given))
            judged, check = timed(
                lambda given=expected, got=answers: gate.parity_check(
                    "onnx", given, got, ParityOptions()
                )
            )
            assert check.status.value == "passed", check.summary
            if number:  # the first run of each warms up
                plain.append(module + artefact)
                ours.append(evaluated + ran + judged)
    ratios = [a / b for a, b in zip(ours, plain, strict=True)]
    print(
        f"  {label:<24}{statistics.median(ratios):5.2f}x  ({min(ratios):.2f} to {max(ratios):.2f})"
        f"   {1e3 * statistics.median(ours) / count:8.2f} ms against "
        f"{1e3 * statistics.median(plain) / count:.2f} ms a probe"
    )


@contextlib.contextmanager
def torch_settings(threads: int, onednn: bool) -> Iterator[None]:
    """Torch on so many threads, with oneDNN's kernels or its own."""
    before = torch.get_num_threads(), torch.backends.mkldnn.enabled
    torch.set_num_threads(threads)
    torch.backends.mkldnn.enabled = onednn
    yield
    torch.set_num_threads(before[0])
    torch.backends.mkldnn.enabled = before[1]


def shares(expected: Sequence[Expected], answers: Sequence[Any]) -> tuple[float, float]:
    """The closest call as a share of what is allowed, and the greatest error in noise floors."""
    usual = typical_of(expected)
    judged = [
        one
        for case, answer in zip(expected, answers, strict=True)
        for one in gate.judge_probe(case, answer, usual, {})[0]
    ]
    floors = [one.error / one.floor for one in judged if one.floor]
    return max(map(closeness, judged)), max(floors, default=0.0)


def spread(label: str, model: Model) -> None:
    """Print how far threads and levels move an artefact, and threads and kernels the module."""
    expected = model.expected()
    found: dict[str, list[tuple[float, float]]] = {}
    for threads, level in itertools.product((1, 2, 4), LEVELS):
        got = model.answers(model.session(threads, level))
        found.setdefault("ONNX Runtime", []).append(shares(expected, got))
    for threads, onednn in itertools.product((1, 2), (True, False)):
        with torch_settings(threads, onednn):
            got = model.module()
        found.setdefault("torch", []).append(shares(expected, got))
    for side, values in found.items():
        closest, floors = zip(*values, strict=True)
        print(
            f"  {label:<24}{side:<14}{min(closest):.3f} to {max(closest):.3f} of what is allowed, "
            f"at most {max(floors):.1f} floors"
        )
        assert max(closest) <= 1, (label, side, values)


def whole(name: str, folder: Path, runs: int) -> None:
    """Print the whole command beside the imports that it cannot do without."""

    def run(*words: str) -> None:
        subprocess.run(words, cwd=folder, check=True, capture_output=True)

    run(TOOL, "export", f"sample:{name}", "-q")
    command = [TOOL, "verify", f"dist/{name}", "--against", f"sample:{name}", "-q"]
    ratios, walls = [], []
    for _ in range(runs):
        imports, _ = timed(lambda: run(sys.executable, "-c", IMPORTS))
        wall, _ = timed(lambda: run(*command))
        ratios.append(wall / imports)
        walls.append(wall)
    print(
        f"  {name:<24}{statistics.median(ratios):5.2f}x  ({min(ratios):.2f} to {max(ratios):.2f})"
        f"   {statistics.median(walls):.1f} s"
    )


def main() -> None:
    """Measure everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("samples", nargs="*", metavar="SAMPLE", default=ORDINARY)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = {name: Model(name, None, folder) for name in options.samples}
        heavy = {k: v for k, v in HEAVY.items() if v[0] in options.samples}
        print("verify --against / one plain run of torch and ONNX Runtime  (limit 3x)")
        for label, model in models.items():
            cost(label, model, options.runs)
        for label, (sample, spec) in heavy.items():
            cost(label, Model(sample, spec, folder), options.runs)
        print("errors over threads and optimisation levels  (limit 1 of what is allowed)")
        for label, model in models.items():
            spread(label, model)
        print(f"the whole command / python -c '{IMPORTS}'")
        for sample in options.samples:
            whole(sample, folder, max(1, options.runs // 2))


if __name__ == "__main__":
    main()
