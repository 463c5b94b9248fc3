"""Localising: ``python benchmarks/localise.py accuracy|speed``, with the tool installed.

``accuracy`` puts single-node faults into the ordinary samples, as they are and simplified, and
counts how often the node that is named is the faulty one. ``speed`` compares the time and the
memory of localising with those of plain runs: one forward of the module in torch, and one run of
the file in ONNX Runtime, its loading included.
"""

from __future__ import annotations

import argparse
import collections
import copy
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import measure
import onnx
import onnxruntime
import torch
from torch import nn

from torch2mobile.copies import fresh
from torch2mobile.environments import Worker
from torch2mobile.exporter import capture, translate
from torch2mobile.exporter.loading import source
from torch2mobile.exporter.simplify import CANDIDATES
from torch2mobile.isolation import Process
from torch2mobile.records import LoadedModel, ParityOptions, Request
from torch2mobile.sample_models import SAMPLES
from torch2mobile.sample_models.mobile_cnn import build as mobile_cnn
from torch2mobile.validators.parity import gate, probes, reference
from torch2mobile.validators.parity.expected import Expected, typical_of
from torch2mobile.validators.parity.faults import catalogue
from torch2mobile.validators.parity.faults.graph_changes import apply
from torch2mobile.validators.parity.localise import localise
from torch2mobile.validators.parity.locating.pieces import process_of_pieces
from torch2mobile.validators.parity.locating.suspects import Located, Question, Suspect


@dataclass(frozen=True)
class Subject:
    """A model with all that localising needs, its files in ``folder``."""

    loaded: LoadedModel
    question: Callable[..., Question]
    expected: list[Expected]
    raw: Path
    sizes: dict[str, int]


def prepare(loaded: LoadedModel, folder: Path, options: ParityOptions) -> Subject:
    """Capture and translate a model, and run it on its probes."""
    captured = capture.capture(loaded)
    raw = folder / "model.onnx"
    translation = translate.translation(captured, raw)
    assert translation.program is not None
    example = reference.example_of(loaded)
    built = probes.build(captured.inputs, example, options)
    found = reference.evaluate(loaded, captured.outputs, built)
    expected = reference.accepted(found)
    question = partial(
        Question,
        program=translation.program,
        twins=translation.twins,
        inputs=tuple(spec.name for spec in captured.inputs),
        usual=typical_of(expected),
        tolerances={},
        fresh=raw,
    )
    sizes = {
        dim.symbol: size // dim.factor
        for spec in captured.inputs
        for dim, size in zip(spec.dims, example[spec.name].shape, strict=True)
        if dim.symbol is not None
    }
    return Subject(loaded, question, expected, raw, sizes)


# --- accuracy ---------------------------------------------------------------------------------


