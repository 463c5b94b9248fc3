"""Every kind of refusal names the operator, the user's line, and a remedy that was tried.

The table has the refused modules, the words that each must be told in, and the same modules
mended: they export with PASSED.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from refused_modules import KINDS, Kind
from rows import slow_but

import torch2mobile
from torch2mobile.errors import Torch2MobileError
from torch2mobile.pipeline.capturing import captured
from torch2mobile.records import Check, Location, Request, Status

# What is refused while the graph is captured or translated: what the message and its remedy hold.
EARLY = {
    "if on values": ("branch depends on the values", "torch.where(condition, a, b)"),
    "while on values": ("loop runs until a value says so", "fixed number of times"),
    "for on values": ("as often as a value says", "torch.where(n > step, new, x)"),
    "loop over a varying size": ("as often as a size says", "N=1..8 to 2", "whole tensor at once"),
    "float of a tensor": ("branch depends on the values", "torch.where"),
    "if on a size": ("branch depends on a size", "holds where N <= 4", "one formula for all sizes"),
    "math of a size": ("math.log makes a fixed number of a size", "torch.log(x.new_ones("),
    "view with a fixed size": ("view has a fixed number", "N=1..8 to 2", "Write -1"),
    "reshape with a fixed size": ("reshape has a fixed number", "Write -1"),
    "split by a size": ("refuses N=3", "x.shape[i]"),
    "chunk of a varying size": ("refuses the example input", "--input"),
    "stored size": ("only at some of the sizes", "N=1..8 to 2", "x.shape[i]"),
    "table sliced": ("refuses N=9", "narrower range"),
    "boolean index": ("branch depends on the values", "torch.where"),
    "unique": ("shape of the result depends on the values", "multiply by a mask"),
    "inferred one-hot": ("one_hot counts the classes", "one_hot(x, num_classes)"),
    "size that the module refuses": ("refuses N=3", "multiples (2*N)"),
    "value that the module refuses": ("refuses the example input", "--values"),
    "division by zero": ("refuses the example input", "--values"),
    "no tensor returned": ("returns no tensor", "Return at least one tensor"),
    "number returned": ("output_1 (int)", "--drop-output output_1"),
    "another device": ("head.weight is on the meta device", "Build the module on the CPU"),
    "wrong shape": ("refuses the example input", "--input"),
    "size of what data select": ("branch depends on the values", "torch.where"),
    "branch in a helper": ("branch depends on the values", "torch.where"),
    "numpy of a size": ("np.sqrt makes a fixed number", "where N == 8", "torch.sqrt(x.new_ones("),
    "sorted by values": ("Python sorts by the values", "x.argsort()"),
    "number as an index": ("A Python number is made", "x.index_select(0, i)"),
    "text of a value": ("Text is made of a tensor's value", "torch.round(x, decimals=2)"),
    "jacobian": ("vmap has no graph", "derivative as a formula"),
    "fixed device": ("refuses the example input", "x.device"),
    "set of values": ("in a set or dict", "F.one_hot(x, n).sum(0)"),
    "dict of values": ("in a set or dict", "F.one_hot(x, n).sum(0)"),
    "complex input": ("unknown dtype 'complex64'", "two of float32", "torch.complex(real, imag)"),
    "complex input as pairs": ("unknown dtype 'cfloat'", "torch.view_as_complex"),
    "return in a loop": ("a return stands inside", "Assign the result to one variable"),
    "branch that leaves nothing": ("nothing that it assigns is read", "is_exporting()"),
    "overlaps until none is left": ("values leave nothing over", "a mask of those left"),
    "sides of two types": ("sides of a branch give other types", "one shape and one dtype"),
    "loop over nonzero": ("what nonzero finds", "x.masked_fill"),
    "list of some rows": ("Values choose what a list keeps", "kept.sum()"),
    "text of values": ("Text is made of a tensor's values", "in the app"),
    "assert on values": ("An assert asks for a value", "torch.compiler.is_exporting()"),
    "match on a value": ("branch depends on the values", "torch.where"),
    "math of a value": ("math.exp makes a Python number", "torch.exp(x)"),
    "whole number of a value": ("A Python number is made", "x.trunc()"),
    "lengths of rows": ("with a mask", "torch.arange(x.shape[1]) < lengths[:, None]"),
    "nested tensor": ("A nested tensor has no graph", "< lengths[:, None]"),
    "gradient in forward": ("asks for gradients", "derivative as a formula"),
    "layer chosen by a value": ("chooses by a text", "index_select"),
    "file of values": ("A file is written", "write it in the caller"),
    "two names of one size": ("refuses the example input", "one name for sizes that are equal"),
    "text as an input": ("refuses the example input", "make numbers of text"),
    "object returned": ("but generator", "in a tuple, dict or dataclass"),
    "half weights": ("refuses the example input", "in the dtype of the weights", "module.float()"),
    "numbers for a table": ("refuses the example input", "Declare the input as int64"),
    "item in vmap": ("vmap", "x.sum() in place of x.sum().item()"),
    "packed rows": ("packed sequence has no graph", "last step by its length (gather)"),
    "jagged tensor": ("A nested tensor has no graph", "< lengths[:, None]"),
    "quantized layer": ("quantized layer has no graph", "torch.fake_quantize"),
    "memory resized": ("resize_ changes the memory", "x.reshape(-1)[:4].reshape(2, 2)"),
    "dict of sizes": ("A dict looks a size up", "torch.arange(x.shape[0])"),
    "threads": ("another thread", "Call it in forward itself"),
    "scripted fork": ("another thread", "Call it in forward itself"),
    "text for a log": ("Text is made of a tensor's value", "torch.compiler.is_exporting()"),
    "whole tensors compared": ("branch depends on the values", "torch.where"),
    "Python's max of rows": ("Python's max() goes from row to row", "x.amax(0)"),
    "values as indices": ("A value is an index", "y.scatter(1, i[:, None], x)"),
    "rows cut by values": ("A value is the end of a slice", "torch.arange(T) < lengths[:, None]"),
    "dict by number": ("in a set or dict", "a tensor does: table[x]"),
    "text generated": ("loop runs until a value says so", "Loop a fixed number of times"),
    "scale of a value": ("A Python number is made of a tensor's value", "Keep it a tensor"),
    "look-up by text": ("Text is made of a tensor's values", "table[codes]"),
}
# The same, where a translation is tried: several seconds each.
TRANSLATED = {
    "round of a size": ("operator builtins.round", "(n + 1) // 2"),
    "operator without translation": ("operator aten.linalg_qr", "operators that ONNX has"),
    "operator in a helper": ("operator aten.linalg_eig", "operators that ONNX has"),
    "library operator": ("operator t2m_refused.doubled", "torch's own operators"),
    "view of what is selected": ("operator aten.masked_select", "x[x > 0]"),
    "sparse by edges": ("operator aten._sparse", "index_add"),
    "sparse": ("operator aten._to_sparse", "to_dense()"),
    "sparse rows": ("operator aten.mm", "to_dense()"),
    "sparse buffer": ("operator aten._sparse_addmm", "to_dense()"),
    "float64 kernel": ("operator aten.erfinv", "in float64", "x.float()"),
    "functorch gradient": ("operator functorch.", "derivative as a formula"),
    "flex attention": ("operator flex_attention", "scaled_dot_product_attention"),
    "complex numbers": ("operator aten.log", "real and imaginary part"),
    "operator made of others": ("operator aten.special_bessel_j0", "operators that ONNX has"),
    "random generator": ("no random generator", "keep those of one seed in a buffer"),
    "autocast": ("bfloat16, which ONNX Runtime's Python package", "x.float()"),
    "singular values": ("operator aten._linalg_svd", "v = a.T @ (a @ v)"),
    "parametrized weight": ("operator aten.linalg_matrix_exp", "remove_parametrizations"),
    "least squares": ("operator aten.linalg_lstsq", "torch.linalg.solve(a.T @ a, a.T @ b)"),
    "arguments without translation": ("operator aten.histc", "for these arguments"),
}
# What the probes find: the check, and what it holds.
JUDGED = {
    "position table": ("reference", "refuses N=16", "Narrow the range"),
    "padding to a multiple": ("parity", "one formula for all sizes"),
    "complex output": ("parity", "torch.view_as_real(y)"),
    "bfloat16": ("parity", "no kernel for the Gemm node", "x.float()"),
    "state in a buffer": ("state", "keeps mean from call to call", "input and an output"),
    "state in an attribute": ("state", "keeps last from call to call", "input and an output"),
    "counter": ("state", "keeps calls from call to call", "input and an output"),
    "dropout always on": ("reference", "draws random numbers", "self.training"),
    "random": ("reference", "draws random numbers", "Turn off"),
    "NaN of the module": ("reference", "returns NaN", "--values"),
    "write through data": ("state", "no attribute shows", "Register what changes as a buffer"),
    "memory read by strides": ("parity", "as_strided reads memory", "unfold"),
    "drawn by chance": ("reference", "draws random numbers", "as an input"),
    "error that is caught": ("parity", "torch.linalg.cholesky_ex(x)", "torch.where(info > 0"),
    "seed in forward": ("parity", "draws other numbers than PyTorch", "as an input"),
    "Python's random": ("reference", "draws random numbers", "as an input"),
    "left in train mode": ("modes", "norm is in train mode", "Call eval()"),
}
# Of those, the ones that are fast tests.
FAST = ("if on values", "math of a size", "stored size", "inferred one-hot", "branch in a helper")
# Nothing of it is in one line of the module's own forward.
WITHOUT_A_LINE = {
    *("another device", "left in train mode", "complex input", "complex input as pairs"),
}
# What only torch's developers, or those who read its source, understand.
FOREIGN = re.compile(
    r"L\['|Dim\.AUTO|Dim\.DYNAMIC|\bs\d+\b|\bu\d+\b|\x1b|mark_dynamic|Dynamo|guard_or"
)
BY_NAME = {kind.name: kind for kind in KINDS}


def here(kind: Kind) -> str:
    """The line of the refused module that is at fault."""
    source = inspect.getsource(kind.bad)
    (line,) = [line.strip() for line in source.splitlines() if line.endswith("# HERE")]
    return line


def refused(kind: Kind, folder: Path) -> Torch2MobileError:
    from torch2mobile.exporter import translate
    from torch2mobile.exporter.loading import source

    def attempt() -> None:
        module, request = kind.bad(), Request(source="")
        loaded = source.from_specs("n", module, kind.inputs, kind.values, request, ())
        captured(loaded, lambda one: translate.in_memory(one, folder), kind.rewrites).given()

    with pytest.raises(Torch2MobileError) as caught:
        attempt()
    return caught.value


def test_every_kind_has_its_words() -> None:
    assert {*EARLY, *TRANSLATED, *JUDGED} == set(BY_NAME)
    assert len(BY_NAME) >= 40


@pytest.mark.parametrize("name", slow_but([*EARLY, *TRANSLATED], *FAST))
def test_a_refusal_names_operator_line_and_remedy(name: str, tmp_path: Path) -> None:
    kind = BY_NAME[name]
    error = refused(kind, tmp_path)
    told = f"{error.message}\n{error.remedy}"
    assert all(word in told for word in (EARLY | TRANSLATED)[name]), told
    assert not FOREIGN.search(told), told
    assert "int()" not in told or "int(" in _code(error)
    if name not in WITHOUT_A_LINE:
        place = error.locations[0]
        assert isinstance(place, Location)
        assert (Path(place.file).name, place.code) == ("refused_modules.py", here(kind))


def test_check_tells_it_in_the_same_words() -> None:
    kind = BY_NAME["overlaps until none is left"]
    told = str(torch2mobile.check(kind.bad(), inputs=kind.inputs))
    assert not FOREIGN.search(told), told
    assert "a mask of those left" in " ".join(told.split())


def _code(error: Torch2MobileError) -> str:
    return "".join(place.code for place in error.locations if isinstance(place, Location))


def exported(
    module: Any, inputs: Any, values: Any, out: Path, **options: Any
) -> torch2mobile.ExportResult:
    return torch2mobile.export(
        module, inputs=inputs, values=values, targets=(), simplify=False, out=out, **options
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", JUDGED)
def test_what_the_probes_find_names_line_and_remedy(name: str, tmp_path: Path) -> None:
    kind = BY_NAME[name]
    result = exported(kind.bad(), kind.inputs, kind.values, tmp_path / "out")
    assert not result.passed
    check, *words = JUDGED[name]
    (found,) = [one for one in result.report.checks if one.name == check]
    assert found.status in {Status.FAILED, Status.ERROR}
    told = _told(found)
    assert all(word in told for word in words), told
    assert not FOREIGN.search(str(result))
    if name not in WITHOUT_A_LINE:
        assert here(kind) in told


def _told(check: Check) -> str:
    parts = [check.summary, check.hint, *check.notes, *(str(place) for place in check.locations)]
    return "\n".join([*parts, *(one.problem for one in check.mismatches)])


@pytest.mark.slow
@pytest.mark.parametrize("name", BY_NAME)
def test_the_remedy_was_tried(name: str, tmp_path: Path) -> None:
    kind = BY_NAME[name]
    inputs, values = kind.mended_inputs or kind.inputs, kind.mended_values or kind.values
    options = {"rewrites": kind.rewrites, "state": kind.mended_state}
    result = exported(kind.good(), inputs, values, tmp_path / "out", **options)
    assert result.passed, str(result)
