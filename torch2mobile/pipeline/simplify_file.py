"""Simplification of one .onnx alone: its probes are drawn for what it says of its own inputs."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from torch2mobile import limits
from torch2mobile.environments import Worker
from torch2mobile.errors import UsageError
from torch2mobile.exporter.bundle import refuse_undecodable
from torch2mobile.exporter.loading import grammar, inputs
from torch2mobile.exporter.output import OutputFile
from torch2mobile.exporter.simplify import CANDIDATES
from torch2mobile.exporter.staging import writing
from torch2mobile.interfaces import Observer, SilentObserver
from torch2mobile.pipeline import consistency
from torch2mobile.pipeline.candidates import check_tolerances, onnx_runner
from torch2mobile.pipeline.installed_tools import tool_versions
from torch2mobile.pipeline.results import SimplifyResult
from torch2mobile.pipeline.simplified import judge_simplified
from torch2mobile.pipeline.simplify_search import PRELOAD, Search
from torch2mobile.pipeline.stages import Stages
from torch2mobile.pipeline.whole_imports import needs_whole_imports
from torch2mobile.records import (
    Check,
    Dim,
    InputSpec,
    OutputSpec,
    ParityOptions,
    Report,
    Status,
)

if TYPE_CHECKING:
    from torch2mobile.validators.parity.expected import Expected


@needs_whole_imports
def simplify(
    source: str | Path,
    target: str | Path,
    *,
    values: Sequence[str] = (),
    parity: ParityOptions | None = None,
    timeout: float = 120.0,
    fix_dims: Mapping[str, int] | None = None,
    observer: Observer | None = None,
) -> SimplifyResult:
    """Simplify one .onnx into another, written only where it is still the same function.

    With ``fix_dims`` it is one for these sizes of symbols alone.

    Raises UsageError for files that cannot be read or written, and for symbols and sizes that it
    has not.
    """
    from torch2mobile.onnx_files import read_model

    options, source, target = parity or ParityOptions(), Path(source), Path(target)
    consistency.check_parity(options)
    limits.check_number("simplify_timeout", timeout)
    for name, size in (fix_dims or {}).items():
        limits.check_number("fix_dim", size, of=name)
    stages = Stages(observer or SilentObserver())
    read_model(source, reads=".onnx files")
    if target.resolve() == source.resolve():
        raise UsageError(f"{target} is the input itself", "Give another name for the result.")
    refuse_undecodable(target.absolute(), "OUT")
    with _with_sizes(source, fix_dims or {}) as given, OutputFile(target) as output:
        with writing(target):
            found = _simplify_into(given, output.draft, values, options, timeout, stages)
        check = stages.add(found)
        written = None
        if check.status is Status.PASSED:
            output.commit()
            written = target
    report = Report(
        command="simplify",
        subject=str(source),
        checks=tuple(stages.checks),
        environment=tool_versions(),
    )
    return SimplifyResult(report, written)


@contextlib.contextmanager
def _with_sizes(source: Path, fixed: Mapping[str, int]) -> Iterator[Path]:
    """The file with these sizes, for as long as it is looked at; itself where there are none."""
    import onnx

    from torch2mobile.onnx_files import read_whole
    from torch2mobile.validators.coverage.graph import fix

    if not fixed:
        yield source
        return
    model = read_whole(source)
    fix(model, fixed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / source.name
        onnx.save(model, path)
        yield path


def _simplify_into(
    source: Path,
    result: Path,
    values: Sequence[str],
    options: ParityOptions,
    timeout: float,
    stages: Stages,
) -> Check:
    import onnx

    with tempfile.TemporaryDirectory() as folder, Worker(preload=PRELOAD) as worker:
        stages.observer.started("simplify")
        # Whose file it is nobody knows: all ways are tried.
        search = Search(worker, source, Path(folder), rounds=[list(CANDIDATES)], timeout=timeout)
        search.begin()
        expected = _onnx_probes(source, values, options)
        check, way = search.found(lambda way: judge_simplified(source, way, expected, options))
        if way is not None and way.same:
            onnx.save(onnx.load(source), result)
        elif way is not None:
            result.write_bytes(way.path.read_bytes())
    if check.status is Status.SKIPPED and all(way.error for way in search.made):
        return replace(check, status=Status.ERROR)
    if check.status is Status.SKIPPED:
        # Alone, there is nothing else to fall back on: the request was not fulfilled.
        return replace(check, status=Status.FAILED, hint="Use the model as it is.")
    return check


def specs_of(found: Sequence[OutputSpec]) -> tuple[InputSpec, ...]:
    """Input specifications from what the runtime says of a file's inputs.

    Raises UsageError for inputs that are no tensors of numbers.
    """
    odd = [spec for spec in found if spec.dtype not in grammar.DTYPES.values()]
    if odd:
        raise UsageError(
            f"the input {odd[0].name} is of type {odd[0].dtype}, which cannot be probed",
            f"Inputs can be {', '.join(sorted(set(grammar.DTYPES.values())))}.",
        )
    parsed = [[_dim(size) for size in spec.dims] for spec in found]
    alone = {d.symbol for dims in parsed for d in dims if d is not None and not d.others}
    return tuple(
        InputSpec(
            name=spec.name,
            path=(spec.name,),
            dtype=spec.dtype,
            dims=tuple(
                dim if dim is not None and {t.symbol for t in dim.terms} <= alone else _own(spec, n)
                for n, dim in enumerate(dims)
            ),
        )
        for spec, dims in zip(found, parsed, strict=True)
    )


def _dim(size: int | str) -> Dim | None:
    """A dimension that a file names, where its name is one of the grammar's."""
    if isinstance(size, int):
        return Dim(size=size)
    found = grammar.parse_dim(size)
    return found if found is not None and found.ends[0] >= 1 else None


def _own(spec: OutputSpec, axis: int) -> Dim:
    return Dim(symbol="".join(c if c.isalnum() else "_" for c in f"{spec.name}_{axis}"))


def _onnx_probes(source: Path, values: Sequence[str], options: ParityOptions) -> list[Expected]:
    """Seeded probes for a bare .onnx; those that the model itself refuses are left out later."""
    import numpy as np

    from torch2mobile import sampling, sizing
    from torch2mobile.validators.parity import probes
    from torch2mobile.validators.parity.expected import Expected

    with onnx_runner(source, options.timeout) as runner:
        specs = specs_of(runner.inputs())
        check_tolerances(options, [spec.name for spec in runner.outputs()])
    if values:
        specs = inputs.attach_values(specs, values)
    rng = np.random.default_rng(options.seed)
    sizes = sizing.example_sizes(specs)
    example = {spec.name: sampling.draw(spec, sizes, "example", rng) for spec in specs}
    return [Expected(probe, []) for probe in probes.build(specs, example, options)]
