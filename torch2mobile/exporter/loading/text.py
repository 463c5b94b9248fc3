"""Lines of text as inputs: ids, padding masks and types, by a tokenizer's own file."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from torch2mobile import limits
from torch2mobile.errors import InputError, ModelFileError, UsageError, reason_of
from torch2mobile.exporter.loading.fitting import greatest, grouped, spread
from torch2mobile.exporter.loading.grammar import format_input
from torch2mobile.exporter.loading.hubs import library
from torch2mobile.exporter.loading.images import layout_of
from torch2mobile.records import Dim, InputSpec, RealCase

SUFFIX = ".txt"
# Lines that are one batch, where a mask tells what of it is padding.
_BATCH = 8
_PADDING = ("[PAD]", "<pad>", "<|pad|>", "<PAD>", "<|endoftext|>", "</s>")


@dataclass(frozen=True)
class Roles:
    """Which inputs are a text's: its ids, and where there are any its mask and its types."""

    ids: InputSpec
    mask: InputSpec | None
    types: InputSpec | None


def roles(specs: Sequence[InputSpec], path: str) -> Roles:
    """The inputs for a text, by name and dtype; InputError where it is not one for its ids."""
    flat = [spec for spec in specs if 1 <= len(spec.dims) <= 2]
    mask = _named(flat, "attention_mask", "mask")
    types = _named(flat, "token_type_ids")
    whole = [
        spec for spec in flat if spec.dtype in {"int32", "int64"} and spec not in (mask, types)
    ]
    ids = [_named(whole, "input_ids")] if _named(whole, "input_ids") else whole
    if len(ids) != 1 or ids[0] is None:
        shown = ", ".join(format_input(spec) for spec in specs)
        raise InputError(
            f"{path} is text, and not one input alone is for its ids"
            + (f": {shown}" if shown else ""),
            "The model takes images: give --data with a photo or a folder of photos, or an .npz."
            if not ids and any(map(layout_of, specs))
            else "Describe it as whole numbers, and call it input_ids where there are several: "
            "--input 'input_ids:int64[N=1..8,T=1..64]'.",
        )
    return Roles(ids[0], mask, types)


def _named(specs: Sequence[InputSpec], *names: str) -> InputSpec | None:
    """The input of such a name, or the only one that ends with it."""
    for name in names:
        exact = [spec for spec in specs if spec.name == name]
        found = exact or [spec for spec in specs if spec.name.endswith(f"_{name}")]
        if len(found) == 1:
            return found[0]
    return None


def lines_of(path: Path, budget: limits.Budget) -> tuple[list[tuple[int, str]], int]:
    """The lines of a file with their numbers, and how many empty ones were left out."""
    try:
        raw = limits.read_regular(path)
        budget.take(len(raw))
        # Only what ends a line of a file: splitlines() also splits at a form feed or U+2028.
        text = io.StringIO(raw.decode("utf-8-sig"), newline=None)
        lines = [line.rstrip("\n") for line in text]
    except (OSError, ValueError) as error:
        raise ModelFileError(
            f"{path} cannot be read as text: {reason_of(error)}",
            "Write it in UTF-8, a text a line.",
        ) from error
    kept = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not kept:
        raise ModelFileError(f"{path} holds no text", "Write a text a line into it.")
    return kept, len(lines) - len(kept)


class Tokens:
    """A tokenizer, and what pads its texts."""

    def __init__(self, file: Path) -> None:
        """Read the file; UsageError where it is no tokenizer's."""
        kind = library("tokenizers", "text").Tokenizer
        try:
            self._tokenizer = kind.from_str(limits.read_regular(file).decode())
        except Exception as error:
            raise UsageError(
                f"{file} cannot be read as a tokenizer: {reason_of(error)}",
                "Give the tokenizer.json that was saved with the model.",
            ) from error
        self._pad = self._padding(file)
        self._tokenizer.no_padding()

    def _padding(self, file: Path) -> dict[str, Any] | None:
        """What the tokenizer pads with, on which side: its own, or that of the file beside it."""
        own = self._tokenizer.padding
        if own:
            return {key: own[key] for key in ("direction", "pad_id", "pad_type_id", "pad_token")}
        try:
            beside = json.loads(limits.read_regular(file.with_name("tokenizer_config.json")))
        except (OSError, ValueError):
            beside = {}
        beside = beside if isinstance(beside, dict) else {}
        said = beside.get("pad_token")
        said = said.get("content") if isinstance(said, dict) else said
        for token in (said, *_PADDING):
            number = self._tokenizer.token_to_id(token) if isinstance(token, str) else None
            if number is not None:
                side = "left" if beside.get("padding_side") == "left" else "right"
                return {"direction": side, "pad_id": number, "pad_token": token}
        return None

    def encoded(self, texts: Sequence[str], most: int | None) -> list[Any]:
        """Each text by itself, cut to so many tokens."""
        if most is None:
            self._tokenizer.no_truncation()
        else:
            self._tokenizer.enable_truncation(most)
        try:
            found: list[Any] = self._tokenizer.encode_batch(list(texts))
        except BaseException as error:
            # What a panic of Rust's raises is no Exception.
            if type(error).__name__ != "PanicException":
                raise
            raise ValueError(str(error)) from error
        return found

    def padded(self, encodings: Sequence[Any], length: int, path: str) -> None:
        """Make all of them so long; InputError where nothing says with what."""
        if all(len(each) == length for each in encodings):
            return
        if self._pad is None:
            raise InputError(
                f"the texts of {path} differ in length, and the tokenizer has no padding token",
                "Save it with one (enable_padding), or declare a batch of 1 and a varying length.",
            )
        for each in encodings:
            each.pad(length, **self._pad)


