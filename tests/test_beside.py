"""Packages beside this Python: whole or missing, and seen only by the process that asks."""

from __future__ import annotations

import importlib
import platform
import sys
import zipfile
from pathlib import Path

import pytest

from torch2mobile import beside, installing
from torch2mobile.errors import InstallError
from torch2mobile.pipeline import installed_tools

PINS = {"some-tool": "1.0", "other": "2"}
COMMAND = "torch2mobile doctor --install made"
# Writes a wheel for each that is asked for, as pip does; "2" of the other is no wheel.
PIP = """
import sys, zipfile, pathlib
folder = pathlib.Path(sys.argv[sys.argv.index("--dest") + 1])
assert {"--no-deps", "--only-binary=:all:", "--python-version"} <= set(sys.argv)
for wanted in sys.argv[-2:]:
    name, version = wanted.split("==")
    name = name.replace("-", "_")
    path = folder / f"{name}-{version}-py3-none-any.whl"
    if name == "other" and "BREAK" in __file__:
        path.write_bytes(b"half")
        continue
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}/__init__.py", f"number = {version!r}")
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(beside, "PINS", {"made": PINS})
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


def pip(folder: Path, monkeypatch: pytest.MonkeyPatch, *, breaks: bool = False) -> None:
    script = folder / f"pip{'BREAK' * breaks}.py"
    script.write_text(PIP)
    monkeypatch.setattr(installing, "_pip", lambda: [sys.executable, str(script)])


def test_what_is_installed_is_seen_by_the_process_that_asks(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pip(place, monkeypatch)
    assert beside.missing("made", "some-tool") == [COMMAND]
    assert beside.see("made") == ""
    assert beside.version("some-tool") is None
    said: list[str] = []
    beside.install("made", said.append)
    beside.install("made", said.append)
    assert said == ["2 packages for made"]
    assert beside.missing("made", "some-tool") == []
    assert beside.version("some-tool") == "1.0"
    with pytest.raises(ImportError):
        importlib.import_module("some_tool")
    importlib.invalidate_caches()
    before = len(sys.path)
    digest = beside.see("made")
    assert len(digest) == 64
    assert beside.see("made") == digest
    assert len(sys.path) == before + 1
    assert importlib.import_module("some_tool").number == "1.0"
    del sys.modules["some_tool"]


def test_what_this_python_has_needs_nothing_beside_it() -> None:
    assert beside.missing("made", "numpy", "ml-dtypes") == []
    assert beside.see("made") == ""


def test_what_is_beside_this_python_goes_before_its_own(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = place / "own" / "other-1.dist-info"
    own.mkdir(parents=True)
    (own / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1\n")
    (place / "own" / "other").mkdir()
    (place / "own" / "other" / "__init__.py").write_text("number = '1'")
    sys.path.append(str(place / "own"))
    pip(place, monkeypatch)
    assert beside.version("other") == "1"
    beside.install("made", lambda _: None)
    assert (beside.version("other"), beside.own_version("other")) == ("2", "1")
    importlib.invalidate_caches()
    beside.see("made")
    assert importlib.import_module("other").number == "2"
    del sys.modules["other"]
    # An emulated Python sees its own, as what is beside this one is for another processor.
    monkeypatch.setattr(platform, "machine", lambda: "other")
    assert (beside.see("made"), beside.version("other")) == ("", "1")


def test_only_the_extra_that_pins_a_distribution_has_it(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pip(place, monkeypatch)
    monkeypatch.setattr(installed_tools, "EXTRAS", {"made": ("other",), "another": ("other",)})
    beside.install("made", lambda _: None)
    made, another = installed_tools.extras()
    assert (made.version, made.command) == ("other 2", COMMAND)
    assert (another.version, another.command) == (None, "pip install 'torch2mobile[another]'")
    monkeypatch.setattr(installed_tools, "TOOLS", ("other",))
    assert installed_tools.installed()[-1].version is None


def test_other_versions_than_the_pinned_ones_are_missing(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pip(place, monkeypatch)
    beside.install("made", lambda _: None)
    monkeypatch.setattr(beside, "PINS", {"made": {**PINS, "other": "3"}})
    assert beside.missing("made", "some-tool") == [COMMAND]
    # Of a run that was stopped.
    (installed,) = (place / "torch2mobile" / "beside").glob("made-*")
    downloads = installed.with_name(f"{installed.name}.downloads")
    downloads.mkdir()
    for name in ("some_tool-1.0", "other-2"):
        with zipfile.ZipFile(downloads / f"{name}-py3-none-any.whl", "w") as wheel:
            wheel.writestr("old.py", "")
    beside.install("made", lambda _: None)
    assert beside.version("other") == "3"
    record = installing.part(installed)
    assert record is not None
    assert set(record.archives) == {"some_tool-1.0-py3-none-any.whl", "other-3-py3-none-any.whl"}
    assert not (installed / "old.py").exists()


def test_a_broken_download_is_named_and_loaded_anew(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pip(place, monkeypatch, breaks=True)
    with pytest.raises(InstallError, match=r"other-2-py3-none-any.whl is broken") as caught:
        beside.install("made", lambda _: None)
    assert caught.value.remedy == f"Run it again: {COMMAND}"
    assert beside.missing("made", "other") == [COMMAND]
    # What was whole is kept for the next run.
    kept = [path.name for path in place.rglob("*.whl")]
    assert kept == ["some_tool-1.0-py3-none-any.whl"]
    pip(place, monkeypatch)
    beside.install("made", lambda _: None)
    assert beside.missing("made", "other") == []
