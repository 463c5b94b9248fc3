"""Why a capture failed, in the user's words: what the line does, and what to write instead."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from torch2mobile import torch_refusals, user_code
from torch2mobile.records import Attempt, LoadedModel, Location

IN_A_LIBRARY = (
    "The line is in a library: at your call of it, try an argument that chooses another way there "
    "(such as attn_implementation='eager' or experts_implementation='batched_mm')"
)


@dataclass(frozen=True)
class _Kind:
    """What a line looks like that torch refuses, what it does, and what to write instead."""

    line: str
    said: str
    advice: str


# By what is written on the line, the first that fits; each advice is tried in tests/test_refusals.
_DATA_KINDS = (
    _Kind(
        r"\bwhile\b",
        "A loop runs until a value says so",
        "Loop a fixed number of times, and keep what is done already: "
        "x = torch.where(condition, new, x).",
    ),
    _Kind(
        r"\bfor\b",
        "A loop runs as often as a value says",
        "Loop up to the greatest number, and keep what is done already: "
        "x = torch.where(n > step, new, x).",
    ),
    _Kind(
        r"\bone_hot\([^,]*\)",
        "one_hot counts the classes in the data",
        "Say how many there are: one_hot(x, num_classes).",
    ),
    _Kind(
        r"^assert\b",
        "An assert asks for a value",
        "Leave it out of the export: if not torch.compiler.is_exporting(), or torch._check.",
    ),
    _Kind(
        r"\b(?:if|elif)\b|\band\b|\bor\b",
        "A branch depends on the values of a tensor",
        "torch.where(condition, a, b) computes both sides and takes one; torch.cond runs one of "
        "two functions.",
    ),
    _Kind(
        r"\.item\(|\.tolist\(|\b(?:int|float|bool|max|min|round)\(",
        "A Python number is made of a tensor's value",
        "Keep it a tensor: torch.where in place of if, x.clamp(min=a) in place of max(), "
        "x.index_select(0, i) in place of x[int(i)].",
    ),
    _Kind(
        r"\bsorted\(|\.sort\(key",
        "Python sorts by the values of a tensor",
        "Let torch do it: x.argsort(), and x.index_select by what it gives.",
    ),
    _Kind(
        r"",
        "The shape of the result depends on the values of a tensor",
        "Keep the shape: multiply by a mask, or torch.where with a neutral value, in place of "
        "x[mask], nonzero and unique.",
    ),
)
_SIZE_KINDS = (
    _Kind(
        r"\bint\(",
        "int() makes a fixed number of a size",
        "Leave int() out: x.shape[0] is a number already.",
    ),
    _Kind(
        r"\b((?:math|np|numpy)\.(sqrt|log|log2|log10|log1p|exp|floor|ceil|sin|cos|tan|tanh))\(",
        "{0} makes a fixed number of a size",
        "Compute it as a tensor: torch.{1}(x.new_ones(x.shape[0]).sum()).",
    ),
    _Kind(
        r"\b(?:while|for)\b",
        "A loop runs as often as a size says",
        "Compute on the whole tensor at once",
    ),
    _Kind(
        r"\b(?:if|elif|and|or)\b",
        "A branch depends on a size, and the file has one side of it",
        "Write one formula for all sizes (min, max, F.pad by 0 or more), or torch.where",
    ),
    _Kind(
        r"\.(split|chunk|unbind|tensor_split)\(",
        "{0} gives as many parts as a size says",
        "Take slices instead: x[:n], x[n : 2 * n]",
    ),
    _Kind(
        r"\.(view|reshape|expand|unflatten|repeat)\(",
        "{0} has a fixed number where the size varies",
        "Write -1 or x.shape[i] in its place",
    ),
    _Kind(
        r"",
        "The line holds only at some of the sizes",
        "Take sizes from the input, as x.shape[i], in place of fixed or stored numbers",
    ),
)
_PACKED = _Kind(
    r"packed sequence|pack_padded_sequence|PackedSequence",
    "A packed sequence has no graph",
    "Run the layer on the padded batch, and take each row's last step by its length (gather), or "
    "mask the steps after it.",
)
_LEAVES = _Kind(
    r"",
    "The data leaves torch on its way",
    "Replace the NumPy part of forward by torch operations.",
)
_REFUSED = _Kind(
    r"",
    "The module itself does not take every size",
    "Take sizes from the input, as x.shape[i], or declare those that it takes: a narrower range, "
    "or multiples (2*N)",
)
_OTHER_KINDS = (
    _Kind(
        r"\b(vmap|vjp|jvp|jacrev|jacfwd|hessian)\(",
        "{0} has no graph",
        "Write the derivative as a formula, and what vmap does over the whole batch.",
    ),
    _Kind(
        r"\b(?:float|int)\((?:f[\"']|str\(|[\"'].*\.format\()",
        "Text is made of a tensor's value",
        "Keep it a tensor: torch.round(x, decimals=2) in place of a number made of text.",
    ),
    _Kind(
        r"",
        "torch.export cannot follow this line",
        "Write it in plain torch operations on tensors.",
    ),
)
_BY_SUBJECT: dict[torch_refusals.About, tuple[_Kind, ...]] = {
    "data": _DATA_KINDS,
    "sizes": _SIZE_KINDS,
    "numpy": (_LEAVES,),
    "": _OTHER_KINDS,
}
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
    on_sizes = found in (*_SIZE_KINDS, _REFUSED)
    refused = re.search(r"the module refuses (.+?), which the inputs declare", text)
    if found is _REFUSED and refused:
        said = f"The module itself refuses {refused[1]}, which the inputs declare"
    elif on_sizes:
        said += _assumed(loaded, texts)
    if place is not None and user_code.is_library(place.file):
        advice = _at_the_call(on_sizes)
    elif on_sizes:
        tail = "" if found is _REFUSED else "; or declare that size narrower or fixed"
        advice = f"{advice.rstrip('.')}{tail}, with --input."
    return f"{said}. {advice}"


def _kind(texts: Sequence[str], place: Location | None) -> _Kind:
    text, code = " ".join(texts), place.code if place is not None else ""
    if re.search(_PACKED.line, text + code):
        return _PACKED
    if "which the inputs declare" in text:
        return _REFUSED
    kinds = _BY_SUBJECT[torch_refusals.about(texts)]
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
