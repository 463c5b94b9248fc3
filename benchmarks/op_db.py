"""Every operator of torch's own operator database, one sample each: captured, translated, compared.

Run as ``python benchmarks/op_db.py`` (needs ``pip install expecttest``), with ``--no-mend`` for
torch.onnx alone, and with names to look at these only. Sizes are the sample's. An operator is
*right* where ONNX Runtime gives what the module gives, *mended* where it does so by a translation
of torch2mobile's, *random* where calls differ, *refused* with the reason where there is no
file or no tensor that ONNX has, and *wrong* otherwise.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import onnxruntime
import torch

from torch2mobile.errors import Torch2MobileError
from torch2mobile.exporter import capture, translate
from torch2mobile.exporter.loading import source
from torch2mobile.exporter.loading.flat_module import flatten_outputs
from torch2mobile.tensors import quiet, to_numpy

VERDICTS = Path(__file__).with_name("op_db.json")
"""The verdict of each operator, as last counted."""
CALLS = 9
"""As often what may be random is asked: a rare draw may be the same twice."""
TREE = torch.utils._pytree
ULPS = 256
"""Units in the last place of the largest value that a result may be off."""


class Call(torch.nn.Module):
    """One operator with the sample's arguments; the tensors among them are its inputs."""

    def __init__(self, operator: Any, arguments: Any) -> None:
        super().__init__()
        leaves, self.spec = TREE.tree_flatten(arguments)
        self.operator, self.leaves = operator, leaves
        self.places = [n for n, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        """The sample's own."""
        return tuple(self.leaves[place].detach().clone() for place in self.places)

    def forward(self, *tensors: torch.Tensor) -> Any:
        """What the operator gives."""
        leaves = list(self.leaves)
        for place, tensor in zip(self.places, tensors, strict=True):
            leaves[place] = tensor
        args, kwargs = TREE.tree_unflatten(leaves, self.spec)
        return self.operator(*args, **kwargs)


def cases(names: list[str]) -> Iterator[tuple[str, Any]]:
    """Name and call of each operator, on float32 where it takes that."""
    from torch.testing._internal import common_methods_invocations as database

    # Random operators are seeded there on each call, which hides what they are.
    database.wrapper_set_seed = lambda function, *args, **kwargs: function(*args, **kwargs)
    for info in database.op_db:
        name = info.name + (f".{info.variant_test_name}" if info.variant_test_name else "")
        if names and name not in names and info.name not in names:
            continue
        taken = info.supported_dtypes("cpu")
        order = (torch.float32, torch.int64, torch.bool, *sorted(taken, key=str))
        dtype = next((each for each in order if each in taken), None)
        torch.manual_seed(0)
        sample = next(iter(info.sample_inputs("cpu", dtype)), None) if dtype else None
        if sample is None:
            continue  # not on the CPU
        yield name, Call(info.op, ((sample.input, *sample.args), sample.kwargs))


def judged(call: Call, mend: bool) -> tuple[str, str]:  # noqa: PLR0911 (one for each verdict)
    """The verdict on an operator, and what there is to say about it."""
    try:
        with quiet():
            loaded = source.from_call("op", call, call.tensors, {})
            captured = capture.capture(loaded)
            with tempfile.TemporaryDirectory() as folder:
                made = translate.in_memory(captured, Path(folder), mend=mend)
            proto = onnx_ir.to_proto(made.model).SerializeToString()
    except Torch2MobileError as error:
        return "refused", error.message
    with torch.no_grad():
        torch.manual_seed(1)
        first, *others = [TREE.tree_leaves(call(*call.tensors)) for _ in range(CALLS)]
    if any(t.is_complex() for t in first if isinstance(t, torch.Tensor)):
        return "refused", "a complex output"
    # What is empty may happen to hold the same twice.
    unset = "empty" in str(call.operator)
    if unset or any(not equal(a, b) for o in others for a, b in zip(first, o, strict=True)):
        return "random", ""
    mended = ", ".join(row.name for row in made.mended)
    try:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(proto, options)
    except Exception as error:  # noqa: BLE001 (onnxruntime raises many kinds)
        return "refused", f"does not load: {error}"
    with torch.no_grad():
        wanted = [to_numpy(t) for _, t in flatten_outputs(call(*call.tensors)).tensors]
    names = [value.name for value in session.get_inputs()]
    feeds = {n: to_numpy(t) for n, t in zip(names, call.tensors, strict=True)}
    try:
        found = session.run(None, feeds)
    except Exception as error:  # noqa: BLE001
        return "wrong", f"does not run ({mended}): {error}"
    problem = next((p for a, b in zip(found, wanted, strict=True) if (p := off(a, b))), "")
    if problem:
        return "wrong", f"{problem} {mended}".strip()
    return ("mended", mended) if mended else ("right", "")


def equal(a: Any, b: Any) -> bool:
    """Whether two results are the same, NaN included."""
    if not isinstance(a, torch.Tensor):
        return bool(a == b)
    return np.array_equal(to_numpy(a), to_numpy(b), equal_nan=a.is_floating_point())


def off(found: np.ndarray, wanted: np.ndarray) -> str:
    """What is wrong with a result; empty where nothing is."""
    if found.shape != wanted.shape or found.dtype != wanted.dtype:
        return f"{found.dtype}{found.shape} for {wanted.dtype}{wanted.shape}"
    if not np.issubdtype(wanted.dtype, np.floating):
        return "" if np.array_equal(found, wanted) else "other values"
    finite = np.isfinite(wanted)
    if not np.array_equal(found[~finite], wanted[~finite], equal_nan=True):
        return "NaN or infinity at other places"
    scale = float(np.abs(wanted[finite]).max(initial=0.0))
    error = float(np.abs(found[finite] - wanted[finite]).max(initial=0.0))
    allowed = ULPS * float(np.finfo(wanted.dtype).eps) * max(scale, 1e-6)
    return "" if error <= allowed else f"off by {error:.2g} of {scale:.2g}"


def read_operators_once() -> None:
    """torch.onnx reads its operators anew on each export: the same ones, for a second."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    made = functools.cache(ONNXRegistry.from_torchlib)

    def copied(_: Any = None, opset_version: int = 18) -> ONNXRegistry:
        registry = ONNXRegistry()
        first = made(opset_version)
        registry._opset_version = first.opset_version
        registry.functions = {key: list(metas) for key, metas in first.functions.items()}
        return registry

    ONNXRegistry.from_torchlib = copied  # type: ignore[method-assign]


def update(found: dict[str, str]) -> None:
    """Put verdicts into the table, a line each."""
    known = json.loads(VERDICTS.read_text()) if VERDICTS.exists() else {}
    table = dict(sorted({**known, **found}.items()))
    VERDICTS.write_text(json.dumps(table, indent=0) + "\n")


def main() -> int:
    """Print each operator that is not right, and the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--no-mend", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--update", action="store_true", help=f"write into {VERDICTS.name}")
    parser.add_argument("--half", type=int, choices=(1, 2), help="every other operator only")
    options = parser.parse_args()
    read_operators_once()
    counts: Counter[str] = Counter()
    rows = {}
    step = 2 if options.half else 1
    for name, call in itertools.islice(cases(options.names), (options.half or 1) - 1, None, step):
        try:
            verdict, said = judged(call, not options.no_mend)
        except Exception as error:  # noqa: BLE001 (one operator must not end the sweep)
            verdict, said = "error", f"{type(error).__name__}: {error}"
        counts[verdict] += 1
        rows[name] = verdict, said
        if verdict != "right":
            print(f"{verdict:8} {name}: {' '.join(said.split())[:220]}", flush=True)
        if options.json:
            options.json.write_text(json.dumps(rows, indent=1))
    if options.update:
        update({name: verdict for name, (verdict, _) in rows.items()})
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.most_common()))
    return 1 if counts["wrong"] or counts["error"] else 0


if __name__ == "__main__":
    sys.exit(main())
