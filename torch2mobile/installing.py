"""What is kept in the user's cache: downloaded once, whole or not there at all, one at a time.

A part is a folder with a record of the archives that it was made of. It is filled under another
name and then renamed; what was downloaded stays until that has worked, so that a run that was
stopped goes on where it was.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch2mobile import limits
from torch2mobile.errors import InstallError

_RECORD = "installed.json"
# For a mirror that gives no answer.
_SECONDS = 1800.0


@dataclass(frozen=True)
class Part:
    """What is in a folder of the cache: versions by name, and the SHA-256 of each archive."""

    folder: Path
    versions: Mapping[str, str] = field(default_factory=dict)
    archives: Mapping[str, str] = field(default_factory=dict)


def digest(parts: Iterable[Part | None]) -> str:
    """One SHA-256 over those of all archives that parts were made of."""
    lines = [f"{own} {name}" for each in parts if each for name, own in each.archives.items()]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def cache() -> Path:
    """The user's folder for it: ``XDG_CACHE_HOME``, or ``~/.cache``."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "torch2mobile"


def part(folder: Path) -> Part | None:
    """What was installed into a folder; None where that is not there or not whole."""
    try:
        found = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        return Part(folder, dict(found["versions"]), dict(found["archives"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextlib.contextmanager
def alone(folder: Path, room: int) -> Iterator[None]:
    """Wait until no other process installs here; InstallError without ``room`` bytes for it."""
    import fcntl

    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            free = shutil.disk_usage(folder).free
            if free < room:
                raise InstallError(
                    f"{folder} has {limits.size_text(free)} left, and {limits.size_text(room)} "
                    "are needed",
                    "Make room, or set XDG_CACHE_HOME to a folder on another disk.",
                )
            yield


@contextlib.contextmanager
def filling(folder: Path, versions: Mapping[str, str], archives: Sequence[Path]) -> Iterator[Path]:
    """A folder to unpack archives into, which then takes its place with a record of them."""
    staged = folder.with_name(folder.name + ".new")
    with _writing(folder):
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir(parents=True)
        yield staged
        record = {
            "versions": dict(versions),
            "archives": {path.name: file_sha256(path) for path in sorted(archives)},
        }
        text = json.dumps(record, indent=2, sort_keys=True) + "\n"
        (staged / _RECORD).write_text(text, encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        staged.rename(folder)
        for path in archives:
            path.unlink()


def wheels(
    folder: Path, pins: Mapping[str, str], options: Sequence[str], what: str, again: str
) -> None:
    """Fill a folder with the wheels of these distributions and of nothing that they ask for.

    ``options`` are pip's own. One that is broken is removed, so that the next run, by the command
    ``again``, loads it anew; so is what a run that was stopped left of other versions.
    """
    downloads = folder.with_name(f"{folder.name}.downloads")
    downloads.mkdir(parents=True, exist_ok=True)
    ours = {(_plain(name), version) for name, version in pins.items()}
    for archive in downloads.glob("*.whl"):
        name, _, rest = archive.name.partition("-")
        if (_plain(name), rest.partition("-")[0]) not in ours:
            archive.unlink()
    command = [*_pip(), "download", "--quiet", "--no-deps", "--only-binary=:all:", *options]
    wanted = [f"{name}=={version}" for name, version in pins.items()]
    run([*command, "--dest", str(downloads), *wanted], what)
    archives = list(downloads.glob("*.whl"))
    with filling(folder, pins, archives) as staged:
        for archive in archives:
            try:
                with zipfile.ZipFile(archive) as wheel:
                    wheel.extractall(staged)
            except zipfile.BadZipFile as error:
                archive.unlink()
                raise InstallError(
                    f"{archive.name} is broken: {error}", f"Run it again: {again}"
                ) from error
    shutil.rmtree(downloads, ignore_errors=True)


def _plain(name: str) -> str:
    """The name of a distribution as the file of a wheel spells it, whatever its case."""
    return re.sub(r"[-_.]+", "_", name).lower()


def _pip() -> list[str]:
    """The command of a pip: this Python's, or one on the PATH."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    return [shutil.which("pip3") or "pip"]


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """An error of the file system as InstallError."""
    try:
        yield
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        raise InstallError(
            f"cannot install into {folder}: {error.strerror or error}",
            ("Make room" if full else "Make it writable")
            + ", or set XDG_CACHE_HOME to a folder on another disk.",
        ) from error


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def run(command: Sequence[str], what: str, *, cwd: Path | None = None) -> str:
    """What a program prints; InstallError with its last words where it does not succeed."""
    try:
        ended = subprocess.run(
            command, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, check=False,
            timeout=_SECONDS, env={**os.environ, "LC_ALL": "C.UTF-8"},
        )  # fmt: skip
    except FileNotFoundError:
        raise InstallError(
            f"{what} needs {command[0]}, which is not there",
            f"Install {command[0]}, or use a machine that has it.",
        ) from None
    except subprocess.TimeoutExpired:
        raise InstallError(
            f"{what}: {command[0]} gave no answer within {_SECONDS:g} s",
            "Run it again: what is downloaded is kept.",
        ) from None
    if ended.returncode != 0:
        said = [
            line.strip()
            for line in (ended.stdout + ended.stderr).decode(errors="replace").splitlines()
            if line.strip()
        ]
        errors = [line for line in said if line.startswith(("E:", "ERROR", "dpkg"))] or said
        raise InstallError(
            f"{what} failed: {'; '.join(errors[-2:])[:400] or 'it does not say why'}",
            "Look at the network and the package sources of this machine, then run it again: "
            "what is downloaded is kept.",
        )
    return ended.stdout.decode(errors="replace")
