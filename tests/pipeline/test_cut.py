"""The part of a module up to one of its calls, such as a detector without its NMS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

import torch2mobile
from torch2mobile.errors import InputError, UsageError
from torch2mobile.records import ParityOptions, Status

FAST: dict[str, Any] = {
    "simplify": False,
    "targets": (),
    "parity": ParityOptions(probes=2),
    "inputs": ["image:float32[N=1..3,3,16,16]"],
}


def suppress(boxes: torch.Tensor, scores: torch.Tensor, threshold: float) -> torch.Tensor:
    """Boxes that no better one covers: as many as there are, which no graph can say."""
    kept: list[int] = []
    for number in scores.argsort(descending=True).tolist():
        overlaps = [float((boxes[number] * boxes[other]).sum()) for other in kept]
        if all(overlap < threshold for overlap in overlaps):
            kept.append(number)
    return torch.tensor(kept)


class Nms(nn.Module):
    def forward(
        self, boxes: torch.Tensor, scores: torch.Tensor, threshold: float = 0.5
    ) -> list[torch.Tensor]:
        return [suppress(b, s, threshold) for b, s in zip(boxes, scores, strict=True)]


class Detector(nn.Module):
    """Boxes and scores, and then what only Python can do."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Conv2d(3, 8, 3, stride=4)
        self.heads = nn.ModuleDict({"box": nn.Conv2d(8, 4, 1), "score": nn.Conv2d(8, 1, 1)})
        self.nms = Nms()

    def forward(self, image: torch.Tensor) -> dict[str, Any]:
        features = self.backbone(image).relu()
        boxes = self.heads["box"](features).flatten(2).mT.sigmoid()
        scores = self.heads["score"](features).flatten(1).sigmoid()
        best = self.best(scores)
        return {"kept": self.nms(boxes, scores, threshold=0.4), "best": best}

    def best(self, scores: torch.Tensor) -> torch.Tensor:
        return scores.max(1).values


@pytest.fixture
def detector() -> nn.Module:
    torch.manual_seed(0)
    return Detector().eval()


def test_a_detector_is_exported_up_to_its_nms(detector: nn.Module, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = torch2mobile.export(detector, stop_before="nms", out=out, **FAST)
    assert result.report.status is Status.PASSED, result.report
    (capture,) = [check for check in result.report.checks if check.name == "capture"]
    assert (
        "the outputs are what goes into nms; left out, with whatever follows: nms" in capture.notes
    )
    assert any("threshold=0.4" in note for note in capture.notes)
    session = onnxruntime.InferenceSession(out / "model.onnx")
    assert [output.name for output in session.get_outputs()] == ["boxes", "scores"]
    image = np.random.default_rng(3).random((2, 3, 16, 16), np.float32)
    boxes, scores = (torch.from_numpy(array) for array in session.run(None, {"image": image}))
    with torch.no_grad():
        wanted = detector(torch.from_numpy(image))["kept"]
    for one, other in zip(Nms()(boxes, scores, 0.4), wanted, strict=True):
        assert torch.equal(one, other)
    # A bundle knows where it ends.
    inputs = {key: FAST[key] for key in ("parity", "inputs")}
    again = torch2mobile.verify(out, detector, stop_before="nms", **inputs)
    assert again.report.status is Status.PASSED


@pytest.mark.parametrize(
    ("option", "place", "names"),
    [
        ("output_of", "heads.box", ["output"]),
        pytest.param("output_of", "backbone", ["output"], marks=pytest.mark.slow),
        pytest.param("stop_before", "heads.score", ["input"], marks=pytest.mark.slow),
        ("stop_before", "best", ["scores"]),
    ],
)
def test_what_goes_into_a_call_or_comes_out_of_it(
    option: str, place: str, names: list[str], detector: nn.Module, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    asked = {option: place}
    result = torch2mobile.export(detector, out=out, **asked, **FAST)
    assert result.report.status is Status.PASSED, result.report
    assert result.bundle is not None
    assert [output.name for output in result.bundle.manifest.outputs] == names


def test_a_function_is_a_place_too(detector: nn.Module) -> None:
    with pytest.raises(InputError, match="suppress is called"):  # once an image
        torch2mobile.check(detector, (torch.ones(2, 3, 16, 16),), stop_before="suppress")
    report = torch2mobile.check(
        detector, (torch.ones(1, 3, 16, 16),), stop_before=f"{__name__}.suppress"
    ).report
    assert report.status is Status.PASSED


def test_the_module_is_afterwards_as_it_was(detector: nn.Module) -> None:
    before = [dict(vars(layer)) for layer in detector.modules()]
    torch2mobile.check(detector, (torch.ones(1, 3, 16, 16),), stop_before="nms")
    assert before == [dict(vars(layer)) for layer in detector.modules()]
    assert suppress.__module__ == __name__


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.idle, self.scale = nn.Linear(4, 4), nn.Linear(4, 4), Scale()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.finish(self.layer(self.layer(image)) * self.scale(2.0))

    def finish(self, found: torch.Tensor) -> torch.Tensor:
        return found


class Scale(nn.Module):
    def forward(self, factor: float) -> float:
        return factor * 2


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"stop_before": "layer"}, "layer is called 2 times in one call of the module"),
        ({"output_of": "idle"}, "--output-of: idle is not called on the example"),
        ({"stop_before": "scale"}, "scale is given no tensor"),
        ({"stop_before": "lyaer"}, "'lyaer' is no submodule and no function"),
        ({"stop_before": "supress"}, "'supress' is no submodule and no function"),
        ({"stop_before": "self.finish"}, "'self.finish' is no submodule and no function"),
    ],
)
def test_a_place_that_is_no_cut_is_refused(asked: dict[str, str], words: str) -> None:
    with pytest.raises(InputError) as caught:
        torch2mobile.check(Twice().eval(), (torch.ones(1, 4),), **asked)
    assert words in caught.value.message
    assert caught.value.remedy
    near = {"lyaer": "layer", "supress": "suppress", "self.finish": "finish"}
    if asked.get("stop_before") in near:
        assert caught.value.remedy == f"Did you mean {near[asked['stop_before']]}?"


def test_one_end_is_enough() -> None:
    with pytest.raises(UsageError, match="both"):
        torch2mobile.export(
            Twice().eval(), (torch.ones(1, 4),), stop_before="layer", output_of="layer"
        )
