"""Artefacts to be judged: each in its runtime, under its contract, held to its tolerances."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from torch2mobile import devices, web
from torch2mobile.environments import HERE, REPLAY_MODULES, Worker
from torch2mobile.errors import NotApplicableError, NotInstalledError, UsageError
from torch2mobile.exporter.bundle import MODEL, refuse_external_data, refuse_undecodable
from torch2mobile.exporter.targets import (
    TARGETS,
    find_variant,
    refuse_missing,
    suffixes,
    variant_of,
    variants,
)
from torch2mobile.exporter.targets.mlpackage import package_of
from torch2mobile.exporter.targets.ort import ONNX
from torch2mobile.isolation import IsolatedRunner
from torch2mobile.onnx_files import data_names, is_ort, read_model, reading
from torch2mobile.pipeline.bound_runner import BoundRunner
from torch2mobile.pipeline.enough import allowing, rounded, to_pass
from torch2mobile.pipeline.opened_runner import OpenedRunner
from torch2mobile.pipeline.stages import error_check
from torch2mobile.records import (
    LOAD_SECONDS,
    ArtifactEntry,
    Bundle,
    Check,
    InputSpec,
    Manifest,
    OutputSpec,
    ParityOptions,
    Status,
    Tolerance,
    Variant,
)

if TYPE_CHECKING:
    from torch2mobile.interfaces import Runner

_LOADER = "torch2mobile.exporter.targets:load"
# Whose files are .onnx and .ort, of which a copy can give all values.
_OPENED = ("ort", "qnn")


# What holds a lossy artefact where the user gave nothing: its structure only.
_ANYTHING = Tolerance(atol=math.inf)


@dataclass(frozen=True)
class Candidate:
    """An artefact to be judged: how it was made, its process, and that under the contract.

    ``device`` is where it runs, if that is not this machine; ``size`` that of its files in bytes,
    where it is known. ``besides`` are the devices that the run was asked for, if any can be.
    """

    entry: ArtifactEntry
    process: IsolatedRunner
    runner: Runner
    device: str = ""
    size: int | None = None
    besides: Sequence[str] | None = None

    @property
    def label(self) -> str:
        """What reports call it."""
        return self.entry.variant.label

    def gate(self, options: ParityOptions, *, held: bool = False) -> ParityOptions:
        """The tolerances that hold for it; a lossy one without any is held to its structure.

        ``held`` where limits were recorded for it.
        """
        own = options.for_artifact(self.label)
        if self.entry.variant.lossy and not own.tolerances and not held:
            return replace(own, tolerances={"": _ANYTHING})
        return own

    def verdict(self, check: Check, gate: ParityOptions) -> Check:
        """What a check that passed is worth: nothing was held to anything without a gate.

        With its size and how long it took to load; where something stands in for the runtime, or
        none computes as new phones do, a note says so.
        """
        took = self.process.load_seconds
        figures = {"bytes": self.size, LOAD_SECONDS: None if took is None else round(took, 4)}
        known = {name: value for name, value in figures.items() if value is not None}
        check = replace(check, metrics={**check.metrics, **known})
        if not self.device and check.name in {"parity", "golden"}:
            check = replace(check, notes=(*check.notes, *self._otherwise()))
        if check.status is Status.FAILED and self.entry.variant.lossy:
            named = gate.tolerances
            own = rounded(check, self.entry.variant.precision, named) or allowing(check, named)
            check = replace(check, hint=own or check.hint)
        if check.status is not Status.PASSED or gate.tolerances.get("") is not _ANYTHING:
            return check
        atol = [
            row[table.columns.index("least atol")] for table in check.tables for row in table.rows
        ]
        worst = max((float(value) for value in atol if value is not None), default=0.0)
        return replace(
            check,
            status=Status.SKIPPED,
            summary=f"no tolerance is given for {self.entry.variant.precision}: off by {worst:.2g}",
            hint="Say how far it may be off: "
            + (f"{to_pass(check, gate.tolerances)} or more" if worst else f"--atol @{self.label}=A")
            + f", or --rtol @{self.label}=R.",
        )

    def _otherwise(self) -> Iterator[str]:
        """How it is computed on a phone, where that is otherwise and nothing in the run does it."""
        variant, arm64 = self.entry.variant, devices.ARM64
        target = TARGETS.get(variant.target)
        if target is None:
            return
        if target.environment.stand_in:
            yield target.environment.stand_in
        halves = variant.settings.get("arithmetic", variant.precision) == "float16"
        if self.besides is None or not halves or not target.packages:
            return
        ran_on = [name for label in self.besides for name in devices.find(label)]
        if not any(name in devices.HALVES for name in ran_on) and devices.find(arm64) != [arm64]:
            yield f"new phones compute it in float16, which none did here: add --device {arm64}"


def runner_of(
    path: Path, variant: Variant, timeout: float, worker: Worker | None = None, device: str = ""
) -> IsolatedRunner:
    """An artefact in its runtime, in a process of its own or, if that may be shared, ``worker``.

    Raises NotApplicableError where the runtime does not run on the device.
    """
    if device == web.WEB:
        if variant.target != ONNX.target:
            raise NotApplicableError(f"its runtime does not run on {device}", "Leave it out.")
        place = web.environment()
        return OpenedRunner("torch2mobile.web:load", path, timeout=timeout, environment=place)
    target = TARGETS[variant.target]
    place = target.environment
    if device in devices.DEVICES:
        place = devices.environment(device, target.packages)
    kind = OpenedRunner if variant.target in _OPENED else IsolatedRunner
    return kind(
        _LOADER,
        target,
        path,
        variant,
        timeout=timeout,
        worker=worker if place == HERE else None,
        environment=place,
        preload=REPLAY_MODULES if kind is OpenedRunner else REPLAY_MODULES[1:],
    )


def onnx_runner(path: Path, timeout: float, worker: Worker | None = None) -> IsolatedRunner:
    """An .onnx in ONNX Runtime, in a process of its own or in the one given."""
    return runner_of(path, ONNX, timeout, worker)


def candidate(
    path: Path,
    entry: ArtifactEntry,
    inputs: Sequence[InputSpec],
    outputs: Sequence[OutputSpec],
    timeout: float,
    worker: Worker | None = None,
    device: str = "",
    size: int | None = None,
    besides: Sequence[str] | None = None,
) -> Candidate:
    """An artefact under the contract that these inputs and outputs are."""
    process = runner_of(path, entry.variant, timeout, worker, device)
    runner = BoundRunner(process, entry, inputs, outputs)
    return Candidate(entry, process, runner, device, size, besides)


def interface(
    found: Candidate, inputs: Sequence[InputSpec], outputs: Sequence[OutputSpec]
) -> Check:
    """The contract of one artefact, as export and verify both look at it."""
    from torch2mobile.validators.contract import interface_check

    static = found.entry.variant.static
    return interface_check(found.label, inputs, outputs, found.runner, static=static)


def check_tolerances(
    options: ParityOptions, outputs: Sequence[str], labels: Sequence[str] = ()
) -> None:
    """Refuse a tolerance for an output or artefact that does not exist."""
    known = {"", *outputs}
    known |= {f"{name}@{label}" for label in labels for name in known}
    for name in options.tolerances:
        if name not in known:
            raise UsageError(
                f"a tolerance was given for {name!r}, which is no output and no artefact",
                (f"Did you mean @{name}? " if name in labels else "")
                + f"The outputs are {', '.join(outputs)}"
                + (f"; the artefacts @{', @'.join(labels)}." if labels else "."),
            )


def check_file(path: Path) -> None:
    """Refuse a file that is missing, empty or no whole model, or keeps its weights elsewhere."""
    refuse_undecodable(path.absolute(), "the file")
    kind = variant_of(path)
    with reading(path):
        own = path.is_file() and path.stat().st_size > 0
        if own and kind is not None and kind.target != "ort":
            return
        whole = own and is_ort(path)
    if not whole:
        read_model(path, reads=f"{', '.join(suffixes())} files and bundles")
    refuse_external_data(path.parent, path, ())


def kind_of(path: Path) -> Variant:
    """Whose file it is: by its ending, or by its first bytes where that says nothing."""
    known = variant_of(path)
    return known or (find_variant("ort") if is_ort(path) else ONNX)


def size_of(path: Path, variant: Variant) -> int:
    """The bytes of a file and of what is loaded with it: a package's files, or its weights."""
    package = package_of(path)
    files = list(package.rglob("*")) if package.is_dir() else [path]
    if variant == ONNX:
        files += [path.parent / name for name in data_names(path)]
    if variant.target == "ncnn":
        files.append(path.with_suffix(".bin"))
    return sum(each.stat().st_size for each in files if each.is_file())


