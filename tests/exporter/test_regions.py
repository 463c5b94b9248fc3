"""What torch keeps apart for a context is put in line, and keeps its lines."""

from __future__ import annotations

import torch
from torch import nn

from torch2mobile import user_code
from torch2mobile.exporter import capture
from torch2mobile.exporter.loading import source


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = self.layer(x)  # first
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = self.layer(y.float().relu()).tanh()  # second
        return y.float()


def test_nodes_under_autocast_have_the_users_lines() -> None:
    x = torch.rand(2, 4)
    found = capture.capture(source.from_call("m", Mixed(), (x,), {}))
    assert found.program is not None
    calls = [node for node in found.program.graph.nodes if node.op == "call_function"]
    lines = {user_code.operator(node.target): user_code.of_node(node).code for node in calls}
    layers = [user_code.of_node(node).code for node in calls if "linear" in node.name]
    assert [code.rpartition("# ")[2] for code in layers] == ["first", "second"]
    assert lines["aten.tanh.default"].endswith("# second")
    assert "wrap_with_autocast" not in str(found.program.graph)