def batches(
    path: Path,
    found: Roles,
    tokens: Tokens,
    module: torch.nn.Module,
    most: int,
    budget: limits.Budget,
) -> tuple[list[RealCase], str]:
    """What a file's lines are as inputs, several lines a batch; and how many lines that are."""
    ids = found.ids
    lines, empty = lines_of(path, budget)
    count, length = _batch(ids, len(lines), masked=found.mask is not None), ids.dims[-1]
    chosen = spread(lines, most * count)
    try:
        encodings = tokens.encoded([line for _, line in chosen], length.ends[1])
    except Exception as error:
        raise InputError(
            f"the tokenizer cannot encode {path}: {error}",
            "Save it with a token for what it does not know, or leave such text out.",
        ) from error
    over = sum(bool(each.overflowing) for each in encodings)
    cut = f"{over} cut to {length.ends[1]} tokens" if over else ""
    for (number, _), encoding in zip(chosen, encodings, strict=True):
        _refuse(f"{path}, line {number}", encoding.ids, ids, module)
    cases = []
    for index, group in enumerate(grouped(encodings, count)):
        size = _length(length, max(map(len, group)))
        _take(budget, count * size, found, path)
        tokens.padded(group, size, str(path))
        used = [number for encoding in group for number in encoding.ids]
        _refuse(f"{path}, its padding", used, ids, module)
        case = _arrays(group, found)
        cases.append(RealCase(case, f"from line {chosen[index * count][0]}"))
    of = "" if len(chosen) == len(lines) else f" of {len(lines):,}"
    told = ", ".join(word for word in (empty and f"{empty} empty left out", cut) if word)
    return cases, f"{len(chosen)}{of} lines of {path}" + f" ({told})" * bool(told)


def _take(budget: limits.Budget, count: int, found: Roles, path: Path) -> None:
    """Count the arrays of a batch; ModelFileError where they are more than what is left."""
    specs = [spec for spec in (found.ids, found.mask, found.types) if spec is not None]
    try:
        budget.take(sum(count * np.dtype(spec.dtype).itemsize for spec in specs))
    except ValueError as error:
        raise ModelFileError(
            f"{path} cannot be read as text: {error}",
            f"Shorten its lines, or declare how long {found.ids.name} may be: T=1..512.",
        ) from error


def _arrays(group: Sequence[Any], found: Roles) -> dict[str, np.ndarray[Any, Any]]:
    """What encodings of one length are as inputs."""
    rows = {
        found.ids: [each.ids for each in group],
        found.mask: [each.attention_mask for each in group],
        found.types: [each.type_ids for each in group],
    }
    return {
        spec.name: np.array(row, spec.dtype).reshape(
            -1 if len(spec.dims) == 1 else (len(group), -1)
        )
        for spec, row in rows.items()
        if spec is not None
    }


def _batch(ids: InputSpec, lines: int, *, masked: bool) -> int:
    """How many lines are one batch: as few as may be where no mask tells the padding."""
    if len(ids.dims) == 1:
        return 1
    least = max(1, ids.dims[0].ends[0])
    most = greatest(ids.dims[0], min(_BATCH, lines)) if masked else None
    return max(least, most[0]) if most else least


def _length(dim: Dim, size: int) -> int:
    """The least length from this one on that an input takes."""
    low, high = dim.ends
    for length in range(max(size, low), (high or size + dim.factor + abs(dim.offset)) + 1):
        fit = greatest(dim, length)
        if fit and fit[0] == length:
            return length
    return size


def _refuse(place: str, numbers: Sequence[int], spec: InputSpec, module: torch.nn.Module) -> None:
    """InputError for ids that the model has no row for, or that are not declared."""
    if not numbers:
        raise InputError(f"{place}: the tokenizer makes no token of it", "Leave the line out.")
    least, top = min(numbers), max(numbers)
    tables = [m.num_embeddings for m in module.modules() if isinstance(m, torch.nn.Embedding)]
    if tables and top >= max(tables):
        raise InputError(
            f"{place}: the tokenizer gives the id {top}, and the largest embedding has "
            f"{max(tables):,} rows",
            "Give the tokenizer that the model was trained with.",
        )
    declared = spec.values
    if declared is None or declared.kind != "range":
        return
    if least < declared.low or top > declared.high:
        low, high = min(least, declared.low), max(top, declared.high)
        raise InputError(
            f"{place}: the tokenizer gives the id {top if top > declared.high else least}, and "
            f"{spec.name} takes {declared.low:.0f}..{declared.high:.0f}",
            f"Declare --values '{spec.name}={low:.0f}..{high:.0f}', or give the model's own "
            "tokenizer.",
        )
