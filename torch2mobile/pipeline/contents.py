"""What goes into a bundle beside the models: golden data, the report, the manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch2mobile.pipeline.environment import tool_versions
from torch2mobile.records import (
    Artifact,
    Capture,
    GoldenCase,
    Manifest,
    OnnxModel,
    Report,
    Tolerance,
)

if TYPE_CHECKING:
    from torch2mobile.validators.parity.gate import Expected

# Golden data stays small enough to check in.
GOLDEN_CASES = 6
GOLDEN_BYTES = 1 << 20
_SCRATCH = ("simplified.onnx", "simplified.onnx.data", "program.pt2")


def write_golden(
    folder: Path, expected: Sequence[Expected], tolerances: Mapping[str, Tolerance]
) -> tuple[GoldenCase, ...]:
    """The example, other sizes, then other values, as far as they are small."""
    from torch2mobile.exporter.bundle import write_case
    from torch2mobile.validators.parity.gate import typical_of
    from torch2mobile.validators.parity.golden import allowed_for

    typical = typical_of(expected)
    cases: list[GoldenCase] = []
    for case in _golden_order(expected)[:GOLDEN_CASES]:
        label = "".join(c if c.isalnum() else "_" for c in case.probe.label)
        name = f"golden/{len(cases)}_{label}.npz"
        write_case(folder / name, case.probe.feeds, case.outputs)
        allowed = allowed_for(case, typical, tolerances)
        cases.append(GoldenCase(name, case.probe.label, allowed))
    return tuple(cases)


def write_report(folder: Path, report: Report) -> None:
    """Remove what the stages left behind, and write ``report.json``."""
    from torch2mobile.reporters.codec import to_json

    for leftover in _SCRATCH:
        (folder / leftover).unlink(missing_ok=True)
    (folder / "report.json").write_text(to_json(report), encoding="utf-8")


def manifest_of(
    report: Report,
    model: OnnxModel,
    capture: Capture,
    golden: tuple[GoldenCase, ...],
    artifacts: Sequence[Artifact],
) -> Manifest:
    """The manifest, but for the hashes, which the writer fills in."""
    return Manifest(
        name=capture.loaded.name,
        source=report.subject,
        strategy=capture.strategy,
        opset=model.opset,
        simplified=model.simplified,
        seed=report.request.parity.seed if report.request else 0,
        inputs=capture.inputs,
        outputs=model.outputs,
        targets={a.target: tuple(path.name for path in a.files) for a in artifacts},
        golden=golden,
        versions=tool_versions(),
        files={},
        request=report.request,
    )


def _golden_order(expected: Sequence[Expected]) -> list[Expected]:
    """The example first, then cases of new sizes, then of other values; small ones only."""

    def bytes_of(case: Expected) -> int:
        arrays = [*case.probe.feeds.values(), *(array for _, array in case.outputs)]
        return sum(array.nbytes for array in arrays)

    small = [c for c in expected if bytes_of(c) <= GOLDEN_BYTES] or list(expected[:1])
    seen: set[tuple[tuple[int, ...], ...]] = set()
    ranked = []
    for number, case in enumerate(small):
        shapes = tuple(array.shape for array in case.probe.feeds.values())
        ranked.append((number > 0, shapes in seen, number, case))
        seen.add(shapes)
    return [case for *_, case in sorted(ranked, key=lambda entry: entry[:3])]
