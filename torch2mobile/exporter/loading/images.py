"""Images as inputs: decoded and resized by Pillow, laid out as the model declares its input."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from torch2mobile import limits
from torch2mobile.errors import InputError, ModelFileError, did_you_mean, reason_of
from torch2mobile.exporter.loading.fitting import greatest
from torch2mobile.exporter.loading.grammar import format_input
from torch2mobile.exporter.loading.hubs import library
from torch2mobile.exporter.loading.preprocessing import Preprocessing
from torch2mobile.records import Dim, InputSpec

# What phones take photos in: Pillow reads it by a plug-in.
_HEIC = frozenset((".heic", ".heif"))
SUFFIXES = _HEIC | frozenset(
    (".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)
_MODES = {1: "L", 3: "RGB"}
_DTYPES = ("uint8", "float16", "float32", "float64")
_DEEP = 65535


@dataclass(frozen=True)
class Layout:
    """Where an input has its channels and its rows, the columns being next to these."""

    channels: int
    axis: int
    rows: int


def layout_of(spec: InputSpec) -> Layout | None:
    """How an image lies in an input of three or four dimensions; None where it is for none."""
    first = len(spec.dims) - 3
    if first not in {0, 1} or spec.dtype not in _DTYPES:
        return None
    for axis, rows in ((first, first + 1), (first + 2, first)):
        channels = spec.dims[axis].size
        if channels in _MODES:
            return Layout(channels, axis, rows)
    return None


def place(specs: Sequence[InputSpec], name: str, path: str) -> tuple[InputSpec, Layout]:
    """The one input that is for images; InputError where none is, or several are."""
    fit = {spec.name: (spec, layout) for spec in specs if (layout := layout_of(spec))}
    names = [spec.name for spec in specs]
    if name and name not in names:
        raise InputError(f"--preprocess: unknown input {name!r}", did_you_mean(name, names))
    if name in fit or (len(fit) == 1 and not name):
        return fit[name] if name else next(iter(fit.values()))
    if len(fit) > 1 and not name:
        raise InputError(
            f"{path} has images, and more than one input could be theirs: {', '.join(fit)}",
            f"Name it: --preprocess 'input={next(iter(fit))}'.",
        )
    raise InputError(
        f"{path} has images, and no input is for images"
        + (f": {', '.join(map(format_input, specs))}" if specs else ""),
        "The model takes ids of a text: give --data texts.txt and --tokenizer, or an .npz."
        if specs and all(s.dtype in {"int32", "int64"} and len(s.dims) < 3 for s in specs)
        else "Describe it with 1 or 3 channels, in uint8 or a float: --input "
        "'image:float32[N,3,224,224]', or [N,224,224,3].",
    )


def read(
    path: Path, spec: InputSpec, layout: Layout, how: Preprocessing, budget: limits.Budget
) -> np.ndarray[Any, Any]:
    """One image, without a batch, in the layout and dtype of an input.

    Raises ModelFileError for a file that is no image or too large, and InputError where it does
    not get a size that the input takes.
    """
    pillow = library("PIL.Image", "images")
    if path.suffix.lower() in _HEIC:
        _register_heic(path)
    try:
        # What Pillow takes for an attack is too large; what else it warns of, it can read.
        with limits.open_regular(path) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", pillow.DecompressionBombWarning)
            image = _decoded(file, layout.channels)
            image = _sized(image, path, spec, layout, how, budget)
            pixels = np.asarray(image).reshape(image.height, image.width, layout.channels)
            return _normalized(pixels, spec, layout, how)
    except InputError:
        raise
    except Exception as error:
        raise ModelFileError(
            f"{path} cannot be read as an image: {reason_of(error)}",
            "Mend it, or take it out of --data.",
        ) from error


def _register_heic(path: Path) -> None:
    try:
        importlib.import_module("pillow_heif").register_heif_opener()
    except ImportError as error:
        raise ModelFileError(
            f"{path} is a HEIC photo, which Pillow does not read by itself",
            "Install its plug-in: pip install pillow-heif, or convert the photo to JPEG or PNG.",
        ) from error


def _decoded(file: Any, channels: int) -> Any:
    """The first picture of a file, upright, in 8 bits a channel, without transparency."""
    image = library("PIL.Image", "images").open(file)
    image = library("PIL.ImageOps", "images").exif_transpose(image)
    if image.mode.startswith("I"):
        deep = np.asarray(image)
        if deep.min() < 0 or deep.max() > _DEEP:
            raise ValueError("it has more than 16 bits a pixel")
        image = library("PIL.Image", "images").fromarray((deep // 257).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("its pixels are floats, and nothing says which is white")
    if image.mode in {"P", "PA"}:
        image = image.convert("RGBA")
    return image.convert(_MODES[channels])


def _sized(
    image: Any,
    path: Path,
    spec: InputSpec,
    layout: Layout,
    how: Preprocessing,
    budget: limits.Budget,
) -> Any:
    """Resized and cropped as asked, and then to what the input takes."""
    rows, columns = spec.dims[layout.rows : layout.rows + 2]
    size = _target(image.height, image.width, rows, columns, how)
    # A float64 of each pixel and channel is the most that is made on the way.
    budget.take(8 * layout.channels * size[0] * size[1])
    if size != (image.height, image.width):
        filters = library("PIL.Image", "images").Resampling
        image = image.resize(size[::-1], filters[how.filter.upper()])
    if how.crop:
        image = _cropped(image, (how.crop[0], how.crop[-1]), path)
    fitting = _fitting(rows, columns, image.height, image.width)
    if fitting is None:
        raise InputError(
            f"{path} is {image.height} x {image.width} after its preprocessing, and the input "
            f"{spec.name} takes no such size",
            f"It is {format_input(spec)}: give a larger resize or crop in --preprocess, or none.",
        )
    return _cropped(image, fitting, path)


def _target(
    height: int, width: int, rows: Dim, columns: Dim, how: Preprocessing
) -> tuple[int, int]:
    """The size to resize to: as asked, or as little changed as the declared ends allow."""
    if len(how.resize) > 1:
        return how.resize[0], how.resize[1]
    if how.resize:
        (shorter,) = how.resize
        longer = shorter * max(height, width) // min(height, width)
        return (shorter, longer) if height <= width else (longer, shorter)
    if how.crop:
        return height, width
    (low_rows, top_rows), (low_columns, top_columns) = rows.ends, columns.ends
    factor = min(1, (top_rows or height) / height, (top_columns or width) / width)
    factor = max(factor, low_rows / height, low_columns / width)
    if factor == 1:
        return height, width
    return max(low_rows, round(height * factor)), max(low_columns, round(width * factor))


def _fitting(rows: Dim, columns: Dim, height: int, width: int) -> tuple[int, int] | None:
    """The greatest height and width up to these that an input takes."""
    one, other = greatest(rows, height), greatest(columns, width)
    if one is None or other is None:
        return None
    if rows.symbol is not None and rows.symbol == columns.symbol and not rows.others:
        sizes = {rows.symbol: min(one[1], other[1])}
        return rows.at(sizes), columns.at(sizes)
    return one[0], other[0]


def _cropped(image: Any, size: tuple[int, int], path: Path) -> Any:
    """The middle of an image."""
    height, width = size
    if height > image.height or width > image.width:
        raise InputError(
            f"{path} is {image.height} x {image.width}, less than its crop of {height} x {width}",
            "Give a resize before it: --preprocess 'resize=256,crop=224'.",
        )
    top, left = round((image.height - height) / 2), round((image.width - width) / 2)
    return image.crop((left, top, left + width, top + height))


def _normalized(
    pixels: np.ndarray[Any, Any], spec: InputSpec, layout: Layout, how: Preprocessing
) -> np.ndarray[Any, Any]:
    """Pixels as the numbers that the input takes, with the channels where it has them."""
    if how.order == "bgr":
        pixels = pixels[..., ::-1]
    if spec.dtype == "uint8":
        if how.scale or how.mean or how.std:
            raise InputError(
                f"the input {spec.name} is uint8, and takes pixels as they are",
                "Leave scale, mean and std out of --preprocess.",
            )
        numbers: np.ndarray[Any, Any] = pixels
    else:
        black, white = how.scale or (0.0, 1.0)
        numbers = black + pixels * ((white - black) / 255)
        numbers = (numbers - _by_channel(how.mean, 0, "mean", spec, layout)) / _by_channel(
            how.std, 1, "std", spec, layout
        )
    if layout.axis < layout.rows:
        numbers = numbers.transpose(2, 0, 1)
    return np.ascontiguousarray(numbers, dtype=spec.dtype)


def _by_channel(
    given: tuple[float, ...], default: float, what: str, spec: InputSpec, layout: Layout
) -> np.ndarray[Any, Any]:
    if len(given) not in {0, 1, layout.channels}:
        raise InputError(
            f"--preprocess: {what} has {len(given)} numbers, and {spec.name} {layout.channels} "
            "channels",
            "Give one number, or one for each channel.",
        )
    return np.array(given or (default,), np.float64)
