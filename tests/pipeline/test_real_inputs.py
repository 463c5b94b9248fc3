"""Images and text are probes as other data is, in every command that takes some."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import torch2mobile
from torch2mobile.cli import run
from torch2mobile.errors import UsageError
from torch2mobile.pipeline import in_memory
from torch2mobile.records import Check, ParityOptions, Report, Request

INPUT = "image:float32[N=1..2,3,8,8]"
STEPS = "resize=10,mean=0.5,std=0.5"
FEW = ParityOptions(probes=2)

NETS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 2)

    def forward(self, image):
        return self.head(image.mean((2, 3)))

DATA = "photos"
PREPROCESS = "resize=10,mean=0.5,std=0.5"
"""


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(image.mean((2, 3)))


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (12, 20), (80 * number, 9, 200)).save(folder / f"{number}.jpg")
    (tmp_path / "nets.py").write_text(NETS)
    return folder


def said(report: Report) -> Check:
    (check,) = [check for check in report.checks if check.name == "reference"]
    return check


@pytest.mark.slow
def test_the_calls_of_the_api(photos: Path, tmp_path: Path) -> None:
    module = Net().eval()
    asked: Any = {"inputs": [INPUT], "data": photos, "preprocess": STEPS, "parity": FEW}
    out = tmp_path / "out"
    exported = torch2mobile.export(module, out=out, simplify=False, **asked)
    assert exported.passed, exported
    text = f"real inputs: 3 images of {photos} as image, 8 x 8: resize=10,filter=bilinear,"
    assert said(exported.report).notes[0].startswith(text)
    assert exported.report.request is not None
    assert exported.report.request.data == (str(photos),)
    with np.load(next((out / "golden").glob("0_example*"))) as golden:
        first = next(golden[name] for name in golden.files if golden[name].shape == (1, 3, 8, 8))
    assert first[0, 0, 0, 0] == pytest.approx(-1, abs=0.05)
    assert first[0, 2, 0, 0] == pytest.approx(200 / 127.5 - 1, abs=0.05)
    verified = torch2mobile.verify(out, module, mutants=2, **asked)
    debugged = torch2mobile.debug(out, module, probe="data 2 (1.jpg)", **asked)
    assert text in said(verified.report).notes[0]
    assert text in said(debugged.report).notes[0]
    del asked["parity"]
    assert torch2mobile.check(module, **asked).passed
    again = {**asked, "data": [photos / "0.jpg", {"image": np.zeros((2, 3, 8, 8), np.float32)}]}
    assert torch2mobile.check(module, **again).passed
    for call in (torch2mobile.check, lambda source, **a: torch2mobile.verify(out, source, **a)):
        with pytest.raises(UsageError, match="arrays in data go with a module in memory"):
            call("nets.py:Net", **again)


Command = Callable[[str], list[str]]
COMMANDS: list[Command] = [
    lambda out: ["verify", out, "--against", "nets.py:Net", "--probes", "2", "--quiet"],
    lambda out: ["debug", out, "--against", "nets.py:Net", "--probes", "2", "--quiet"],
    lambda out: ["check", "nets.py:Net", "--quiet"],
]


@pytest.mark.parametrize("command", [lambda out: ["export", "nets.py:Net", "--quiet"], *COMMANDS])
@pytest.mark.usefixtures("photos")
def test_every_command_takes_them(
    command: Command, pair: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    said = ["--input", INPUT, "--data", "photos", "--preprocess", "mean"]
    assert run([*command(str(pair.path)), *said]) == 2
    assert "--preprocess: expected '=' after mean" in capsys.readouterr().err


@pytest.mark.usefixtures("photos")
def test_check_says_what_they_were_made_of() -> None:
    asked: Any = {"inputs": [INPUT], "data": "photos", "preprocess": "mean=0.25"}
    for source in ("nets.py:Net", Net().eval()):
        found = {check.name: check for check in torch2mobile.check(source, **asked).report.checks}
        text = "3 images of photos as image, 8 x 8: filter=bilinear,scale=0..1,mean=0.25"
        assert found["source"].notes[0] == f"real inputs: {text}"


@pytest.mark.parametrize("verb", ["export", "verify", "debug", "check"])
@pytest.mark.parametrize("source", [Net(), "nets.py:Net"], ids=["module", "source"])
def test_every_call_takes_them(photos: Path, pair: Any, verb: str, source: Any) -> None:
    call = getattr(torch2mobile, verb)
    args = [pair.path, source] if verb in {"verify", "debug"} else [source]
    problem = "--preprocess: expected '=' after mean"
    if verb == "export" and isinstance(source, str):
        problem = r"a str was given where a torch\.nn\.Module is needed"
    with pytest.raises(UsageError, match=problem):
        call(*args, inputs=[INPUT], data=photos, preprocess="mean")


def test_arrays_are_read_in_place_of_what_was_recorded(photos: Path) -> None:
    array = {"image": np.full((2, 3, 8, 8), 7, np.float32)}
    typed = Request(source="", inputs=(INPUT,))
    recorded = replace(typed, data=("gone",), preprocess=STEPS, tokenizer="gone.json")
    load = in_memory.loader_of(Net(), (), {}, None, [array], typed)
    assert load is not None
    found = load(recorded)
    assert ([case["image"].max() for case in found.data], found.real) == ([7], ())
    mixed = [photos / "0.jpg", array, str(photos / "1.jpg")]
    typed = replace(typed, **in_memory.named(mixed, "", ""))
    load = in_memory.loader_of(Net(), (), {}, None, mixed, typed)
    assert load is not None
    assert [case["image"].shape[0] for case in load(typed).data] == [1, 2, 1]


@pytest.mark.slow
def test_the_commands(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = f'[tool.torch2mobile.export]\ndata = ["photos"]\npreprocess = "{STEPS}"\n'
    (tmp_path / "pyproject.toml").write_text(project)
    base = ["export", "nets.py:Net", "--input", INPUT, "--no-simplify", "--quiet", "--probes=2"]
    assert run([*base, "--out", "out"]) == 0
    assert "real inputs: 3 images of photos as image" in capsys.readouterr().out
    for command in COMMANDS:
        images = ["--data", "photos", "--preprocess", "mean=0.25"]
        assert run([*command("out"), "--input", INPUT, *images]) == 0
        out = " ".join(capsys.readouterr().out.split())
        assert "filter=bilinear,scale=0..1,mean=0.25" in out
    # The bundle has them, and the file of the model.
    assert run(COMMANDS[0]("out")) == 0
    assert "real inputs: 3 images of photos" in capsys.readouterr().out
    (tmp_path / "pyproject.toml").unlink()
    assert run([*base, "--out", "own"]) == 0
    assert "the model's own resize=10" in " ".join(capsys.readouterr().out.split())
    for option in ("--preprocess=crop=8", "--tokenizer=t.json"):
        assert run(["verify", "out", option]) == 2
        assert "--against" in capsys.readouterr().err
