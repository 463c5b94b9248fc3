"""From a module to a proven bundle, stage by stage.

The imports of torch and of the exporters stand inside functions: a worker process that simplifies
and converts starts first, and loads its own tools while torch is loading here.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from torch2mobile.environments import Worker
from torch2mobile.errors import Torch2MobileError
from torch2mobile.exporter.targets.ort import ONNX
from torch2mobile.interfaces import Observer, SilentObserver
from torch2mobile.onnx_files import own_files
from torch2mobile.pipeline import (
    bundle_contents,
    candidates,
    consistency,
    golden_cases,
    on_devices,
    rewriting,
)
from torch2mobile.pipeline.artifacts import Proof, left_out
from torch2mobile.pipeline.capturing import capture_check, captured, translate_check
from torch2mobile.pipeline.conversion import find_variants
from torch2mobile.pipeline.installed_tools import tool_versions
from torch2mobile.pipeline.io_binding import load_source
from torch2mobile.pipeline.localising import Basis
from torch2mobile.pipeline.module_side import module_side
from torch2mobile.pipeline.results import ExportResult
from torch2mobile.pipeline.simplified import adopt, judge_simplified
from torch2mobile.pipeline.simplify_search import PRELOAD, Search, Way, too_large
from torch2mobile.pipeline.stages import Stages, error_check
from torch2mobile.records import (
    Artifact,
    Bundle,
    Capture,
    Check,
    LoadedModel,
    OnnxModel,
    Report,
    Request,
    Status,
)
from torch2mobile.user_code import shown_path

if TYPE_CHECKING:
    from torch2mobile.exporter.bundle_writer import BundleWriter
    from torch2mobile.exporter.translate import Translation
    from torch2mobile.validators.parity.answers import Answers
    from torch2mobile.validators.parity.expected import Expected


def export_request(
    request: Request, *, out: Path | None = None, observer: Observer | None = None
) -> ExportResult:
    """Export what a request names; ``out`` is ``dist/<name>`` where it is not given."""
    return export_loaded(lambda: load_source(request), request, out=out, observer=observer)


def export_loaded(
    load: Callable[[], LoadedModel],
    request: Request,
    *,
    out: Path | None = None,
    observer: Observer | None = None,
) -> ExportResult:
    """Export a module that is in memory."""
    consistency.check_request(request)
    request = _settled(request)
    with _simplifier(request) as simplifier:
        loaded = load()
        return _export(loaded, request, out or Path("dist") / loaded.name, observer, simplifier)


def _settled(request: Request) -> Request:
    """The request with its names looked up; UsageError for one that is unknown."""
    on_devices.find(request.devices)
    return replace(
        request,
        targets=tuple(variant.label for variant in find_variants(request.targets)),
        rewrites=rewriting.check_codes(request.rewrites),
    )


def _simplifier(request: Request) -> AbstractContextManager[Worker | None]:
    """A process that imports onnxsim, which takes as long as torch does, while torch is loading."""
    return Worker(preload=PRELOAD) if request.simplify else nullcontext()


def _export(
    loaded: LoadedModel,
    request: Request,
    out: Path,
    observer: Observer | None,
    simplifier: Worker | None,
) -> ExportResult:
    from torch2mobile.exporter.bundle_writer import BundleWriter
    from torch2mobile.exporter.staging import writing

    stages = Stages(observer or SilentObserver())
    with BundleWriter(out) as writer, writing(writer.stage):
        bundle = _Export(loaded, request, stages, writer, simplifier).run()
        if bundle is None and writer.older and stages.checks[-1].name != "bundle":
            stages.add(
                Check("bundle", Status.SKIPPED, f"not written{bundle_contents.older(writer)}")
            )
    report = _report(request, loaded, stages)
    return ExportResult(report, bundle)


def _report(request: Request, loaded: LoadedModel, stages: Stages) -> Report:
    return Report(
        command="export",
        subject=request.source or loaded.name,
        checks=tuple(stages.checks),
        environment={**tool_versions(), **on_devices.versions(request.devices)},
        request=on_devices.settled(request),
    )


class _Export:
    """One run: what its stages share."""

    def __init__(
        self,
        loaded: LoadedModel,
        request: Request,
        stages: Stages,
        writer: BundleWriter,
        simplifier: Worker | None,
    ) -> None:
        self.loaded, self.request, self.stages = loaded, request, stages
        self.writer, self.simplifier = writer, simplifier
        self.folder = writer.stage
        # What the file that is shipped gave already.
        self.answers: Answers | None = None
        self.translating = 0.0

    def run(self) -> Bundle | None:
        """All stages; the bundle where every check passed."""
        from torch2mobile.validators.parity import domain

        self.loaded = domain.taken(self.loaded)
        made = self.stages.attempt(
            "capture", lambda: captured(self.loaded, self._translate, self.request.rewrites)
        )
        if made is None:
            return None
        capture, translation = made.capture, made.translation
        self.stages.add(capture_check(capture), later=self.translating)
        if made.refusal is not None:
            self.stages.add(error_check("translate", made.refusal))
        if translation is None:
            return None
        self.stages.add(translate_check(translation))
        self.translation, raw = translation, translation.model
        if self.request.rewrites:
            flow = capture.control_flow
            raw, check = rewriting.rewritten(raw, self.request.rewrites, flow)
            self.stages.add(check)
        search = self._simplify(raw)
        # The one process for all artefacts imports its runtime while the module runs here.
        with Worker(preload=["onnxruntime"]) as self.tools:
            return self._prove(capture, raw, search)

    def _prove(self, capture: Capture, raw: OnnxModel, search: Search | str) -> Bundle | None:
        labels = ["onnx", *self.request.targets]
        candidates.check_tolerances(self.request.parity, capture.outputs, labels)
        expected = module_side(
            self.stages, self.loaded, capture.outputs, self.request.parity, capture
        )
        if expected is None:
            skip = Check("parity", Status.SKIPPED, "there is nothing repeatable to compare with")
            self.stages.add(skip)
            return None
        if capture.control_flow is not None:
            self.stages.add(rewriting.sides_check(capture.control_flow, self.loaded, expected))
        model = self._simplified(raw, search, expected)
        basis = Basis(capture, self.translation, model.origins)
        self.proof = Proof(
            self.stages, self.request, self.folder, self.tools, basis, model, expected
        )
        artifacts = self.proof.run(self.answers)
        wrong = [c for c in self.stages.checks if c.status in {Status.FAILED, Status.ERROR}]
        if wrong:
            hint, of = left_out(wrong)
            self.stages.add(bundle_contents.not_written(self.writer, model.path, hint, of))
            return None
        return self._write(model, capture, expected, artifacts)

    def _translate(self, capture: Capture) -> Translation:
        from torch2mobile.exporter.bundle import MODEL
        from torch2mobile.exporter.staging import writing
        from torch2mobile.exporter.translate import translation

        self.stages.observer.started("translate")
        path, since = self.folder / MODEL, time.monotonic()
        try:
            with writing(path):
                return translation(
                    capture,
                    path,
                    opset=self.request.opset,
                    external_data=self.request.external_data,
                    mend=self.request.mend,
                )
        finally:
            self.translating += time.monotonic() - since

    def _simplify(self, raw: OnnxModel) -> Search | str:
        """The search for a smaller file, with what is tried first; or why there is none."""
        if self.simplifier is None:
            return "turned off by --no-simplify"
        if too_large(raw.path):
            return "onnxsim takes no model above 2 GB"
        self.stages.observer.started("simplify")
        search = Search(
            self.simplifier,
            raw.path,
            self.folder / "simplified",
            external_data=self.request.external_data,
            timeout=self.request.simplify_timeout,
        )
        search.begin()
        # Its hundred megabytes are not needed while the module runs in float64.
        search.collect()
        return search

    def _simplified(
        self, raw: OnnxModel, search: Search | str, expected: Sequence[Expected]
    ) -> OnnxModel:
        """The smallest model that is proven equal on the probes, the raw one where none is."""
        if isinstance(search, str):
            self.stages.add(Check("simplify", Status.SKIPPED, search))
            return raw
        options = self.request.parity
        answers: dict[Path, Answers] = {}

        def judge(way: Way) -> Check:
            told = partial(answers.__setitem__, way.path)
            return judge_simplified(raw.path, way, expected, options, self.tools, told)

        check, way = search.found(judge)
        self.stages.add(check)
        # Room for both files, which are read whole.
        self.loaded.copies.without_float64()
        model = raw if way is None or way.same else adopt(raw, way.path)
        if way is not None and len(own_files(model.path)) == 1:
            # But for its notes, which nothing runs, it is the file that was judged.
            self.answers = answers.get(way.path)
        shutil.rmtree(search.folder)
        return model

    def _write(
        self,
        model: OnnxModel,
        capture: Capture,
        expected: Sequence[Expected],
        artifacts: Sequence[Artifact],
    ) -> Bundle | None:
        from torch2mobile.exporter.staging import writing
        from torch2mobile.validators.parity.exploring import sides
        from torch2mobile.validators.parity.golden import tied

        self.stages.observer.started("bundle")
        try:
            with writing(self.folder):
                variants = [ONNX, *(artifact.variant for artifact in artifacts)]
                golden = golden_cases.write_golden(
                    self.folder,
                    expected,
                    self.request.parity,
                    self.proof.errors,
                    variants,
                    tied(self.proof.picked),
                    sides.quickly(self.loaded),
                )
                state = bundle_contents.write_state(self.folder, capture)
                report = _report(self.request, self.loaded, self.stages)
                bundle_contents.write_report(self.folder, report)
            manifest = bundle_contents.manifest_of(report, model, capture, golden, artifacts, state)
            bundle = self.writer.commit(manifest)
        except Torch2MobileError as error:
            self.stages.add(error_check("bundle", error))
            return None
        size = sum(entry.size for entry in bundle.manifest.files.values())
        count = len(bundle.manifest.files) + 1
        summary = f"{shown_path(str(self.writer.out))} ({count} files, {size / 1024:.0f} KiB)"
        self.stages.add(Check("bundle", Status.PASSED, summary))
        return bundle
