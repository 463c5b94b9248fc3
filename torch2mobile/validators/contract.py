"""Does the file have what was asked for: opset, names, order, dtypes, shapes, dynamic dims?"""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from pathlib import Path

from torch2mobile.errors import Torch2MobileError
from torch2mobile.interfaces import Runner
from torch2mobile.isolation import IsolatedRunner
from torch2mobile.onnx_files import outline
from torch2mobile.records import Check, InputSpec, OnnxModel, OutputSpec, Status

# The symbols of a size such as floor(N/2) + 1.
_SYMBOLS = re.compile(r"\b[A-Za-z_]\w*\b(?!\()")
# What onnxruntime says about the machine it runs on, not about the model.
_MACHINE = ("pthread_setaffinity_np", "device_discovery", "GetPciBusId", "cpuinfo")


def interface_problems(
    inputs: Sequence[InputSpec],
    outputs: Sequence[OutputSpec],
    found_inputs: Sequence[OutputSpec],
    found_outputs: Sequence[OutputSpec],
    *,
    static: bool = False,
) -> list[str]:
    """How the inputs and outputs of a file differ from what was asked for.

    Symbols may be renamed only together: the same symbol must mean the same size in the file.
    ``static`` files have sizes in place of symbols, which are left to the probes.
    """
    problems = []
    names = [spec.name for spec in inputs]
    if names != [found.name for found in found_inputs]:
        problems.append(f"inputs are {[f.name for f in found_inputs]}, asked for {names}")
    elif inputs:
        problems += _input_problems(inputs, found_inputs, static=static)
    wanted = [spec.name for spec in outputs]
    if wanted != [found.name for found in found_outputs]:
        problems.append(f"outputs are {[f.name for f in found_outputs]}, asked for {wanted}")
    else:
        terms = [term for spec in inputs for dim in spec.dims for term in dim.terms]
        declared = {term.symbol for term in terms}
        problems += _output_problems(outputs, found_outputs, declared, static=static)
    return problems


def _output_problems(
    outputs: Sequence[OutputSpec],
    found: Sequence[OutputSpec],
    declared: Container[str | None],
    *,
    static: bool,
) -> list[str]:
    problems = []
    for spec, file in zip(outputs, found, strict=True):
        if spec.dtype != file.dtype:
            problems.append(f"the output {spec.name} is {file.dtype}, asked for {spec.dtype}")
        if len(spec.dims) != len(file.dims):
            problems.append(
                f"the output {spec.name} has {len(file.dims)} dims, asked for {len(spec.dims)}"
            )
            continue
        problems += [
            f"dimension {axis} of the output {spec.name} is fixed to {size} in the file and varies "
            f"in the module ({dim})"
            for axis, (dim, size) in enumerate(zip(spec.dims, file.dims, strict=True))
            if isinstance(dim, str) and dim != "?" and isinstance(size, int) and not static
            # A constant may decide a size that torch leaves to data, and a trace names what it
            # does not know; parity sees if they change.
            if all(name in declared for name in _SYMBOLS.findall(dim))
        ]
    return problems


def _input_problems(
    inputs: Sequence[InputSpec], found: Sequence[OutputSpec], *, static: bool
) -> list[str]:
    problems = []
    for spec, file in zip(inputs, found, strict=True):
        if spec.dtype != file.dtype:
            problems.append(f"{spec.name} is {file.dtype}, asked for {spec.dtype}")
        if len(spec.dims) != len(file.dims):
            problems.append(f"{spec.name} has {len(file.dims)} dims, asked for {len(spec.dims)}")
            continue
        for axis, (dim, size) in enumerate(zip(spec.dims, file.dims, strict=True)):
            if static and dim.symbol is not None and isinstance(size, int):
                continue
            if dim.symbol is not None and isinstance(size, int):
                problems.append(
                    f"dimension {axis} of {spec.name} was declared dynamic ({dim.label}) and is "
                    f"fixed to {size} in the file"
                )
            elif dim.symbol is None and size != dim.size:
                problems.append(f"dimension {axis} of {spec.name} is {size}, asked for {dim.size}")
            elif dim.symbol is not None and size != dim.label:
                problems.append(
                    f"dimension {axis} of {spec.name} is called {size}, asked for {dim.label}"
                )
    return problems


