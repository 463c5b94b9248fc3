"""A bundle being written: whole or not at all."""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import replace
from pathlib import Path, PurePosixPath

import msgspec

from torch2mobile.errors import BundleError
from torch2mobile.exporter.bundle import (
    MANIFEST,
    MODEL,
    PROVENANCE,
    REPORT,
    STATE,
    load_bundle,
    refuse_undecodable,
)
from torch2mobile.exporter.staging import Stage, writing
from torch2mobile.installing import file_sha256
from torch2mobile.onnx_files import own_files
from torch2mobile.records import Bundle, FileEntry, Manifest


class BundleWriter:
    """Makes a bundle beside ``out`` and puts it there on :meth:`commit`.

    Where ``out`` is a link to a folder, that folder is replaced and the link stays. Leaving the
    context without a commit removes the unfinished folder and nothing else. Raises BundleError at
    once where ``out`` holds something that is no bundle, or cannot be written.
    """

    def __init__(self, out: Path) -> None:
        self.out = Path(os.path.abspath(out))  # noqa: PTH100 (resolve() would follow a link)
        refuse_undecodable(self.out, "--out")
        try:
            self._place = Path(os.path.realpath(out))
            _refuse_foreign(self._place, self.out)
        except (OSError, ValueError) as error:
            raise BundleError(
                f"cannot read {str(out)!r}: {error}", "Give another folder with --out."
            ) from error
        if self._place.is_mount():
            raise BundleError(
                f"{out} is a mount point, which cannot be exchanged with the new bundle",
                f"Give a folder in it: --out {out}/NAME.",
            )
        self._stage = Stage(self._place)
        self.stage = self._stage.path

    def __enter__(self) -> BundleWriter:
        try:
            self._stage.__enter__()
        except OSError as error:
            raise BundleError(
                f"cannot write beside {self._place}: {error.strerror or error}",
                "Give another folder with --out, or make this one writable.",
            ) from error
        return self

    def __exit__(self, *_: object) -> None:
        self._stage.__exit__()

    def keep_judged(self, model: Path) -> Path:
        """Keep an .onnx that did not pass, beside the bundle's place, for ``debug``; its path.

        In a folder of its own, as weights may lie in a second file. The next bundle removes it.
        """
        with writing(self._failed):
            self._failed.mkdir(exist_ok=True)
            for path in own_files(model):
                path.replace(self._failed / path.name)
        return self._failed / model.name

    @property
    def older(self) -> bool:
        """Whether the bundle of an earlier run stands in the place."""
        return (self._place / MANIFEST).exists()

    @property
    def _failed(self) -> Path:
        return self.out.with_name(f"{self.out.name}.failed")

    def _forget_judged(self) -> None:
        with contextlib.suppress(OSError):  # nothing is lost with what stays
            for path in own_files(self._failed / MODEL):
                path.unlink()
            self._failed.rmdir()

    def commit(self, manifest: Manifest) -> Bundle:
        """Hash every file, write the manifest, and put the folder in its place.

        Raises BundleError where something was put into the place since: it would be lost.
        """
        files = {
            str(PurePosixPath(path.relative_to(self.stage))): _entry(path)
            for path in sorted(self.stage.rglob("*"))
            if path.is_file()
        }
        manifest = replace(manifest, files=files)
        mode = (self.stage / MODEL).stat().st_mode if MODEL in files else 0o644
        for name in files:
            # Some writers go by way of a temporary file that only its owner may read.
            (self.stage / name).chmod(mode)
        with writing(self.stage / MANIFEST):
            (self.stage / MANIFEST).write_bytes(encode_manifest(manifest))
        with writing(self.out), self._stage.settling():
            _refuse_foreign(self._place, self.out)
            self._stage.swap()
            try:
                # What came in the last instant is found where nobody else looks.
                if self.stage.exists():
                    _refuse_foreign(self.stage, self.out)
            except BundleError:
                self._stage.swap()
                raise
        self._forget_judged()
        return Bundle(self.out, manifest)


def _refuse_foreign(folder: Path, out: Path) -> None:
    """Refuse to replace a folder that holds anything which is not of a bundle's own."""
    if not folder.exists() and not out.is_symlink():
        return
    if not folder.is_dir():
        raise BundleError(f"{out} is there and is no folder", "Give another folder with --out.")
    if not any(folder.iterdir()):
        return
    try:
        old = load_bundle(folder)
    except BundleError as error:
        raise BundleError(
            f"{out} is not empty and was not written by torch2mobile ({error.message})",
            "Give another folder with --out, or empty this one yourself.",
        ) from error
    own = {PurePosixPath(name) for name in _own_files(old.manifest)}
    folders = {parent for name in own for parent in name.parents}
    for path in sorted(folder.rglob("*")):
        name, mode = PurePosixPath(path.relative_to(folder)), path.lstat().st_mode
        if not ((stat.S_ISREG(mode) and name in own) or (stat.S_ISDIR(mode) and name in folders)):
            raise BundleError(
                f"{out} holds {name}, which is no part of the bundle and would be lost",
                "Move it elsewhere, or give another folder with --out.",
            )


def _own_files(manifest: Manifest) -> set[str]:
    """The files that an export writes; whatever else a manifest lists was added by somebody."""
    made = {MANIFEST, MODEL, f"{MODEL}.data", REPORT, PROVENANCE, STATE}
    artifacts = (name for files in manifest.targets.values() for name in files)
    return made.union(artifacts, (case.file for case in manifest.golden))


def _entry(path: Path) -> FileEntry:
    return FileEntry(sha256=file_sha256(path), size=path.stat().st_size)


def encode_manifest(manifest: Manifest) -> bytes:
    """manifest.json: sorted, indented, the same bytes for the same manifest."""
    text = msgspec.json.encode(manifest, order="deterministic")
    return msgspec.json.format(text, indent=1) + b"\n"
