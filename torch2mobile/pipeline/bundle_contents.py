"""What goes into a bundle beside the models: golden data, the report, the manifest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from torch2mobile.errors import Torch2MobileError
from torch2mobile.exporter.bundle import (
    MODEL,
    PROVENANCE,
    REPORT,
    load_bundle,
    refuse_external_data,
    tampered_files,
)
from torch2mobile.onnx_files import outline
from torch2mobile.pipeline.installed_tools import machine, tool_versions
from torch2mobile.records import (
    Artifact,
    ArtifactEntry,
    Bundle,
    Capture,
    Check,
    GoldenCase,
    Manifest,
    OnnxModel,
    Report,
    StateEntry,
    Status,
)
from torch2mobile.user_code import shown_path

if TYPE_CHECKING:
    from torch2mobile.exporter.bundle_writer import BundleWriter

_SCRATCH = ("program.pt2",)


def open_bundle(path: Path) -> Bundle:
    """A bundle whose models read no file outside of it; BundleError otherwise."""
    bundle = load_bundle(path)
    loaded = [MODEL, *(files[0] for files in bundle.manifest.targets.values() if files)]
    for model in map(bundle.file, loaded):
        if model.is_file():
            refuse_external_data(bundle.path, model, list(bundle.manifest.files))
    return bundle


def write_state(folder: Path, capture: Capture) -> tuple[StateEntry, ...]:
    """``state.bin``, where the module's state is carried."""
    from torch2mobile.exporter import bundle
    from torch2mobile.tensors import to_numpy

    loaded = capture.loaded
    count = len(loaded.flat.states)
    first = [to_numpy(tensor) for tensor in loaded.tensors[len(loaded.tensors) - count :]]
    outputs = capture.outputs[len(capture.outputs) - count :]
    return bundle.write_state(folder, loaded.flat.states, first, outputs)


def write_report(folder: Path, report: Report) -> None:
    """Remove what the stages left behind, and write ``report.json``.

    In a bundle it says that there is one, as on stdout, but not where, nor how long it took: the
    same request gives the same bytes at any place.
    """
    from torch2mobile.reporters.codec import to_json

    for leftover in _SCRATCH:
        (folder / leftover).unlink(missing_ok=True)
    # With the report itself and the manifest, which has its hash.
    count = sum(path.is_file() for path in folder.rglob("*")) + 2
    made = Check("bundle", Status.PASSED, f"{count} files")
    saved = replace(report, checks=(*(check.timeless() for check in report.checks), made))
    (folder / REPORT).write_text(to_json(saved), encoding="utf-8")


def older(writer: BundleWriter) -> str:
    """Whose bundle stands in the place, where none was written now."""
    where = shown_path(str(writer.out))
    return f"; the bundle at {where} is an older one" if writer.older else ""


def not_written(writer: BundleWriter, judged: Path, hint: str, of: str) -> Check:
    """No bundle, but the file that was judged; ``of`` it is said what it is kept for."""
    try:
        kept = writer.keep_judged(judged)
    except Torch2MobileError as error:
        note = f"the .onnx that was judged could not be kept: {error.message}"
    else:
        note = f"the .onnx that was judged is {shown_path(str(kept))}{of}"
    what = f"not written, since a check did not pass{older(writer)}"
    return Check("bundle", Status.SKIPPED, what, hint=hint, notes=(note,))


def manifest_of(
    report: Report,
    model: OnnxModel,
    capture: Capture,
    golden: tuple[GoldenCase, ...],
    artifacts: Sequence[Artifact],
    state: tuple[StateEntry, ...] = (),
) -> Manifest:
    """The manifest, but for the hashes of the files, which the writer fills in."""
    from torch2mobile.exporter import fingerprint

    loaded = capture.loaded
    folder = model.path.parent
    lines = {
        file
        for origins in model.origins.values()
        for origin in origins
        for file in (origin.file, origin.caller)
    }
    return Manifest(
        name=loaded.name,
        source=report.subject,
        strategy=capture.strategy,
        opset=model.opset,
        simplified=model.simplified,
        seed=report.request.parity.seed if report.request else 0,
        inputs=capture.inputs,
        outputs=model.outputs,
        targets={
            a.variant.label: tuple(path.relative_to(folder).as_posix() for path in a.files)
            for a in artifacts
        },
        artifacts={
            a.variant.label: ArtifactEntry(a.variant, a.tools, a.names, a.shapes) for a in artifacts
        },
        golden=golden,
        versions=tool_versions(),
        files={},
        request=report.request,
        weights=fingerprint.weights_of(loaded.module),
        sources=fingerprint.sources_of(loaded, report.subject, lines),
        machine=machine(),
        state=state,
    )


def integrity(bundle: Bundle) -> Check:
    """Whether the files are as they were written."""
    problems = tampered_files(bundle)
    if problems:
        return Check(
            "integrity",
            Status.FAILED,
            problems[0],
            hint="The bundle is not what was exported: export again, or restore the file.",
            notes=tuple(problems[1:]),
        )
    count = len(bundle.manifest.files)
    return Check("integrity", Status.PASSED, f"{count} files as they were written")


def write_provenance(folder: Path, model: OnnxModel) -> Check:
    """``provenance.json``, and how many nodes it leads back."""
    from torch2mobile.exporter import provenance

    proto = outline(model.path)
    text = provenance.to_json(proto, model.origins)
    (folder / PROVENANCE).write_text(text, encoding="utf-8")
    nodes = list(proto.graph.node)
    known = sum(any(model.origins.get(name) for name in node.output) for node in nodes)
    return Check(
        "provenance",
        Status.PASSED if known == len(nodes) else Status.SKIPPED,
        f"{known} of {len(nodes)} nodes lead back to a module and a source line",
    )
