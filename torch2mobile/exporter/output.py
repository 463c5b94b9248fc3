"""Files whose names the user gives: written beside their place, and never over what is no file."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from torch2mobile.errors import BundleError
from torch2mobile.exporter.bundle import MANIFEST, load_bundle
from torch2mobile.exporter.staging import Stage, writing

_KINDS = {
    stat.S_IFLNK: "a link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
}
_OTHER_NAME = "Give another name."


def refuse_output(path: Path) -> None:
    """Refuse a name under which no file can be written, or something is that would be lost.

    Raises BundleError for all but a regular file, for a file of a bundle, and for a folder that
    is not there or cannot be written.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        mode = stat.S_IFREG
    except (OSError, ValueError) as error:
        raise BundleError(f"cannot write {str(path)!r}: {error}", _OTHER_NAME) from error
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "a device")
        raise BundleError(f"{path} is {kind}, and would be replaced by a file", _OTHER_NAME)
    if path.exists() and not os.access(path, os.W_OK):
        raise BundleError(f"{path} is there and is read-only", _OTHER_NAME)
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise BundleError(
            f"cannot write into {path.parent}", "Give a folder that exists and can be written."
        )
    _refuse_bundles_own(Path(os.path.realpath(path)))


def _refuse_bundles_own(path: Path) -> None:
    for folder in path.parents:
        if not (folder / MANIFEST).is_file():
            continue
        try:
            files = load_bundle(folder).manifest.files
        except BundleError:
            continue
        if path == folder / MANIFEST or path.relative_to(folder).as_posix() in files:
            raise BundleError(
                f"{path} is a file of the bundle {folder}, which would no longer be what was "
                "proven",
                _OTHER_NAME,
            )


class OutputFile:
    """A file in the making: ``draft`` lies in a folder beside ``path`` until :meth:`commit`.

    Leaving the context without a commit leaves what stood there. Raises BundleError as
    :func:`refuse_output`, and WriteError where the disk is full.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        refuse_output(path)
        self._stage = Stage(Path(os.path.realpath(path.parent)) / path.name)
        self.draft = self._stage.path / path.name

    def __enter__(self) -> OutputFile:
        with writing(self.path):
            self._stage.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._stage.__exit__()

    def commit(self) -> None:
        """Put the draft, and files that were made beside it, in their places."""
        # The file itself last: what it refers to is then there.
        made = sorted(self.draft.parent.iterdir(), key=lambda path: path == self.draft)
        with writing(self.path), self._stage.settling():
            for draft in made:
                refuse_output(self.path.parent / draft.name)
            for draft in made:
                place = self.path.parent / draft.name
                if place.exists():
                    shutil.copymode(place, draft)
                draft.replace(place)


def write_output(path: Path, data: bytes) -> None:
    """Write a whole file; errors as of :class:`OutputFile`."""
    with OutputFile(path) as output, writing(path):
        output.draft.write_bytes(data)
        output.commit()
