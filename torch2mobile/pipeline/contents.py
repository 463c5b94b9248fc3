"""What goes into a bundle beside the models: golden data, the report, the manifest."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from torch2mobile.exporter.bundle import MODEL, REPORT, load_bundle, refuse_external_data
from torch2mobile.pipeline.environment import machine, tool_versions
from torch2mobile.records import (
    Artifact,
    Bundle,
    Capture,
    Check,
    GoldenCase,
    Manifest,
    OnnxModel,
    Report,
    Status,
    Tolerance,
)

if TYPE_CHECKING:
    from torch2mobile.validators.parity.gate import Expected

# Golden data stays small enough to check in.
GOLDEN_CASES = 6
GOLDEN_BYTES = 1 << 20
_SCRATCH = ("simplified.onnx", "simplified.onnx.data", "program.pt2")


def open_bundle(path: Path) -> Bundle:
    """A bundle whose models read no file outside of it; BundleError otherwise."""
    bundle = load_bundle(path)
    loaded = [MODEL, *(files[0] for files in bundle.manifest.targets.values() if files)]
    for model in map(bundle.file, loaded):
        if model.is_file():
            refuse_external_data(bundle.path, model, list(bundle.manifest.files))
    return bundle


def write_golden(
    folder: Path,
    expected: Sequence[Expected],
    tolerances: Mapping[str, Tolerance],
    errors: Mapping[str, Sequence[Mapping[str, float]]],
    tied: Container[int] = (),
) -> tuple[GoldenCase, ...]:
    """The example, other sizes, then other values, as far as they are small.

    ``errors`` has by target, for each of the expected, how far the artefact was off, by output.
    Left out are those of ``tied``, on which an artefact picked others of equal values.
    """
    from torch2mobile.exporter.bundle import write_case
    from torch2mobile.validators.parity.gate import typical_of
    from torch2mobile.validators.parity.golden import allowed_for

    typical = typical_of(expected)
    cases: list[GoldenCase] = []
    for number in [n for n in _golden_order(expected) if n not in tied][:GOLDEN_CASES]:
        case = expected[number]
        label = "".join(c if c.isalnum() else "_" for c in case.probe.label)
        name = f"golden/{len(cases)}_{label}.npz"
        write_case(folder / name, case.probe.feeds, case.outputs)
        # Another machine is held to these: they are measured, not guessed.
        allowed = allowed_for(case.sure(), typical, tolerances)
        own = {target: found[number] for target, found in errors.items()}
        cases.append(GoldenCase(name, case.probe.label, allowed, own))
    return tuple(cases)


def write_report(folder: Path, report: Report) -> None:
    """Remove what the stages left behind, and write ``report.json``.

    In a bundle it says that there is one, as on stdout, but not where: the same request gives the
    same bytes at any place.
    """
    from torch2mobile.reporters.codec import to_json

    for leftover in _SCRATCH:
        (folder / leftover).unlink(missing_ok=True)
    # With the report itself and the manifest, which has its hash.
    count = sum(path.is_file() for path in folder.rglob("*")) + 2
    made = Check("bundle", Status.PASSED, f"{count} files")
    saved = replace(report, checks=(*report.checks, made))
    (folder / REPORT).write_text(to_json(saved), encoding="utf-8")


def manifest_of(
    report: Report,
    model: OnnxModel,
    capture: Capture,
    golden: tuple[GoldenCase, ...],
    artifacts: Sequence[Artifact],
) -> Manifest:
    """The manifest, but for the hashes of the files, which the writer fills in."""
    from torch2mobile.exporter import fingerprint

    loaded = capture.loaded
    lines = [origin.file for origins in model.origins.values() for origin in origins]
    return Manifest(
        name=loaded.name,
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
        weights=fingerprint.weights_of(loaded.module),
        sources=fingerprint.sources_of(loaded, report.subject, lines),
        machine=machine(),
    )


def _golden_order(expected: Sequence[Expected]) -> list[int]:
    """The example first, then cases of new sizes, then of other values; small ones only."""

    def bytes_of(case: Expected) -> int:
        arrays = [*case.probe.feeds.values(), *(array for _, array in case.outputs)]
        return sum(array.nbytes for array in arrays)

    small = [n for n, case in enumerate(expected) if bytes_of(case) <= GOLDEN_BYTES] or [0]
    seen: set[tuple[tuple[int, ...], ...]] = set()
    ranked = []
    for number in small:
        shapes = tuple(array.shape for array in expected[number].probe.feeds.values())
        ranked.append((number != small[0], shapes in seen, number))
        seen.add(shapes)
    return [number for *_, number in sorted(ranked)]
