"""Every way torch2mobile can refuse or give up, each with its exit code and a remedy."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from enum import IntEnum
from itertools import islice
from pathlib import Path


class ExitCode(IntEnum):
    """What the process returns; documented in ``docs/reference/exit-codes.md``."""

    PASSED = 0
    FAILED = 1
    USAGE = 2
    STAGE = 3
    BUG = 4
    HUNG_UP = 129
    INTERRUPTED = 130
    TERMINATED = 143


class Torch2MobileError(Exception):
    """Base of all errors that a user is meant to read.

    ``message`` says what was wrong and where, ``remedy`` what to do about it.
    """

    exit_code = ExitCode.STAGE

    def __init__(
        self,
        message: str,
        remedy: str = "",
        locations: tuple[object, ...] = (),
        details: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.locations = locations
        """:class:`torch2mobile.records.Location` of the user's lines at fault."""
        self.details = details
        """What was tried, one line each."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of a traceback through libraries: message, lines, remedy."""
        places = [f"  at {place}" for place in self.locations]
        remedy = [f"  {self.remedy}"] if self.remedy else []
        return [f"{type(self).__name__}: {self.message}", *places, *remedy]

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.message, self.remedy, self.locations, self.details)


class UsageError(Torch2MobileError):
    """The request itself cannot be carried out as written."""

    exit_code = ExitCode.USAGE


class SourceError(UsageError):
    """The module, attribute, sample or weights named by the user cannot be loaded."""


class InputError(UsageError):
    """An input specification, its values, or an example input does not fit."""


class BundleError(UsageError):
    """A bundle or output folder cannot be read or must not be written."""


class ModelFileError(UsageError):
    """An .onnx, .ort or .npz file is missing, empty, truncated or not what its name says."""


class CaptureError(Torch2MobileError):
    """No strategy could capture the module as a graph."""


class LostOutputError(Torch2MobileError):
    """The module returns something that no file can, and nobody asked to leave it out."""

    exit_code = ExitCode.FAILED


class TranslateError(Torch2MobileError):
    """The captured graph has no ONNX form, or not in the opset that was asked for."""


class ConversionError(Torch2MobileError):
    """A target's converter refused, crashed or ran out of time."""


class NotApplicableError(Torch2MobileError):
    """A target has no form for this model; the others are not affected, and nothing is wrong."""


class MissingToolError(Torch2MobileError):
    """A converter or runtime is not installed; the remedy is the command that installs it."""


class NotInstalledError(NotApplicableError):
    """A target that was asked for is not installed: it is skipped, with the command for it."""


class InstallError(Torch2MobileError):
    """Something could not be downloaded, or written into the user's cache."""


class DeviceError(Torch2MobileError):
    """What stands for a device died or gave no answer: that says nothing about the file."""


class ProbeRefusedError(Torch2MobileError):
    """An artefact cannot take a probe, by what its variant is: another size, a batch."""


class WriteError(Torch2MobileError):
    """The result could not be written, for example because the disk is full."""


class HalfImportedError(Torch2MobileError):
    """The import of a library was interrupted: this process cannot use it any more."""


class WorkerTimeoutError(Torch2MobileError):
    """A worker process did not answer within its time-out."""


class WorkerCrashError(Torch2MobileError):
    """A worker process died; the message names the signal or exit status."""


class WorkerCallError(Torch2MobileError):
    """A call inside a worker process raised; the message is that exception's own."""


def some_of(names: Sequence[object], most: int = 3) -> str:
    """Names in a message, and how many more there are: ``a, b, c and 2 more``."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more


def _near(word: str, known: Sequence[str]) -> list[str]:
    """The nearest known words, whatever their case."""
    lower = [name.lower() for name in known]
    near = difflib.get_close_matches(word.lower(), lower, n=3)
    # Only the case is another: nothing else can be meant.
    near = [word.lower()] if word.lower() in near else list(dict.fromkeys(near))
    return [name for each in near for name in known if name.lower() == each]


def reason_of(error: BaseException) -> object:
    """Why a file could not be read: the system's own words, which do not repeat its path."""
    return (error.strerror or error) if isinstance(error, OSError) else error


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """A remedy that names the nearest known words, or all of them."""
    close = _near(word, known)
    if close:
        return f"Did you mean {' or '.join(close)}?"
    return f"There is: {', '.join(sorted(known)) or 'nothing'}."


def dtype_remedy(name: str, otherwise: str) -> str:
    """A remedy for a dtype that no input of a file has: for a complex one, how to do without."""
    if "complex" in name or name in {"cfloat", "cdouble", "chalf"}:
        return (
            "A file has real inputs: declare both parts as two of float32 and join them in forward "
            "by torch.complex(real, imag); or one with a last axis of 2, by torch.view_as_complex."
        )
    return otherwise


def near_path(path: Path, remedy: str, *, folders: bool = False) -> str:
    """A remedy that begins with what is called nearly so, or only ``folders``, if anything is.

    What is there itself is a folder, where a file was meant.
    """
    if path.is_dir():
        return f"{path} is a folder. {remedy}"
    asked = path
    while not path.parent.is_dir() and path.parent != path:
        path = path.parent
    try:
        beside = islice(path.parent.iterdir(), 10_000)
        others = (each for each in beside if each != asked)
        names = [each.name for each in others if not folders or each.is_dir()]
    except OSError:
        return remedy
    near = [str(path.with_name(name)) for name in _near(path.name, names)]
    return f"Did you mean {' or '.join(near)}? {remedy}" if near else remedy
