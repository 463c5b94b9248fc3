"""Packages beside this Python: at versions of their own, in the user's cache, seen by one target.

For a converter whose requirements clash with those of others. Nothing of this Python changes: only
the processes in which the target works look there, and there they go before what this Python has.
"""

from __future__ import annotations

import importlib.util
import platform
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from torch2mobile import installing

# Of the 80 distributions that litert-torch asks for, what converting and running needs.
PINS: Mapping[str, Mapping[str, str]] = {
    "litert": {
        "litert-torch": "0.10.0",
        "ai-edge-litert": "2.3.0",
        "ai-edge-quantizer": "0.10.0",
        "litert-converter": "0.5.0",
        "absl-py": "2.5.1",
        "immutabledict": "4.3.1",
        "jax": "0.10.2",
        "jaxlib": "0.10.2",
        "opt-einsum": "3.4.0",
        "scipy": "1.17.1",
        "torchao": "0.18.0",
        "tqdm": "4.70.1",
    },
}
_NEEDED = 1200 << 20
_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def command(name: str) -> str:
    """The command that makes it."""
    return f"torch2mobile doctor --install {name}"


def missing(name: str, *distributions: str) -> list[str]:
    """The command, where one of these is neither in this Python nor beside it."""
    return [] if all(map(_there, distributions)) or _part(name) else [command(name)]


def see(name: str) -> str:
    """Let this process import them first; the digest of their archives, if they are there."""
    part = _part(name)
    if part is None:
        return ""
    if str(part.folder) not in sys.path:
        sys.path.insert(0, str(part.folder))
    return installing.digest([part])


def version(distribution: str) -> str | None:
    """The version that a target sees: beside this Python, or in it; None where it is in neither."""
    parts = filter(None, map(_part, PINS))
    beside = next(filter(None, (part.versions.get(distribution) for part in parts)), None)
    return beside or own_version(distribution)


def own_version(distribution: str) -> str | None:
    """The version of a distribution in this Python; None where it is not there."""
    from importlib import metadata

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def install(name: str, told: Callable[[str], None]) -> None:
    """Load it into the user's cache; InstallError where it cannot be had."""
    folder, pins = _folder(name), PINS[name]
    with installing.alone(folder.parent, _NEEDED):
        if _part(name) is None:
            told(f"{len(pins)} packages for {name}")
            options = ["--python-version", _PYTHON]
            installing.wheels(folder, pins, options, f"the download for {name}", command(name))


def _there(distribution: str) -> bool:
    return importlib.util.find_spec(distribution.replace("-", "_")) is not None


def _part(name: str) -> installing.Part | None:
    part = installing.part(_folder(name))
    return part if part and part.versions == PINS[name] else None


def _folder(name: str) -> Path:
    # An emulated Python of the same version must not see what was made for this processor.
    return installing.cache() / "beside" / f"{name}-python{_PYTHON}-{platform.machine()}"
