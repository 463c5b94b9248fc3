"""The text of --preprocess, and what published configurations are in it."""

from __future__ import annotations

from typing import Any

import pytest

from torch2mobile.errors import InputError
from torch2mobile.exporter.loading.preprocessing import (
    Preprocessing,
    of_hugging_face,
    of_timm,
    parse,
)

MEAN = "mean=0.5/0.5/0.5,std=0.5/0.5/0.5"
HALVES = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}


def test_a_text_is_read_as_it_is_written() -> None:
    text = (
        "resize=256,crop=224x320,filter=bicubic,order=bgr,scale=-1..1,mean=0.485/0.456/0.406,std=2"
    )
    steps = parse(text)
    assert (steps.resize, steps.crop, steps.scale, steps.std) == ((256,), (224, 320), (-1, 1), (2,))
    assert str(steps) == text
    assert parse(" crop = 8 , input = left ") == Preprocessing(crop=(8,), input="left")


@pytest.mark.parametrize(
    ("text", "problem", "at"),
    [
        ("", "expected a step", 0),
        ("resize", "expected '=' after resize", 6),
        ("resize=", "expected a size, or height x width", 7),
        ("resize=0", "a size must be at least 1", 7),
        ("resize=8,resize=9", "resize is given twice", 9),
        ("size=8", "unknown step 'size'", 0),
        ("scale=1", "expected '..' and what white becomes", 7),
        ("mean=a", "expected a number, or one for each channel", 5),
        ("std=1/0", "a standard deviation is not 0", 6),
        ("filter=best", "expected nearest or lanczos", 7),
        ("resize=8;crop=8", "expected ',' and a step", 8),
    ],
)
def test_what_cannot_be_read_is_pointed_at(text: str, problem: str, at: int) -> None:
    with pytest.raises(InputError) as caught:
        parse(text)
    first, _, caret = caught.value.message.splitlines()
    assert problem in first
    assert caret.index("^") - 2 == at


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (
            {"size": {"height": 8, "width": 9}, "resample": 3},
            "resize=8x9,filter=bicubic,scale=0..1",
        ),
        (
            {"size": {"shortest_edge": 9}, "do_center_crop": True, "crop_size": 8, **HALVES},
            f"resize=9,crop=8x8,scale=0..1,{MEAN}",
        ),
        ({"size": 8, "feature_extractor_type": "ViTFeatureExtractor"}, "resize=8x8,scale=0..1"),
        (
            {"size": {"shortest_edge": 224}, "image_processor_type": "ConvNextImageProcessor"},
            "resize=256,crop=224,scale=0..1",
        ),
        (
            {"size": {"shortest_edge": 384}, "image_processor_type": "ConvNextImageProcessorFast"},
            "resize=384x384,scale=0..1",
        ),
        (
            {"image_processor_type": "EfficientNetImageProcessor", "include_top": True, **HALVES},
            "scale=0..1,mean=0.5/0.5/0.5,std=0.25/0.25/0.25",
        ),
        ({"feature_extractor_type": "MobileViTFeatureExtractor", **HALVES}, "scale=0..1"),
        ({"rescale_factor": 2 / 255, "rescale_offset": True}, "scale=-1..1"),
        ({"do_rescale": False, "do_flip_channel_order": True}, "order=bgr,scale=0..255"),
    ],
)
def test_a_configuration_of_transformers(config: dict[str, Any], text: str) -> None:
    assert of_hugging_face(config) == text
    parse(text)


@pytest.mark.parametrize(
    ("config", "step"),
    [
        ({"image_processor_type": "LevitImageProcessor"}, "kind"),
        ({"do_pad": True}, "do_pad"),
        ({"size": {"shortest_edge": 8, "longest_edge": 9}}, "longest_edge"),
        ({"size": {"height": 8, "width": 8}, "ensure_multiple_of": 32}, "keep_aspect_ratio"),
    ],
)
def test_what_a_configuration_has_besides_is_refused_where_it_is_used(
    config: dict[str, Any], step: str
) -> None:
    with pytest.raises(InputError, match=f"its own: unknown step '{step}'"):
        parse(of_hugging_face(config), "its own")


@pytest.mark.parametrize(
    ("mode", "size", "steps"),
    [
        ("center", (8, 8), "resize=10,crop=8x8"),
        ("squash", (8, 12), "resize=10x15,crop=8x12"),
        ("border", (8, 8), "crop_mode=border,crop=8x8"),
        ("center", (8, 12), "crop_mode=center,crop=8x12"),
    ],
)
def test_a_configuration_of_timm(mode: str, size: tuple[int, int], steps: str) -> None:
    config = {"input_size": (3, *size), "crop_pct": 0.8, "crop_mode": mode}
    config |= {"interpolation": "bicubic", "mean": (0.5,) * 3, "std": (0.5,) * 3}
    assert of_timm(config) == f"{steps},filter=bicubic,{MEAN}"
