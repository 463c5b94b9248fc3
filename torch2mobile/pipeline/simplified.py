"""Simplification at no price: kept only where it equals the unsimplified model on the probes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from torch2mobile.environments import Worker
from torch2mobile.errors import Torch2MobileError
from torch2mobile.interfaces import Runner
from torch2mobile.onnx_files import outline, own_files, save
from torch2mobile.pipeline.candidates import onnx_runner
from torch2mobile.pipeline.simplify_search import Way, dropped
from torch2mobile.records import (
    Check,
    OnnxModel,
    ParityOptions,
    Status,
)

if TYPE_CHECKING:
    from torch2mobile.interfaces import Outputs
    from torch2mobile.validators.parity.answers import Answers
    from torch2mobile.validators.parity.expected import Expected


def judge_simplified(
    raw: Path,
    way: Way,
    expected: Sequence[Expected],
    options: ParityOptions,
    worker: Worker | None = None,
    told: Callable[[Answers], None] | None = None,
) -> Check:
    """PASSED where the interface is the unsimplified model's, and the outputs are what is expected.

    Where nothing is known of them, or they differ, the unsimplified model's are what is expected.
    SKIPPED, with the reason, where anything changed. ``told`` is given what the simplified gave.
    """
    from torch2mobile.validators.parity.answers import run_probes

    with (
        onnx_runner(raw, options.timeout, worker) as before,
        onnx_runner(way.path, options.timeout, worker) as after,
    ):
        try:
            # Else the runtime tells, which has to load the file for that.
            if not way.alike and before.inputs() != after.inputs():
                return dropped(f"{way.name}: changed the inputs")
            if not way.alike and _outputs(before) != _outputs(after):
                return dropped(f"{way.name}: changed the outputs")
            got = run_probes(after, expected)
            if told is not None:
                told(got)
            if all(case.outputs for case in expected):
                check = _passed(expected, got, options, way)
                if check.status is Status.PASSED:
                    return check
            wanted = run_probes(before, expected)
        except Torch2MobileError as error:
            return dropped(f"{way.name}: the simplified model {error.message}")
    return _verdict(expected, wanted, got, options, way)


def _verdict(
    expected: Sequence[Expected],
    wanted: Answers,
    got: Answers,
    options: ParityOptions,
    way: Way,
) -> Check:
    """Both models' outputs compared; probes that the unsimplified one refuses do not count."""
    kept = [
        (_against_raw(case, want), have)
        for case, want, have in zip(expected, wanted, got, strict=True)
        if not isinstance(want, Torch2MobileError)
    ]
    if not kept:
        return Check(
            "simplify",
            Status.ERROR,
            "the model itself accepts none of the probes, so nothing could be compared",
            hint="Say which values its inputs can take, with --values.",
        )
    return _passed([case for case, _ in kept], [have for _, have in kept], options, way)


def _passed(expected: Sequence[Expected], got: Answers, options: ParityOptions, way: Way) -> Check:
    """PASSED where the answers are what is expected, else SKIPPED with what is not."""
    from torch2mobile.validators.parity import gate

    check = gate.parity_check("onnx", expected, got, options)
    if check.status is not Status.PASSED:
        return dropped(f"{way.name}: changed the results ({check.summary})", check)
    return Check(
        "simplify",
        Status.PASSED,
        f"{way.before} to {way.after} nodes, equal on {len(expected)} probes",
        metrics={"nodes_before": way.before, "nodes_after": way.after},
    )


def _against_raw(case: Expected, raw: Outputs) -> Expected:
    """The unsimplified model's outputs as what is expected; the module's truth if it fits them."""
    from torch2mobile.validators.parity.expected import Expected

    structure = [(name, array.shape) for name, array in raw]
    if structure != [(name, array.shape) for name, array in case.outputs]:
        return Expected(case.probe, raw)
    return replace(case, outputs=raw)


def _outputs(runner: Runner) -> list[tuple[str | int, ...]]:
    return [
        (spec.name, spec.dtype, *("symbol" if isinstance(d, str) else d for d in spec.dims))
        for spec in runner.outputs()
    ]


def adopt(raw: OnnxModel, simplified: Path) -> OnnxModel:
    """Put the simplified model in the raw one's place, with the origins of its values."""
    import onnx

    from torch2mobile.exporter import provenance

    before, after = outline(raw.path), outline(simplified)
    external = len(own_files(simplified)) > 1
    for old in own_files(raw.path)[1:]:
        old.unlink()
    noted = after.SerializeToString(deterministic=True)
    provenance.strip_proto(after)
    if not external and after.SerializeToString(deterministic=True) == noted:
        simplified.replace(raw.path)
    else:
        whole = onnx.load(simplified)
        provenance.strip_proto(whole)
        save(whole, raw.path, external=external)
    origins = provenance.carry(before, after, raw.origins)
    return replace(raw, origins=origins, simplified=True)
