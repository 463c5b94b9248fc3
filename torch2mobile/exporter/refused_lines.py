"""Lines that torch refuses, by what is written on them: what they do, and what to write instead.

Each advice is tried in tests/test_refusals.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch2mobile import torch_refusals


@dataclass(frozen=True)
class Kind:
    """What a line looks like that torch refuses, what it does, and what to write instead."""

    line: str
    said: str
    advice: str


_NUMERIC = r"\b((?:math|np|numpy)\.(sqrt|log|log2|log10|log1p|exp|floor|ceil|sin|cos|tan|tanh))\("

# Inside brackets: no slice and no comparison.
_PLAIN = r"[^\[\]:<>=]*"

_NUMBER = Kind(
    r"\.item\(|\.tolist\(|\b(?:int|float|bool|max|min|round)\(",
    "A Python number is made of a tensor's value",
    "Keep it a tensor: torch.where in place of if, x.clamp(min=a) in place of max(), "
    "x.trunc() in place of int(x), x.index_select(0, i) in place of x[int(i)].",
)
# By what is written on the line, the first that fits.
_DATA_KINDS = (
    Kind(
        r"\bwhile\b.*(?:numel\(\)|len\(\w+\)|shape\[\d+\]|size\(\d*\))\s*(?:>|!=|:|$)",
        "A loop runs until values leave nothing over",
        "Loop once for each row that there can be, with a mask of those left: "
        "left = left & (overlap < 0.5).",
    ),
    Kind(
        r"\bwhile\b",
        "A loop runs until a value says so",
        "Loop a fixed number of times, and keep what is done already: "
        "x = torch.where(condition, new, x).",
    ),
    Kind(
        r"\bchr\(|\bjoin\(|\.decode\(",
        "Text is made of a tensor's values",
        "Return the numbers, and make the text of them in the app; what is looked up by text can "
        "be a table of numbers: table[codes].",
    ),
    Kind(
        r"\bfor\b.*\bnonzero\(",
        "A loop runs over what nonzero finds",
        "Choose by the condition itself: torch.where(x > 1, new, x), x.masked_fill(x > 1, 0).",
    ),
    Kind(
        r"\bfor\b.*\bif\b",
        "Values choose what a list keeps",
        "Keep all, and a mask: (x * kept[:, None]).sum(0) / kept.sum().",
    ),
    Kind(
        r"\bfor\b",
        "A loop runs as often as a value says",
        "Loop up to the greatest number, and keep what is done already: "
        "x = torch.where(n > step, new, x).",
    ),
    Kind(
        r"\bone_hot\([^,]*\)",
        "one_hot counts the classes in the data",
        "Say how many there are: one_hot(x, num_classes).",
    ),
    Kind(
        r"^assert\b",
        "An assert asks for a value",
        "Leave it out of the export, under: if not torch.compiler.is_exporting().",
    ),
    Kind(
        r"\b(?:if|elif)\b|\band\b|\bor\b|^match\b",
        "A branch depends on the values of a tensor",
        "torch.where(condition, a, b) computes both sides and takes one, of a condition that is a "
        "tensor, without .item(); torch.cond runs one of two functions. What only prints or raises "
        "belongs under: if not torch.compiler.is_exporting().",
    ),
    Kind(
        _NUMERIC,
        "{0} makes a Python number of a tensor's value",
        "Use torch's function: torch.{1}(x).",
    ),
    _NUMBER,
    Kind(
        r"\[(?:[^\[\]]|\[[^\[\]]*\])*:\s*[\w.]+(?<!shape)\[[^\[\]]*\]",
        "A value is the end of a slice",
        "Keep whole rows, and a mask: kept = torch.arange(T) < lengths[:, None] for x of [B, T], "
        "as (x * kept).sum(1).",
    ),
    Kind(
        rf"\b(?!(?:dict|list|tuple|set|Dict|List|Tuple|Optional)\[)[\w.]+\["
        rf"{_PLAIN}\w(?<!shape)\[{_PLAIN}\]{_PLAIN}\]",
        "A value is an index",
        "Let torch take all of them at once: x.gather(1, i[:, None]), or to write them "
        "y.scatter(1, i[:, None], x).",
    ),
    Kind(
        r"\bsorted\(|\.sort\(key",
        "Python sorts by the values of a tensor",
        "Let torch do it: x.argsort(), and x.index_select by what it gives.",
    ),
    Kind(
        r"",
        "The shape of the result depends on the values of a tensor",
        "Keep the shape: multiply by a mask, or torch.where with a neutral value, in place of "
        "x[mask], nonzero and unique.",
    ),
)
SIZE_KINDS = (
    Kind(
        r"\bint\(",
        "int() makes a fixed number of a size",
        "Leave int() out: x.shape[0] is a number already.",
    ),
    Kind(
        _NUMERIC,
        "{0} makes a fixed number of a size",
        "Compute it as a tensor: torch.{1}(x.new_ones(x.shape[0]).sum()).",
    ),
    Kind(
        r"\b(?:while|for)\b",
        "A loop runs as often as a size says",
        "Compute on the whole tensor at once, and where rows differ in length, with a mask: "
        "torch.arange(x.shape[1]) < lengths[:, None]",
    ),
    Kind(
        r"\b(?:if|elif|and|or)\b",
        "A branch depends on a size, and the file has one side of it",
        "Write one formula for all sizes (min, max, F.pad by 0 or more), or torch.where",
    ),
    Kind(
        r"\.(split|chunk|unbind|tensor_split)\(",
        "{0} gives as many parts as a size says",
        "Take slices instead: x[:n], x[n : 2 * n]",
    ),
    Kind(
        r"\.(view|reshape|expand|unflatten|repeat)\(",
        "{0} has a fixed number where the size varies",
        "Write -1 or x.shape[i] in its place",
    ),
    Kind(  # of one argument, that is not a size
        r"(?<![\w.])(max|min|sum|any|all)\((?:(?!shape|size\(|len\()[^(),]|[(\[][^()\[\]]*[)\]])+\)",
        "Python's {0}() goes from row to row of a tensor, and their number varies",
        "Use torch's own over that axis, as x.amax(0) or x.sum(0)",
    ),
    Kind(
        r"",
        "The line holds only at some of the sizes",
        "Take sizes from the input, as x.shape[i], in place of fixed or stored numbers",
    ),
)
_PACKED = Kind(
    r"packed sequence|pack_(?:padded_)?sequence|PackedSequence",
    "A packed sequence has no graph",
    "Run the layer on the padded batch, and take each row's last step by its length (gather), or "
    "mask the steps after it.",
)
_CACHED = Kind(
    r"unhashable type: (?:non-nested )?SymInt.*Constraints violated",
    "A dict looks a size up",
    "Compute it in each call, as torch.arange(x.shape[0]), or slice a buffer of the greatest size: "
    "self.table[: x.shape[0]].",
)
_LOOKED_UP = Kind(
    r"unhashable type: (?:non-nested )?SymInt",
    "Python looks a tensor's values up in a set or dict",
    "Count with torch: F.one_hot(x, n).sum(0) how often each of n occurs, and of that (count > "
    "0).sum() how many do. What a dict gives for a number, a tensor does: table[x].",
)
_MERGED = Kind(
    r"merging two branches' output",
    "The two sides of a branch give other types or sizes",
    "Give both one shape and one dtype, as by x.to(torch.float32).",
)
_THREADED = Kind(
    r"\bThread\(|ThreadPool|\b(?:pool|executor)\.submit\(|jit\.fork\(",
    "What runs in another thread is not captured",
    "Call it in forward itself: the runtimes have threads of their own.",
)
_QUANTIZED = Kind(
    r"classes\.quantized",
    "A quantized layer has no graph",
    "Export the float model and quantize the .onnx, or torch.fake_quantize_*.",
)
_GENERATED = Kind(
    r"\bgenerator=|torch\.Generator",
    "A file has no random generator",
    "Give the random numbers as an input, or keep those of one seed in a buffer.",
)
BY_WORDS = (_PACKED, _CACHED, _LOOKED_UP, _MERGED, _QUANTIZED)
"""By what torch says, or the line, whatever else the refusal is about."""
_NUMPY_KINDS = (
    Kind(
        r"\bsave\w*\(|\bopen\(|\bdump\(|\.tofile\(",
        "A file is written with a tensor's values",
        "Return the tensor, and write it in the caller.",
    ),
    Kind(
        r"",
        "The data leaves torch on its way",
        "Replace the NumPy part of forward by torch operations.",
    ),
)
REFUSED = Kind(
    r"",
    "The module itself does not take every size",
    "Take sizes from the input, as x.shape[i], or declare those that it takes: a narrower range, "
    "or multiples (2*N)",
)
_OTHER_KINDS = (
    _THREADED,
    _GENERATED,
    Kind(
        r"nested_tensor\w*\(",
        "A nested tensor has no graph",
        "Keep the padded batch, and a mask: torch.arange(x.shape[1]) < lengths[:, None].",
    ),
    Kind(
        r"\b(requires_grad_|autograd\.grad|backward)\(",
        "{0} asks for gradients, and a file has none",
        "Write the derivative as a formula.",
    ),
    Kind(
        r"f[\"'].*\{.*(?:\.item\(|\bint\()",
        "A value chooses by a text what runs",
        "Run all, and choose: torch.stack([head(x) for head in self.heads.values()]), and of that "
        "index_select by the value.",
    ),
    Kind(
        r"\b(vmap|vjp|jvp|jacrev|jacfwd|hessian)\(",
        "{0} has no graph",
        "Write the derivative as a formula, and what vmap does over the whole batch.",
    ),
    Kind(
        r"\bf[\"'].*\{[^{}\"']+:[^{}]+\}|\b(?:float|int)\((?:f[\"']|str\(|[\"'].*\.format\()",
        "Text is made of a tensor's value",
        "Keep it a tensor: torch.round(x, decimals=2) in place of a number made of text. What "
        "only prints belongs under: if not torch.compiler.is_exporting().",
    ),
    replace(_NUMBER, line=r"\.item\(|\.tolist\("),
    Kind(
        r"\.resize_(?:as_)?\(",
        "resize_ changes the memory of a tensor",
        "Make another one: x.reshape(-1)[:4].reshape(2, 2), or F.pad for a greater one.",
    ),
    Kind(
        r"",
        "torch.export cannot follow this line",
        "Write it in plain torch operations on tensors.",
    ),
)
BY_SUBJECT: dict[torch_refusals.About, tuple[Kind, ...]] = {
    "data": _DATA_KINDS,
    "sizes": (_THREADED, *SIZE_KINDS),
    "numpy": _NUMPY_KINDS,
    "": _OTHER_KINDS,
}