def run_file(path: Path, feeds: Any) -> list[tuple[str, Any]]:
    """The outputs of a file in ONNX Runtime, in this process."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(path, options)
    names = [output.name for output in session.get_outputs()]
    return list(zip(names, session.run(None, dict(feeds)), strict=True))


def failing(path: Path, subject: Subject, usual: Any) -> Expected | None:
    """The first probe on which the gate finds a difference."""
    for case in subject.expected:
        try:
            answer: Any = run_file(path, case.probe.feeds)
        except Exception:  # noqa: BLE001 (a fault may well be one that does not run)
            return case
        if gate.judge_probe(case, answer, usual, {})[1]:
            return case
    return None


def fingerprints(model: onnx.ModelProto) -> dict[str, bytes]:
    """What each node is, constants included, by the name of its first output."""
    weights = {tensor.name: tensor.SerializeToString() for tensor in model.graph.initializer}
    return {
        node.output[0]: node.SerializeToString()
        + b"".join(weights.get(name, b"") for name in node.input)
        for node in model.graph.node
    }


def hit(before: onnx.ModelProto, after: onnx.ModelProto, output: str, suspect: Suspect) -> bool:
    """Whether all nodes that are named are faulty ones."""
    old, new = fingerprints(before), fingerprints(after)
    changed = {name for name, text in new.items() if old.get(name) != text} | {output}
    return all(changed.intersection(node.outputs) for node in suspect.nodes)


def accuracy(seed: int, count: int, names: list[str], *, verbose: bool) -> None:
    """Count how often the faulty node is named, by sample and form of the file."""
    totals: collections.Counter[str] = collections.Counter()
    for name in names:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            loaded = source.load(Request(source=f"sample:{name}"), SAMPLES)
            subject = prepare(loaded, folder, ParityOptions())
            for form, path in forms(subject, folder):
                counts = sample_accuracy(subject, path, seed, count, verbose=verbose)
                totals.update({f"{form} {key}": number for key, number in counts.items()})
                print(f"{name:18} {form:10} {line(counts)}", flush=True)
    for form in ("raw", "simplified"):
        found = {key: totals[f"{form} {key}"] for key in ("faults", "named", "other", "none")}
        print(f"{'all':18} {form:10} {line(found)}")


def line(counts: Any) -> str:
    """The counts of one row, in words."""
    total = counts["faults"]
    share = 100 * counts["named"] / max(1, total)
    return (
        f"{counts['named']} of {total} single-node faults named ({share:.1f} %), "
        f"{counts['other']} another node, {counts['none']} none"
    )


def forms(subject: Subject, folder: Path) -> Iterator[tuple[str, Path]]:
    """The file as it is translated, and simplified."""
    yield "raw", subject.raw
    path = folder / "simplified.onnx"
    with Worker() as worker:
        function = "torch2mobile.exporter.simplify:candidate"
        given = (next(iter(CANDIDATES)), str(subject.raw), str(path), False)
        same = worker.call(function, *given, timeout=300)["same"]
    yield "simplified", subject.raw if same else path


def sample_accuracy(
    subject: Subject, path: Path, seed: int, count: int, *, verbose: bool
) -> collections.Counter[str]:
    """The faults of one file that the gate sees, and how many were found."""
    model, counts = onnx.load(path), collections.Counter[str]()
    usual = typical_of(subject.expected)
    for mutation, patch in catalogue.plan(model, seed=seed, count=count, sizes=subject.sizes):
        if mutation.control or not mutation.output:
            continue
        mutant = copy.deepcopy(model)
        apply(mutant, patch)
        broken = path.with_name("mutant.onnx")
        onnx.save(mutant, broken)
        case = failing(broken, subject, usual)
        if case is None:
            continue
        question = subject.question(artifact=broken, case=case, simplify=lambda: path)
        found = localise(question)
        counts["faults"] += 1
        key = verdict(model, mutant, mutation.output, found)
        counts[key] += 1
        if verbose and key != "named":
            print(f"  {key}: {mutation}\n    {case.probe.label}: {found}")
    return counts


def verdict(before: onnx.ModelProto, after: onnx.ModelProto, output: str, found: Located) -> str:
    """Whether the faulty node was named, another, or none."""
    if found.verdict != "node":
        return "none"
    return "named" if hit(before, after, output, found.suspects[0]) else "other"


# --- speed ------------------------------------------------------------------------------------


class Deep(nn.Module):
    """Residual blocks ``[N, width]`` of a linear layer, a norm and activations, and their sum."""

    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Seven ONNX nodes a block."""
        for layer, norm in zip(self.layers, self.norms, strict=True):
            h = norm(x)
            x = x + torch.tanh(layer(h)) * torch.sigmoid(h) * 0.1
        return x


def cpu_seconds() -> float:
    """Processor time of this process and of those it has started."""
    ticks = 0
    for pid in measure.children(os.getpid()):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def clock(action: Callable[[], object]) -> tuple[float, float]:
    """Seconds of wall time and of processor time."""
    start, before = time.perf_counter(), cpu_seconds()
    action()
    return time.perf_counter() - start, cpu_seconds() - before


