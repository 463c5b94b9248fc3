"""One operators.config for several bundles: what a reduced build for all of them needs."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from torch2mobile.environments import Worker
from torch2mobile.errors import BundleError
from torch2mobile.exporter.bundle import tampered_files
from torch2mobile.exporter.output import refuse_output, write_output
from torch2mobile.pipeline.bundle_contents import open_bundle
from torch2mobile.validators.coverage import releases

_SECONDS = 300.0


def operators_config(
    paths: Sequence[Path], out: Path, *, ort_version: str | None = None
) -> list[str]:
    """Write the operators and types that the .ort files of all bundles need; returns warnings.

    ``ort_version`` is the release of ONNX Runtime in the app, which may be too old for the files.
    Raises a BundleError for a bundle that has no .ort, or whose files are not as they were written.
    """
    refuse_output(out)
    release = None
    if ort_version is not None:
        releases.check_version(ort_version)
        release = releases.find(ort_version)
    models = [_model(path) for path in paths]
    with tempfile.TemporaryDirectory(prefix="torch2mobile-") as name, Worker() as worker:
        config = Path(name) / out.name
        function = "torch2mobile.exporter.targets.ort:write_config"
        worker.call(function, models, config, timeout=_SECONDS)
        write_output(out, config.read_bytes())
    if release is None or release.ort_format >= releases.WRITTEN_ORT_FORMAT:
        return []
    known, written = release.ort_format, releases.WRITTEN_ORT_FORMAT
    reads = f"ONNX Runtime {release.version} reads .ort files up to format {known}"
    return [f"{reads}, and these are of format {written}: ship 1.16 or later"]


def _model(path: Path) -> Path:
    """The .ort of a bundle."""
    bundle = open_bundle(path)
    problems = tampered_files(bundle)
    if problems:
        raise BundleError(f"{path}: {problems[0]}", "Export it again, or restore the file.")
    files = bundle.manifest.targets.get("ort")
    if not files:
        raise BundleError(f"{path} has no .ort file", "Export it with --target ort.")
    return bundle.file(files[0])
