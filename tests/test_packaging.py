"""What is installed, what is pinned, and what is in the wheel."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
import zipfile
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import torch2mobile
from torch2mobile import beside
from torch2mobile.pipeline import installed_tools

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


def constraints() -> list[Requirement]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


@cache
def pins() -> dict[str, str]:
    """The pinned version of each distribution, on this Python and platform."""
    found: dict[str, str] = {}
    for pin in constraints():
        if pin.marker is None or pin.marker.evaluate():
            (specifier,) = pin.specifier
            assert specifier.operator == "==", pin
            name = canonicalize_name(pin.name)
            assert name not in found, f"{name} has two pins that apply"
            found[name] = specifier.version
    return found


def applies(requirement: Requirement, extras: frozenset[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in extras | {""})


def reachable(*roots: str) -> dict[str, str]:
    """Every distribution that the roots need here, directly or not, with its installed version."""
    found: dict[str, str] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    queue = [item for item in map(Requirement, roots) if applies(item, frozenset())]
    while queue:
        requirement = queue.pop()
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        distribution = importlib.metadata.distribution(requirement.name)
        found[key[0]] = distribution.version
        needed = [Requirement(line) for line in distribution.requires or ()]
        queue += [item for item in needed if applies(item, key[1])]
    return found


def test_every_dependency_is_installed_at_its_pin() -> None:
    installed = reachable(*PROJECT["dependencies"], *EXTRAS["test"])
    assert {"torch", "sympy", "onnx-ir", "pytest", "execnet"} <= installed.keys()
    assert sorted(installed.keys() - pins().keys()) == []
    # A local version, as in 2.13.0+cpu, is the same release: `==2.13.0` matches it.
    public = {name: Version(version).public for name, version in installed.items()}
    assert {name: pins()[name] for name in public} == public


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
def test_every_direct_dependency_has_one_pin_on_each_python(python: str) -> None:
    environment = {"python_version": python, "python_full_version": f"{python}.0"}
    for line in [*PROJECT["dependencies"], *(line for extra in EXTRAS.values() for line in extra)]:
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate(environment):
            continue
        found = [
            pin
            for pin in constraints()
            if canonicalize_name(pin.name) == canonicalize_name(requirement.name)
            and (pin.marker is None or pin.marker.evaluate(environment))
        ]
        assert len(found) == 1, requirement
        (specifier,) = found[0].specifier
        assert requirement.specifier.contains(specifier.version), found


def test_every_import_of_the_package_is_a_direct_dependency() -> None:
    imported: set[str] = set()
    for path in (ROOT / "torch2mobile").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.split(".")[0])
    imported -= {"torch2mobile", *sys.stdlib_module_names}
    extras = [line for name, extra in EXTRAS.items() if name != "test" for line in extra]
    needed = [*PROJECT["dependencies"], *extras]
    declared = {Requirement(line).name.replace("-", "_") for line in needed}
    assert sorted(imported - declared) == []


def test_doctor_knows_every_extra_and_what_it_installs() -> None:
    named = {
        extra: tuple(Requirement(text).name for text in texts)
        for extra, texts in EXTRAS.items()
        if extra != "test"
    }
    assert named == dict(installed_tools.EXTRAS)


@pytest.mark.parametrize("name", beside.PINS)
def test_what_is_installed_beside_this_python_is_pinned_alike(name: str) -> None:
    if sys.version_info >= (3, 11):
        found = {own: pins()[canonicalize_name(own)] for own in beside.PINS[name]}
        assert found == dict(beside.PINS[name])


def test_only_the_test_extra_needs_test_tools() -> None:
    names = {Requirement(line).name for line in PROJECT["dependencies"]}
    assert not names & {Requirement(line).name for line in EXTRAS["test"]}
    assert "pytest" not in reachable(*PROJECT["dependencies"])


def test_the_installed_metadata_says_what_pyproject_says() -> None:
    try:
        distribution = importlib.metadata.distribution("torch2mobile")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("torch2mobile runs from its sources, not installed")
    assert distribution.version == torch2mobile.__version__
    assert distribution.metadata["License-Expression"] == "MIT"
    assert distribution.metadata["Requires-Python"] == PROJECT["requires-python"]
    needed = [Requirement(line) for line in distribution.requires or ()]
    direct = {item.name for item in needed if "extra" not in str(item.marker or "")}
    assert direct == {Requirement(line).name for line in PROJECT["dependencies"]}
    (script,) = distribution.entry_points.select(group="console_scripts")
    assert (script.name, script.value) == ("torch2mobile", "torch2mobile.cli:main")


@pytest.mark.slow
def test_the_wheel_has_exactly_the_package(tmp_path: Path) -> None:
    # No --wheel: the wheel is built from the sdist, which shows that the sdist is complete. No
    # isolation: what builds it is in the test extra, so that no network is needed.
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    info = f"torch2mobile-{torch2mobile.__version__}.dist-info"
    names = set(zipfile.ZipFile(wheel).namelist())
    metadata = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}
    assert names == package_files() | {f"{info}/{name}" for name in metadata}
    assert names >= {
        "torch2mobile/__init__.py",
        "torch2mobile/__main__.py",
        "torch2mobile/cli.py",
        "torch2mobile/exporter/targets/ort.py",
        "torch2mobile/py.typed",
        "torch2mobile/reporters/report.schema.json",
        "torch2mobile/web_runner.mjs",
        "torch2mobile/sample_models/awkward/control_flow.py",
        "torch2mobile/sample_models/super_resolution.py",
        "torch2mobile/sample_models/weights/super_resolution.safetensors",
        "torch2mobile/validators/contract.py",
    }


def package_files() -> set[str]:
    """Every file of the package's sources but what Python itself caches."""
    files = (path for path in (ROOT / "torch2mobile").rglob("*") if path.is_file())
    return {path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts}


def readme_commands(*arguments: str) -> subprocess.CompletedProcess[str]:
    script = ROOT / "scripts" / "readme_commands.py"
    return subprocess.run(
        [sys.executable, str(script), *arguments], capture_output=True, text=True, check=False
    )


def test_readme_commands_prints_the_sh_blocks(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(
        "# x\n```sh\n# a comment\npip install . \\\n    && torch2mobile export  # runs\n\n```\n"
        "text\n```python\nprint('pytest')\n```\n```sh\npip install '.[test]' && pytest\n```\n",
        encoding="utf-8",
    )
    tests = "pip install '.[test]' && pytest\n"
    both = "pip install . && torch2mobile export  # runs\n" + tests
    assert readme_commands(str(readme)).stdout == both
    assert readme_commands(str(readme), "--containing", "pytest").stdout == tests
    missing = readme_commands(str(readme), "--containing", "tox")
    assert (missing.returncode, missing.stdout) == (1, "")
    assert "no such command" in missing.stderr


def test_the_readme_has_the_two_commands_that_ci_runs() -> None:
    lines = [re.sub(r"\s+#.*", "", line) for line in readme_commands().stdout.splitlines()]
    install = "pip install -c constraints.txt"
    assert lines[0] == f"{install} . && torch2mobile export sample:super_resolution"
    assert f"{install} '.[test]' && pytest" in lines
