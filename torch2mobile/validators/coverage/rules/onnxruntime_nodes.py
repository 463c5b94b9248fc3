"""Rules about ONNX nodes and the ONNX Runtime that shall run them: T2M3xx."""

from __future__ import annotations

from torch2mobile.records import Severity
from torch2mobile.validators.coverage.rules.rule import Rule, net

_NOT_BY_EXPORT = "torch.onnx writes no such node; a file from elsewhere may hold one."
_VERSION = "It is about a file and --ort-version, not about a module's code."

RULES: tuple[Rule, ...] = (
    Rule(
        code="T2M301",
        name="unknown-operator",
        severity=Severity.ERROR,
        level="runtime",
        summary="ONNX Runtime has no operator of this name in this opset",
        reason=(
            "The runtime looks each node up by domain, name and opset. An operator of another "
            "library, or newer than the opset that the model imports, ends loading."
        ),
        remedy="Write it with ONNX's own operators, or load a custom operator library in the app.",
        no_example=_NOT_BY_EXPORT,
    ),
    Rule(
        code="T2M302",
        name="no-kernel",
        severity=Severity.ERROR,
        level="runtime",
        summary="ONNX Runtime knows the operator, and has no kernel for it on the CPU",
        reason=(
            "Some operators of the standard are there for training, for decoding, or for other "
            "hardware only, and some were removed. Those that ONNX itself defines by others run as "
            "those, and are no finding."
        ),
        remedy="Replace the node by operators that have a kernel.",
        no_example=_NOT_BY_EXPORT,
    ),
    Rule(
        code="T2M303",
        name="no-kernel-for-type",
        severity=Severity.ERROR,
        level="runtime",
        summary="ONNX Runtime has kernels for the operator, but none for this type",
        reason=(
            "A kernel is for certain types. Convolutions, for one, are there in float32 only, so "
            "that a model in float64 or bfloat16 is valid ONNX and yet does not load."
        ),
        remedy="Compute it in float32.",
        before=net(
            """
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(2, 3, 3).double()

    def forward(self, x):
        return self.conv(x.double())  # here
"""
        ),
        after=net(
            """
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(2, 3, 3)

    def forward(self, x):
        return self.conv(x)
"""
        ),
        inputs=("x:float32[1,2,8]",),
        target="ort",
    ),
    Rule(
        code="T2M304",
        name="type-not-allowed",
        severity=Severity.ERROR,
        level="runtime",
        summary="the operator does not allow the type that it is given",
        reason=(
            "ONNX says for every operator which types it takes and which of them must be equal. "
            "The runtime checks that before it looks for a kernel."
        ),
        remedy="Put a Cast before it.",
        no_example=_NOT_BY_EXPORT,
    ),
    Rule(
        code="T2M305",
        name="attribute-without-kernel",
        severity=Severity.ERROR,
        level="runtime",
        summary="the kernel does not take an attribute's value",
        reason=(
            "A few kernels look at their attributes when they are made: recurrent layers run with "
            "layout=0, time before batch, only."
        ),
        remedy="Write the node with the value that the message names.",
        no_example=_NOT_BY_EXPORT,
    ),
    Rule(
        code="T2M306",
        name="undecided",
        severity=Severity.WARNING,
        level="runtime",
        summary="whether the node runs cannot be told from the file",
        reason=(
            "A type that decides about the kernel comes from an operator whose types are not "
            "known, or the node needs something of the device, such as a locale."
        ),
        remedy="Load the model once in the app's runtime.",
        no_example=_NOT_BY_EXPORT,
    ),
    Rule(
        code="T2M307",
        name="contrib-operator",
        severity=Severity.INFO,
        level="runtime",
        summary="the operator is ONNX Runtime's own, not ONNX's",
        reason=(
            "Operators of the domain com.microsoft run in ONNX Runtime and nowhere else, have no "
            "opset that promises they stay as they are, and are in a reduced build only if it was "
            "made with them."
        ),
        remedy="Keep the model as it was before it was optimised if another runtime shall run it.",
        no_example=_NOT_BY_EXPORT,
    ),
    Rule(
        code="T2M308",
        name="float16-between-casts",
        severity=Severity.INFO,
        level="runtime",
        summary="ONNX Runtime has no kernel in float16 and computes the node in float32",
        reason=(
            "Where a kernel is missing for float16, the runtime casts to float32 and back around "
            "the node. It loads and is right, but it is slower and takes more memory than float32."
        ),
        remedy="Export in float32, and let the accelerator convert where it is the faster for it.",
        before=net(
            """
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(2, 3, 3).half()

    def forward(self, x):
        return self.conv(x.half()).float()  # here
"""
        ),
        after=net(
            """
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(2, 3, 3)

    def forward(self, x):
        return self.conv(x)
"""
        ),
        inputs=("x:float32[1,2,8]",),
        target="ort",
    ),
    Rule(
        code="T2M309",
        name="invalid-node",
        severity=Severity.ERROR,
        level="runtime",
        summary="the node is not as its operator is defined, and ONNX Runtime refuses the file",
        reason=(
            "The runtime looks at the file before it looks for kernels: every value has to come "
            "from somewhere, and once; a node has the attributes and the number of inputs that its "
            "operator asks for; and shapes that are known have to fit each other."
        ),
        remedy="Mend what wrote the file, or export the model anew.",
        no_example=_NOT_BY_EXPORT,
    ),
    Rule(
        code="T2M310",
        name="broken-file",
        severity=Severity.ERROR,
        level="runtime",
        summary="the file holds what ONNX does not allow, and no runtime can read it",
        reason=(
            "A file that was cut off, changed or written by something faulty may still have the "
            "form of a model: with weights of which bytes are missing or are in a file that is not "
            "beside it, with types and opsets that do not exist, or with an attribute that is "
            "there twice. Nothing can be said of its operators before that is mended."
        ),
        remedy="Copy the file anew, with all that belongs to it, or export the model again.",
        no_example=_NOT_BY_EXPORT,
    ),
    Rule(
        code="T2M311",
        name="opset-newer-than-runtime",
        severity=Severity.ERROR,
        level="runtime",
        summary="the model's opset is newer than the app's ONNX Runtime knows",
        reason=(
            "Each release of ONNX Runtime takes opsets up to that of the ONNX release it was built "
            "with, and refuses a model that is stamped with a newer one, whatever is in it."
        ),
        remedy="Export with --opset and the number in the message, or update the app's runtime.",
        no_example=_VERSION,
    ),
    Rule(
        code="T2M312",
        name="operator-newer-than-runtime",
        severity=Severity.ERROR,
        level="runtime",
        summary="the operator came, or changed, after the app's ONNX Runtime",
        reason=(
            "A node means what its operator was in the model's opset. If the operator is newer "
            "than the runtime, a lower stamp alone does not help: the node must be another."
        ),
        remedy="Export anew with a lower --opset, which writes the operator as it was.",
        no_example=_VERSION,
    ),
    Rule(
        code="T2M313",
        name="ir-newer-than-runtime",
        severity=Severity.ERROR,
        level="runtime",
        summary="the file's IR version is newer than the app's ONNX Runtime reads",
        reason=(
            "The IR version counts the file format itself. A runtime refuses a newer one even if "
            "every operator in it is old."
        ),
        remedy="Set model.ir_version to the number in the message, and load the file there once.",
        no_example=_VERSION,
    ),
    Rule(
        code="T2M314",
        name="ort-format-newer-than-runtime",
        severity=Severity.INFO,
        level="runtime",
        summary="the .ort files written here are of a format that the app's ONNX Runtime lacks",
        reason=(
            "The .ort format has versions of its own, and a runtime reads those there were when it "
            "was released. The .onnx file is not concerned."
        ),
        remedy="Ship the .onnx file, or update the app's runtime.",
        no_example=_VERSION,
    ),
)
