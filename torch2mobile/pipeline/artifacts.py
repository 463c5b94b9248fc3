"""Every artefact of an export: the .onnx and each target's, made, under its contract, judged."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from torch2mobile.environments import Worker
from torch2mobile.exporter.targets.ort import ONNX, OrtTarget
from torch2mobile.onnx_files import own_files
from torch2mobile.pipeline import bundle_contents, candidates, judging, on_devices
from torch2mobile.pipeline.conversion import (
    convert,
    convert_check,
    example_shapes,
    find_variants,
    program_file,
)
from torch2mobile.pipeline.localising import Basis, Localiser
from torch2mobile.pipeline.stages import Stages
from torch2mobile.records import Artifact, ArtifactEntry, Check, Job, OnnxModel, Request

if TYPE_CHECKING:
    from torch2mobile.interfaces import Outputs
    from torch2mobile.validators.parity.answers import Answers
    from torch2mobile.validators.parity.expected import Expected


class Proof:
    """The artefacts of one run against what the module gave.

    ``errors`` has by artefact and probe its own errors, for the golden data; ``picked`` by
    artefact, for each probe, what it passed with in place of the module's outputs.
    """

    def __init__(
        self,
        stages: Stages,
        request: Request,
        folder: Path,
        tools: Worker,
        basis: Basis,
        model: OnnxModel,
        expected: Sequence[Expected],
    ) -> None:
        self.stages, self.request, self.folder, self.tools = stages, request, folder, tools
        self.capture, self.model, self.expected = basis.capture, model, expected
        self.options, self.interface = request.parity, (basis.capture.inputs, model.outputs)
        self.localiser = Localiser(model.path, lambda: basis, request.parity, stages.observer)
        self.errors: dict[str, list[dict[str, float]]] = {}
        self.picked: list[list[Outputs | None]] = []

    def run(self, known: Answers | None = None) -> list[Artifact]:
        """The .onnx, then every target's artefact; one target's failure stops no other.

        ``known`` is what the .onnx gave already.
        """
        variants = find_variants(self.request.targets)
        wanted = any(variant.source == "program" for variant in variants)
        program = program_file(self.capture, self.folder) if wanted else None
        self._onnx(known)
        self.stages.add(bundle_contents.write_provenance(self.folder, self.model))
        shapes = partial(example_shapes, self.capture)
        jobs = [Job(self.model, each, program, self.folder, shapes(each)) for each in variants]
        made = [self._variant(job) for job in jobs]
        several = len(self.request.targets) > 1
        on_devices.side_by_side(self.stages, self.request.devices, several=several)
        return [artifact for artifact in made if artifact is not None]

    def _onnx(self, known: Answers | None) -> None:
        from torch2mobile.validators.contract import contract_check

        files = own_files(self.model.path)
        found = self._candidate(files, ArtifactEntry(ONNX))
        with found.process as runner:
            self.stages.observer.started("contract")
            opset = self.request.opset
            self.stages.add(contract_check(self.model, *self.interface, opset, runner))
            self._judge(found, known)
            judging.look_up(self.stages, self.model.path, self.capture.loaded.module)
        self._on_devices(found, files)

    def _candidate(
        self, files: Sequence[Path], entry: ArtifactEntry, device: str = ""
    ) -> candidates.Candidate:
        own = files[0], entry, *self.interface, self.options.timeout, self.tools
        size = sum(path.stat().st_size for path in files)
        return candidates.candidate(*own, device, size, self.request.devices)

    def _on_devices(self, found: candidates.Candidate, files: Sequence[Path]) -> None:
        """The same file on the devices that were asked for."""
        on, labels = partial(self._candidate, files, found.entry), self.request.devices
        on_devices.parity(
            self.stages, found.label, on, labels, self.expected, self.options, self.localiser
        )

    def _variant(self, job: Job) -> Artifact | None:
        """One variant converted and judged; what goes wrong is its own check."""
        label, timeout = job.variant.label, self.options.timeout
        artifact = self.stages.attempt(
            "convert", lambda: convert(job, self.tools, timeout), target=label
        )
        if artifact is None:
            return None
        self.stages.add(convert_check(artifact))
        entry = ArtifactEntry(job.variant, artifact.tools, artifact.names, artifact.shapes)
        found = self._candidate(artifact.files, entry)
        with found.process:
            look = partial(candidates.interface, found, *self.interface)
            check = self.stages.attempt("contract", look, target=label)
            if check is not None:
                self.stages.add(check)
                self._judge(found)
                self._on_devices(found, artifact.files)
        return artifact

    def _judge(self, found: candidates.Candidate, known: Answers | None = None) -> None:
        """Parity of one artefact; its own errors are kept, for the golden data."""
        from torch2mobile.validators.parity.golden import errors_of, taken_instead

        answers: Answers = []
        judging.judge(
            self.stages,
            found,
            self.expected,
            self.options,
            self.capture,
            self.localiser,
            told=answers.extend,
            known=known,
        )
        if not answers:
            return
        pairs = list(zip(self.expected, answers, strict=True))
        instead = [taken_instead(case, answer) for case, answer in pairs]
        self.errors[found.label] = [
            errors_of(case.instead(outputs) if outputs else case, answer)
            for (case, answer), outputs in zip(pairs, instead, strict=True)
        ]
        self.picked.append(instead)


def left_out(wrong: Sequence[Check]) -> tuple[str, str]:
    """What to leave out for a bundle, where the .onnx is right here, and what it is kept for."""
    apart = [c for c in wrong if c.device or c.target not in {"", ONNX.label}]
    if any(c not in apart and c.name != "devices" for c in wrong):
        return "", ", for torch2mobile debug"
    targets = {c.target for c in apart if not c.device}
    asked = [
        f"--device {c.device}" if c.device else f"--target {c.target}"
        for c in apart
        if not c.device or c.target not in targets
    ]
    # Who asks for no target gets that one.
    rest = "" if OrtTarget.name in targets else " ".join(dict.fromkeys(asked))
    return f"For a bundle of the rest leave out {rest}." if rest else "", "; it passed"
