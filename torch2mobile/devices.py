"""Devices: processors on which artefacts are run besides this machine's own.

``arm64`` is an emulated ARM64 Linux in the user's cache: QEMU's user mode, a system of Debian or
Ubuntu packages for arm64 from this machine's own package sources, and the aarch64 wheels of the
runtimes that are installed here, at the same versions. Nothing of it needs root. On an ARM machine
it is the machine.
"""

from __future__ import annotations

import importlib
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from torch2mobile import beside, errors, installing
from torch2mobile.environments import HERE, Environment, Worker
from torch2mobile.errors import InstallError, NotApplicableError, UsageError, did_you_mean
from torch2mobile.web import WEB

# QEMU chooses instructions by its -cpu, and libraries read what a processor is from /proc/cpuinfo,
# which QEMU 7 takes from the host: there ONNX Runtime dies of it. It also dies of one that it does
# not know, so that "max" is called what has the most of its instructions, a Neoverse N2.
_BASE = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
_NEWER = f"{_BASE} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"
_PROCESSORS: Mapping[str, tuple[str, str, str]] = {
    "cortex-a53": ("0x41", "0xd03", _BASE),
    "cortex-a76": ("0x41", "0xd0b", f"{_NEWER} ssbs"),
    "max": ("0x41", "0xd49", f"{_NEWER} jscvt fcma sha3 sha512 sve asimdfhm sve2 i8mm bf16"),
}
ARM64 = "arm64"
# What phones of the last years have at least: arithmetic in float16, and dot products.
_USUAL = "cortex-a76"
DEVICES = tuple(f"{ARM64}:{processor}" for processor in _PROCESSORS)
# What has arithmetic in float16, which a Cortex-A53 has not.
HALVES = tuple(name for name in DEVICES if not name.endswith("a53"))
INSTALL = f"torch2mobile doctor --install {ARM64}"
# Seventy times as slow as this machine was measured; what hangs here does so there as well.
_PATIENCE = 20.0
_NEEDED = 600 << 20
_MACHINE = {"x86_64": "amd64", "AMD64": "amd64", "ppc64le": "ppc64el", "s390x": "s390x"}
_IS_ARM = ("aarch64", "arm64")


def find(label: str) -> list[str]:
    """The devices that a label names: one, or all; UsageError for an unknown one."""
    if label == WEB:
        return [WEB]
    if platform.machine() in _IS_ARM:
        if label in {ARM64, "all"}:
            return [ARM64]
        if label in DEVICES:
            raise UsageError(
                f"this machine is ARM, and runs its own processor only, not {label}",
                f"Give --device {ARM64}.",
            )
    if label == "all":
        return list(DEVICES)
    if label == ARM64:
        return [f"{ARM64}:{_USUAL}"]
    if label not in DEVICES:
        raise UsageError(
            f"there is no device {label!r}", did_you_mean(label, [ARM64, *DEVICES, WEB, "all"])
        )
    return [label]


def environment(label: str, packages: Sequence[str]) -> Environment:
    """Where artefacts run that need these distributions; NotApplicableError for none of them."""
    if label not in DEVICES:
        return HERE
    if not packages:
        raise NotApplicableError(f"its runtime does not run on {label}", "Leave out the device.")
    processor = label.partition(":")[2]
    system = _folder() / "system"
    wheels = [str(_wheel(name)) for name in packages]
    return Environment(
        name=label,
        python=str(system / "python3"),
        launcher=(_emulator(system), "-L", str(system / processor), "-cpu", processor),
        variables={
            "PYTHONHOME": str(system / "usr"),
            "PYTHONPATH": ":".join(wheels),
            "LD_LIBRARY_PATH": "",
        },
        needs=tuple(wheels),
        install=INSTALL,
        patience=_PATIENCE,
    )


def installed(packages: Sequence[str]) -> Mapping[str, str] | None:
    """The versions of all parts of arm64 that are in the cache; None where one is missing."""
    versions: dict[str, str] = {}
    for part in _parts(packages):
        if part is None:
            return None
        versions |= part.versions
    return versions


