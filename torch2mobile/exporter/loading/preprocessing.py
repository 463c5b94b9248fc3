"""The text of ``--preprocess``: how an image becomes an input; and a published model's own.

::

    resize=256,crop=224,mean=0.485/0.456/0.406,std=0.229/0.224/0.225
    resize=224x224,filter=bicubic,scale=-1..1     height x width; what black and white become
    order=bgr,input=left                          the order of channels; which input it is for
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch2mobile.errors import did_you_mean
from torch2mobile.exporter.loading.grammar import NAME, Scanner

FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""How pixels are found between pixels: Pillow's names, in the order of its numbers."""

_REMEDY = (
    "Write for example --preprocess 'resize=256,crop=224,scale=0..1,mean=0.485/0.456/0.406,"
    "std=0.229/0.224/0.225'."
)
# The image processors of transformers whose steps these are; what else they may do, by its key.
KNOWN = (
    *("Beit", "Bit", "Blip", "CLIP", "ChineseCLIP", "ConvNext", "DPT", "DeiT", "EfficientNet"),
    *("Flava", "Llava", "MobileNetV1", "MobileNetV2", "MobileViT", "OwlViT", "PromptDepthAnything"),
    *("Pvt", "RTDetr", "SegGpt", "Segformer", "Siglip", "SuperPoint", "ViT"),
)
_STRANGE = ("do_pad", "do_center_pad", "size_divisor")


