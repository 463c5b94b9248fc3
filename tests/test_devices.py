"""Devices: their names, what is missing, and an emulated ARM64 that runs what was exported."""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import Any

import pytest

from torch2mobile import devices, installing
from torch2mobile.cli import run
from torch2mobile.environments import HERE, Environment, Worker
from torch2mobile.errors import (
    DeviceError,
    InstallError,
    MissingToolError,
    NotApplicableError,
    UsageError,
    WorkerTimeoutError,
)
from torch2mobile.pipeline import on_devices

RUNTIME = ("onnxruntime", "numpy")
WAIT = 60.0
on_x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="about what an x86 emulates")
emulated = pytest.mark.skipif(
    devices.installed(RUNTIME) is None, reason=f"not there: {devices.INSTALL}"
)


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with nothing in it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


@on_x86
@pytest.mark.parametrize(
    ("label", "found"),
    [
        ("arm64", ["arm64:cortex-a76"]),
        ("arm64:max", ["arm64:max"]),
        ("all", ["arm64:cortex-a53", "arm64:cortex-a76", "arm64:max"]),
        ("web", ["web"]),
    ],
)
def test_names(label: str, found: list[str]) -> None:
    assert devices.find(label) == found


@pytest.mark.parametrize("label", ["", "arm64:", "arm64:cortex-a7", "here", "qemu"])
def test_an_unknown_name_is_a_usage_error(label: str) -> None:
    with pytest.raises(UsageError, match="there is no device"):
        devices.find(label)


def test_an_arm_machine_is_the_device(monkeypatch: pytest.MonkeyPatch, empty: Path) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert devices.find("arm64") == devices.find("all") == ["arm64"]
    assert devices.environment("arm64", RUNTIME) == HERE
    with pytest.raises(UsageError, match="runs its own processor only"):
        devices.find("arm64:cortex-a53")
    said: list[str] = []
    devices.install(RUNTIME, said.append)
    assert said == ["this machine is ARM: there is nothing to install"]


