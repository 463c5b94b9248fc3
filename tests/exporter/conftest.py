"""What the exporter's tests share: an export in one call, and the file against the module."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@dataclass(frozen=True)
class Exported:
    """A module on its way to ONNX: as it was loaded, captured and written."""

    loaded: Any
    capture: Any
    model: Any

    @functools.cached_property
    def proto(self) -> Any:
        import onnx

        return onnx.load(self.model.path)

    @property
    def weights(self) -> set[str]:
        return {tensor.name for tensor in self.proto.graph.initializer}

    def dims(self, kind: str) -> dict[str, list[int | str]]:
        """The dims of all values of the file's ``input`` or ``output``."""
        return {
            value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
            for value in getattr(self.proto.graph, kind)
        }

    def check(self, *tensors: Any) -> list[tuple[str, np.ndarray]]:
        """Assert that the file is valid and gives the module's outputs; returns them."""
        import onnx
        import onnxruntime
        import torch

        from torch2mobile.copies import fresh
        from torch2mobile.exporter.loading.flat_module import flatten_outputs
        from torch2mobile.tensors import quiet, to_numpy

        onnx.checker.check_model(str(self.model.path), full_check=True)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(str(self.model.path), options)
        given = tensors or self.loaded.tensors
        feeds = {s.name: to_numpy(t) for s, t in zip(self.model.inputs, given, strict=True)}
        found = session.run(None, feeds)
        names = [output.name for output in session.get_outputs()]
        assert names == [spec.name for spec in self.model.outputs]
        with fresh(self.loaded) as own, quiet():
            wanted = flatten_outputs(own.flat.call(*given)).tensors
        assert len(found) == len(wanted)
        for array, (_, tensor) in zip(found, wanted, strict=True):
            close = {"rtol": 1e-2, "atol": 1e-3} if array.dtype == np.float16 else {}
            torch.testing.assert_close(torch.from_numpy(np.array(array)), tensor.detach(), **close)
        return list(zip(names, found, strict=True))


@pytest.fixture(scope="session")
def export(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Exported]:
    """Load, capture and translate a module with an example call."""

    def make(
        module: Any,
        args: Sequence[Any],
        kwargs: Mapping[str, Any] | None = None,
        *,
        dynamic_shapes: Any = None,
        path: Path | None = None,
        **options: Any,
    ) -> Exported:
        from torch2mobile.exporter import capture, translate
        from torch2mobile.exporter.loading import source

        path = path or tmp_path_factory.mktemp("export") / "model.onnx"
        loaded = source.from_call(
            "model", module, args, kwargs or {}, dynamic_shapes=dynamic_shapes
        )
        captured = capture.capture(loaded)
        return Exported(loaded, captured, translate.translation(captured, path, **options).model)

    return make


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Write source files into a fresh working directory."""
    monkeypatch.chdir(tmp_path)

    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write