def interface_check(
    label: str,
    inputs: Sequence[InputSpec],
    outputs: Sequence[OutputSpec],
    runner: Runner,
    *,
    static: bool = False,
) -> Check:
    """An artefact's inputs and outputs against those that were exported.

    Raises what the runner raises where it does not load.
    """
    problems = interface_problems(inputs, outputs, runner.inputs(), runner.outputs(), static=static)
    if problems:
        return Check(
            "contract",
            Status.FAILED,
            problems[0],
            target=label,
            hint="The file is not what was asked for, or not what was proven: export again.",
            notes=tuple(problems[1:]),
        )
    return Check("contract", Status.PASSED, "inputs and outputs as exported", target=label)


def contract_check(
    model: OnnxModel,
    wanted_inputs: Sequence[InputSpec],
    wanted_outputs: Sequence[OutputSpec],
    opset: int | None,
    runner: IsolatedRunner,
) -> Check:
    """The .onnx against the request: full onnx.checker, interface, opset, loads without warning."""
    problems = checker_problems(model.path)
    inferred = [text for text in problems if _by_ceil_mode(text, model.path)]
    problems = [text for text in problems if text not in inferred]
    found_opset = file_opset(model.path)
    if found_opset != (opset or model.opset):
        problems.append(f"the opset is {found_opset}, asked for {opset or model.opset}")
    try:
        runner.load()
        problems += interface_problems(
            wanted_inputs, wanted_outputs, runner.inputs(), runner.outputs()
        )
        warned = load_warnings(runner.load_log)
        excused = [text for text in warned if inferred and _MERGED in text]
        problems += [text for text in warned if text not in excused]
    except Torch2MobileError as error:
        problems.append(f"does not load in ONNX Runtime: {error.message}")
    if problems:
        return Check(
            "contract",
            Status.FAILED,
            f"{len(problems)} of the things asked for are not so: {problems[0]}",
            target="onnx",
            hint="A file that differs from its request breaks the app that was written for it.",
            notes=tuple(problems[1:]),
        )
    dynamic = sum(dim.symbol is not None for spec in wanted_inputs for dim in spec.dims)
    return Check(
        "contract",
        Status.PASSED,
        f"opset {model.opset}, {len(wanted_inputs)} inputs, {len(wanted_outputs)} outputs, "
        f"{dynamic} dynamic dims",
        target="onnx",
        notes=tuple(
            f"{text}: shape inference forgets that ceil_mode starts no window in the padding; "
            "parity compares the shapes as they come"
            for text in inferred
        ),
    )


def file_opset(path: Path) -> int:
    """The opset that the file itself imports."""
    return max(
        (entry.version for entry in outline(path).opset_import if not entry.domain), default=0
    )


def checker_problems(path: Path) -> list[str]:
    """What the full onnx.checker, shape inference included, says against a file."""
    import onnx

    try:
        # By path, so that models above 2 GB and external data are checked too.
        onnx.checker.check_model(str(path), full_check=True)
    except Exception as error:  # noqa: BLE001 (the checker raises many kinds)
        text = str(error).strip().splitlines()
        return [f"onnx.checker: {text[0] if text else type(error).__name__}"]
    return []


_INFERRED = re.compile(r"\(op_type:(\w+), node name: ([^)]*)\): \[ShapeInferenceError\] (.*)")
_DIFFER = "Inferred shape and existing shape differ"
_MERGED = "Error merging shape info"


def _by_ceil_mode(problem: str, path: Path) -> bool:
    """Whether shape inference differs at a pooling that rounds up, and is wrong itself.

    The window that would start in the padding is left out by the operator's definition, by the
    runtime and by PyTorch, and counted by onnx's shape inference.
    """
    found = _INFERRED.findall(problem)
    rounding = {
        node.name
        for node in outline(path).graph.node
        for attribute in node.attribute
        if "Pool" in node.op_type and attribute.name == "ceil_mode" and attribute.i
    }
    return bool(found) and all(name in rounding and _DIFFER in text for _, name, text in found)


def load_warnings(log: str) -> list[str]:
    """The warnings about the model in what onnxruntime wrote while loading it."""
    lines = [line for line in log.splitlines() if "[W:" in line or "[E:" in line]
    return [
        f"onnxruntime warns: {line.split(']', 1)[-1].strip()[:300]}"
        for line in lines
        if not any(word in line for word in _MACHINE)
    ]