def there(packages: Sequence[str]) -> tuple[Mapping[str, str], list[str]] | None:
    """The versions of what of arm64 is in the cache, and the wheels that it lacks.

    None without its system. A device lacks only what was installed here, or updated, after it.
    """
    system, *wheels = _parts(packages)
    if system is None:
        return None
    found = {name: v for part in (system, *wheels) if part for name, v in part.versions.items()}
    pairs = zip(packages, wheels, strict=True)
    return found, [f"{name} {beside.version(name)}" for name, part in pairs if part is None]


def digest(packages: Sequence[str]) -> str:
    """One SHA-256 over those of all archives that the installed parts were made of."""
    return installing.digest(_parts(packages))


def install(packages: Sequence[str], told: Callable[[str], None]) -> None:
    """Make arm64 in the user's cache, for these distributions at the versions of this Python.

    What is there and runs is left alone. InstallError where it cannot be made.
    """
    if platform.machine() in _IS_ARM:
        told("this machine is ARM: there is nothing to install")
        return
    if sys.platform != "linux" or platform.machine() not in _MACHINE:
        raise InstallError(
            f"ARM64 is emulated on Linux only, and this is {sys.platform} on {platform.machine()}",
            "Use a Linux machine with Debian's or Ubuntu's packages, or an ARM one.",
        )
    with installing.alone(_folder(), _NEEDED):
        try:
            _make(packages, told)
        except (errors.MissingToolError, errors.DeviceError, errors.WorkerTimeoutError) as error:
            told(f"anew: {error.message}")
            _make(packages, told, anew=True)


def _make(packages: Sequence[str], told: Callable[[str], None], *, anew: bool = False) -> None:
    """What is not there yet, or all, and a first run; raises what that raises."""
    if anew or installing.part(_folder() / "system") is None:
        told("system: ARM64 packages, and the emulator")
        _install_system(_folder() / "system")
    for processor in _PROCESSORS:  # also of a system that an earlier version made
        _processor(_folder() / "system", processor)
    for name in packages:
        if anew or installing.part(_wheel(name)) is None:
            told(f"{name} {beside.version(name)} for ARM64")
            _install_wheel(name)
    told("a first run")
    with Worker(environment=environment(DEVICES[0], packages)) as worker:
        worker.call("torch2mobile.devices:imported", list(packages), timeout=60.0)


def imported(packages: Sequence[str]) -> list[str]:
    """Import distributions by name, in the emulator; ImportError where one does not load."""
    return [importlib.import_module(name.replace("-", "_")).__name__ for name in packages]


def _parts(packages: Sequence[str]) -> Iterator[installing.Part | None]:
    """The system and the wheels in the cache; None for each that is not there."""
    return map(installing.part, (_folder() / "system", *map(_wheel, packages)))


def _folder() -> Path:
    return installing.cache() / ARM64


def _wheel(name: str) -> Path:
    """Where the aarch64 wheel of a distribution is, of the version that is installed here."""
    return _folder() / f"{name}-{beside.version(name) or 'none'}"


_EMULATORS = ("qemu-aarch64-static", "qemu-aarch64")


def _emulator(system: Path) -> str:
    """The emulator in the cache, else the machine's own, else where it would be."""
    own = [str(system / "usr" / "bin" / name) for name in _EMULATORS]
    return next((path for path in map(shutil.which, (*own, *_EMULATORS)) if path), own[0])


