"""Predicates of convolution, pooling and activation, for the accelerators' conditions."""

from __future__ import annotations

import math

from torch2mobile.validators.coverage.graph import Node
from torch2mobile.validators.coverage.node_predicates import Question, attribute, constant, rank


def weights(node: Node) -> str:
    """Weights and bias are constant."""
    return constant(*((3, 8) if node.proto.op_type == "QLinearConv" else (1, 2)))(node)


def conv(*ranks: int) -> Question:
    """The weight of a convolution has one of these numbers of dimensions."""

    def ask(node: Node) -> str:
        return rank(*ranks, index=3 if node.proto.op_type == "QLinearConv" else 1)(node)

    return ask


def pool(node: Node) -> str:
    """It pools over two dimensions."""
    kernel = node.attributes.get("kernel_shape")
    if kernel is not None and len(kernel) != 2:
        return f"its kernel has {len(kernel)} dimensions"
    return rank(4)(node)


def slope(node: Node) -> str:
    """The slope is one number, or one for each channel."""
    dims = node.input_type(1).dims
    if dims is None or not all(isinstance(dim, int) for dim in dims):
        return "the shape of the slope is not known"
    sizes = [dim for dim in dims if isinstance(dim, int)]
    if math.prod(sizes) == 1 or (len(sizes) == 3 and sizes[1:] == [1, 1]):
        return ""
    return f"the slope has the shape {sizes}"


def default_kernel(node: Node) -> str:
    """kernel_shape is the weight's, or not given."""
    kernel, weight = node.attributes.get("kernel_shape"), node.input_type(1).dims
    if kernel is None or (weight is not None and list(weight[2:]) == list(kernel)):
        return ""
    return f"kernel_shape is {kernel}, and the weight's is {weight}"


def channels_known(node: Node) -> str:
    """XNNPACK's kernels are made ahead of the first run, for everything but the batch."""
    dims = node.input_type(0).dims
    if dims is None or len(dims) != 4 or not all(isinstance(dim, int) for dim in dims[1:]):
        return "channels, height and width of its input are not all fixed"
    return ""


def no_ceiling(node: Node) -> str:
    """The size is not rounded up, and the kernel larger than 1."""
    if all(size == 1 for size in node.attributes.get("kernel_shape", ())):
        return "its kernel is 1 by 1"
    return attribute("ceil_mode", 0, 0)(node)
