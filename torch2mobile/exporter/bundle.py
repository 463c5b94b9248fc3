"""The bundle: a folder that a mobile team can check in. Written whole or not at all.

Everything is made in a folder beside its place and exchanged with it in one step, so a run that
fails or is killed leaves what stood there before. Same request, same versions: same bytes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch2mobile import json_files, limits, onnx_files
from torch2mobile.errors import BundleError, some_of
from torch2mobile.exporter.staging import writing
from torch2mobile.installing import file_sha256
from torch2mobile.records import SCHEMA_VERSION, Bundle, Manifest, StateEntry, StateSpec

if TYPE_CHECKING:
    import numpy as np

MANIFEST = "manifest.json"
MODEL = "model.onnx"
REPORT = "report.json"
PROVENANCE = "provenance.json"
STATE = "state.bin"
_KIND = "torch2mobile bundle"


def refuse_undecodable(path: Path, what: str) -> None:
    """Refuse a path whose bytes are no UTF-8: ONNX Runtime and torch.onnx cannot open it."""
    shown = os.fsencode(path).decode("utf-8", "backslashreplace")
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise BundleError(
            f"{what}: the path {shown} is no UTF-8, and no ONNX tool can open it",
            "Rename it, or give a place whose whole path is UTF-8.",
        ) from None


def load_bundle(path: Path) -> Bundle:
    """Read a bundle's manifest and check that all its paths stay inside the folder.

    Raises BundleError for a folder without one, a corrupt one, or paths that lead out of it.
    """
    path = Path(path)
    refuse_undecodable(path.absolute(), "the bundle")
    remedy = "Export the model again."
    if not path.is_dir():
        raise BundleError(f"there is no bundle at {path}", "Give a folder that export wrote.")
    try:
        raw = limits.read_regular(path / MANIFEST)
    except FileNotFoundError as error:
        raise _no_bundle(path) from error
    except OSError as error:
        raise BundleError(
            f"{path} has no readable {MANIFEST}: {error.strerror}",
            "Give a folder that export wrote.",
        ) from error
    manifest = json_files.decode(
        raw, Manifest, name=str(path / MANIFEST), remedy=remedy, error=BundleError
    )
    if manifest.kind != _KIND or manifest.schema_version != SCHEMA_VERSION:
        raise BundleError(
            f"{path / MANIFEST} is of kind {manifest.kind!r}, version {manifest.schema_version}",
            f"This torch2mobile reads version {SCHEMA_VERSION}; export the model again.",
        )
    named = [name for files in manifest.targets.values() for name in files]
    for name in [*manifest.files, *named, *(case.file for case in manifest.golden)]:
        _refuse_escape(path, name)
    _refuse_unlisted(manifest, [*named, *([STATE] if manifest.state else [])])
    for name in manifest.files:
        if (path / name).exists() and not (path / name).is_file():
            raise BundleError(f"{path / name} is no regular file", "Export the model again.")
    return Bundle(path, manifest)


def _no_bundle(path: Path) -> BundleError:
    names = sorted(item.name for item in path.iterdir())
    models = [n for n in names if n.endswith(".onnx") and (path / n).stat().st_size]
    alone = f" {path / models[0]} can be given by itself." if models else ""
    return BundleError(
        f"{path} is no bundle: it holds {some_of(names) or 'nothing'}, and no {MANIFEST}",
        f"Give a folder that export wrote, with {MANIFEST}, {MODEL} and golden data.{alone}",
    )


def _refuse_escape(folder: Path, name: str, *, named_by: str = MANIFEST) -> None:
    if onnx_files.leads_out(folder, name):
        raise BundleError(
            f"{folder / named_by} names {name!r}, which leads out of the bundle",
            "Do not use this bundle; export the model again.",
        )


def _refuse_unlisted(manifest: Manifest, named: Sequence[str]) -> None:
    wanted = [MODEL, *named, *(case.file for case in manifest.golden)]
    unlisted = [name for name in wanted if name not in manifest.files]
    if unlisted:
        raise BundleError(
            f"the manifest gives no hash for {', '.join(unlisted)}",
            "Do not use this bundle; export the model again.",
        )


def tampered_files(bundle: Bundle) -> list[str]:
    """What is wrong with the bundle's files, one line each: missing, or not as written."""
    problems = []
    for name, entry in bundle.manifest.files.items():
        path = bundle.file(name)
        try:
            if not path.is_file():
                problems.append(f"{name} is missing")
            elif (size := path.stat().st_size) != entry.size:
                problems.append(f"{name} has {size} bytes, the manifest says {entry.size}")
            elif file_sha256(path) != entry.sha256:
                problems.append(f"{name} was changed after it was written (SHA-256 differs)")
        except OSError as error:
            problems.append(f"{name} cannot be read: {error.strerror}")
    return problems