def recorded_entry(manifest: Manifest, label: str) -> ArtifactEntry:
    """How an artefact of a bundle was made; an older manifest has no more than its label."""
    if label == ONNX.label:
        return ArtifactEntry(ONNX)
    return manifest.artifacts.get(label) or ArtifactEntry(find_variant(label))


def size_in(manifest: Manifest, label: str) -> int:
    """The bytes of an artefact's files, as a bundle's manifest has them."""
    files = manifest.targets.get(label, (MODEL, f"{MODEL}.data"))
    return sum(manifest.files[name].size for name in files if name in manifest.files)


def of_bundle(
    bundle: Bundle,
    options: ParityOptions,
    name: str,
    worker: Worker | None = None,
    besides: Sequence[str] | None = None,
) -> tuple[list[Candidate], list[Check]]:
    """The .onnx and every artefact beside it whose runtime is there, under the bundle's contract.

    Of each other one the check ``name``: skipped, with the command that installs its runtime.
    """
    manifest = bundle.manifest
    entries = [(MODEL, recorded_entry(manifest, ONNX.label))]
    for label, files in manifest.targets.items():
        if label not in variants() or not files:
            raise UsageError(
                f"the bundle holds files for {label!r}, which this version does not know",
                f"The targets are {', '.join(variants())}.",
            )
        entries.append((files[0], recorded_entry(manifest, label)))
    labels = [entry.variant.label for _, entry in entries]
    check_tolerances(options, [spec.name for spec in manifest.outputs], labels)
    found, absent = [], []
    for file, entry in entries:
        try:
            # ONNX Runtime itself is no extra: its .onnx needs nothing besides.
            if entry.variant != ONNX:
                refuse_missing(entry.variant)
        except NotInstalledError as error:
            absent.append(error_check(name, error, target=entry.variant.label))
            continue
        own = bundle.file(file), entry, manifest.inputs, manifest.outputs
        size = size_in(manifest, entry.variant.label)
        found.append(candidate(*own, options.timeout, worker, size=size, besides=besides))
    return found, absent
