"""Why a capture failed, in the user's words: what the line does, and what to write instead."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch2mobile import torch_refusals, user_code
from torch2mobile.exporter.refused_lines import BY_SUBJECT, BY_WORDS, REFUSED, SIZE_KINDS, Kind
from torch2mobile.records import Attempt, LoadedModel, Location

IN_A_LIBRARY = (
    "The line is in a library: at your call of it, try an argument that chooses another way there "
    "(in transformers attn_implementation='eager', experts_implementation='batched_mm' or, in a "
    "config, onnx_export=True), leave the end to the app (for a detector of torchvision's "
    "--stop-before postprocess_detections)"
)

_SOURCE = re.compile(r"L\['tensors'\]\[(\d+)\]\.size\(\)\[(\d+)\]")
_CONSTANT = re.compile(
    r"(?:marked|generated for) (\w+).*?(?:to be a constant \((\d+)\)|specialized value of (\d+))"
)
_GUARD = re.compile(r"satisfy the generated guard (.+?)\.?(?:Specializations|$|\s{2})")
_ONE_SIZE = re.compile(r"\b(\d+) <= (\w+) and \2 <= \1\b")


def blamed(attempts: Sequence[Attempt]) -> Location | None:
    """The line that the first attempt names which names any."""
    return next((attempt.locations[0] for attempt in attempts if attempt.locations), None)


def remedy(loaded: LoadedModel, attempts: Sequence[Attempt]) -> str:
    """What the line does and what to do, from what torch said of each attempt."""
    place, texts = blamed(attempts), [attempt.reason for attempt in attempts]
    text = " ".join(texts)
    found = _kind(texts, place)
    words = re.search(found.line, place.code) if place is not None and found.line else None
    named = words.groups() if words else ()
    said, advice = found.said.format(*named), found.advice.format(*named)
    on_sizes = found in (*SIZE_KINDS, REFUSED)
    refused = re.search(r"the module refuses (.+?, which the inputs declare( \(.+?\))?)", text)
    if found is REFUSED and refused:
        said = f"The module itself refuses {refused[1]}"
    elif on_sizes:
        said += _assumed(loaded, texts)
    if place is not None and user_code.is_library(place.file):
        advice = _at_the_call(on_sizes)
    elif on_sizes:
        tail = "" if found is REFUSED else "; or declare that size narrower or fixed"
        advice = f"{advice.rstrip('.')}{tail}, with --input."
    return f"{said}. {advice}"


def _kind(texts: Sequence[str], place: Location | None) -> Kind:
    text, code = " ".join(texts), place.code if place is not None else ""
    for kind in BY_WORDS:
        if re.search(kind.line, text + code):
            return kind
    if "which the inputs declare" in text:
        return REFUSED
    kinds = BY_SUBJECT[torch_refusals.about(texts)]
    return next(kind for kind in kinds if re.search(kind.line, code))


def _at_the_call(on_sizes: bool) -> str:
    """What can be done where the line is a library's: nobody should change that."""
    declared = "a fixed size in --input" if on_sizes else "a fixed value for the argument it asks"
    return f"{IN_A_LIBRARY}, or {declared}."


def _assumed(loaded: LoadedModel, texts: Sequence[str]) -> str:
    """What the first attempt takes for granted of the declared sizes, with the user's names."""
    for text in texts:
        constant = _CONSTANT.search(text)
        if constant:
            name, size = constant[1].rstrip("_"), constant[2] or constant[3]
            return f" (it fixes {_label(loaded, name)} to {size})"
        guard = _GUARD.search(text)
        if guard:
            held = _ONE_SIZE.sub(r"\2 == \1", in_names(loaded, guard[1]))
            return f" (it holds where {held})"
    return ""


def _label(loaded: LoadedModel, name: str) -> str:
    """A dimension with the range that was declared for it."""
    for spec in loaded.specs:
        for dim in spec.dims:
            if dim.symbol == name and (dim.least is not None or dim.greatest is not None):
                return f"{name}={dim.least or 1}..{dim.greatest or ''}"
    return name


def in_names(loaded: LoadedModel, text: str) -> str:
    """torch's words with the user's names of sizes in place of its own."""

    def named(found: re.Match[str]) -> str:
        spec = loaded.specs[int(found[1])]
        dim = spec.dims[int(found[2])]
        return str(dim.label) if dim.symbol is not None else f"{spec.name}.shape[{found[2]}]"

    return _SOURCE.sub(named, text)
