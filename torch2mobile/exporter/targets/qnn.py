"""QNN: the .onnx of one size, for Snapdragon's Hexagon NPU by ONNX Runtime's QNN plug-in.

On x86 the plug-in has a simulator of that NPU, which computes as it does.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch2mobile.environments import Environment
from torch2mobile.errors import ModelFileError
from torch2mobile.exporter.targets import converting
from torch2mobile.exporter.targets.ort import OrtRunner, refused_size
from torch2mobile.records import Artifact, Job, Limits, OnnxModel, Variant

_DTYPES = ("float32", "int64", "int32", "bool")
_PROVIDER = "QNNExecutionProvider"


class QnnRunner(OrtRunner):
    """A session of which every node runs on the NPU; else ModelFileError names those left."""

    def __init__(self, path: Path, variant: Variant) -> None:
        self._settings = {name: str(value) for name, value in variant.settings.items()}
        super().__init__(path)

    def _open(self, path: Path, options: Any) -> Any:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        try:
            return self._session_on(path, options)
        except Exception as error:
            left = self._left(path)
            if not left:
                raise
            raise ModelFileError(
                f"the NPU does not take {', '.join(left)}",
                "Write them with other operators, or leave out the target.",
            ) from error

    def _session_on(self, path: Path, options: Any) -> Any:
        import onnxruntime as ort
        import onnxruntime_qnn as qnn

        if not any(device.ep_name == _PROVIDER for device in ort.get_ep_devices()):
            ort.register_execution_provider_library(_PROVIDER, qnn.get_library_path())
        found = [device for device in ort.get_ep_devices() if device.ep_name == _PROVIDER]
        own = {"backend_path": qnn.get_qnn_htp_path(), **self._settings}
        options.add_provider_for_devices(found[:1], own)
        return ort.InferenceSession(str(path), options)

    def _left(self, path: Path) -> list[str]:
        """The operators that stay on the processor, each with the name of its first node."""
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        try:
            session = self._session_on(path, options)
        except Exception:  # noqa: BLE001 (the first error is told)
            return []
        left: dict[str, str] = {}
        for part in session.get_provider_graph_assignment_info():
            if part.ep_name != _PROVIDER:
                for node in part.get_nodes():
                    left.setdefault(node.op_type, node.name)
        return [f"{op} ({name})" if name else op for op, name in left.items()]


class QnnTarget:
    """``.qnn.onnx``: the model with the example's sizes, which an app gives to the QNN plug-in."""

    name = "qnn"
    title = "QNN (Hexagon NPU of Snapdragon)"
    suffixes: tuple[str, ...] = (".qnn.onnx",)
    variants: tuple[Variant, ...] = (
        Variant(
            "qnn",
            "qnn",
            precision="float16",
            static=True,
            # Those of the Snapdragon 8 Gen 3; without them the simulator finds no memory.
            settings={"htp_arch": "75", "soc_model": "57"},
        ),
    )
    limits = Limits(
        "float32, int32, int64, bool", float16="by the NPU", operators="the NPU's, all of them"
    )
    environment = Environment(
        "this Python, for QNN", stand_in="a simulator of the NPU runs it, not a phone's"
    )
    packages: tuple[str, ...] = ()

    def missing(self) -> Sequence[str]:
        """The command that installs ONNX Runtime's QNN plug-in, if it is not there."""
        return converting.missing(self.name, "onnxruntime_qnn")

    def accepts(self, model: OnnxModel, variant: Variant) -> str:  # noqa: ARG002
        """Why the NPU has no form for it: dtypes, and files above 2 GB."""
        spec = converting.other_dtype(model, _DTYPES)
        if spec is not None:
            return f"the NPU has no {spec.dtype}, and {spec.name} is {spec.dtype}"
        return refused_size(model, "a model for the NPU")

    def convert(self, job: Job) -> Artifact:
        """Write ``model.qnn.onnx`` with the example's sizes; the NPU has to take all of it."""
        import onnx
        from onnxruntime.tools.onnx_model_utils import fix_output_shapes, make_input_shape_fixed

        model = onnx.load(job.model.path)
        for name, shape in job.shapes.items():
            make_input_shape_fixed(model.graph, name, list(shape))
        fix_output_shapes(model)
        path = job.path(".qnn.onnx")
        onnx.save(model, path)
        with converting.has_to_load(lambda error: error.remedy):
            QnnRunner(path, job.variant)
        tools = converting.versions("onnxruntime-qnn")
        return Artifact(job.variant, (path,), tools, shapes=dict(job.shapes))

    def load(self, path: Path, variant: Variant) -> QnnRunner:
        """A session on the NPU, or its simulator."""
        return QnnRunner(path, variant)
