"""Questions to a Resize, whose conditions are the longest of all: see node_predicates.py."""

from __future__ import annotations

from torch2mobile.validators.coverage import node_predicates
from torch2mobile.validators.coverage.graph import Node


def two_dimensional_resize(node: Node) -> str:
    """Of four dimensions, the last two are resized, as ``ResizeOpBuilder`` of NNAPI asks for it."""
    wrong = node_predicates.every(
        node_predicates.before_opset_11,
        node_predicates.rank(4),
        node_predicates.attribute("mode", "nearest", "linear", "nearest"),
        _nearest_is_asymmetric,
        nearest_floor,
        node_predicates.attribute("exclude_outside", 0, 0),
        resize_sizes,
    )(node)
    factors = resize_factors(node)
    if wrong or factors is None:
        return wrong or "its factors are not known"
    return "" if factors[0] == factors[1] == 1 else "it resizes the batch or the channels"


def _nearest_is_asymmetric(node: Node) -> str:
    if node.attributes.get("mode", "nearest") != "nearest":
        return ""
    known = "coordinate_transformation_mode", "half_pixel", "asymmetric"
    return node_predicates.attribute(*known)(node)


def resize_factors(node: Node) -> list[float] | None:
    """The factor of each dimension of a Resize, where its sizes or scales are constant."""
    dims = node.input_type(0).dims
    if dims is None:
        return None
    axes = node.attributes.get("axes") or range(len(dims))
    scales, sizes = node.constant(1 if node.opset < 11 else 2), node.constant(3)
    factors: list[float] = [1.0] * len(dims)
    if sizes is not None and sizes.size:
        for axis, size in zip(axes, sizes.ravel(), strict=False):
            dim = dims[axis]
            if not isinstance(dim, int) or dim <= 0:
                return None
            factors[axis] = float(size) / dim
        return factors
    if scales is None or not scales.size:
        return None
    for axis, scale in zip(axes, scales.ravel(), strict=False):
        factors[axis] = float(scale)
    return factors


def resize_sizes(node: Node) -> str:
    """Its scales or sizes are constant."""
    given = [index for index in (2, 3) if node.has_input(index)]
    wrong = node_predicates.before_opset_11(node) or node_predicates.constant(*given)(node)
    return wrong or ("" if given else "it has neither scales nor sizes")


def nearest_floor(node: Node) -> str:
    """``nearest_mode`` means something for the mode ``nearest`` only."""
    if node.attributes.get("mode", "nearest") != "nearest":
        return ""
    return node_predicates.attribute("nearest_mode", "round_prefer_floor", "floor")(node)


def coreml_resize(node: Node) -> str:
    """What ``ResizeOpBuilder::IsOpSupportedImpl`` of ONNX Runtime asks of an ML Program."""
    wrong = node_predicates.every(
        node_predicates.before_opset_11,
        node_predicates.rank(3, 4, 5),
        node_predicates.attribute("antialias", 0, 0),
        node_predicates.attribute("mode", "nearest", "nearest", "linear"),
        nearest_floor,
        node_predicates.attribute("exclude_outside", 0, 0),
        node_predicates.attribute("keep_aspect_ratio_policy", "stretch", "stretch"),
        resize_sizes,
    )(node)
    return wrong or _coreml_factors(node) or _coreml_coordinates(node)


def _coreml_factors(node: Node) -> str:
    """It enlarges height and width by whole numbers, or shrinks them to whole parts."""
    factors = resize_factors(node)
    if factors is None:
        return "its factors are not known"
    *outer, high, wide = factors
    if any(factor != 1 for factor in outer):
        return "it resizes other dimensions than the last two"
    if _resized_by_sizes(node) or (high >= 1 and wide >= 1 and (high % 1, wide % 1) == (0, 0)):
        return ""
    if high >= 1 and wide >= 1:
        return f"it enlarges by {high:g} and {wide:g}, which are no whole numbers"
    return _shrinks_evenly(node, (high, wide))


def _shrinks_evenly(node: Node, factors: tuple[float, float]) -> str:
    """It shrinks both sides to a whole part."""
    if max(factors) > 1:
        return "it enlarges one side and shrinks the other"
    dims = node.input_type(0).dims or ()
    for size, factor in zip(dims[-2:], factors, strict=True):
        step = round(1 / factor)
        if not isinstance(size, int) or abs(step * factor - 1) > 1e-6 or size % step:
            return f"it shrinks {size} by {factor:g}, which is no whole part of it"
    return ""


def _resized_by_sizes(node: Node) -> bool:
    """Whether a Resize is given sizes, not scales."""
    sizes = node.constant(3)
    return sizes is not None and sizes.size > 0


def _coreml_coordinates(node: Node) -> str:
    """Its coordinates are of a kind that an ML Program has."""
    mode = node.attributes.get("coordinate_transformation_mode", "half_pixel")
    if node.attributes.get("mode", "nearest") == "nearest":
        return "" if mode == "asymmetric" else f"it is nearest, with coordinates {mode}"
    sizes = node.output_type(0).dims
    if mode == "pytorch_half_pixel" and sizes is not None:
        # The two differ in a dimension of size 1 only.
        mode = "half_pixel" if all(isinstance(s, int) and s > 1 for s in sizes[-2:]) else mode
    allowed = mode in ("half_pixel", "align_corners")
    allowed = allowed or (mode == "asymmetric" and _resized_by_sizes(node))
    return "" if allowed else f"it is linear, with coordinates {mode}"


def bilinear(node: Node) -> str:
    """It resizes height and width, linearly."""
    wrong = node_predicates.every(
        node_predicates.before_opset_11,
        node_predicates.rank(4),
        node_predicates.attribute("mode", "nearest", "linear"),
        node_predicates.attribute("antialias", 0, 0),
        node_predicates.absent("axes"),
        node_predicates.attribute("keep_aspect_ratio_policy", "stretch", "stretch"),
        node_predicates.attribute("exclude_outside", 0, 0),
        resize_sizes,
    )(node)
    factors = resize_factors(node)
    if wrong or factors is None:
        return wrong or "its factors are not known"
    return "" if factors[1] == 1 else "it resizes the channels"
