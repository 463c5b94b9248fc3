"""ONNX to the phone's accelerators: which nodes they take, in how many pieces, and what is between.

The lists of NNAPI and CoreML are read from the installed onnxruntime; XNNPACK's, which is in no
wheel, from its documentation and source.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path

from torch2mobile.errors import MissingToolError
from torch2mobile.validators.coverage import partitions, provider_conditions
from torch2mobile.validators.coverage.flops import flops
from torch2mobile.validators.coverage.graph import Model, Node

XNNPACK_SOURCE = "https://onnxruntime.ai/docs/execution-providers/Xnnpack-ExecutionProvider.html"
_CONV = ("Weights and bias should be constant.", provider_conditions.CHANNELS_KNOWN)
_SCALES = "All quantization scales and zero points should be constant."
_MATRIX = (
    "Only 2D Op is supported",
    "Weights and bias should be constant.",
    provider_conditions.SINGLE,
)
_XNNPACK = {
    "AveragePool": (
        "Only 2D Pool is supported.",
        provider_conditions.CHANNELS_KNOWN,
        provider_conditions.NO_CEILING,
        provider_conditions.NO_PADDING_COUNTED,
        provider_conditions.SINGLE,
    ),
    "Conv": ("Only 2D Conv is supported.", *_CONV, provider_conditions.SINGLE),
    "ConvTranspose": ("Only 2D ConvTranspose is supported.", *_CONV, provider_conditions.SINGLE),
    "MaxPool": (
        "Only 2D Pool is supported.",
        provider_conditions.CHANNELS_KNOWN,
        provider_conditions.NO_CEILING,
        provider_conditions.ONE_OUTPUT,
    ),
    "Softmax": (
        "all opset below 13 is supported, only support opset 13 when AXIS is the last dimension",
        provider_conditions.SINGLE,
    ),
    "QLinearConv": ("Only 2D Conv is supported.", *_CONV, _SCALES),
    "Resize": ("2D/4D Resize in `Bilinear mode` are supported",),
    "Gemm": _MATRIX,
    "MatMul": _MATRIX,
    "com.microsoft.QLinearAveragePool": (
        "Only 2D Pool is supported.",
        _SCALES,
        provider_conditions.CHANNELS_KNOWN,
    ),
    "com.microsoft.QLinearSoftmax": (_SCALES,),
    "com.microsoft.QLinearConvTranspose": (_SCALES,),
}
"""The table of XNNPACK_SOURCE, with what ``core/providers/xnnpack`` asks of a node beside it."""


@dataclass(frozen=True)
class Accelerator:
    """One accelerator: where its list is, and what it asks of every node."""

    name: str
    title: str
    table: str = ""
    static: bool = True
    max_rank: int = 999


ACCELERATORS: dict[str, Accelerator] = {
    found.name: found
    for found in (
        Accelerator("nnapi", "Android NNAPI", "nnapi_supported_ops.md"),
        Accelerator(
            "coreml-nn",
            "CoreML NeuralNetwork",
            "coreml_supported_neuralnetwork_ops.md",
            max_rank=5,
        ),
        Accelerator("coreml", "CoreML ML Program", "coreml_supported_mlprogram_ops.md", max_rank=5),
        Accelerator("xnnpack", "XNNPACK", static=False),
    )
}


class Answer(str, Enum):
    """One verdict a node."""

    SUPPORTED = "supported"
    CONDITIONS_MET = "supported, its conditions are met"
    CONDITION_NOT_MET = "a condition is not met"
    NOT_EVALUATED = "a condition that torch2mobile does not know"
    NOT_STATIC = "a size is not fixed"
    RANK = "too many dimensions"
    TYPE = "a type that no accelerator takes"
    NOT_LISTED = "not in the list"
    SUBGRAPH = "inside a subgraph"

    @property
    def taken(self) -> bool:
        """Whether the accelerator takes the node."""
        return self in (Answer.SUPPORTED, Answer.CONDITIONS_MET)


@dataclass(frozen=True)
class NodeVerdict:
    """One node on one accelerator; ``condition`` is the table's text that decided."""

    node: Node
    answer: Answer
    reason: str = ""
    condition: str = ""


@dataclass(frozen=True)
class Placement:
    """A model on one accelerator: what it takes, in which pieces, what would join them.

    ``share`` is of the FLOPs, None where the sizes are not known. ``joining`` are the nodes that
    must be replaced for one piece to be left.
    """

    accelerator: Accelerator
    verdicts: tuple[NodeVerdict, ...]
    pieces: tuple[int, ...]
    share: float | None
    joining: tuple[NodeVerdict, ...]

    @property
    def taken(self) -> int:
        """How many nodes the accelerator takes."""
        return sum(verdict.answer.taken for verdict in self.verdicts)


