"""A bundle against an earlier one: both files run now, on the earlier golden data."""

from __future__ import annotations

import filecmp
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from torch2mobile import limits
from torch2mobile.environments import Worker
from torch2mobile.errors import (
    BundleError,
    MissingToolError,
    Torch2MobileError,
    WorkerTimeoutError,
)
from torch2mobile.exporter.bundle import MANIFEST, MODEL, read_case, tampered_files
from torch2mobile.interfaces import Runner
from torch2mobile.pipeline import candidates
from torch2mobile.pipeline.baseline.changes import (
    Here,
    changes_between,
    interface_of,
    named,
    table_of,
)
from torch2mobile.pipeline.bundle_contents import open_bundle
from torch2mobile.pipeline.candidates import Candidate
from torch2mobile.pipeline.installed_tools import machine, tool_versions
from torch2mobile.pipeline.stages import Stages, error_check
from torch2mobile.records import (
    Bundle,
    Check,
    InputSpec,
    LoadedModel,
    Manifest,
    ParityOptions,
    Status,
    Table,
)

if TYPE_CHECKING:
    import numpy as np

    from torch2mobile.interfaces import Outputs
    from torch2mobile.validators.parity.answers import Answers
    from torch2mobile.validators.parity.baseline import Replay
    from torch2mobile.validators.parity.golden import Golden

KEEP = "Keep the earlier bundle as export wrote it, and give its folder or its manifest.json."


def load_baseline(path: Path) -> Bundle:
    """An earlier bundle, by its folder or its manifest.json, with all that is run of it in place.

    Raises BundleError for what is no bundle, and for models or golden data that are missing or not
    as they were written: numbers from such files would be evidence of nothing.
    """
    if path.is_file() and path.name != MANIFEST:
        raise BundleError(f"the baseline {path} is no {MANIFEST}", KEEP)
    folder = path.parent if path.name == MANIFEST else path
    try:
        earlier = open_bundle(folder)
    except BundleError as error:
        raise BundleError(f"the baseline cannot be used: {error.message}", KEEP) from error
    if not earlier.manifest.golden:
        raise BundleError(f"the baseline {folder} holds no golden data", KEEP)
    used = [case.file for case in earlier.manifest.golden]
    used += [name for files in earlier.manifest.targets.values() for name in files]
    files = {
        name: entry
        for name, entry in earlier.manifest.files.items()
        if name in used or name.startswith(MODEL)
    }
    problems = tampered_files(replace(earlier, manifest=replace(earlier.manifest, files=files)))
    if problems:
        raise BundleError(f"the baseline {folder} cannot be used: {problems[0]}", KEEP)
    return earlier


def begin(
    stages: Stages,
    baseline: Path | None,
    bundle: Bundle,
    options: ParityOptions,
    *,
    golden: Sequence[Golden] = (),
    loaded: LoadedModel | None = None,
    source: str = "",
    worker: Worker | None = None,
) -> Drift | None:
    """The comparison with an earlier bundle, its interface checked; None where there is none.

    ``golden`` are the bundle's own cases; ``loaded`` is today's module, of the source as typed.
    """
    if baseline is None:
        return None
    drift = Drift(load_baseline(baseline), bundle, options, golden, loaded, source, worker)
    stages.add(drift.interface_check())
    return drift