def test_a_system_that_cannot_emulate_is_told_so(
    monkeypatch: pytest.MonkeyPatch, empty: Path
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(InstallError, match="emulated on Linux only, and this is darwin on x86_64"):
        devices.install(RUNTIME, print)


@on_x86
def test_what_is_not_installed_is_an_error_with_the_command(empty: Path) -> None:
    assert devices.installed(RUNTIME) is None
    with pytest.raises(MissingToolError, match="arm64:max needs") as caught:
        Worker(environment=devices.environment("arm64:max", RUNTIME))
    assert caught.value.remedy == "Run: torch2mobile doctor --install arm64"


def test_a_runtime_of_another_version_is_missing(
    empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("system", "onnxruntime-0.1", "numpy-0.1"):
        with installing.filling(empty / "torch2mobile" / "arm64" / name, {"name": name}, []):
            pass
    assert devices.installed(RUNTIME) is None
    monkeypatch.setattr(devices.beside, "version", lambda _: "0.1")
    assert devices.installed(RUNTIME) == {"name": "numpy-0.1"}


@on_x86
def test_what_was_installed_here_after_it_is_all_that_it_lacks(
    empty: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(devices.beside, "version", lambda _: "0.1")
    monkeypatch.setattr(on_devices, "packages", lambda: ["numpy", "later"])
    assert devices.there(["numpy"]) is None
    for name in ("system", "numpy-0.1"):
        with installing.filling(empty / "torch2mobile" / "arm64" / name, {name: "1"}, []):
            pass
    assert devices.there(["numpy", "later"]) == ({"system": "1", "numpy-0.1": "1"}, ["later 0.1"])
    run(["doctor"])
    shown = next(line for line in capsys.readouterr().out.splitlines() if line[:5] == "arm64")
    assert "numpy-0.1=1 without later 0.1" in shown
    assert shown.endswith(devices.INSTALL)
    # What a report says of where it ran is there all the same.
    assert "numpy-0.1 1 (sha256" in on_devices.versions(["arm64"])["arm64"]


def test_a_runtime_without_a_package_for_it_does_not_apply() -> None:
    with pytest.raises(NotApplicableError, match="does not run on arm64:max"):
        devices.environment("arm64:max", ())


def test_an_emulator_that_dies_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    program = tmp_path / "qemu"
    program.write_text("#!/bin/sh\necho 'qemu: uncaught target signal 11' >&2\nexit 139\n")
    program.chmod(0o755)
    dead = Environment("arm64:max", launcher=(str(program),), install=devices.INSTALL)
    with (
        Worker(environment=dead) as worker,
        pytest.raises(DeviceError, match=r"arm64:max exited .* .qemu: uncaught") as err,
    ):
        worker.call("os:getpid", timeout=WAIT)
    assert devices.INSTALL in err.value.remedy


def stub(folder: Path, name: str, text: str) -> None:
    program = folder / name
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)


@on_x86
def test_a_mirror_that_refuses_is_quoted_and_nothing_is_installed(
    empty: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stub(empty, "apt-get", "echo 'E: Failed to fetch Packages  404  Not Found' >&2; exit 100")
    monkeypatch.setenv("PATH", str(empty), prepend=":")
    assert run(["doctor", "--install", "arm64"]) == 3
    said = capsys.readouterr().err
    assert "Failed to fetch Packages  404" in said
    assert "what is downloaded is kept" in said
    assert devices.installed(RUNTIME) is None


@on_x86
def test_a_system_has_the_roots_of_all_processors_from_its_first_moment(
    empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Apt:
        def __init__(self, *_: object) -> None:
            (empty / "torch2mobile" / "arm64" / "downloads").mkdir(parents=True, exist_ok=True)

        def python(self) -> str:
            return "3.11"

        def with_all_they_need(self, *_: str) -> list[Path]:
            return []

        alone = with_all_they_need

    monkeypatch.setattr(devices, "_Apt", Apt)
    folder = empty / "torch2mobile" / "arm64" / "system"
    devices._install_system(folder)
    assert installing.part(folder) is not None
    files = [folder / name.partition(":")[2] / "proc" / "cpuinfo" for name in devices.DEVICES]
    assert all(file.is_file() for file in files)
    before = files[0].stat().st_mtime_ns
    devices._processor(folder, "cortex-a53")
    assert files[0].stat().st_mtime_ns == before
    files[0].write_text("of an earlier version")
    devices._processor(folder, "cortex-a53")
    assert "0xd03" in files[0].read_text()


@on_x86
@pytest.mark.parametrize("kind", [MissingToolError, DeviceError, WorkerTimeoutError])
def test_what_does_not_run_is_made_anew(
    kind: type[Exception], empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The remedy of a device's error is to run this command, which has to mend it."""
    made: list[bool] = []

    def make(*_: object, anew: bool = False) -> None:
        made.append(anew)
        if not anew:
            raise kind("no emulator")

    monkeypatch.setattr(devices, "_make", make)
    said: list[str] = []
    devices.install(["numpy"], said.append)
    assert made == [False, True]
    assert said == ["anew: no emulator"]


@on_x86
def test_what_is_made_anew_is_there_until_the_new_one_is(
    empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise InstallError("no network")

    system = empty / "torch2mobile" / "arm64" / "system"
    with installing.filling(system, {}, []):
        pass
    monkeypatch.setattr(devices, "_install_system", broken)
    with pytest.raises(InstallError, match="no network"):
        devices._make(["numpy"], lambda _: None, anew=True)
    assert system.exists()


def test_a_distribution_is_imported_by_the_name_of_its_module() -> None:
    assert devices.imported(["numpy", "ml-dtypes"]) == ["numpy", "ml_dtypes"]


@on_x86
def test_doctor_shows_what_is_there(empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["doctor"])
    assert devices.INSTALL in capsys.readouterr().out


@pytest.mark.slow
@emulated
@pytest.mark.parametrize("label", devices.DEVICES)
def test_the_emulated_processor_is_what_it_says(label: str) -> None:
    with Worker(environment=devices.environment(label, RUNTIME)) as worker:
        assert worker.call("platform:machine", timeout=WAIT) == "aarch64"
        read = "torch2mobile.limits:read_regular"
        text: Any = worker.call(read, Path("/proc/cpuinfo"), timeout=WAIT)
        assert ("asimddp" in text.decode()) is (label != "arm64:cortex-a53")
