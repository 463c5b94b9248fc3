"""Where a node of the graph comes from, as a finding names it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch2mobile.records import Location

if TYPE_CHECKING:
    from torch2mobile.validators.coverage.graph import Node
    from torch2mobile.validators.coverage.lint_context import Subject


def of_node(node: Node, subject: Subject) -> Location:
    """The module and line behind an ONNX node, where its origin is known, and the node itself."""
    for name in node.proto.output:
        for origin in subject.origins.get(name, ()):
            return Location(
                module=origin.modules[0] if origin.modules else "",
                file=origin.file,
                line=origin.line,
                code=origin.code,
                node=node.label,
                op=node.op,
            )
    return Location(node=node.label, op=node.op)