@dataclass(frozen=True)
class Preprocessing:
    """Steps in this order; ``resize`` and ``crop`` are height and width, or one size.

    One size of ``resize`` is that of the shorter side. ``scale`` is what the pixels 0 and 255
    become, from which ``mean`` is then taken and which ``std`` divides, by channel or for all.
    """

    resize: tuple[int, ...] = ()
    crop: tuple[int, ...] = ()
    filter: str = "bilinear"
    order: str = "rgb"
    scale: tuple[float, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    input: str = ""

    def __str__(self) -> str:
        """The text that :func:`parse` reads as these steps."""
        steps = {
            "resize": "x".join(map(str, self.resize)),
            "crop": "x".join(map(str, self.crop)),
            "filter": self.filter,
            "order": self.order if self.order != "rgb" else "",
            "scale": "..".join(f"{end:g}" for end in self.scale),
            "mean": "/".join(f"{number:g}" for number in self.mean),
            "std": "/".join(f"{number:g}" for number in self.std),
        }
        return ",".join(f"{name}={text}" for name, text in steps.items() if text)


def parse(text: str, flag: str = "--preprocess") -> Preprocessing:
    """Read the text; InputError that points at the character where it is not of that form."""
    scan = Scanner(flag, text, _REMEDY)
    steps: dict[str, Any] = {}
    while True:
        name = scan.need(NAME, "expected a step")
        if name not in _STEPS:
            scan.fail(f"unknown step {name!r}", remedy=f"{did_you_mean(name, [*_STEPS])} {_REMEDY}")
        if name in steps:
            scan.fail(f"{name} is given twice", remedy="Keep one of them.")
        scan.need("=", f"expected '=' after {name}")
        steps[name] = _STEPS[name](scan)
        if not scan.take(","):
            break
    scan.need(r"\Z", "expected ',' and a step, or nothing more")
    return Preprocessing(**steps)


def _sizes(scan: Scanner) -> tuple[int, ...]:
    sizes = [_size(scan)]
    if scan.take("x"):
        sizes.append(_size(scan))
    return tuple(sizes)


def _size(scan: Scanner) -> int:
    size = scan.size("expected a size, or height x width: 224 or 224x320")
    if size < 1:
        scan.fail("a size must be at least 1")
    return size


def _scale(scan: Scanner) -> tuple[float, ...]:
    low = scan.number("expected what black becomes: 0..1")
    scan.need(r"\.\.", "expected '..' and what white becomes: 0..1")
    return float(low), float(scan.number("expected what white becomes: 0..1"))


def _numbers(scan: Scanner) -> tuple[float, ...]:
    problem = "expected a number, or one for each channel: 0.485/0.456/0.406"
    found = [scan.number(problem)]
    while scan.take("/"):
        found.append(scan.number(problem))
    return tuple(map(float, found))


def _deviations(scan: Scanner) -> tuple[float, ...]:
    found = _numbers(scan)
    if 0 in found:
        scan.fail("a standard deviation is not 0")
    return found


def _one_of(*words: str) -> Callable[[Scanner], str]:
    def read(scan: Scanner) -> str:
        word = scan.need(NAME, f"expected {' or '.join(words)}")
        if word not in words:
            scan.fail(f"expected {' or '.join(words)}")
        return word

    return read


_STEPS: Mapping[str, Callable[[Scanner], Any]] = {
    "resize": _sizes,
    "crop": _sizes,
    "filter": _one_of(*FILTERS),
    "order": _one_of("rgb", "bgr"),
    "scale": _scale,
    "mean": _numbers,
    "std": _deviations,
    "input": lambda scan: scan.need(NAME, "expected the name of an input"),
}


def of_timm(config: Mapping[str, Any]) -> str:
    """The text of a configuration that timm resolved for a model."""
    height, width = config["input_size"][-2:]
    part, mode = config["crop_pct"], config["crop_mode"]
    steps = []
    if mode == "squash":
        steps.append(f"resize={math.floor(height / part)}x{math.floor(width / part)}")
    elif mode == "center" and height == width:
        steps.append(f"resize={math.floor(height / part)}")
    else:
        steps.append(f"crop_mode={mode}")
    steps += [f"crop={height}x{width}", f"filter={config['interpolation']}"]
    return ",".join([*steps, *_normalized(config["mean"], config["std"])])


def of_hugging_face(config: Mapping[str, Any]) -> str:
    """The text of a ``preprocessor_config.json``; a step that has none stands there by its name."""
    kind = str(config.get("image_processor_type", config.get("feature_extractor_type", "ViT")))
    kind = re.sub("(ImageProcessor|FeatureExtractor)(Fast|Pil)?$", "", kind)
    steps = [] if kind in KNOWN else [f"kind={kind}"]
    steps += [f"{name}=true" for name in _STRANGE if config.get(name)]
    if config.get("do_resize", True):
        steps += _resized(config, kind)
    if config.get("do_center_crop"):
        steps.append(f"crop={_height_by_width(config.get('crop_size', config.get('size')))}")
    if "resample" in config:
        number = config["resample"]
        if number not in range(len(FILTERS)):
            raise ValueError(f"resample is {number!r}, and Pillow's filters are 0 to 5")
        steps.append(f"filter={FILTERS[int(number)]}")
    if config.get("do_flip_channel_order"):
        steps.append("order=bgr")
    high = 255 * config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 255
    low = -1 if config.get("rescale_offset") else 0
    steps.append(f"scale={low}..{high + low:g}")
    # MobileViT's own file has means, and does not use them.
    if config.get("do_normalize", "image_mean" in config and kind != "MobileViT"):
        # EfficientNet with its head divides twice.
        power = 2 if config.get("include_top") else 1
        deviations = [number**power for number in config.get("image_std", ())]
        steps += _normalized(config.get("image_mean", ()), deviations)
    return ",".join(steps)


def _resized(config: Mapping[str, Any], kind: str) -> list[str]:
    size = config.get("size")
    if size is None:
        return []
    if isinstance(size, int):
        size = {"shortest_edge": size} if config.get("do_center_crop") else {"height": size}
    strange = [f"{name}={size[name]}" for name in sorted(size.keys() - _EDGES)]
    if config.get("keep_aspect_ratio") or config.get("ensure_multiple_of", 1) > 1:
        strange.append("keep_aspect_ratio=true")
    shorter = size.get("shortest_edge")
    if shorter is None:
        return [*strange, f"resize={_height_by_width(size)}"]
    if kind != "ConvNext":
        return [*strange, f"resize={shorter}"]
    # Small ones are cut from the middle of something larger, large ones are squeezed.
    if shorter >= _LARGE:
        return [*strange, f"resize={shorter}x{shorter}"]
    part = config.get("crop_pct", 224 / 256)
    if not isinstance(part, int | float) or not 0 < part <= 1:
        raise ValueError(f"crop_pct is {part!r}, and not above 0 and up to 1")
    return [*strange, f"resize={int(shorter / part)},crop={shorter}"]


_EDGES = {"shortest_edge", "height", "width"}
_LARGE = 384


def _height_by_width(size: Any) -> str:
    if isinstance(size, int):
        return f"{size}x{size}"
    height = size.get("height", size.get("shortest_edge"))
    return f"{height}x{size.get('width', height)}"


def _normalized(mean: Any, std: Any) -> list[str]:
    given = {"mean": mean, "std": std}
    return [f"{name}={'/'.join(map(str, numbers))}" for name, numbers in given.items() if numbers]
