from __future__ import annotations

import io
import json
import os
import socket
import sys
from email.message import Message
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.error import HTTPError, URLError

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from torch2mobile.errors import ExitCode, SourceError, UsageError
from torch2mobile.exporter.loading import hubs, preprocessing, source
from torch2mobile.records import LoadedModel, Request


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x.mean((2, 3)))


def load(text: str, **options: Any) -> LoadedModel:
    return source.load(Request(source=text, **options), {})


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bool, str | None]]:
    """What the stand-in of timm is asked for: whether to fetch, and what it may."""
    asked: list[tuple[bool, str | None]] = []

    def create_model(name: str, *, pretrained: bool) -> nn.Module:
        asked.append((pretrained, os.environ.get("HF_HUB_OFFLINE")))
        if pretrained:
            raise OSError("no route to host")
        return Net().eval()

    config = {"input_size": (3, 8, 8), "mean": (0.5,) * 3, "std": (0.25,) * 3}
    config |= {"crop_pct": 0.8, "crop_mode": "center", "interpolation": "bicubic"}
    data = SimpleNamespace(resolve_model_data_config=lambda _: config)
    timm = SimpleNamespace(list_models=lambda: ["tiny_net"], create_model=create_model, data=data)
    monkeypatch.setitem(sys.modules, "timm", timm)
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(hubs, "urlopen", lambda *_, **__: io.BytesIO())
    return asked


def test_a_model_is_called_as_its_configuration_says(offline: list[Any]) -> None:
    found = load("timm:tiny_net")
    assert [dim.label for dim in found.specs[0].dims] == ["N", 3, 8, 8]
    values = found.specs[0].values
    assert values is not None
    assert (found.specs[0].name, values.low, values.high) == ("image", -2, 2)
    assert found.notes[0].startswith("its weights are random")
    assert offline == [(False, "1")]
    assert "HF_HUB_OFFLINE" not in os.environ


@pytest.mark.parametrize(
    ("answer", "allowed", "told"),
    [
        (URLError(socket.gaierror(-2, "Name or service not known")), "1", "does not answer"),
        (HTTPError("https://hub", 403, "Forbidden", Message(), None), None, "no route to host"),
        (ValueError("unknown url type: 'hub'"), "1", "cannot be asked: unknown url type"),
    ],
)
def test_a_hub_that_cannot_be_reached_is_asked_once(
    monkeypatch: pytest.MonkeyPatch,
    offline: list[Any],
    answer: Exception,
    allowed: str | None,
    told: str,
) -> None:
    def urlopen(*_: Any, **__: Any) -> None:
        raise answer

    monkeypatch.setattr(hubs, "urlopen", urlopen)
    with pytest.raises(SourceError, match=told):
        load("timm:tiny_net", download=True)
    assert offline == [(True, allowed)]
    with pytest.raises(SourceError, match="has no model"):
        load("timm:tiny_nett", download=True)