class Drift:
    """One comparison: the earlier bundle, this one, and today's module if it is given."""

    def __init__(
        self,
        earlier: Bundle,
        bundle: Bundle,
        options: ParityOptions,
        golden: Sequence[Golden],
        loaded: LoadedModel | None,
        source: str,
        worker: Worker | None,
    ) -> None:
        self.earlier, self.bundle, self.options, self.worker = earlier, bundle, options, worker
        self.cases = [
            (number, case)
            for number, case in enumerate(_read_golden(earlier))
            if fits(case.feeds, bundle.manifest.inputs)
        ]
        here = Here(tool_versions(), machine())
        if loaded is not None:
            here = _with_module(here, loaded, source, earlier.manifest)
            names = [spec.name for spec in bundle.manifest.outputs]
            self.modules = _module_today(loaded, names, [case for _, case in self.cases])
        else:
            self.modules = [_same_inputs(case, golden) for _, case in self.cases]
        self.changes = changes_between(earlier.manifest, bundle.manifest, here)

    def interface_check(self) -> Check:
        """FAILED where inputs or outputs are others; what changed since then is in its table."""
        then, now = (interface_of(each.manifest) for each in (self.earlier, self.bundle))
        differ = [name for name in {**then, **now} if then.get(name) != now.get(name)]
        rows = tuple((name, then.get(name), now.get(name)) for name in differ)
        order = list(then) != list(now)
        changed = named(self.changes)
        tables = (table_of(self.changes),) if self.changes.found else ()
        unknown = [change.what for change in self.changes.found if not change.known]
        notes = (f"not recorded in the earlier bundle: {', '.join(unknown)}",) if unknown else ()
        if not differ and not order:
            summary = f"inputs and outputs as in {self.earlier.path}; "
            summary += f"changed since: {changed}" if changed else "nothing has changed since"
            return Check("baseline", Status.PASSED, summary, tables=tables, notes=notes)
        what = ", ".join(differ) if differ else "their order"
        return Check(
            "baseline",
            Status.FAILED,
            f"inputs or outputs are not as in {self.earlier.path}: {what}",
            hint="An app that was written for the earlier bundle has to be changed with this one.",
            tables=(Table("interface", ("what", "then", "now"), rows), *tables),
            notes=notes,
        )

    def target_check(self, stages: Stages, found: Candidate) -> None:
        """The drift of one artefact."""
        from torch2mobile.validators.parity.baseline import baseline_check

        target = found.label
        stages.observer.started(f"baseline {target}".strip())
        try:
            now = _answers(found.runner, self.cases)
            before, notes = self._before(target, now)
        except (MissingToolError, WorkerTimeoutError) as error:
            stages.add(error_check("baseline", error, target=target))
            return
        replays = self._replays(target, now, before)
        held = found.gate(self.options)
        check = baseline_check(target, replays, self.changes, held.tolerances, notes)
        stages.add(found.verdict(check, held))

    def _replays(self, target: str, now: Answers, before: Answers | None) -> list[Replay]:
        from torch2mobile.validators.parity.baseline import Replay

        return [
            Replay(
                case,
                answer,
                None if before is None else before[place],
                self.modules[place],
                self.earlier.manifest.golden[number].errors.get(target, {}),
            )
            for place, ((number, case), answer) in enumerate(zip(self.cases, now, strict=True))
        ]

    def _before(self, target: str, now: Answers) -> tuple[Answers | None, tuple[str, ...]]:
        """The earlier file's answers, run now; those of this one where the bytes are the same."""
        files = _files_of(self.earlier, target)
        if not files:
            return None, (f"the earlier bundle has no file for {target}",)
        if _same_bytes(files, _files_of(self.bundle, target)):
            return now, ()
        earlier = self._earlier(target, files[0])
        with earlier.process:
            try:
                earlier.process.load()
            except (MissingToolError, WorkerTimeoutError):
                raise
            except Torch2MobileError as error:
                return None, (f"the earlier file for {target} does not load here: {error.message}",)
            return _answers(earlier.runner, self.cases), ()

    def _earlier(self, label: str, path: Path) -> Candidate:
        """The earlier artefact under the earlier contract."""
        manifest, options = self.earlier.manifest, self.options
        entry = candidates.recorded_entry(manifest, label)
        return candidates.candidate(
            path, entry, manifest.inputs, manifest.outputs, options.timeout, self.worker
        )


def _answers(runner: Runner, cases: Sequence[tuple[int, Golden]]) -> Answers:
    from torch2mobile.validators.parity.answers import run_probes
    from torch2mobile.validators.parity.expected import Expected
    from torch2mobile.validators.parity.probes import Probe

    return run_probes(runner, [Expected(Probe(c.probe, c.feeds), c.outputs) for _, c in cases])


def _read_golden(bundle: Bundle) -> list[Golden]:
    from torch2mobile.validators.parity.golden import Golden

    budget = limits.Budget()
    return [
        Golden(case.probe, *read_case(bundle.file(case.file), budget), case.allowed)
        for case in bundle.manifest.golden
    ]


def fits(feeds: Mapping[str, np.ndarray], specs: Sequence[InputSpec]) -> bool:
    """Whether inputs have the names, dtypes, ranks and fixed sizes of these specifications."""
    return set(feeds) == {spec.name for spec in specs} and all(
        str(feeds[spec.name].dtype) == spec.dtype
        and feeds[spec.name].ndim == len(spec.dims)
        and all(
            dim.symbol is not None or dim.size == size
            for dim, size in zip(spec.dims, feeds[spec.name].shape, strict=True)
        )
        for spec in specs
    )


def _same_inputs(case: Golden, golden: Sequence[Golden]) -> Outputs | None:
    """What the module gave on these very inputs when this bundle was exported."""
    import numpy as np

    for other in golden:
        if set(other.feeds) == set(case.feeds) and all(
            other.feeds[name].dtype == array.dtype and np.array_equal(other.feeds[name], array)
            for name, array in case.feeds.items()
        ):
            return other.outputs
    return None


def _module_today(
    loaded: LoadedModel, names: Sequence[str], cases: Sequence[Golden]
) -> list[Outputs | None]:
    """The module on the earlier inputs; None where it refuses them."""
    from torch2mobile.validators.parity import reference
    from torch2mobile.validators.parity.probes import Probe

    probes = [Probe(case.probe, case.feeds) for case in cases]
    return [
        None if item.refusal else item.outputs for item in reference.evaluate(loaded, names, probes)
    ]


def _with_module(here: Here, loaded: LoadedModel, source: str, earlier: Manifest) -> Here:
    from torch2mobile.exporter import fingerprint

    return replace(
        here,
        weights=fingerprint.weights_of(loaded.module),
        sources=fingerprint.sources_of(loaded, source, earlier.sources.parts),
        source=source,
    )


def _files_of(bundle: Bundle, target: str) -> list[Path]:
    """What a target's runtime reads, the file to load first."""
    if target == "onnx":
        names = [MODEL, *(n for n in bundle.manifest.files if n.startswith(f"{MODEL}."))]
    else:
        names = list(bundle.manifest.targets.get(target, ()))
    return [bundle.file(name) for name in names]


def _same_bytes(first: Sequence[Path], second: Sequence[Path]) -> bool:
    return [path.name for path in first] == [path.name for path in second] and all(
        b.is_file() and filecmp.cmp(a, b, shallow=False) for a, b in zip(first, second, strict=True)
    )
