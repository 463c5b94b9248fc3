"""Operators that a module spelled out, put back as one node where the file's opset has it.

The patterns of LayerNormalization, RMSNormalization and HardSwish are onnxscript's. It fuses Gelu
into an operator of ONNX Runtime's own; here it is ONNX's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch2mobile.exporter.exact_constants import exact_constants

if TYPE_CHECKING:
    import onnx_ir as ir

_LAYER_NORM, _RMS_NORM, _HARD_SWISH, _GELU = 17, 23, 14, 20
# No pattern is without one of these.
_SIGNS = {"Sqrt", "Reciprocal", "Clip", "HardSigmoid", "Erf", "Tanh"}


def fuse(model: ir.Model) -> bool:
    """Fuse in place what the opset has an operator for; whether there was any."""
    if _SIGNS.isdisjoint(node.op_type for node in model.graph):
        return False
    from onnx_ir.passes import common
    from onnxscript.rewriter.rules.common import fuse_hardswish_rules
    from onnxscript.rewriter.rules.fusion import _layer_norm, _rms_normalization

    opset = model.opset_imports.get("", 0)
    found: list[tuple[int, Callable[[], Any]]] = [
        (_LAYER_NORM, lambda: _layer_norm.layer_normalization_ruleset),
        (_RMS_NORM, lambda: _rms_normalization.rms_normalization_ruleset),
        (_HARD_SWISH, fuse_hardswish_rules),
        (_GELU, _gelu_rules),
    ]
    with exact_constants():
        count: int = sum(rules().apply_to_model(model) for least, rules in found if opset >= least)
    common.RemoveUnusedNodesPass()(model)
    return count > 0


def _gelu_rules() -> Any:
    from onnxscript.rewriter import pattern

    def exact(op: Any, x: Any) -> Any:
        return 0.5 * (x * (op.Erf(x / math.sqrt(2)) + 1.0))

    def exact_halved_first(op: Any, x: Any) -> Any:
        return (x * 0.5) * (op.Erf(x / math.sqrt(2)) + 1.0)

    def by_tanh(op: Any, x: Any) -> Any:
        inner = math.sqrt(2 / math.pi) * (x + 0.044715 * op.Pow(x, 3.0))
        return (x * 0.5) * (op.Tanh(inner) + 1.0)

    def gelu(op: Any, x: Any) -> Any:
        return op.Gelu(x)

    def gelu_by_tanh(op: Any, x: Any) -> Any:
        return op.Gelu(x, approximate="tanh")

    pairs = [(exact, gelu), (exact_halved_first, gelu), (by_tanh, gelu_by_tanh)]
    return pattern.RewriteRuleSet([pattern.RewriteRule(*pair) for pair in pairs], commute=True)
