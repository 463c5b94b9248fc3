"""Results are made in a folder beside their place, and put there in one step."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import glob
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from torch2mobile import interrupts
from torch2mobile.errors import WriteError

_ASIDE = ".old"
_RENAME_EXCHANGE = 2
_AT_FDCWD = -100


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError while writing into a WriteError that says what to do."""
    try:
        yield
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
        remedy = "Free some disk space." if full else "Check the permissions of the folder."
        raise WriteError(f"cannot write {path}: {error.strerror or error}", remedy) from error


class Stage:
    """A folder beside ``place``, for one run alone, and gone with it.

    It is locked while its run lives. A lock is the kernel's: it ends with the process however
    that ends, and holds between containers, which do not know each other's process ids. Folders
    of dead runs are removed on entering. Raises OSError.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self._prefix = f".{place.name}.partial-"
        self.path = place.parent / f"{self._prefix}{os.urandom(6).hex()}"
        self._lock = contextlib.ExitStack()

    def __enter__(self) -> Stage:
        try:
            with interrupts.held():
                self.place.parent.mkdir(parents=True, exist_ok=True)
                with _locked(self.place.parent):
                    self._remove_leftovers()
                    self.path.mkdir()
                    self._lock.enter_context(_locked(self.path))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with interrupts.held():
            shutil.rmtree(self.path, ignore_errors=True)
            self._lock.close()

    @contextlib.contextmanager
    def settling(self) -> Iterator[None]:
        """The block that puts what was made in its place: whole, and no two runs at once."""
        with interrupts.exchange(), _locked(self.place.parent):
            yield
            shutil.rmtree(self.path, ignore_errors=True)

    def swap(self) -> None:
        """Put the folder at its place; what stood there is then here. Again, and it is back."""
        _exchange(self.path, self.place)

    def _remove_leftovers(self) -> None:
        """Remove unfinished folders of runs that were killed; a bundle moved aside goes back."""
        for path in self.place.parent.glob(f"{glob.escape(self._prefix)}*"):
            if _held_by_a_run(path.with_name(path.name.removesuffix(_ASIDE))):
                continue
            if path.name.endswith(_ASIDE) and not self.place.exists():
                path.rename(self.place)
            shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Other runs wait for the end of the block, where the file system has locks."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, lock)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _held_by_a_run(stage: Path) -> bool:
    """Whether a living run has locked its folder; so it counts where there are no locks."""
    try:
        lock = os.open(stage, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        return not isinstance(error, FileNotFoundError)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False


def _exchange(new: Path, place: Path) -> None:
    """Swap both, or move ``new`` to ``place`` where nothing stands there."""
    if not place.exists():
        new.rename(place)
        return
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        arguments = (_AT_FDCWD, os.fsencode(new), _AT_FDCWD, os.fsencode(place), _RENAME_EXCHANGE)
        if hasattr(libc, "renameat2") and libc.renameat2(*arguments) == 0:
            return
    # No exchange in one step here: move the old one aside, and back if the new one does not go.
    aside = new.with_name(new.name + _ASIDE)
    place.rename(aside)
    try:
        new.rename(place)
    except OSError:
        aside.rename(place)
        raise
    aside.rename(new)