def refuse_external_data(folder: Path, model: Path, allowed: Sequence[str]) -> None:
    """Refuse an .onnx whose external data lies outside its folder or is not listed."""
    for name in onnx_files.data_names(model):
        _refuse_escape(folder, name, named_by=model.name)
        if allowed and name not in allowed:
            raise BundleError(
                f"{model.name} reads {name!r}, which the manifest does not list",
                "Do not use this bundle; export the model again.",
            )


def write_state(
    folder: Path,
    state: Sequence[StateSpec],
    arrays: Sequence[np.ndarray],
    outputs: Sequence[str],
) -> tuple[StateEntry, ...]:
    """``state.bin``: what the state is at first, one after the other; nothing without state."""
    entries: list[StateEntry] = []
    data = b""
    for spec, array, output in zip(state, arrays, outputs, strict=True):
        own = array.astype(array.dtype.newbyteorder("<")).tobytes()
        dtype = str(array.dtype)
        at = len(data), len(own), spec.place
        entries.append(StateEntry(spec.name, output, dtype, array.shape, *at))
        data += own
    if entries:
        with writing(folder / STATE):
            (folder / STATE).write_bytes(data)
    return tuple(entries)


def read_state(bundle: Bundle) -> dict[str, np.ndarray]:
    """What the state is at first, by input; BundleError where the file does not hold it."""
    import numpy as np

    found: dict[str, np.ndarray] = {}
    path = bundle.file(STATE)
    try:
        data = limits.read_regular(path) if bundle.manifest.state else b""
        for entry in bundle.manifest.state:
            own = data[entry.offset : entry.offset + entry.size]
            dtype = np.dtype(entry.dtype)
            array = np.frombuffer(own, dtype.newbyteorder("<")).reshape(entry.shape)
            found[entry.input] = array.astype(dtype)
    except (OSError, TypeError, ValueError) as error:
        raise BundleError(
            f"{path} does not hold the state of the manifest: {error}", "Export the model again."
        ) from error
    return found


def write_case(
    path: Path, feeds: Mapping[str, np.ndarray], outputs: Sequence[tuple[str, np.ndarray]]
) -> None:
    """One golden case as .npz: ``inputs/NAME`` and ``outputs/NAME``, row by row."""
    import numpy as np

    arrays = {f"inputs/{name}": np.asarray(array, order="C") for name, array in feeds.items()}
    arrays |= {f"outputs/{name}": np.asarray(array, order="C") for name, array in outputs}
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path):
        np.savez(path, **arrays)  # type: ignore[arg-type]


def read_case(
    path: Path, budget: limits.Budget | None = None
) -> tuple[dict[str, np.ndarray], list[tuple[str, np.ndarray]]]:
    """The inputs and outputs of a golden case; ModelFileError where it cannot be read."""
    from torch2mobile.exporter.loading.npz import read_npz

    arrays = read_npz(path, budget or limits.Budget(), "Export the model again.")
    feeds = {k.removeprefix("inputs/"): v for k, v in arrays.items() if k.startswith("inputs/")}
    outputs = [
        (k.removeprefix("outputs/"), v) for k, v in arrays.items() if k.startswith("outputs/")
    ]
    return feeds, outputs