def break_node(model: onnx.ModelProto) -> onnx.ModelProto:
    """One node in the last tenth of the graph gives something else."""
    nodes = list(model.graph.node)
    swaps = {"Tanh": "Sigmoid", "HardSwish": "Relu"}
    node = next(n for n in reversed(nodes[: -len(nodes) // 20]) if n.op_type in swaps)
    node.op_type = swaps[node.op_type]
    return model


def speed(loaded: LoadedModel, label: str, runs: int) -> None:
    """Localising a fault near the end, and a clean file, against one forward and one run."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        subject = prepare(loaded, folder, ParityOptions(probes=0))
        case = subject.expected[0]
        broken = folder / "broken.onnx"
        onnx.save(break_node(onnx.load(subject.raw)), broken)
        nodes = len(onnx.load(subject.raw).graph.node)
        size = sum(p.numel() for p in loaded.module.parameters()) / 1e6
        print(f"{label}: {nodes} nodes, {size:.1f} M parameters")
        for what, path in (("a fault", broken), ("no fault", subject.raw)):
            question = subject.question(artifact=path, case=case)
            pairs = [turn(loaded, case, path, question) for _ in range(runs)]
            for unit, number in (("wall", 0), ("processor", 1)):
                once = statistics.median(pair[0][number] for pair in pairs)
                whole = statistics.median(pair[1][number] for pair in pairs)
                ratio = statistics.median(b[number] / a[number] for a, b in pairs)
                print(f"  {what:9} {unit:9} {ratio:.1f}x  ({whole:.2f} s against {once:.2f} s)")
            with ready() as process:
                least = peak_mib(partial(plain, loaded, case, path))
                most = peak_mib(partial(localise, question, process))
            ratio = most / least
            print(f"  {what:9} memory    {ratio:.1f}x  ({most:.0f} MiB against {least:.0f} MiB)")


def ready() -> Process:
    """A process whose imports are done, as this one's are."""
    process = process_of_pieces(300)
    process.call("make", "builtins:dict", (), timeout=300)
    return process


def peak_mib(action: Callable[[], object]) -> float:
    """The memory of this process and of those it has started while something runs, at most."""
    highest, done = 0.0, threading.Event()

    def watch() -> None:
        nonlocal highest
        while True:
            over = done.wait(0.02)
            sizes = [measure.pss(pid) for pid in measure.children(os.getpid())]
            highest = max(highest, sum(sizes) / 1024)
            if over:
                return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        action()
    finally:
        done.set()
        thread.join()
    return highest


Clocked = tuple[float, float]


def turn(
    loaded: LoadedModel, case: Expected, path: Path, question: Question
) -> tuple[Clocked, Clocked]:
    """One plain run and one localising."""
    with ready() as process:
        once = clock(partial(plain, loaded, case, path))
        return once, clock(partial(localise, question, process))


def plain(loaded: LoadedModel, case: Expected, path: Path) -> None:
    """The module once in torch, and the file once in ONNX Runtime."""
    tensors = [torch.from_numpy(case.probe.feeds[spec.name]) for spec in loaded.specs]
    with fresh(loaded) as own:
        own.flat.call(*tensors)
    run_file(path, case.probe.feeds)


def main() -> None:
    """Measure one of both and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["accuracy", "speed"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=24, help="Faults a file.")
    parser.add_argument("--runs", type=int, default=3)
    ordinary = [name for name, sample in SAMPLES.items() if sample.ordinary]
    parser.add_argument("--sample", action="append", choices=ordinary)
    parser.add_argument("--verbose", action="store_true", help="Show the faults that were missed.")
    given = parser.parse_args()
    if given.what == "accuracy":
        accuracy(given.seed, given.count, given.sample or ordinary, verbose=given.verbose)
        return
    image = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    cnn = source.from_call("mobile_cnn", mobile_cnn(), (image,), {})
    speed(cnn, "mobile_cnn at 224 x 224", given.runs)
    torch.manual_seed(0)
    deep = source.from_call("deep", Deep(285, 592).eval(), (torch.randn(8, 592),), {})
    speed(deep, "a deep network", given.runs)


if __name__ == "__main__":
    main()