class _Apt:
    """apt-get for an architecture: this machine's package sources, with lists of its own."""

    def __init__(self, architecture: str, folder: Path) -> None:
        self._what = f"the download of packages for {architecture}"
        self._archives = folder / "cache" / "archives"
        for each in (folder / "lists" / "partial", self._archives / "partial"):
            each.mkdir(parents=True, exist_ok=True)
        (folder / "status").touch()
        options = {
            "APT::Architecture": architecture,
            "APT::Architectures": architecture,
            "APT::Install-Recommends": "0",
            "APT::Sandbox::User": "",
            "Debug::NoLocking": "1",
            "Dir::State": folder,
            "Dir::State::status": folder / "status",
            "Dir::Cache": folder / "cache",
        }
        self._options = [f"-o{name}={value}" for name, value in options.items()]
        self._run("apt-get", "update")

    def _run(self, program: str, *arguments: str) -> str:
        return installing.run([program, *self._options, *arguments], self._what, cwd=self._archives)

    def python(self) -> str:
        """The Python of this system: ``3.11``."""
        found = re.search(
            r"^Version: (\d+\.\d+)", self._run("apt-cache", "show", "python3-minimal"), re.MULTILINE
        )
        if found is None:
            raise InstallError(
                f"{self._what}: the package sources have no python3-minimal",
                "Add a mirror that has arm64, such as Debian's own.",
            )
        return found[1]

    def with_all_they_need(self, *packages: str) -> list[Path]:
        """The archives of packages and of what they depend on."""
        self._run("apt-get", "install", "--yes", "--download-only", *packages)
        return sorted(self._archives.glob("*.deb"))

    def alone(self, package: str) -> list[Path]:
        """The archive of one package."""
        self._run("apt-get", "download", package)
        return sorted(self._archives.glob(f"{package}_*.deb"))


def _install_system(folder: Path) -> None:
    downloads = _folder() / "downloads"
    apt = _Apt("arm64", downloads / "arm64")
    python = apt.python()
    archives = apt.with_all_they_need(
        f"python{python}-minimal", f"libpython{python}-stdlib", "libstdc++6"
    )
    emulators = []
    if not any(map(shutil.which, _EMULATORS)):
        host = _Apt(_MACHINE[platform.machine()], downloads / "host")
        emulators = host.alone("qemu-user-static") + host.alone("qemu-user")
    versions = {"python": python}
    with installing.filling(folder, versions, [*archives, *emulators]) as staged:
        for archive in (*archives, *emulators):
            _unpack(archive, staged)
        for program in (staged / "usr" / "bin").glob("qemu-*"):
            if program.name not in _EMULATORS:  # for twenty other processors
                program.unlink()
        (staged / "python3").symlink_to(f"usr/bin/python{python}")
        for processor in _PROCESSORS:
            _processor(staged, processor)
    shutil.rmtree(downloads)


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack a .deb; one that is broken is removed, so that the next run loads it anew."""
    try:
        installing.run(["dpkg-deb", "-x", str(archive), str(folder)], f"unpacking {archive.name}")
    except InstallError:
        archive.unlink(missing_ok=True)
        raise


def _processor(system: Path, name: str) -> None:
    """A root for one processor: the system, under what its /proc/cpuinfo says."""
    implementer, part, features = _PROCESSORS[name]
    root = system / name
    (root / "proc").mkdir(parents=True, exist_ok=True)
    file = root / "proc" / "cpuinfo"
    text = (
        f"processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: {features}\n"
        f"CPU implementer\t: {implementer}\nCPU architecture: 8\nCPU variant\t: 0x0\n"
        f"CPU part\t: {part}\nCPU revision\t: 4\n\n"
    )
    # An emulated process may be reading it.
    if not file.is_file() or file.read_text(encoding="ascii") != text:
        file.write_text(text, encoding="ascii")
    for each in ("usr", "lib", "etc"):
        # Newer systems have all libraries below usr.
        kept = each if (system / each).exists() else f"usr/{each}"
        if not (root / each).is_symlink():
            (root / each).symlink_to(f"../{kept}")


def _install_wheel(name: str) -> None:
    system = installing.part(_folder() / "system")
    python = system.versions["python"] if system else ""
    version = beside.version(name) or "none"
    options = ["--python-version", python, "--implementation", "cp"]
    for abi in (f"cp{python.replace('.', '')}", "abi3", "none"):
        options += ["--abi", abi]
    for tag in (*(f"manylinux_2_{minor}" for minor in range(40, 16, -1)), "manylinux2014"):
        options += ["--platform", f"{tag}_aarch64"]
    what = f"the download of {name} {version} for ARM64 and Python {python}"
    installing.wheels(_wheel(name), {name: version}, options, what, INSTALL)