def place(model: Model, accelerator: Accelerator) -> Placement:
    """Which nodes of a model an accelerator takes, and how the graph falls apart."""
    listed = table(accelerator)
    main = [_judge(node, accelerator, listed) for node in model.nodes]
    inner = [
        NodeVerdict(node, Answer.SUBGRAPH, f"{node.op} is in a subgraph, which stays on the CPU")
        for node in model.subgraph_nodes
    ]
    sources = partitions.edges([node.proto for node in model.nodes])
    taken = [verdict.answer.taken for verdict in main]
    joining = tuple(main[number] for number in partitions.between(sources, taken))
    verdicts = (*main, *inner)
    pieces = tuple(partitions.sizes(sources, taken))
    return Placement(accelerator, verdicts, pieces, _share(verdicts), joining)


def _share(verdicts: Sequence[NodeVerdict]) -> float | None:
    work = [(flops(verdict.node), verdict.answer.taken) for verdict in verdicts]
    if any(amount is None for amount, _ in work):
        return None
    whole = sum(amount or 0 for amount, _ in work)
    if not whole:  # nothing but moving data
        return float(all(taken for _, taken in work))
    return sum(amount or 0 for amount, taken in work if taken) / whole


def _judge(
    node: Node, accelerator: Accelerator, listed: Mapping[str, tuple[str, ...]]
) -> NodeVerdict:
    conditions = listed.get(node.op.lower())
    if conditions is None:
        reason = f"{node.op} is not in the list of {accelerator.title}"
        return NodeVerdict(node, Answer.NOT_LISTED, reason)
    for answer, reason in (
        (Answer.NOT_STATIC, _dynamic_input(node) if accelerator.static else ""),
        (Answer.RANK, _too_deep(node, accelerator.max_rank)),
        (Answer.TYPE, _double_input(node)),
    ):
        if reason:
            return NodeVerdict(node, answer, f"{node.op}: {reason}")
    for condition in conditions:
        question = provider_conditions.QUESTIONS.get(condition)
        if question is None:
            return NodeVerdict(
                node, Answer.NOT_EVALUATED, f"{node.op} is taken only if: {condition}", condition
            )
        problem = question(node)
        if problem:
            # Sizes that vary are the inputs' matter, and one for all nodes.
            varies = condition == provider_conditions.CHANNELS_KNOWN and _is_image(node)
            answer = Answer.NOT_STATIC if varies else Answer.CONDITION_NOT_MET
            return NodeVerdict(node, answer, f"{node.op}: {problem}", condition)
    return NodeVerdict(node, Answer.CONDITIONS_MET if conditions else Answer.SUPPORTED)


def _is_image(node: Node) -> bool:
    dims = node.input_type(0).dims
    return dims is not None and len(dims) == 4


def _dynamic_input(node: Node) -> str:
    """As usability_checker counts: every input has sizes that are known and not zero."""
    for index, name in enumerate(node.proto.input):
        # It counts an input that is left out too; ONNX Runtime itself does not.
        if not name:
            continue
        dims = node.input_type(index).dims
        if dims is None:
            return f"the shape of {name} is not known"
        for dim in dims:
            if not isinstance(dim, int):
                return f"{name} has the size {dim or '?'}, which is not fixed"
            if dim == 0 and not node.is_constant(index):
                return f"{name} is empty"
    return ""


def _too_deep(node: Node, most: int) -> str:
    for index, name in enumerate(node.proto.input):
        rank = node.input_type(index).rank
        if rank is not None and rank > most:
            return f"{name} has {rank} dimensions of at most {most}"
    order = node.attributes.get("perm", ()) if node.proto.op_type == "Transpose" else ()
    return f"it reorders {len(order)} dimensions of at most {most}" if len(order) > most else ""


def _double_input(node: Node) -> str:
    for index, name in enumerate(node.proto.input):
        if node.input_type(index).text == "tensor(double)":
            return f"{name} is float64"
    return ""


@cache
def table(accelerator: Accelerator) -> dict[str, tuple[str, ...]]:
    """What an accelerator takes: its conditions by operator, in small letters.

    Raises MissingToolError where the installed onnxruntime has no such table.
    """
    if not accelerator.table:
        return {name.lower(): conditions for name, conditions in _XNNPACK.items()}
    import onnxruntime

    folder = Path(onnxruntime.__file__).parent / "tools" / "mobile_helpers"
    try:
        text = (folder / accelerator.table).read_text(encoding="utf-8")
    except OSError as error:
        raise MissingToolError(
            f"the installed onnxruntime has no {accelerator.table}",
            "Install the onnxruntime of constraints.txt.",
        ) from error
    return read_table(text)


_ROW = re.compile(r"^\|(?:ai\.onnx|(?P<domain>[\w.]+))[:.](?P<name>\w+)\|(?P<note>.*)\|\s*$")


def read_table(text: str) -> dict[str, tuple[str, ...]]:
    """The rows of a table in Markdown: ``|domain:Operator|condition<br/>condition|``.

    Upper and lower case do not count, and a dot may stand for the colon: some rows say ``Argmax``
    for ArgMax, or ``ai.onnx.ReduceSum``.
    """
    found = {}
    for line in text.splitlines():
        row = _ROW.match(line)
        if row:
            name = f"{row['domain']}.{row['name']}" if row["domain"] else row["name"]
            parts = (part.strip() for part in row["note"].split("<br/>"))
            found[name.lower()] = tuple(part for part in parts if part)
    return found