@pytest.mark.parametrize("variables", [{"HF_HUB_OFFLINE": "1"}, {"TRANSFORMERS_OFFLINE": "1"}])
def test_who_wants_no_network_has_none(
    monkeypatch: pytest.MonkeyPatch, offline: list[Any], variables: dict[str, str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(hubs, "urlopen", lambda *_, **__: pytest.fail("the hub was asked"))
    with pytest.raises(SourceError, match="no route to host"):
        load("timm:tiny_net", download=True)
    assert offline


def test_a_librarys_bars_of_progress_are_off_while_it_loads(
    offline: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    bars, seen = {"transformers": True, "hub": True}, []
    made = sys.modules["timm"].create_model

    def create_model(name: str, *, pretrained: bool) -> nn.Module:
        seen.append(dict(bars))
        return made(name, pretrained=pretrained)

    def switches(library: str, end: str) -> dict[str, Any]:
        return {
            f"disable_progress{end}": lambda: bars.update({library: False}),
            f"enable_progress{end}": lambda: bars.update({library: True}),
        }

    logging = SimpleNamespace(
        is_progress_bar_enabled=lambda: bars["transformers"], **switches("transformers", "_bar")
    )
    hub = SimpleNamespace(
        are_progress_bars_disabled=lambda: not bars["hub"], **switches("hub", "_bars")
    )
    monkeypatch.setitem(sys.modules, "transformers.utils.logging", logging)
    monkeypatch.setitem(sys.modules, "huggingface_hub.utils", hub)
    monkeypatch.setattr(sys.modules["timm"], "create_model", create_model)
    load("timm:tiny_net")
    assert seen == [{"transformers": False, "hub": False}]
    assert bars == {"transformers": True, "hub": True}
    bars["hub"] = False
    load("timm:tiny_net")
    assert bars == {"transformers": True, "hub": False}
    assert offline


@pytest.mark.usefixtures("offline")
def test_images_become_inputs_as_the_configuration_says(tmp_path: Path) -> None:
    Image.new("RGB", (20, 10), (0, 255, 0)).save(tmp_path / "green.png")
    found = load("timm:tiny_net", data=(str(tmp_path),))
    assert found.data[0]["image"].shape == (1, 3, 8, 8)
    assert found.data[0]["image"][0, :, 0, 0].tolist() == [-2, 2, -2]
    own = "resize=10,crop=8x8,filter=bicubic,scale=0..1,mean=0.5/0.5/0.5,std=0.25/0.25/0.25"
    assert f"as image, 8 x 8: the model's own {own}" in found.real[0]


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("text", "options", "problem", "remedy"),
    [
        ("timm:", {}, "timm: names no model", "Write timm:NAME."),
        ("timm:tiny_nett", {}, "timm has no model 'tiny_nett'", "Did you mean tiny_net?"),
        ("timm:tiny_net", {"download": True}, "OSError: no route to host", "the network"),
    ],
)
def test_what_cannot_be_had(text: str, options: Any, problem: str, remedy: str) -> None:
    with pytest.raises(SourceError) as caught:
        load(text, **options)
    assert problem in caught.value.message
    assert remedy in caught.value.remedy
    assert caught.value.exit_code == ExitCode.USAGE


@pytest.mark.parametrize(("hub", "module"), [("timm", "timm"), ("hf", "transformers")])
def test_a_library_that_is_not_there(
    hub: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SourceError, match=f"{module} cannot be imported") as caught:
        load(f"{hub}:some")
    assert caught.value.remedy == f"Install it: pip install 'torch2mobile[{hub}]'"


class Sees(nn.Module):
    main_input_name = "pixel_values"

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return pixel_values.mean((2, 3))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder called as a kind of model is, for a stand-in of transformers."""
    config = SimpleNamespace(image_size=8, num_channels=3, architectures=["Sees"])
    config.get_text_config = lambda: config
    library = SimpleNamespace(
        CONFIG_MAPPING={"sees": lambda: pytest.fail("the folder was asked for")},
        AutoConfig=SimpleNamespace(from_pretrained=lambda *_, **__: config),
        Sees=lambda _: Sees(),
    )
    monkeypatch.setitem(sys.modules, "transformers", library)
    monkeypatch.chdir(tmp_path)
    found = tmp_path / "sees"
    found.mkdir()
    (found / "config.json").write_text("{}")
    Image.new("RGB", (16, 9), (0, 255, 0)).save(tmp_path / "green.png")
    return found


def test_a_folder_says_how_images_become_inputs(folder: Path) -> None:
    size = {"size": {"height": 8, "width": 8}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(size))
    found = load("hf:sees", data=("green.png",))
    assert found.data[0]["pixel_values"][0, :, 0, 0].tolist() == [-1, 1, -1]
    assert "the model's own resize=8x8,filter=bilinear,scale=0..1,mean=0.5" in found.real[0]
    ours = load("hf:sees", data=("green.png",), preprocess="scale=0..255")
    assert ours.data[0]["pixel_values"].max() == 255
    assert "own" not in ours.real[0]


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ("{", r"preprocessor_config\.json cannot be read"),
        ("[]", r"preprocessor_config\.json cannot be read"),
        ('{"resample": 99}', r"preprocessor_config\.json cannot be read: resample is 99"),
        ('{"resample": null}', "resample is None"),
        (
            '{"feature_extractor_type": "ConvNext", "size": {"shortest_edge": 9}, "crop_pct": 0}',
            "crop_pct is 0",
        ),
        ('{"include_top": true, "image_mean": [0], "image_std": [1e300]}', "out of range"),
        (
            '{"image_processor_type": "LevitImageProcessor"}',
            "own preprocessing: unknown step 'kind'",
        ),
    ],
)
def test_what_a_folder_says_and_cannot_be_followed(folder: Path, config: str, problem: str) -> None:
    (folder / "preprocessor_config.json").write_text(config)
    with pytest.raises(UsageError, match=problem):
        load("hf:sees", data=("green.png",))


def test_a_folder_without_a_configuration_is_no_matter_of_the_network(folder: Path) -> None:
    (folder / "config.json").rename(folder / "configuration.json")
    with pytest.raises(SourceError, match=r"the folder sees has no config\.json") as caught:
        load("hf:sees")
    assert "save_pretrained" in caught.value.remedy
    (folder / "checkpoint-1").mkdir()
    (folder / "checkpoint-1" / "config.json").write_text("{}")
    with pytest.raises(SourceError) as caught:
        load("hf:sees")
    assert caught.value.remedy == "Name a folder in it: hf:sees/checkpoint-1."


def test_a_configuration_that_cannot_be_read_is_no_matter_of_the_network(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ValueError("no model_type")

    monkeypatch.setattr(sys.modules["transformers"].AutoConfig, "from_pretrained", refuse)
    with pytest.raises(SourceError, match="no model_type") as caught:
        load("hf:sees")
    assert caught.value.remedy == "Check the files in sees: nothing was asked of the network."
    with pytest.raises(SourceError, match="'seas' is no folder") as caught:
        load("hf:seas")
    assert caught.value.remedy.startswith("Did you mean sees? ")


# --- the libraries themselves, where they are installed -------------------------------------------


def test_a_model_of_timm() -> None:
    # What it imports of torchvision may be missing too: PyPI's wants a CUDA build of torch.
    pytest.importorskip("timm", exc_type=ImportError)
    found = load("timm:test_vit")
    assert found.flat(*found.tensors)[0].shape[0] == found.tensors[0].shape[0]


@pytest.mark.parametrize(
    ("config", "model", "inputs"),
    [
        ("BertConfig", "BertModel", {"input_ids", "attention_mask", "token_type_ids"}),
        ("ViTConfig", "ViTModel", {"pixel_values"}),
        ("LlamaConfig", "LlamaForCausalLM", {"input_ids", "attention_mask"}),
    ],
)
def test_a_folder_of_transformers(
    config: str, model: str, inputs: set[str], tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers", exc_type=ImportError)
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    made = getattr(transformers, config)(
        intermediate_size=16, image_size=16, patch_size=8, vocab_size=20, **small
    )
    made.architectures = [model]
    made.save_pretrained(tmp_path)
    found = load(f"hf:{tmp_path}")
    names = {spec.name for spec in found.specs}
    assert inputs == {name for name in names if not name.startswith("past")}
    assert any(name.startswith("past") for name in names) is ("Causal" in model)
    assert found.flat(*found.tensors)


@pytest.mark.parametrize("kind", preprocessing.KNOWN)
def test_images_are_what_transformers_makes_of_them(kind: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", exc_type=ImportError)
    # One crops more than is left, by its defaults.
    options = {"size": {"shortest_edge": 288}} if kind == "MobileViT" else {}
    processor = getattr(transformers, f"{kind}ImageProcessorPil")(**options)
    processor.save_pretrained(tmp_path)
    steps = preprocessing.of_hugging_face(
        json.loads((tmp_path / "preprocessor_config.json").read_text())
    )
    rng = np.random.default_rng(0)
    for size in ((300, 400), (500, 332)):
        photo = Image.fromarray(rng.integers(0, 255, (*size, 3), np.uint8))
        photo.save(tmp_path / "photo.png")
        theirs = processor(photo, return_tensors="np")["pixel_values"][0]
        spec = f"x:float32[N,{','.join(map(str, theirs.shape))}]"
        request = Request(source="", data=(str(tmp_path / "photo.png"),), preprocess=steps)
        ours = source.from_specs("m", nn.Identity(), [spec], (), request, ()).data[0]["x"][0]
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
