"""The user's line behind an exception or a recorded stack trace."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from torch2mobile import user_code
from torch2mobile.exporter import capture
from torch2mobile.records import Location
from torch2mobile.sample_models import detector

Write = Callable[[str, str], Path]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes source files into a fresh working directory."""
    monkeypatch.chdir(tmp_path)

    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    return write


USER = "def go(f):\n    return f()  # here\n"


def run(path: Path, function: Callable[[], object]) -> BaseException:
    """What the file's go() raises when it calls the function."""
    namespace: dict[str, Callable[[object], object]] = {}
    exec(compile(path.read_text(), str(path), "exec"), namespace)
    with pytest.raises(BaseException) as caught:  # noqa: PT011
        namespace["go"](function)
    return caught.value


@pytest.mark.parametrize(
    ("filename", "expected"),
    [
        (__file__, True),
        (detector.__file__, True),
        (capture.__file__, False),
        (torch.__file__, False),
        (np.__file__, False),
        (str(json.__file__), False),
        (str(Path(torch.__file__).parents[1] / "somebodys_models" / "net.py"), True),
        ("/opt/base/lib/python3.11/site-packages/torch/export/_trace.py", False),
        ("/opt/base/lib/python3.11/site-packages/mine/torch.py", True),
        ("torch/fx/passes/runtime_assert.py", False),
        ("<frozen importlib._bootstrap>", False),
        ("<string>", False),
    ],
)
def test_whose_file(filename: str, expected: bool) -> None:
    assert user_code.is_user_file(filename) is expected


def test_a_relative_path_that_is_there_is_the_users(project: Write) -> None:
    project("torch/net.py", USER)
    assert user_code.is_user_file("torch/net.py")


def test_the_deepest_user_frame_is_named(project: Write) -> None:
    path = project("net.py", USER)
    error = run(path, lambda: torch.ones(2) @ torch.ones(3))
    found = user_code.from_exception(error)
    assert found is not None
    assert found.file == __file__  # the lambda above is the deepest one
    error = run(path, torch.ones)
    assert user_code.from_exception(error) == Location(
        file="net.py", line=2, code="return f()  # here"
    )


def test_the_cause_is_looked_at_too(project: Write) -> None:
    inner = run(project("net.py", USER), torch.ones)
    for link in ("__cause__", "__context__"):
        outer = RuntimeError("outer")
        setattr(outer, link, inner)
        found = user_code.from_exception(outer)
        assert found is not None
        assert (found.file, found.line) == ("net.py", 2)


def test_a_chain_that_bites_its_tail_ends() -> None:
    first, second = RuntimeError("a"), RuntimeError("b")
    first.__cause__, second.__cause__ = second, first
    assert user_code.from_exception(first) is None


def test_a_trace_quoted_in_the_message_is_read(project: Write) -> None:
    path = project("net.py", USER)
    text = (
        f'  File "{path}", line 1, in forward\n    x\n'
        f'  File "{path}", line 2, in inner\n    y\n'
        f'  File "{torch.__file__}", line 7, in relu\n    z\n'
    )
    expected = Location(file="net.py", line=2, code="return f()  # here")
    assert user_code.from_exception(RuntimeError(f"While executing\n{text}")) == expected
    assert user_code.from_trace_text(text) == expected


def test_a_syntax_error_names_its_own_line(project: Write) -> None:
    path = project("net.py", "x = 1\ny = = 2\n")
    with pytest.raises(SyntaxError) as caught:
        compile(path.read_text(), str(path), "exec")
    assert user_code.from_exception(caught.value) == Location(file="net.py", line=2, code="y = = 2")


def test_nothing_to_blame() -> None:
    assert user_code.from_exception(RuntimeError("no frames")) is None
    assert user_code.from_trace_text("") is None
    assert user_code.from_trace_text(f'File "{torch.__file__}", line 1, in x') is None


def test_paths_outside_the_working_directory_stay_whole(project: Write, tmp_path: Path) -> None:
    project("a.py", "")
    assert user_code.shown_path(str(tmp_path / "sub" / "net.py")) == str(Path("sub") / "net.py")
    assert user_code.shown_path("/elsewhere/net.py") == "/elsewhere/net.py"


def test_library_code_has_the_users_line_that_calls_it() -> None:
    library = "/env/site-packages/transformers/bert.py"
    frames = [("/env/run.py", 3), (__file__, 7), (library, 90), (library, 12)]
    found = user_code.from_frames(frames)
    assert found is not None
    assert (found.file, found.line, found.caller_line) == (library, 12, 7)
    assert found.caller.endswith("test_user_code.py")
    own = user_code.from_frames(frames[:2])
    assert own is not None
    assert (own.line, own.caller, own.caller_line) == (7, "", 0)
    alone = user_code.from_frames(frames[2:])
    assert alone is not None
    assert (alone.line, alone.caller) == (12, "")


@pytest.mark.parametrize("file", ["timm/layers/drop.py", "torch2mobile/errors.py"])
def test_an_installed_package_is_a_library(file: str) -> None:
    assert user_code.is_library(f"/env/lib/site-packages/{file}")


def test_an_installed_sample_is_like_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = Path("/env/lib/site-packages/torch2mobile/sample_models")
    assert user_code.is_library(str(installed / "detector.py"))
    monkeypatch.setattr(user_code, "_SAMPLES", installed)
    assert not user_code.is_library(str(installed / "detector.py"))
